"""How often a permutation test finds a true AUROC, beside what `oligo_ad/results/power.py` predicts.

    python -m benchmarks.power                    400 cohorts a row
    python -m benchmarks.power --cohorts 2000 --seed 7

Cohorts of 39 and 9 donors, scored by a linear discriminant that is trained in each fold, as in `coverage.py`:
in five folds, once or ten times over, or in one division with 8 and 2 test donors. Labels are permuted over
the donors of the cohort and everything is trained anew; the test is at 5 %. The true AUROC is what training
on so many donors is expected to reach on new ones. Power is predicted with the factor that a run takes where
it was not permuted, and with that of the permuted AUROCs; "untrained" is as if nothing were trained.
"""

import argparse
import time
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from benchmarks.coverage import FOLDS, LABEL, NEGATIVE, POSITIVE, Trained, discriminants, test_donors
from oligo_ad.results.power import LEVEL, Design, power_of

TRUTHS = (0.5, 0.7, 0.8, 0.9)
PERMUTATIONS = {"5 folds": 200, "10 x 5 folds": 100, "holdout": 200}
HELD_OUT = {1: 8, 0: 2}  # donors, of each class


class Pairs(NamedTuple):
    """Pairs of a positive and a negative donor that a fold tests, and their weight in the mean over folds."""

    fold: np.ndarray
    positive: np.ndarray
    negative: np.ndarray
    weight: np.ndarray

    def auroc(self, score_FN: np.ndarray) -> float:
        """Mean over folds; these scores have no ties."""
        wins = score_FN[self.fold, self.positive] > score_FN[self.fold, self.negative]
        return float(wins @ self.weight)


def pairs_of(test_FN: np.ndarray) -> Pairs:
    both = test_FN[:, LABEL == 1][:, :, None] & test_FN[:, LABEL == 0][:, None, :]
    fold, positive, negative = np.nonzero(both)
    each = 1 / both.sum((1, 2)) / len(test_FN)
    return Pairs(fold, np.flatnonzero(LABEL == 1)[positive], np.flatnonzero(LABEL == 0)[negative], each[fold])


def tested_donors(rng: np.random.Generator, how: str) -> np.ndarray:
    """Who is a test donor in each fold [F, N]."""
    if how != "holdout":
        return test_donors(rng, 10 if how.startswith("10") else 1)
    test_FN = np.zeros((1, len(LABEL)), bool)
    for value, n in HELD_OUT.items():
        test_FN[0, rng.permutation(np.flatnonzero(value == LABEL))[:n]] = True
    return test_FN


class Outcome(NamedTuple):
    """Of one cohort; `null_sd`: of the AUROCs with permuted labels."""

    auroc: float
    p: float
    null_sd: float


def outcome(world: Trained, how: str, seed: int, number: int) -> Outcome:
    """The permutation test of one cohort: labels and places in the folds go to other donors."""
    rng = np.random.default_rng([seed, number])
    test_FN, features_NP = tested_donors(rng, how), world.features(rng)
    pairs = pairs_of(test_FN)

    def auroc(features_NP: np.ndarray) -> float:
        weight_FP = discriminants(features_NP, ~test_FN, world.shrinkage).weight_FP
        return pairs.auroc(weight_FP @ features_NP.T)

    observed, n = auroc(features_NP), PERMUTATIONS[how]
    null = np.array([auroc(features_NP[rng.permutation(len(LABEL))]) for _ in range(n)])
    as_large = int((null >= observed - 1e-9).sum())
    return Outcome(observed, (1 + as_large) / (n + 1), float(null.std(ddof=1)))


def design_of(how: str, null_sd: float | None = None) -> Design:
    if how == "holdout":
        return Design(HELD_OUT[1], HELD_OUT[0], len(LABEL) - sum(HELD_OUT.values()), 1, null_sd)
    folds = FOLDS * (10 if how.startswith("10") else 1)
    return Design(POSITIVE, NEGATIVE, len(LABEL) * (1 - 1 / FOLDS), folds, null_sd)


def rows() -> Iterator[tuple[str, Trained, str]]:
    """All of the table: where cohorts come from, and how they are tested."""
    for how in PERMUTATIONS:
        for name, factors in (("independent features", 0), ("4 shared factors", 4)):
            for auroc in TRUTHS:
                yield name, Trained(auroc, factors, 1.0), how


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cohorts", type=int, default=400, help="in each row (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    started, n = time.monotonic(), options.cohorts
    print(f"{'':36} truth   tests find it    predicted: not permuted, permuted, untrained")
    for name, world, how in rows():
        found = [outcome(world, how, options.seed, number) for number in range(n)]
        power, truth = float(np.mean([one.p <= LEVEL for one in found])), world.truths[0].auroc
        error = np.sqrt(power * (1 - power) / n)
        known = float(np.sqrt(np.mean([one.null_sd**2 for one in found])))
        untrained = design_of(how)._replace(trained=np.inf)
        predicted = [power_of(truth, one) for one in (design_of(how), design_of(how, known), untrained)]
        cells = "  ".join(f"{value:.2f}" for value in predicted)
        spread = np.std([one.auroc for one in found])
        print(
            f"{how:13} {name:22} {truth:.3f}   {power:.3f} ± {error:.3f}    {cells}"
            f"    SD {spread:.3f}, permuted {known:.3f}",
            flush=True,
        )
    print(f"\n{n} cohorts a row, seed {options.seed}, {time.monotonic() - started:.0f} s")


if __name__ == "__main__":
    main()
