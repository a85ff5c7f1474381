"""The permutation test: how often permuted labels reach what the true ones do."""

from typing import NamedTuple

import numpy as np
import pandas as pd

from oligo_ad.facts import FoldHistory

OFFERED = 200  # permutations that a report offers
ROUNDING = 1e-9  # AUROCs closer than this are equal


class PermutationTest(NamedTuple):
    """A one-sided test of a donor AUROC: is it larger than with permuted labels?

    `n`: permutations. `p`: the share of AUROCs, the observed one included, that are as large as that one
    (Phipson & Smyth 2010, Stat. Appl. Genet. Mol. Biol. 9:39). `null_mean`, `null_sd`: of permuted AUROCs.
    """

    n: int
    p: float
    null_mean: float
    null_sd: float


def permutation_tests(permuted: pd.DataFrame, observed: dict[str, float]) -> dict[str, PermutationTest]:
    """The test of each predictor that was refitted on permuted labels.

    Args:
        permuted: donor AUROC, mean over folds; a row a permutation, a column a predictor, NaN where it was
            not refitted.
        observed: with the true labels.
    """
    tests = {}
    for name, auroc in observed.items():
        null = permuted[name].dropna().to_numpy() if name in permuted else np.empty(0)
        if len(null):
            as_large = int((null >= auroc - ROUNDING).sum())
            spread = float(null.std(ddof=1)) if len(null) > 1 else float("nan")
            p = (1 + as_large) / (len(null) + 1)
            tests[name] = PermutationTest(len(null), p, float(null.mean()), spread)
    return tests


def seconds_of(histories: list[FoldHistory], n: int, n_processes: int = 1) -> float:
    """About how long `n` permutations take: each trains all folds again."""
    return n * sum(history.seconds for history in histories) / n_processes
