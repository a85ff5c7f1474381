"""Scores of donors (first) and nuclei (second), with intervals over donors, the independent unit."""

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd
from sklearn import metrics as sk

from oligo_ad.results import intervals
from oligo_ad.results.intervals import HeldOut, Interval


@dataclass(frozen=True)
class Scores:
    """How well one predictor did.

    `mean_over_folds` and `pooled` hold the metrics of `score`; `auroc`, `balanced_accuracy` and `brier` the
    intervals of their means over folds.
    """

    mean_over_folds: dict[str, float]
    pooled: dict[str, float]
    auroc: Interval
    balanced_accuracy: Interval
    brier: Interval


class Calls(NamedTuple):
    """Numbers of right and wrong calls, and what follows; scikit-learn counts them anew each time."""

    true_positive: int
    false_positive: int
    true_negative: int
    false_negative: int

    @classmethod
    def of(cls, positive: np.ndarray, called: np.ndarray) -> "Calls":
        """Count them; both arrays are boolean."""
        pairs = ((positive, called), (~positive, called), (~positive, ~called), (positive, ~called))
        return cls(*(int(np.count_nonzero(truth & call)) for truth, call in pairs))

    @property
    def right(self) -> int:
        return self.true_positive + self.true_negative

    @property
    def wrong(self) -> int:
        return self.false_positive + self.false_negative

    @property
    def balanced_accuracy(self) -> float:
        """Mean of sensitivity and specificity; that of one class where there is no other."""
        of_class = (self.true_positive, self.false_negative), (self.true_negative, self.false_positive)
        rates = [right / (right + wrong) for right, wrong in of_class if right + wrong]
        return sum(rates) / len(rates)

    @property
    def mcc(self) -> float:
        """Matthews' correlation of calls and labels; 0 where either is the same throughout."""
        true_positive, false_positive, true_negative, false_negative = self
        called, positive = true_positive + false_positive, true_positive + false_negative
        varied = called * positive * (true_negative + false_negative) * (true_negative + false_positive)
        return (true_positive * true_negative - false_positive * false_negative) / math.sqrt(varied or 1)


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
    rare, calls = label.mean() < 0.5, Calls.of(label == 1, probability >= threshold)
    found = {
        "auroc": sk.roc_auc_score(label, probability),
        "balanced_accuracy": calls.balanced_accuracy,
        "mcc": calls.mcc,
        "auprc_minority": sk.average_precision_score(
            label == int(rare), probability if rare else -probability
        ),
        "brier": sk.brier_score_loss(label, probability),
        "f1_positive": 2 * calls.true_positive / (2 * calls.true_positive + calls.wrong or 1),
        "f1_negative": 2 * calls.true_negative / (2 * calls.true_negative + calls.wrong or 1),
        "accuracy": calls.right / len(label),
        **calls._asdict(),
        "prevalence": label.mean(),
    }
    return {name: float(value) for name, value in found.items()}


def summarise(table: pd.DataFrame, column: str, trained: float) -> Scores:
    """Scores of one predictor.

    Args:
        table: a row per donor (or nucleus) and fold: fold, donor, label, threshold, and `column`.
        column: the predictor's probabilities.
        trained: donors that a fold was trained on, on average over folds.
    """
    by_fold = [
        score(*(part[name].to_numpy() for name in ("label", column, "threshold")))
        for _, part in table.groupby("fold")
    ]
    pooled = score(*(table[name].to_numpy() for name in ("label", column, "threshold")))
    mean = pd.DataFrame(by_fold).mean().to_dict()
    rows, probability = held_out(table, trained), table[column].to_numpy()
    return Scores(
        mean_over_folds={str(name): float(value) for name, value in mean.items()},
        pooled=pooled,
        auroc=intervals.auroc(rows, probability),
        balanced_accuracy=intervals.balanced_accuracy(rows, probability >= table["threshold"].to_numpy()),
        brier=intervals.brier(rows, probability),
    )


def mean_auroc(table: pd.DataFrame, column: str) -> float:
    """Donor AUROC of one predictor, mean over folds; arguments as of `summarise`."""
    of_folds = [sk.roc_auc_score(part["label"], part[column]) for _, part in table.groupby("fold")]
    return float(np.mean(of_folds))


def auroc_gain(table: pd.DataFrame, column: str, other: str, trained: float) -> Interval:
    """Of the donor AUROC of one predictor above that of another; arguments as of `summarise`."""
    return intervals.auroc_difference(
        held_out(table, trained), table[column].to_numpy(), table[other].to_numpy()
    )


def held_out(table: pd.DataFrame, trained: float) -> HeldOut:
    """What intervals need to know of a table of scores."""
    fold, donor, label = (table[name].to_numpy() for name in ("fold", "donor", "label"))
    return HeldOut(fold, donor, label, trained)


def best_threshold(label: np.ndarray, probability: np.ndarray) -> float:
    """The probability that maximises balanced accuracy; halfway between the two samples that it separates."""
    false_rate, true_rate, cuts = sk.roc_curve(label, probability, drop_intermediate=False)
    # The first cut, infinity, calls nothing; it is no probability.
    best = cuts[1:][int(np.argmax((true_rate - false_rate)[1:]))]
    below = probability[probability < best]
    return float(min(max((best + below.max()) / 2 if len(below) else best, 0.0), 1.0))
