"""How often intervals of donor scores cover the truth, and how wide they are, for 39 against 9 donors.

    python benchmarks/coverage.py                  1,000 cohorts a cell
    python benchmarks/coverage.py --cohorts 4000 --seed 7

A cohort is drawn and scored by a cross-validation in 5 stratified folds, once or ten times over. The score is
fixed, or a linear discriminant trained in each fold on 60 normal features, of which 6 differ between classes;
features are independent or share four factors, and the discriminant's covariance is diagonal, or shrunken by
.3 towards that. The truth is what training on so many donors is expected to reach on new donors: exact for a
given discriminant, averaged over 3,000 training sets. The difference is to the same kind of score, fixed and
correlated by .7, or trained on half of the features. "bootstrap" is the percentile bootstrap of donors within
their class.
"""

import argparse
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple, Protocol

import numpy as np
from scipy.special import expit, ndtr, ndtri

from oligo_ad.results import intervals
from oligo_ad.results.intervals import HeldOut, Interval

# The other benchmarks have this folder on their path, where numba looks for a package of this name.
if __name__ == "coverage":
    raise ImportError("this file measures intervals, not tests", name=__name__)

POSITIVE, NEGATIVE, FOLDS = 39, 9, 5
LABEL = np.repeat([1, 0], [POSITIVE, NEGATIVE])
FEATURES, INFORMATIVE, LOADING = 60, 6, 0.6
TRUTHS, REPEATS = (0.5, 0.6, 0.75, 0.9), (1, 10)
NORMAL = ndtri((np.arange(400) + 0.5) / 400)  # as many equally likely values
RESAMPLES = 200
WORSE = 0.7  # the other fixed score separates the classes so much less, and has this correlation


class Truth(NamedTuple):
    """What a procedure is expected to reach on new donors."""

    auroc: float
    balanced_accuracy: float
    brier: float


class World(Protocol):
    """Where cohorts come from; logits of two procedures [F, N] for all donors, as each fold scores them."""

    @property
    def truths(self) -> tuple[Truth, Truth]: ...

    def logits(self, rng: np.random.Generator, test_FN: np.ndarray) -> tuple[np.ndarray, np.ndarray]: ...


def test_donors(rng: np.random.Generator, repeats: int) -> np.ndarray:
    """Who is a test donor in each fold [F, N]; stratified."""
    test_FN = np.zeros((repeats * FOLDS, len(LABEL)), bool)
    for repeat in range(repeats):
        for value in (0, 1):
            drawn = rng.permutation(np.flatnonzero(value == LABEL))
            for fold in range(FOLDS):
                test_FN[repeat * FOLDS + fold, drawn[fold::FOLDS]] = True
    return test_FN


def mean_truth(high_M: np.ndarray, low_M: np.ndarray, deviation_M: np.ndarray) -> Truth:
    """Of normal logits with these means in the two classes, averaged over as many procedures."""
    auroc = ndtr((high_M - low_M) / deviation_M / np.sqrt(2))
    balanced = (ndtr(high_M / deviation_M) + ndtr(-low_M / deviation_M)) / 2
    spread = deviation_M[:, None] * NORMAL
    losses = [
        ((expit(mean[:, None] + spread) - label) ** 2).mean() for label, mean in ((1, high_M), (0, low_M))
    ]
    test_FN = test_donors(np.random.default_rng(0), 1)
    positive = np.mean([LABEL[own].mean() for own in test_FN])
    return Truth(auroc.mean(), balanced.mean(), positive * losses[0] + (1 - positive) * losses[1])


