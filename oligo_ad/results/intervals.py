"""Intervals of donor scores: what a procedure is expected to reach on new donors, training included.

A score of a cross-validation is uncertain twice. The tested donors are a sample; how much that matters is
computed here for the donors and pairs of donors that were really compared, so that more repeats of the same
donors help only where they compare more pairs. And the models were trained on a sample: after Nadeau &
Bengio 2003 (Machine Learning 52:239) that adds the same variance once more for each tested donor, divided by
the donors a model was trained on: a factor of 1 + tested / trained, 2.25 with five folds.

- AUROC: all values A that differ from the estimate by no more than 1.96 standard errors, with the variance of
  Hanley & McNeil 1982 at A itself, not at the estimate (Newcombe 2006, Statist. Med. 25:559, method 5); so
  the limits stay inside 0 to 1 and a perfect ranking has an interval.
- Where the donors themselves vary more than that variance says, theirs counts: the sums of each donor's
  deviations (DeLong 1988; Obuchowski 1997 for several rows of one donor), less the pairs that are counted
  twice (Cameron, Gelbach & Miller 2011).
- Balanced accuracy: Wilson's interval of each class, joined as by Newcombe 1998 (Statist. Med. 17:873).
- Brier score: Wilson's interval of a mean within 0 to 1, with the variance of the losses within classes.
- A difference of two AUROCs: that of the same pairs of donors, by the sums of deviations.

`benchmarks/coverage.py` measures how often they cover the truth. Numbers of donors are n1 (positive) and n0
(negative); arrays of pairs of donors are [n1, n0], of rows [R].
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy.optimize import brentq
from scipy.stats import norm, t

LEVEL = 95  # per cent
QUANTILE = float(norm.ppf(0.5 + LEVEL / 200))
ROUNDING = 1e-9  # a mean this close to 0 or 1 is 0 or 1, and so small a deviation is none
# Covariance of two pairs with a donor in common, in variances of a pair: 1/3 for one score without signal,
# less for a difference of two, whose common part is gone.
SHARED = 1 / 6


@dataclass(frozen=True)
class Interval:
    """A 95 % interval."""

    low: float
    high: float


@dataclass(frozen=True)
class HeldOut:
    """Rows that were scored: one for each donor and fold, or for each nucleus and fold.

    `fold`, `donor` [R]: of each row, any kind of name. `label` [R]: 0 or 1, the same in all rows of a donor.
    `trained`: donors that the model of a fold was trained on, on average over folds.
    """

    fold: np.ndarray
    donor: np.ndarray
    label: np.ndarray
    trained: float

    @property
    def training_factor(self) -> float:
        """By how much training multiplies the variance."""
        return 1 + len(np.unique(self.donor)) / self.trained


class Pairs(NamedTuple):
    """Pairs of a positive and a negative donor in the folds that tested both, summed over folds [n1, n0].

    `weight`: share of the pair in the mean over folds; they add up to 1. `wins`: weight times the share of
    the pair's rows in the right order, ties as half. `rows1`, `rows0`: a donor's mean number of
    rows in a fold.
    """

    weight: np.ndarray
    wins: np.ndarray
    rows1: np.ndarray
    rows0: np.ndarray


def auroc(held_out: HeldOut, score: np.ndarray) -> Interval:
    """Of the mean over folds of the AUROC of a score [R]."""
    pairs = _pairs(held_out, score)
    estimate = _bounded(pairs.wins.sum())
    expected = _variance_of_auroc(pairs)
    excess = max(1.0, _ratio(_two_way(pairs.wins - estimate * pairs.weight), expected(estimate)))
    factor = held_out.training_factor * excess
    return _limits(estimate, lambda value: factor * expected(value))


def auroc_difference(held_out: HeldOut, score: np.ndarray, other: np.ndarray) -> Interval:
    """Of the AUROC of one score minus that of another [R], on the same donors and folds."""
    pairs = _pairs(held_out, score)
    weight, gain = pairs.weight, pairs.wins - _pairs(held_out, other).wins
    estimate = float(gain.sum())
    deviation = gain - estimate * weight
    squares = np.divide(deviation**2, weight, out=np.zeros_like(weight), where=weight > 0).sum()
    # One more pair, in which the scores differ, keeps the width of equal scores above 0.
    compared = 1 / (weight**2).sum()
    of_pair = (compared * squares + 1) / (compared + 1)
    donor_part = (weight.sum(1) ** 2).sum() + (weight.sum(0) ** 2).sum()
    expected = of_pair * (1 / compared + SHARED * (donor_part - 2 / compared))
    half = QUANTILE * np.sqrt(held_out.training_factor * max(expected, _two_way(deviation)))
    return Interval(float(max(estimate - half, -1.0)), float(min(estimate + half, 1.0)))


def auroc_deviations(held_out: HeldOut, score: np.ndarray) -> np.ndarray:
    """What each donor adds to the mean of the folds' AUROCs [N]: positive donors first, each by name.

    The squares add up to the variance of the AUROC, training included.
    """
    pairs = _pairs(held_out, score)
    deviation = pairs.wins - pairs.wins.sum() * pairs.weight
    sides = [
        side * np.sqrt(len(side) / max(len(side) - 1, 1)) for side in (deviation.sum(1), deviation.sum(0))
    ]
    return np.concatenate(sides) * np.sqrt(held_out.training_factor)


def balanced_accuracy(held_out: HeldOut, called: np.ndarray) -> Interval:
    """Of the mean over folds of the balanced accuracy of calls [R], True where positive."""
    right = (called == (held_out.label == 1)).astype(float)
    own = [held_out.label == value for value in (0, 1)]
    rates = [
        _part(held_out.donor[of], held_out.fold[of], right[of], _weights(held_out.fold[of])) for of in own
    ]
    means = np.array([_bounded(rate.total) for rate in rates])
    limits = [
        wilson(mean, held_out.training_factor * max(rate.smallest, _scale(mean, rate.variance)), QUANTILE)
        for mean, rate in zip(means, rates, strict=True)
    ]
    below = np.linalg.norm(means - [one.low for one in limits]) / 2
    above = np.linalg.norm(means - [one.high for one in limits]) / 2
    return Interval(float(max(means.mean() - below, 0.0)), float(min(means.mean() + above, 1.0)))


def brier(held_out: HeldOut, probability: np.ndarray) -> Interval:
    """Of the mean over folds of the Brier score of probabilities [R]."""
    loss, weight = (probability - held_out.label) ** 2, _weights(held_out.fold)
    own = [held_out.label == value for value in (0, 1)]
    parts = [_part(held_out.donor[of], held_out.fold[of], loss[of], weight[of]) for of in own]
    estimate = _bounded(sum(part.total for part in parts))
    variances = np.array([part.variance for part in parts])
    freedom = np.array([max(part.donors - 1, 1) for part in parts])
    # One donor lost, of all: equal losses are no certainty.
    smallest = sum(part.smallest / part.donors for part in parts)
    # Satterthwaite 1946: the degrees of freedom of a sum of two estimated variances.
    own_freedom = _ratio(variances.sum() ** 2, (variances**2 / freedom).sum()) or freedom.sum()
    scale = held_out.training_factor * max(smallest, _scale(estimate, variances.sum()))
    return wilson(estimate, scale, float(t.ppf(0.5 + LEVEL / 200, own_freedom)))


class Part(NamedTuple):
    """A weighted sum of a value of some rows, with its variance from `donors` donors.

    `smallest`: the sum of squared weights of donors, were the rows of a donor in a fold independent.
    """

    total: float
    variance: float
    smallest: float
    donors: int


def _part(donor: np.ndarray, fold: np.ndarray, value: np.ndarray, weight: np.ndarray) -> Part:
    donors, donor = np.unique(donor, return_inverse=True)
    folds, fold = np.unique(fold, return_inverse=True)
    total = (weight * value).sum()
    deviation = np.bincount(donor, weight * (value - total / weight.sum()))
    folds_of_donor = np.bincount(np.unique(donor * len(folds) + fold) // len(folds))
    rows = np.bincount(donor) / folds_of_donor
    smallest = (np.bincount(donor, weight) ** 2 / rows).sum()
    return Part(float(total), _spread(deviation), float(smallest), len(donors))


def _weights(fold: np.ndarray) -> np.ndarray:
    """Of each row in a mean over folds of the means of their rows."""
    _, number, n_rows = np.unique(fold, return_inverse=True, return_counts=True)
    return 1 / (n_rows[number] * len(n_rows))


def _scale(mean: float, variance: float) -> float:
    """A variance as a share of that of a value which is 0 or 1 and has the same mean."""
    return _ratio(variance, mean * (1 - mean))


def _pairs(held_out: HeldOut, score: np.ndarray) -> Pairs:
    donors, donor = np.unique(held_out.donor, return_inverse=True)
    folds, fold = np.unique(held_out.fold, return_inverse=True)
    # A block is the rows of a donor in a fold; in each fold those of negative donors come first.
    order = np.lexsort((score, donor, held_out.label, fold))
    score, block = score[order], (fold * len(donors) + donor)[order]
    starts = np.append(np.flatnonzero(np.diff(block, prepend=-1)), len(block))
    fold, donor, one = fold[order][starts[:-1]], donor[order][starts[:-1]], held_out.label[order][starts[:-1]]
    share_F, wins_NN = np.zeros(len(folds)), np.zeros((len(donors), len(donors)))
    for number in range(len(folds)):
        first, end = np.searchsorted(fold, [number, number + 1])
        middle = first + np.searchsorted(one[first:end], 1)
        if first < middle < end:  # else there is no AUROC
            at, ones = starts[middle], score[starts[middle] : starts[end]]
            share_F[number] = 1 / ((at - starts[first]) * len(ones))
            for zero in range(first, middle):
                below = _below(score[starts[zero] : starts[zero + 1]], ones)
                own = np.add.reduceat(below, starts[middle:end] - at)
                wins_NN[donor[middle:end], donor[zero]] += share_F[number] * own
    rows_FN = np.zeros((len(folds), len(donors)))
    rows_FN[fold, donor] = np.diff(starts)
    positive = np.zeros(len(donors), bool)
    positive[donor] = one == 1
    used = np.count_nonzero(share_F)
    weight = np.einsum("f,fp,fn->pn", share_F, rows_FN[:, positive], rows_FN[:, ~positive]) / used
    rows = rows_FN.sum(0) / (rows_FN > 0).sum(0)
    met1, met0 = weight.sum(1) > 0, weight.sum(0) > 0  # in some fold, by a donor of the other class
    wins = wins_NN[positive][:, ~positive] / used
    return Pairs(weight[met1][:, met0], wins[met1][:, met0], rows[positive][met1], rows[~positive][met0])


def _below(sorted_zeros: np.ndarray, ones: np.ndarray) -> np.ndarray:
    """How many of some scores lie below each of others, ties as half."""
    return (np.searchsorted(sorted_zeros, ones, "left") + np.searchsorted(sorted_zeros, ones, "right")) / 2


def _variance_of_auroc(pairs: Pairs) -> Callable[[float], float]:
    """The variance that Hanley and McNeil expect at an AUROC, of the pairs that were compared.

    Several rows of one donor count as so many independent ones: the least that they can vary.
    """
    weight, rows1, rows0 = pairs.weight, pairs.rows1, pairs.rows0
    pair_part = (weight**2 / np.outer(rows1, rows0)).sum()
    donor_part = (weight.sum(1) ** 2 / rows1).sum() + (weight.sum(0) ** 2 / rows0).sum()

    def variance(value: float) -> float:
        shared = ((1 - value) / (2 - value) + value / (1 + value)) / 2
        return float(value * (1 - value) * (pair_part + shared * (donor_part - 2 * pair_part)))

    return variance


def _two_way(deviation: np.ndarray) -> float:
    """The variance of a sum over pairs of donors [n1, n0], from each donor's part of it."""
    return _spread(deviation.sum(1)) + _spread(deviation.sum(0)) - float((deviation**2).sum())


