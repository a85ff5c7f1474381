"""Which genes a model reads, chosen on training nuclei alone."""

import warnings
from typing import Literal

import anndata as ad
import numpy as np
import pandas as pd

from oligo_ad.data.cohort import Cohort
from oligo_ad.errors import UserError

Choice = Literal["hvg", "provided", "all"]
Flavor = Literal["seurat", "cell_ranger", "seurat_v3"]


def choose_genes(
    cohort: Cohort, train: np.ndarray, choice: Choice, n_genes: int, flavor: Flavor
) -> list[str]:
    """Names of the panel genes, in the order of the file.

    Args:
        cohort: nuclei and genes.
        train: rows of the training nuclei; no other row is looked at.
        choice: `hvg` the most variable genes by scanpy's `highly_variable_genes`; `provided` the
            file's own `highly_variable` column (chosen by its authors on all nuclei); `all` every
            gene expressed in training nuclei.
        n_genes: size of the panel (hvg).
        flavor: dispersion on log values (seurat: Satija 2015, cell_ranger: Zheng 2017), or variance
            of counts around a fitted trend (seurat_v3: Stuart 2019).

    Raises:
        UserError: the file has no such column, or the flavor needs counts or a package.
    """
    names = cohort.genes["name"].to_numpy()
    expressed = np.asarray(cohort.matrix[train].getnnz(axis=0)).ravel() > 0
    if choice == "provided":
        if "highly_variable" not in cohort.genes:
            raise UserError("model.encoder.genes=provided: var has no 'highly_variable' column.")
        return list(names[cohort.genes["highly_variable"].to_numpy(bool)])
    if choice == "all" or n_genes >= expressed.sum():
        return list(names[expressed])
    return list(names[np.flatnonzero(expressed)[_variable(cohort, train, expressed, n_genes, flavor)]])


def _variable(
    cohort: Cohort, train: np.ndarray, expressed: np.ndarray, n_genes: int, flavor: Flavor
) -> np.ndarray:
    import scanpy as sc

    if flavor == "seurat_v3" and cohort.expression.content != "counts":
        raise UserError("model.encoder.flavor=seurat_v3 needs raw counts; this file has none.")
    source = cohort.matrix if flavor == "seurat_v3" else cohort.log_values
    nuclei = ad.AnnData(source[train][:, expressed], var=pd.DataFrame(index=cohort.genes["name"][expressed]))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # scanpy's own use of pandas
            found = sc.pp.highly_variable_genes(nuclei, n_top_genes=n_genes, flavor=flavor, inplace=False)
    except ImportError as error:
        raise UserError(f"model.encoder.flavor={flavor}: {error}") from None
    return found["highly_variable"].to_numpy(bool)