@dataclass(frozen=True)
class Fixed:
    """Two given normal scores; nothing is trained."""

    auroc: float

    @property
    def _shifts(self) -> np.ndarray:
        return np.array([1.0, WORSE]) * ndtri(self.auroc) * np.sqrt(2)

    @cached_property
    def truths(self) -> tuple[Truth, Truth]:
        first, second = (mean_truth(*np.array([[s / 2], [-s / 2], [1.0]])) for s in self._shifts)
        return first, second

    def logits(self, rng: np.random.Generator, test_FN: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        noise = np.sqrt(WORSE) * rng.normal(size=48) + np.sqrt(1 - WORSE) * rng.normal(size=(2, 48))
        first, second = noise + (LABEL - 0.5) * self._shifts[:, None]
        return np.broadcast_to(first, test_FN.shape), np.broadcast_to(second, test_FN.shape)


class Discriminants(NamedTuple):
    """Linear discriminants, one a fold: a logit is the product of weights and features, less the middle."""

    weight_FP: np.ndarray
    middle_F: np.ndarray

    def truth(self, shift_P: np.ndarray, covariance_PP: np.ndarray) -> Truth:
        deviation_F = np.sqrt(np.einsum("fp,pq,fq->f", self.weight_FP, covariance_PP, self.weight_FP))
        return mean_truth(self.weight_FP @ shift_P - self.middle_F, -self.middle_F, deviation_F)


def discriminants(features_NP: np.ndarray, train_FN: np.ndarray, shrinkage: float) -> Discriminants:
    """Trained on the training donors of each fold; `shrinkage` 1 is a diagonal covariance."""
    n, size = features_NP.shape
    members = [(train_FN & (value == LABEL)).astype(float) for value in (0, 1)]
    means = [own @ features_NP / own.sum(1, keepdims=True) for own in members]
    difference, freedom = means[1] - means[0], train_FN.sum(1) - 2
    own_means = list(zip(members, means, strict=True))
    squares = train_FN @ features_NP**2 - sum(m.sum(1, keepdims=True) * mean**2 for m, mean in own_means)
    if shrinkage == 1:
        weight_FP = difference * freedom[:, None] / squares
    else:
        products = (train_FN @ np.einsum("np,nq->npq", features_NP, features_NP).reshape(n, -1)).reshape(
            -1, size, size
        )
        products -= sum(
            m.sum(1)[:, None, None] * mean[:, :, None] * mean[:, None, :] for m, mean in own_means
        )
        products *= 1 - shrinkage
        products[:, np.arange(size), np.arange(size)] = squares
        weight_FP = np.linalg.solve(products, difference[:, :, None])[:, :, 0] * freedom[:, None]
    return Discriminants(weight_FP, (weight_FP * (means[0] + means[1])).sum(1) / 2)


@dataclass(frozen=True)
class Trained:
    """Discriminants trained in each fold, on all features and on every second."""

    auroc: float
    factors: int
    shrinkage: float

    @cached_property
    def _loadings(self) -> np.ndarray:
        return LOADING * np.random.default_rng(1).normal(size=(FEATURES, self.factors))

    @cached_property
    def _shift(self) -> float:
        """Between the classes, in each informative feature."""
        low, high = 0.0, 4.0
        while self.auroc > 0.5 and high - low > 1e-3:
            middle = (low + high) / 2
            below = self._truths(middle, 120)[0].auroc < self.auroc
            low, high = (middle, high) if below else (low, middle)
        return low

    @cached_property
    def truths(self) -> tuple[Truth, Truth]:
        return self._truths(self._shift, 600)

    def logits(self, rng: np.random.Generator, test_FN: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        features_NP, both = self.features(rng), []
        for step in (1, 2):
            fitted = discriminants(features_NP[:, ::step], ~test_FN, self.shrinkage)
            both.append(fitted.weight_FP @ features_NP[:, ::step].T - fitted.middle_F[:, None])
        return both[0], both[1]

    def features(self, rng: np.random.Generator) -> np.ndarray:
        """Of the donors of one cohort [N, P]."""
        return self._features(rng, self._shift)

    def _features(self, rng: np.random.Generator, shift: float) -> np.ndarray:
        noise = rng.normal(size=(len(LABEL), FEATURES))
        noise += rng.normal(size=(len(LABEL), self.factors)) @ self._loadings.T
        noise[:, :INFORMATIVE] += shift * LABEL[:, None]
        return noise

    def _truths(self, shift: float, cohorts: int) -> tuple[Truth, Truth]:
        """Over the training sets of so many cohorts, the same ones whatever the shift."""
        rng, found = np.random.default_rng(2), defaultdict(list)
        covariance = np.eye(FEATURES) + self._loadings @ self._loadings.T
        shift_P = shift * (np.arange(FEATURES) < INFORMATIVE)
        for _ in range(cohorts):
            features_NP, train_FN = self._features(rng, shift), ~test_donors(rng, 1)
            for step in (1, 2):
                fitted = discriminants(features_NP[:, ::step], train_FN, self.shrinkage)
                found[step].append(fitted.truth(shift_P[::step], covariance[::step, ::step]))
        first, second = (Truth(*np.mean(found[step], axis=0)) for step in (1, 2))
        return first, second


def bootstrap(rng: np.random.Generator, test_FN: np.ndarray, score_FN: np.ndarray) -> Interval:
    """The mean of the folds' AUROCs in resamples of the donors of each class."""
    times = [rng.multinomial(n, np.full(n, 1 / n), RESAMPLES).astype(float) for n in (POSITIVE, NEGATIVE)]
    total, used = np.zeros(RESAMPLES), np.zeros(RESAMPLES)
    for test, score in zip(test_FN, score_FN, strict=True):
        ones, zeros = np.flatnonzero(test[:POSITIVE]), np.flatnonzero(test[POSITIVE:])
        wins = np.sign(score[ones, None] - score[POSITIVE + zeros]) / 2 + 0.5
        of_ones, of_zeros = times[0][:, ones], times[1][:, zeros]
        pairs = of_ones.sum(1) * of_zeros.sum(1)
        total += np.divide(
            (of_ones @ wins * of_zeros).sum(1), pairs, out=np.zeros(RESAMPLES), where=pairs > 0
        )
        used += pairs > 0
    return Interval(*np.percentile(total / np.maximum(used, 1), [2.5, 97.5]))


def cohort(world: World, rng: np.random.Generator, repeats: int) -> dict[str, Interval]:
    """The intervals of one cohort."""
    test_FN = test_donors(rng, repeats)
    model_FN, other_FN = world.logits(rng, test_FN)
    fold, donor = np.nonzero(test_FN)
    held_out = HeldOut(fold, donor, LABEL[donor], trained=float((~test_FN).sum(1).mean()))
    model, other = model_FN[test_FN], other_FN[test_FN]
    return {
        "AUROC": intervals.auroc(held_out, model),
        "bootstrap": bootstrap(rng, test_FN, model_FN),
        "difference": intervals.auroc_difference(held_out, model, other),
        "balanced acc.": intervals.balanced_accuracy(held_out, model > 0),
        "Brier": intervals.brier(held_out, expit(model)),
    }


class Measured(NamedTuple):
    """Of one interval over cohorts."""

    coverage: float
    width: float
    cohorts: int

    def __str__(self) -> str:
        error = np.sqrt(self.coverage * (1 - self.coverage) / self.cohorts)
        return f"{self.coverage:.3f} ± {error:.3f}  {self.width:.2f}"


def measure(world: World, repeats: int, cohorts: int, seed: int) -> dict[str, Measured]:
    """Coverage and mean width of every interval in so many cohorts."""
    first, second = world.truths
    truth = {
        "AUROC": first.auroc,
        "bootstrap": first.auroc,
        "difference": first.auroc - second.auroc,
        "balanced acc.": first.balanced_accuracy,
        "Brier": first.brier,
    }
    drawn = defaultdict(list)
    for number in range(cohorts):
        rng = np.random.default_rng([seed, repeats, round(100 * first.auroc), number])
        for name, found in cohort(world, rng, repeats).items():
            drawn[name].append((found.low, found.high))
    found = {name: np.array(limits) for name, limits in drawn.items()}
    return {
        name: Measured(
            float(((low_high[:, 0] <= truth[name]) & (truth[name] <= low_high[:, 1])).mean()),
            float(np.ptp(low_high, axis=1).mean()),
            cohorts,
        )
        for name, low_high in found.items()
    }


def worlds() -> Iterator[tuple[str, World]]:
    """All of the table, by name."""
    for auroc in TRUTHS:
        yield "fixed score", Fixed(auroc)
    for name, factors, shrinkage in (
        ("trained, diagonal", 0, 1.0),
        ("trained, diagonal, 4 factors", 4, 1.0),
        ("trained, shrunken, 4 factors", 4, 0.3),
    ):
        for auroc in TRUTHS:
            yield name, Trained(auroc, factors, shrinkage)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cohorts", type=int, default=1000, help="in each cell (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    started, heads = time.monotonic(), ("AUROC", "bootstrap", "difference", "balanced acc.", "Brier")
    print(
        "nominal 95 %: coverage ± Monte-Carlo standard error, mean width; at truth .5, what is\n"
        "missing in coverage are claims of a signal that is not there\n"
    )
    print(f"{'':28} truth repeats " + "".join(f"{head:<23}" for head in heads))
    for name, world in worlds():
        for repeats in REPEATS:
            found = measure(world, repeats, options.cohorts, options.seed)
            cells = "".join(f"{found[head]!s:<23}" for head in heads)
            print(f"{name:28} {world.truths[0].auroc:.3f} {repeats:7} {cells}", flush=True)
    seconds = f"{time.monotonic() - started:.0f} s, of one core {time.process_time():.0f} s"
    print(f"\n{options.cohorts} cohorts a cell, seed {options.seed}, {seconds}")


if __name__ == "__main__":
    main()