def _spread(deviation: np.ndarray) -> float:
    """Sum of squares of the donors' deviations, which cost a degree of freedom."""
    squares = float((deviation**2).sum() * len(deviation) / max(len(deviation) - 1, 1))
    return squares if squares > ROUNDING**2 else 0.0


def _limits(estimate: float, variance: Callable[[float], float]) -> Interval:
    """All values that differ from the estimate by no more than 1.96 of their own standard errors."""

    def outside(value: float) -> float:
        return float((value - estimate) ** 2 - QUANTILE**2 * variance(value))

    # At 0 and 1 nothing varies: those are limits of an estimate of 0 or 1, but not both of its limits.
    low = 0.0 if estimate == 0 else brentq(outside, 0.0, min(estimate, 1 - ROUNDING))
    high = 1.0 if estimate == 1 else brentq(outside, max(estimate, ROUNDING), 1.0)
    return Interval(float(low), float(high))


def wilson(estimate: float, scale: float, quantile: float) -> Interval:
    """Limits of a mean within 0 to 1 whose variance is `scale` times that of one value that is 0 or 1."""
    squared = quantile**2 * scale
    centre = (estimate + squared / 2) / (1 + squared)
    half = np.sqrt(squared * (estimate * (1 - estimate) + squared / 4)) / (1 + squared)
    return Interval(float(max(centre - half, 0.0)), float(min(centre + half, 1.0)))


def _bounded(value: float) -> float:
    """A mean within 0 to 1, without the rounding of its sum."""
    return 0.0 if value < ROUNDING else 1.0 if value > 1 - ROUNDING else float(value)


def _ratio(above: float, below: float) -> float:
    """0 where nothing varies."""
    return float(above / below) if below > 0 else 0.0
