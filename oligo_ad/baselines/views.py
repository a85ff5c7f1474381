"""What baselines read of each donor: tables without a label in them, made once for all folds."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import pandas as pd

from oligo_ad.baselines.gene_sets import GeneSets
from oligo_ad.data.axes import Spread, find_axes, spread_on_axes
from oligo_ad.data.cohort import Cohort
from oligo_ad.storage.expression import TARGET

ZERO = 0.5  # nuclei counted for each level of a composition, so that none has the share 0


@dataclass(frozen=True)
class Views:
    """Tables of donors, in the order of `donors`.

    `covariates`: age, sex, APOE alleles, NaN where unknown; no columns where the file has none.
    `depth`: nuclei, genes and counts per nucleus, on the log scale. `pseudobulk` [donors, genes]: log
    expression of the summed counts. `composition`: nuclei of each kind; no columns where they are not known.
    `gene_sets`: sets of genes, by their places. `spread`: of nuclei along the axes of given donors; None
    where nuclei are not at hand.
    """

    donors: pd.Index
    covariates: pd.DataFrame
    depth: pd.DataFrame
    pseudobulk: np.ndarray
    composition: pd.DataFrame
    gene_sets: GeneSets
    spread: Callable[[tuple[str, ...]], Spread] | None = None


def read_views(cohort: Cohort, covariates: pd.DataFrame, kinds: pd.DataFrame, gene_sets: GeneSets) -> Views:
    """The tables of a cohort's donors.

    Args:
        covariates: [donors, columns], NaN where unknown.
        kinds: nuclei of each kind [donors, kinds].
    """
    return Views(
        donors=cohort.donors.index,
        covariates=covariates,
        depth=_depth(cohort),
        pseudobulk=pseudobulk_of(cohort),
        composition=kinds,
        gene_sets=gene_sets,
        spread=partial(_spread, cohort),
    )


def _spread(cohort: Cohort, known: tuple[str, ...]) -> Spread:
    found = find_axes(cohort, known)
    return spread_on_axes(cohort, found.genes, found.loading)


def centred_log_ratio(nuclei_DK: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Log shares less their mean over kinds (Aitchison 1982), after half a nucleus of each kind was added.

    Args:
        nuclei_DK: of each kind, by donor.
        known: positions of the known donors. A kind that none of them has is left out: it would tell them
            which kinds another donor has.
    """
    logs = np.log(nuclei_DK[:, nuclei_DK[known].any(0)] + ZERO)
    centred: np.ndarray = logs - logs.mean(axis=1, keepdims=True) if logs.size else logs
    return centred


def pseudobulk_of(cohort: Cohort) -> np.ndarray:
    """Log expression of each donor's summed counts; mean log values where there are no counts."""
    summed = cohort.sums.raw
    if cohort.expression.content == "counts":
        values: np.ndarray = np.log1p(summed * (100 * TARGET / summed.sum(axis=1, keepdims=True)))
        return values
    means: np.ndarray = summed / cohort.donors["nuclei"].to_numpy()[:, None]
    return means


def _depth(cohort: Cohort) -> pd.DataFrame:
    by_donor = cohort.cells.groupby("donor")
    columns = {"nuclei": np.log(by_donor.size()), "genes": np.log(by_donor["n_genes"].mean())}
    if cohort.expression.content == "counts":
        columns["umis"] = np.log(by_donor["total"].mean())
    return pd.DataFrame(columns)
