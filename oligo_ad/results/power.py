"""Power: the smallest AUROC that a cohort of this size can show.

A one-sided test with permuted labels finds an AUROC when it is larger than most that permuted labels reach.
Both these and the observed one have the variance of Hanley & McNeil 1982 (Radiology 143:29) times a factor
for training. The factor follows from the SD of permuted AUROCs, where labels were permuted. Else it is that
of Nadeau & Bengio 2003, since folds share training donors and so err together; and 1 where there is one fold:
its model, if labels mean nothing, is any direction, and the test donors alone make its AUROC vary.

`benchmarks/power.py` compares what is predicted here with tests of simulated cohorts.
"""

from typing import NamedTuple

import numpy as np
from scipy.optimize import brentq
from scipy.stats import norm

LEVEL, POWER = 0.05, 0.8
ENOUGH = 50  # permutations, for the SD of their AUROCs to be known
LARGEST = 1 - 1e-9  # an AUROC of 1 has no variance
HOPELESS = 0.995  # an AUROC as large as this is none to hope for


class Design(NamedTuple):
    """What is tested: donors of each class, donors that a fold was trained on, folds.

    `null_sd`: SD of AUROCs with permuted labels, None where it is not known.
    """

    n_positive: int
    n_negative: int
    trained: float
    folds: int
    null_sd: float | None = None

    @property
    def factor(self) -> float:
        """By how much training multiplies the variance of an AUROC."""
        if self.null_sd:
            return self.null_sd**2 / variance(0.5, self.n_positive, self.n_negative)
        return 1 + (self.n_positive + self.n_negative) / self.trained if self.folds > 1 else 1.0


def variance(auroc: float, n_positive: int, n_negative: int) -> float:
    """The variance of an AUROC of donors whose score was not trained (Hanley & McNeil 1982)."""
    q1, q2 = auroc / (2 - auroc), 2 * auroc**2 / (1 + auroc)
    pairs = n_positive * n_negative
    of_positive = (n_positive - 1) * (q1 - auroc**2)
    of_negative = (n_negative - 1) * (q2 - auroc**2)
    return float((auroc * (1 - auroc) + of_positive + of_negative) / pairs)


def power_of(auroc: float, design: Design, level: float = LEVEL) -> float:
    """How often the test at `level` finds a true AUROC, which is what training on such cohorts reaches."""
    null_sd, sd = (
        np.sqrt(design.factor * variance(value, design.n_positive, design.n_negative))
        for value in (0.5, auroc)
    )
    return float(norm.cdf((auroc - 0.5 - norm.ppf(1 - level) * null_sd) / sd))


def smallest_auroc(design: Design, level: float = LEVEL) -> float:
    """The AUROC that the test finds in four of five cohorts; 1 where none is large enough."""

    def lacking(auroc: float) -> float:
        return power_of(auroc, design, level) - POWER

    return float(brentq(lacking, 0.5, LARGEST)) if lacking(LARGEST) > 0 else 1.0


def sentence(design: Design) -> str:
    """What the cohort can show, in words."""
    smallest = smallest_auroc(design)
    donors = f"With {design.n_negative} and {design.n_positive} tested donors a test at {100 * LEVEL:.0f} %"
    if smallest >= HOPELESS:
        return f"{donors} finds hardly any AUROC in four of five cohorts: there are too few."
    return (
        f"{donors} finds an AUROC of {smallest:.2f} or more in four of five cohorts; a smaller one is likely "
        "to be missed."
    )
