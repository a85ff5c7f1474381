"""Calibration of donors: does a probability mean what it says, and at which prevalence?

Training gives both classes the same weight, so a network's probabilities are those of a balanced cohort.
`none` brings them to the cohort's prevalence by the prior alone (Elkan 2001, IJCAI; Saerens 2002, Neural
Computation 14:21). `platt` fits two numbers besides (Platt 1999, Advances in Large Margin Classifiers), on
the validation donors of the fold and on no others: those of other folds may be its test donors. Either keeps
the order of a fold's donors; calls and thresholds stay with the probabilities as predicted.

`benchmarks/calibration.py` measures what either is worth with eight validation donors.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from scipy.optimize import brentq, minimize

from oligo_ad.baselines.linear import sigmoid
from oligo_ad.results.intervals import LEVEL, QUANTILE, wilson

BOUND = 1e-6  # probabilities lie this far from 0 and 1, or farther
FLATTEST = 0.05  # Platt's slope is at least this, so that no order changes
BINS = 5  # of equal numbers of donors
HEADS = {"slope": "slope", "intercept": "intercept", "in the large": "in_the_large", "Brier": "brier"}
NAMES = {"raw": "as predicted", "probability": "at the cohort's prevalence"}


class Line(NamedTuple):
    """A calibrated logit is slope · logit + intercept, at this prevalence of the positive class."""

    slope: float
    intercept: float
    prevalence: float

    def at(self, prevalence: float) -> "Line":
        """The same evidence, at another prevalence."""
        more = log_odds(prevalence) - log_odds(self.prevalence)
        return Line(self.slope, self.intercept + more, prevalence)

    def apply(self, logit: np.ndarray) -> np.ndarray:
        """Calibrated logits."""
        return self.slope * logit + self.intercept


def logit_of(probability: np.ndarray) -> np.ndarray:
    """The logit of probabilities, which are kept from being 0 or 1."""
    bounded = np.clip(probability, BOUND, 1 - BOUND)
    logit: np.ndarray = np.log(bounded / (1 - bounded))
    return logit


def log_odds(prevalence: float) -> float:
    return float(np.log(prevalence / (1 - prevalence)))


def prior(samples: np.ndarray, pos_weight: float) -> Line:
    """Logits as they were trained: at the share of positive samples, whose odds the loss multiplies.

    Args:
        samples: labels of the training samples, nuclei or donors.
        pos_weight: of positive samples in the loss.
    """
    return Line(1.0, 0.0, float(sigmoid(np.array(log_odds(float(samples.mean())) + np.log(pos_weight)))))


def platt(logit: np.ndarray, label: np.ndarray) -> Line:
    """Slope and intercept that make logits of a few donors probabilities.

    Platt's targets are away from 0 and 1 by as much as the number of donors demands, so donors that are
    told apart without an error give no infinite slope. The mean of the fitted probabilities is that of the
    targets, so this is their prevalence, and not the share of positive donors.

    Args:
        logit: [N], of donors that trained nothing.
        label: [N], of both classes.
    """
    n_positive, n_negative = int(label.sum()), int((1 - label).sum())
    target = np.where(label == 1, (n_positive + 1) / (n_positive + 2), 1 / (n_negative + 2))
    slope, intercept = _regressed(logit, target, FLATTEST)
    return Line(slope, intercept, float(target.mean()))


def _regressed(logit: np.ndarray, target: np.ndarray, flattest: float) -> tuple[float, float]:
    """Slope and intercept of a logistic regression on targets from 0 to 1; equal logits have slope 1."""
    middle, scale = logit.mean(), logit.std() or 1.0
    standard = (logit - middle) / scale

    def loss(line: np.ndarray) -> tuple[float, np.ndarray]:
        own = line[0] * standard + line[1]
        wrong = sigmoid(own) - target
        value = float((np.logaddexp(0, own) - target * own).mean())
        return value, np.array([wrong @ standard, wrong.sum()]) / len(target)

    bounds = [(flattest * scale, None), (None, None)]
    found = minimize(loss, [scale, 0.0], jac=True, method="L-BFGS-B", bounds=bounds, tol=1e-14).x
    slope = float(found[0] / scale)
    return max(slope, flattest), float(found[1] - slope * middle)


def fold_line(
    how: str,
    pos_weight: float,
    samples: np.ndarray,
    donors: np.ndarray,
    validation: tuple[np.ndarray, np.ndarray],
) -> Line:
    """From a fold's donor logits to those at the prevalence of its training donors.

    Args:
        how: `none` or `platt`.
        pos_weight, samples: as of `prior`.
        donors: labels of the training donors.
        validation: scores of the validation donors, as probabilities, and their labels.
    """
    score, label = validation
    fitted = platt(logit_of(score), label) if how == "platt" else prior(samples, pos_weight)
    return fitted.at(float(donors.mean()))


@dataclass(frozen=True)
class Calibrated:
    """Probabilities of donors, with how well they are calibrated.

    `donors`: a row for each fold and test donor: fold, donor, label, `raw` (of the model), `probability` at
    the cohort's prevalence, and `stated` at the one that was asked for, or NaN. `scores`: by `raw` and
    `probability`: slope, intercept, in the large, Brier, over all rows. `prevalence`: Brier score of always
    naming that of the fold's training donors. `asked`: the stated prevalence, or None.
    """

    donors: pd.DataFrame
    scores: dict[str, dict[str, float]]
    prevalence: float
    asked: float | None

    @property
    def n_donors(self) -> int:
        """Donors, each counted once however many folds tested it."""
        return int(self.donors["donor"].nunique())

    def sentence(self) -> str:
        """What the probabilities are worth."""
        brier, named = self.scores["probability"]["brier"], self.prevalence
        worth = "less than" if brier < named else "no less than"
        return (
            f"Their Brier score is {brier:.3f}, {worth} the {named:.3f} of always naming the prevalence"
            f"{'' if brier < named else ', so they are worth nothing as probabilities'}."
        )

    def table(self) -> pd.DataFrame:
        """The scores as text."""
        rows = {
            NAMES[name]: {head: f"{scores[key]:.3f}" for head, key in HEADS.items()}
            for name, scores in self.scores.items()
        }
        rows["the prevalence, always"] = dict.fromkeys(HEADS, "") | {"Brier": f"{self.prevalence:.3f}"}
        return pd.DataFrame(rows).T

    def reliability_table(self) -> pd.DataFrame:
        """The bins of `reliability` as text."""
        rows = reliability(self.donors, "probability")
        limits = zip(rows["low"], rows["high"], strict=True)
        return pd.DataFrame(
            {
                "donors": rows["donors"],
                "mean probability": rows["predicted"].map("{:.3f}".format),
                "observed share": rows["observed"].map("{:.3f}".format),
                f"{LEVEL} % interval": [f"{low:.3f} to {high:.3f}" for low, high in limits],
            }
        )

    def donor_table(self) -> pd.DataFrame:
        """The probabilities of each donor as text, means over the folds that tested it."""
        names = NAMES | ({"stated": f"at a prevalence of {self.asked:g}"} if self.asked else {})
        own = self.donors.groupby("donor")[[*names]].mean()
        return own.map("{:.3f}".format).rename(columns=names).reset_index()

    def plain(self) -> dict[str, Any]:
        """For metrics.json."""
        return self.scores | {
            "brier_of_prevalence": self.prevalence,
            "donors": self.n_donors,
            "stated_prevalence": self.asked,
            "reliability": reliability(self.donors, "probability").to_dict("records"),
        }


def calibrate(table: pd.DataFrame, lines: dict[int, Line], stated: float | None) -> Calibrated:
    """Donor scores through the line of their fold.

    Args:
        table: fold, donor, label, model.
        lines: by fold, to the cohort's prevalence.
        stated: another prevalence, or None.
    """
    donors = table[["fold", "donor", "label"]].assign(raw=table["model"])
    donors["probability"] = _through(lines, donors)
    to_stated = {fold: line.at(stated) for fold, line in lines.items()} if stated else {}
    donors["stated"] = _through(to_stated, donors) if to_stated else np.nan
    label = donors["label"].to_numpy()
    scores = {name: agreement(label, donors[name].to_numpy()) for name in ("raw", "probability")}
    named = donors["fold"].map({fold: line.prevalence for fold, line in lines.items()}).to_numpy()
    return Calibrated(donors, scores, float(((named - label) ** 2).mean()), stated)


def _through(lines: dict[int, Line], donors: pd.DataFrame) -> np.ndarray:
    logit, fold = logit_of(donors["raw"].to_numpy()), donors["fold"].to_numpy()
    calibrated = np.empty(len(logit))
    for number, line in lines.items():
        calibrated[fold == number] = line.apply(logit[fold == number])
    return sigmoid(calibrated)


def agreement(label: np.ndarray, probability: np.ndarray) -> dict[str, float]:
    """How well probabilities agree with labels of both classes (Van Calster 2019, BMC Medicine 17:230).

    Returns:
        `slope` and `intercept` of the label's logit on the predicted one, 1 and 0 are ideal: a slope below 1
        means predictions too extreme. NaN where all are equal, or where one cut separates the classes, since
        any steeper line is better then. `in_the_large`: what must be added to all logits for their mean to be
        right. `brier`: mean squared error.
    """
    logit = logit_of(probability)
    slope = intercept = float("nan")
    if np.ptp(logit) >= 1e-9 and not _separated(logit, label):
        slope, intercept = _regressed(logit, label, -np.inf)
    shift = brentq(lambda more: sigmoid(logit + more).mean() - label.mean(), -60, 60)
    brier = float(((probability - label) ** 2).mean())
    return {"slope": slope, "intercept": intercept, "in_the_large": float(shift), "brier": brier}


def _separated(logit: np.ndarray, label: np.ndarray) -> bool:
    high, low = logit[label == 1], logit[label == 0]
    return bool(high.min() >= low.max() or low.min() >= high.max())


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
