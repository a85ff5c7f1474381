"""The gene panel: the genes that a model reads, chosen on training donors alone."""

import warnings
from typing import Literal, NamedTuple

import anndata as ad
import numpy as np
import pandas as pd

from oligo_ad.data.cohort import Cohort
from oligo_ad.data.genes import marked_genes
from oligo_ad.errors import UserError

Choice = Literal["hvg", "provided", "all"]
Flavor = Literal["seurat", "cell_ranger", "seurat_v3"]
BINS = 20  # of mean expression, within which dispersions are compared


def choose_genes(
    cohort: Cohort, train: tuple[str, ...], choice: Choice, n_genes: int, flavor: Flavor
) -> list[str]:
    """Names of the panel genes, in the order of the cohort.

    Args:
        cohort: nuclei and genes.
        train: ids of the training donors; no other donor is looked at.
        choice: `hvg` the most variable genes; `provided` the file's own `highly_variable` column
            (chosen by its authors on all nuclei); `all` every gene expressed in training donors.
        n_genes: size of the panel (hvg).
        flavor: normalised dispersion (seurat: Satija 2015, from the donors' sums; cell_ranger: Zheng
            2017), or variance of counts around a fitted trend (seurat_v3: Stuart 2019). The last two
            are scanpy's, and copy the training nuclei.

    Raises:
        UserError: the file has no such column, or the flavor needs counts or a package.
    """
    names = cohort.genes["name"].to_numpy()
    mine = cohort.donors.index.isin(train)
    sums = cohort.sums.of(mine)
    expressed = sums.raw.sum(axis=0) > 0
    if choice == "provided":
        return list(names[marked_genes(cohort.genes)])
    if choice == "all" or n_genes >= expressed.sum():
        return list(names[expressed])
    if flavor == "seurat":
        mean, variance = sums.mean_variance(int(cohort.donors["nuclei"][mine].sum()))
        variable = most_dispersed(mean[expressed], variance[expressed], n_genes)
    else:
        variable = _scanpy(cohort, cohort.rows_of(train), expressed, n_genes, flavor)
    return list(names[np.flatnonzero(expressed)[variable]])


class Described(NamedTuple):
    """A panel in words: its `genes`, and on which donors they were chosen (`fitted`)."""

    genes: str
    fitted: str


def describe_choice(choice: Choice, flavor: Flavor, n_genes: int) -> Described:
    """How `choose_genes` chose a panel of `n_genes` genes."""
    if choice == "provided":
        return Described(
            f"{n_genes:,} genes, marked highly variable in the file",
            "choice of genes: by the file's authors, who may have used all nuclei",
        )
    which = f"the most variable ({flavor}, as in scanpy)" if choice == "hvg" else "all"
    return Described(
        f"{n_genes:,} genes: of those expressed in training donors {which}",
        "choice of genes: training donors",
    )


def most_dispersed(mean: np.ndarray, variance: np.ndarray, n_genes: int) -> np.ndarray:
    """Which genes have the largest dispersion for their mean, of counts per 10,000 [genes] bool.

    Satija et al. 2015, in the form of scanpy's `highly_variable_genes(flavor="seurat")`: ln(variance /
    mean), standardised among the genes of each of 20 bins of ln(1 + mean). As there, genes tied with
    the last one are taken too.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        dispersion = np.log(variance / mean)
    dispersion[~np.isfinite(dispersion)] = np.nan  # a gene of the same value in every nucleus
    genes = pd.DataFrame({"dispersion": dispersion, "bin": pd.cut(np.log1p(mean), BINS)})
    of_bin = genes.groupby("bin", observed=True)["dispersion"]
    centre, spread = of_bin.transform("mean"), of_bin.transform("std")
    # A gene alone in its bin has nothing to be compared with: it gets 1.
    normalised = (genes["dispersion"] - centre) / spread
    ranked = normalised.where(spread.notna() | genes["dispersion"].isna(), 1.0).fillna(-np.inf).to_numpy()
    return np.isfinite(ranked) & (ranked >= np.sort(ranked)[-n_genes])


def _scanpy(
    cohort: Cohort, rows: np.ndarray, expressed: np.ndarray, n_genes: int, flavor: Flavor
) -> np.ndarray:
    import scanpy as sc

    if flavor == "seurat_v3" and cohort.expression.content != "counts":
        raise UserError("model.featurizer.flavor=seurat_v3 needs raw counts; this file has none.")
    genes = np.flatnonzero(expressed)
    values = cohort.matrix.columns(genes) if flavor == "seurat_v3" else cohort.log_values(genes)
    nuclei = ad.AnnData(values[rows], var=pd.DataFrame(index=cohort.genes["name"][genes]))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # scanpy's own use of pandas
            found = sc.pp.highly_variable_genes(nuclei, n_top_genes=n_genes, flavor=flavor, inplace=False)
    except ImportError as error:
        raise UserError(f"model.featurizer.flavor={flavor}: {error}") from None
    return found["highly_variable"].to_numpy(bool)
