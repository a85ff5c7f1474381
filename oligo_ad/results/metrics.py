"""Scores of donors (first) and nuclei (second), with intervals over donors.

The donor is the independent unit, so every interval resamples donors, within each class; with 9
donors in a class such intervals are too narrow (a nominal 95 % covered 87 % in simulations of 9
against 42 donors), and are called approximate wherever they are shown.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
from sklearn import metrics as sk
from sklearn.linear_model import LogisticRegression

from oligo_ad.record import probability_of

DonorScore = Literal["mean", "mean_logit", "fraction"]
LEVEL = 95  # per cent


@dataclass(frozen=True)
class Interval:
    """An approximate 95 % interval, from resampled donors."""

    low: float
    high: float


@dataclass(frozen=True)
class Scores:
    """How well one predictor did.

    `mean_over_folds` and `pooled` hold the metrics of `score`; `auroc` and `balanced_accuracy` the
    intervals of their means over folds.
    """

    mean_over_folds: dict[str, float]
    pooled: dict[str, float]
    auroc: Interval
    balanced_accuracy: Interval


def score(label: np.ndarray, probability: np.ndarray, threshold: np.ndarray | float) -> dict[str, float]:
    """Metrics of one set of donors or nuclei.

    Args:
        label: 0 or 1.
        probability: of class 1.
        threshold: probability from which a sample is called 1; one, or one a sample.

    Returns:
        auroc; balanced_accuracy; mcc (Chicco & Jurman 2020); auprc_minority, of the rarer class;
        brier; f1_positive, f1_negative; accuracy; true and false positives and negatives; prevalence.
    """
    called = probability >= threshold
    rare = label.mean() < 0.5
    true_negative, false_positive, false_negative, true_positive = sk.confusion_matrix(
        label, called, labels=[0, 1]
    ).ravel()
    found = {
        "auroc": sk.roc_auc_score(label, probability),
        "balanced_accuracy": sk.balanced_accuracy_score(label, called),
        "mcc": sk.matthews_corrcoef(label, called),
        "auprc_minority": sk.average_precision_score(
            label == int(rare), probability if rare else -probability
        ),
        "brier": sk.brier_score_loss(label, probability),
        "f1_positive": sk.f1_score(label, called, zero_division=0),
        "f1_negative": sk.f1_score(label, called, pos_label=0, zero_division=0),
        "accuracy": sk.accuracy_score(label, called),
        "true_positive": true_positive,
        "false_positive": false_positive,
        "true_negative": true_negative,
        "false_negative": false_negative,
        "prevalence": label.mean(),
    }
    return {name: float(value) for name, value in found.items()}


def donor_scores(probability: np.ndarray, donor: np.ndarray, how: DonorScore) -> pd.Series:
    """One score per donor from its nuclei: mean probability, mean logit (as a probability), or the
    fraction of nuclei above one half."""
    if how == "mean_logit":
        bounded = probability.clip(1e-7, 1 - 1e-7)
        logit = pd.Series(np.log(bounded / (1 - bounded))).groupby(donor).mean()
        return pd.Series(probability_of(logit.to_numpy()), logit.index)
    values = (probability >= 0.5).astype(float) if how == "fraction" else probability
    return pd.Series(values).groupby(donor).mean()


def summarise(table: pd.DataFrame, column: str, resamples: "Resamples") -> Scores:
    """Scores of one predictor.

    Args:
        table: a row per donor (or nucleus) and fold: fold, donor, label, threshold, and `column`.
        column: the predictor's probabilities.
        resamples: the same for all predictors, so that they can be compared pairwise.
    """
    by_fold = [
        score(*(part[name].to_numpy() for name in ("label", column, "threshold")))
        for _, part in table.groupby("fold")
    ]
    pooled = score(*(table[name].to_numpy() for name in ("label", column, "threshold")))
    mean = pd.DataFrame(by_fold).mean().to_dict()
    return Scores(
        mean_over_folds={str(name): float(value) for name, value in mean.items()},
        pooled=pooled,
        auroc=interval(resamples.auroc(table, column)),
        balanced_accuracy=interval(resamples.balanced_accuracy(table, column)),
    )


def interval(values: np.ndarray) -> Interval:
    """The central 95 % of resampled values."""
    tail = (100 - LEVEL) / 2
    low, high = np.nanpercentile(values, [tail, 100 - tail])
    return Interval(float(low), float(high))


class Resamples:
    """Class-stratified bootstrap of donors: how often each is drawn, in each of `n` resamples.

    A donor's weight is the same in all folds and for all predictors; so differences are paired, and
    repeats of cross-validation do not count as more donors.
    """

    def __init__(self, label: pd.Series, n: int, seed: int) -> None:
        rng = np.random.default_rng(seed)
        self._column = {donor: i for i, donor in enumerate(label.index)}
        self._times = np.zeros((n, len(label)))
        for value in (0, 1):
            own = np.flatnonzero(label.to_numpy() == value)
            self._times[:, own] = rng.multinomial(len(own), np.full(len(own), 1 / len(own)), size=n)

    def auroc(self, table: pd.DataFrame, column: str) -> np.ndarray:
        """Mean over folds of the AUROC in each resample [n].

        AUROC is the share of (positive, negative) pairs in the right order. Pairs are counted once
        per pair of donors, then weighted: a resample costs a product of small matrices.
        """
        folds = []
        for _, part in table.groupby("fold"):
            scores = {donor: np.sort(own[column].to_numpy()) for donor, own in part.groupby("donor")}
            label = part.groupby("donor")["label"].first()
            positive, negative = (label.index[label == value] for value in (1, 0))
            wins = np.array([[_wins(scores[p], scores[q]) for q in negative] for p in positive])
            sizes = [np.array([len(scores[d]) for d in own]) for own in (positive, negative)]
            times = [self._times[:, [self._column[d] for d in own]] for own in (positive, negative)]
            right = np.einsum("bp,pn,bn->b", times[0], wins, times[1])
            folds.append(_ratio(right, (times[0] @ sizes[0]) * (times[1] @ sizes[1])))
        return _mean(folds)

    def balanced_accuracy(self, table: pd.DataFrame, column: str) -> np.ndarray:
        """Mean over folds of the balanced accuracy in each resample [n]."""
        right = (table[column] >= table["threshold"]) == (table["label"] == 1)
        folds = []
        for _, part in table.assign(right=right).groupby("fold"):
            rates = []
            for _, own in part.groupby("label"):
                of_donor = own.groupby("donor")["right"].agg(["sum", "size"])
                times = self._times[:, [self._column[d] for d in of_donor.index]]
                rates.append(_ratio(times @ of_donor["sum"], times @ of_donor["size"]))
            folds.append(np.mean(rates, axis=0))
        return _mean(folds)


def calibration(label: np.ndarray, probability: np.ndarray) -> dict[str, float]:
    """Slope and intercept of the label's logit on the predicted logit (Van Calster 2019); 1 and 0 are
    ideal. A slope below 1 means predictions too extreme."""
    bounded = probability.clip(1e-6, 1 - 1e-6)
    logit = np.log(bounded / (1 - bounded))
    if np.ptp(logit) < 1e-9:
        return {"slope": float("nan"), "intercept": float("nan")}
    fitted = LogisticRegression(C=1e6).fit(logit[:, None], label)
    return {"slope": float(fitted.coef_[0, 0]), "intercept": float(fitted.intercept_[0])}


def best_threshold(label: np.ndarray, probability: np.ndarray) -> float:
    """The probability that maximises balanced accuracy; halfway between the two samples that it separates."""
    false_rate, true_rate, cuts = sk.roc_curve(label, probability, drop_intermediate=False)
    # The first cut, infinity, calls nothing; it is no probability.
    best = cuts[1:][int(np.argmax((true_rate - false_rate)[1:]))]
    below = probability[probability < best]
    return float(min(max((best + below.max()) / 2 if len(below) else best, 0.0), 1.0))


def _wins(positive: np.ndarray, negative: np.ndarray) -> float:
    """Pairs in the right order, ties as half, of two sorted arrays."""
    below = np.searchsorted(negative, positive, side="left").sum()
    not_above = np.searchsorted(negative, positive, side="right").sum()
    return float(below + not_above) / 2


def _ratio(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    """NaN where a resample drew no donor of a class in this fold."""
    return np.divide(above, below, out=np.full_like(above, np.nan), where=below > 0)


def _mean(folds: list[np.ndarray]) -> np.ndarray:
    stacked = np.array(folds)
    drawn = ~np.isnan(stacked)
    return _ratio(np.where(drawn, stacked, 0.0).sum(0), drawn.sum(0).astype(float))
