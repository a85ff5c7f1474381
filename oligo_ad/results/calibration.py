"""Calibration: does a donor's probability mean what it says, and at which prevalence?

Training gives both classes the same weight, so a network's probabilities are those of a balanced cohort.
They are brought to the cohort's prevalence, by the prior alone (Elkan 2001, IJCAI) or by Platt's two numbers,
which are fitted on the validation donors of the fold: those of other folds may be its test donors.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy.optimize import brentq, minimize
from sklearn.linear_model import LogisticRegression

from oligo_ad.baselines.linear import sigmoid
from oligo_ad.results.intervals import QUANTILE, wilson

BOUND = 1e-6  # probabilities lie this far from 0 and 1, or farther
FLATTEST = 0.05  # Platt's slope is at least this, so that no order changes
BINS = 5  # of equal numbers of donors


class Line(NamedTuple):
    """A calibrated logit is slope · logit + intercept."""

    slope: float
    intercept: float

    def apply(self, logit: np.ndarray) -> np.ndarray:
        """Calibrated logits."""
        return self.slope * logit + self.intercept


@dataclass(frozen=True)
class Calibrated:
    """Probabilities of donors, with how well they are calibrated.

    `donors`: a row for each fold and test donor: fold, donor, label, `raw` (of the model), `probability` at
    the cohort's prevalence, and `stated` at the one that was asked for, or NaN. `scores`: by `raw` and
    `probability`: slope, intercept, in the large, Brier. `prevalence`: Brier score of naming nothing else.
    """

    donors: pd.DataFrame
    scores: dict[str, dict[str, float]]
    prevalence: float


def logit_of(probability: np.ndarray) -> np.ndarray:
    """The logit of probabilities that are not quite 0 or 1."""
    bounded = np.clip(probability, BOUND, 1 - BOUND)
    logit: np.ndarray = np.log(bounded / (1 - bounded))
    return logit


def log_odds(prevalence: float) -> float:
    return float(np.log(prevalence / (1 - prevalence)))


def to_prevalence(start: float, end: float) -> Line:
    """What changes the prevalence that probabilities were made for."""
    return Line(1.0, log_odds(end) - log_odds(start))


def platt(logit: np.ndarray, label: np.ndarray) -> Line:
    """Slope and intercept that make logits of a few donors probabilities, with Platt's targets.

    Platt 1999 draws targets away from 0 and 1 by as much as the number of samples allows; so donors that are
    told apart without an error do not give an infinite slope.
    """
    n_positive, n_negative = int(label.sum()), int((1 - label).sum())
    target = np.where(label == 1, (n_positive + 1) / (n_positive + 2), 1 / (n_negative + 2))

    def loss(line: np.ndarray) -> float:
        own = line[0] * logit + line[1]
        return float((np.logaddexp(0, own) - target * own).sum())

    found = minimize(loss, [1.0, 0.0], method="L-BFGS-B", bounds=[(FLATTEST, None), (None, None)])
    return Line(float(found.x[0]), float(found.x[1]))


def fold_line(
    how: str,
    pos_weight: float,
    samples: np.ndarray,
    donors: np.ndarray,
    validation: tuple[np.ndarray, np.ndarray],
) -> tuple[Line, float]:
    """From a fold's donor logits to those at a prevalence, which is returned too.

    Args:
        how: `none` or `platt`.
        pos_weight: of positive samples in the loss.
        samples: labels of the training samples, nuclei or donors.
        donors: labels of the training donors.
        validation: scores of validation donors, and their labels.
    """
    if how == "platt":
        score, label = validation
        return platt(logit_of(score), label), float(label.mean())
    # The weight multiplies the odds of the training samples; what is left is the evidence for any prior.
    prior = log_odds(float(samples.mean())) + np.log(pos_weight)
    cohort = float(donors.mean())
    return Line(1.0, log_odds(cohort) - float(prior)), cohort


def agreement(label: np.ndarray, probability: np.ndarray) -> dict[str, float]:
    """Slope and intercept of the label's logit on the predicted one (Van Calster 2019), 1 and 0 are ideal: a
    slope below 1 means predictions too extreme. `in_the_large`: what must be added to all logits for their
    mean to be right. `brier`: mean squared error."""
    logit = logit_of(probability)
    slope = intercept = float("nan")
    if np.ptp(logit) >= 1e-9:
        fitted = LogisticRegression(C=1e6).fit(logit[:, None], label)
        slope, intercept = float(fitted.coef_[0, 0]), float(fitted.intercept_[0])
    shift = brentq(lambda more: sigmoid(logit + more).mean() - label.mean(), -60, 60)
    brier = float(((probability - label) ** 2).mean())
    return {"slope": slope, "intercept": intercept, "in_the_large": float(shift), "brier": brier}


def calibrate(table: pd.DataFrame, lines: dict[int, Line], stated: dict[int, Line]) -> Calibrated:
    """Donor scores through the line of their fold.

    Args:
        table: fold, donor, label, model.
        lines: by fold, to the cohort's prevalence.
        stated: by fold, from there to a stated one; empty where none is.
    """
    donors = table[["fold", "donor", "label"]].assign(raw=table["model"])
    logit = logit_of(donors["raw"].to_numpy())
    own = [lines[fold] for fold in donors["fold"]]
    calibrated = np.array([line.apply(value) for line, value in zip(own, logit, strict=True)])
    donors["probability"] = sigmoid(calibrated)
    donors["stated"] = (
        sigmoid(calibrated + [stated[fold].intercept for fold in donors["fold"]]) if stated else np.nan
    )
    label = donors["label"].to_numpy()
    scores = {name: agreement(label, donors[name].to_numpy()) for name in ("raw", "probability")}
    return Calibrated(donors, scores, float(label.mean() * (1 - label.mean())))


def reliability(donors: pd.DataFrame, column: str) -> pd.DataFrame:
    """Observed share of positive donors by predicted probability, in bins of equal numbers of donors.

    Returns:
        A row a bin: donors, predicted, observed, low, high (Wilson 1927).
    """
    own = donors.groupby("donor").agg(label=("label", "first"), predicted=(column, "mean"))
    own = own.sort_values("predicted", kind="stable")
    bins = np.arange(len(own)) * min(BINS, len(own)) // len(own)
    rows = own.groupby(bins).agg(
        donors=("label", "size"), predicted=("predicted", "mean"), observed=("label", "mean")
    )
    limits = [
        wilson(share, 1 / n, QUANTILE) for n, share in zip(rows["donors"], rows["observed"], strict=True)
    ]
    return rows.assign(low=[one.low for one in limits], high=[one.high for one in limits])
