"""Permutations of donors: who gets whose label, and whose place in the folds.

A label keeps its place in the folds, and both go to another donor with other expression, covariates and
depth. So every fold keeps its numbers of each class, however the folds were made, and where labels mean
nothing all permutations are equally likely: a test on them is exact (Ojala & Garriga 2010, JMLR 11:1833).
"""

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from oligo_ad.data.covariates import encode
from oligo_ad.data.split import Fold
from oligo_ad.errors import UserError, listing

MOST_LEVELS = 4  # of a column of numbers; one with more is cut into thirds
THIRDS = [1 / 3, 2 / 3]


def exchanged(strata: pd.Series, seed: int, number: int) -> dict[str, str]:
    """From whom each donor gets label and place: a random donor of its stratum.

    Args:
        strata: the stratum of each donor, by id.
        seed, number: of the run and of the permutation; nothing else decides the draw.
    """
    rng = np.random.default_rng([seed, number])
    found: dict[str, str] = {}
    for _, own in strata.sort_index().groupby(strata, sort=True):
        found |= dict(zip(own.index, rng.permutation(own.index.to_numpy(object)), strict=True))
    return found


def relabelled(label: pd.Series, source: dict[str, str]) -> pd.Series:
    """The label that each donor gets."""
    values = [label[source[donor]] for donor in label.index]
    return pd.Series(values, label.index, dtype=label.dtype, name=label.name)


def moved(folds: Sequence[Fold], source: dict[str, str]) -> list[Fold]:
    """The folds in which each donor has the place that it gets."""
    receiver = {given: donor for donor, given in source.items()}

    def own(donors: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(sorted(receiver[donor] for donor in donors))

    return [
        replace(fold, train=own(fold.train), validation=own(fold.validation), test=own(fold.test))
        for fold in folds
    ]


def strata_of(donors: pd.DataFrame, label: pd.Series, names: Sequence[str]) -> pd.Series:
    """The stratum of each donor: its levels of some columns, of numbers its third; unknown is a level.

    Args:
        donors: the cohort's donor table.
        label: 0 or 1, by donor id.
        names: of columns, as in `metadata.columns`; none puts all donors into one stratum.

    Raises:
        UserError: a column is not there, or every stratum has donors of one class only.
    """
    strata = pd.Series("", label.index)
    for name in names:
        columns = encode(donors, (name,)).reindex(label.index)
        if columns.empty or columns.isna().all(axis=None):
            raise UserError(f"evaluation.strata: the donors have no '{name}' that can be used.")
        for column, values in columns.items():
            strata = strata + f"{column}: " + _levels(values) + "; "
    mixed = label.groupby(strata).nunique() > 1
    if not mixed.any():
        raise UserError(
            f"evaluation.strata={listing(names)}: every stratum has donors of one class only, so nothing can "
            f"be permuted. The {len(mixed)} strata: {listing(list(mixed.index), 4)}. Name fewer columns."
        )
    return strata


def movable(strata: pd.Series, label: pd.Series) -> int:
    """Donors that can get the other label: their stratum has both classes."""
    return int((label.groupby(strata).transform("nunique") > 1).sum())


def labellings(strata: pd.Series, label: pd.Series) -> int:
    """How many different labels the donors can have together; with fewer than 20, no p can mean much."""
    return math.prod(math.comb(len(own), int(own.sum())) for _, own in label.groupby(strata))


def _levels(values: pd.Series) -> pd.Series:
    """Values as text; many numbers as the third that they are in."""
    if values.nunique() <= MOST_LEVELS:
        return values.map(lambda value: "unknown" if np.isnan(value) else f"{value:g}")
    cuts = values.quantile(THIRDS).to_numpy()
    third = np.searchsorted(cuts, values.to_numpy(), side="left")
    words = np.array(["low", "middle", "high"])[third]
    return pd.Series(np.where(values.isna(), "unknown", words), values.index)
