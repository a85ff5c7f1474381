"""Power: the smallest AUROC that a cohort of this size can show."""

import numpy as np
from scipy.optimize import brentq
from scipy.stats import norm

LEVEL, POWER = 0.05, 0.8
ENOUGH = 50  # permutations, for the SD of their AUROCs to be known
# By how much training multiplies the variance of an AUROC; see docs/evaluation.md for how it was found.
TRAINING = 1.5


def variance(auroc: float, n_positive: int, n_negative: int) -> float:
    """The variance of an AUROC of donors (Hanley & McNeil 1982, Radiology 143:29)."""
    q1, q2 = auroc / (2 - auroc), 2 * auroc**2 / (1 + auroc)
    pairs = n_positive * n_negative
    of_positive = (n_positive - 1) * (q1 - auroc**2)
    of_negative = (n_negative - 1) * (q2 - auroc**2)
    return float((auroc * (1 - auroc) + of_positive + of_negative) / pairs)


def smallest_auroc(n_positive: int, n_negative: int, null_sd: float | None = None) -> float:
    """The AUROC that a one-sided test finds with the given power; 1 where none is large enough.

    Args:
        n_positive, n_negative: donors that are tested.
        null_sd: SD of AUROCs with permuted labels, where these are known.
    """
    factor = TRAINING if null_sd is None else null_sd**2 / variance(0.5, n_positive, n_negative)

    def short(auroc: float) -> float:
        sd = [np.sqrt(factor * variance(value, n_positive, n_negative)) for value in (0.5, auroc)]
        return float(auroc - 0.5 - norm.ppf(1 - LEVEL) * sd[0] - norm.ppf(POWER) * sd[1])

    return float(brentq(short, 0.5, 1 - 1e-9)) if short(1 - 1e-9) > 0 else 1.0


def sentence(n_positive: int, n_negative: int, null_sd: float | None = None) -> str:
    """What the cohort can show, in words."""
    smallest = smallest_auroc(n_positive, n_negative, null_sd)
    donors = f"With {n_negative} and {n_positive} tested donors a test at {100 * LEVEL:.0f} %"
    if smallest >= 0.995:
        return f"{donors} finds hardly any AUROC in four of five cohorts: there are too few."
    return (
        f"{donors} finds an AUROC of {smallest:.2f} or more in four of five cohorts; a smaller one is likely "
        "to be missed."
    )
