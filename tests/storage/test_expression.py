"""Raw counts are found wherever they are, and values are normalised exactly once."""

from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scanpy as sc
import scipy.sparse as sp

from oligo_ad.errors import UserError
from oligo_ad.storage.atlas import open_atlas
from oligo_ad.storage.expression import Expression, find_expression, is_counts, log_normalise, require
from tests import builders


def counts_atlas() -> ad.AnnData:
    return builders.atlas(4, 3, nuclei=10, genes=40)


def normalised(counts: sp.csr_matrix, target: float = 1e4) -> sp.csr_matrix:
    """What scanpy makes of counts, in double precision."""
    nuclei = ad.AnnData(counts.astype(np.float64))
    sc.pp.normalize_total(nuclei, target_sum=target)
    sc.pp.log1p(nuclei)
    return nuclei.X


def log_atlas() -> ad.AnnData:
    adata = counts_atlas()
    adata.X = normalised(adata.X).astype(np.float32)
    return adata


def found(adata: ad.AnnData, folder: Path, wanted: str = "auto") -> Expression:
    with open_atlas(builders.write(adata, folder)) as atlas:
        return find_expression(atlas, wanted)


@pytest.mark.parametrize("layer", ["UMIs", "counts", "raw_counts", "raw", "some_name"])
@pytest.mark.parametrize("dense", [False, True], ids=["sparse", "dense"])
def test_counts_are_found_in_a_layer(tmp_path: Path, layer: str, dense: bool) -> None:
    adata, counts = log_atlas(), counts_atlas().X
    adata.layers[layer] = counts.toarray() if dense else counts
    expression = found(adata, tmp_path)
    assert (expression.matrix, expression.content) == (f"layers/{layer}", "counts")
    assert "X is ln(1 + counts per 10,000) of them, as recomputed" in expression.evidence


def test_counts_are_found_in_raw(tmp_path: Path) -> None:
    adata = log_atlas()
    adata.raw = counts_atlas()
    expression = found(adata, tmp_path)
    assert (expression.matrix, expression.content) == ("raw/X", "counts")
    assert "as recomputed" in expression.evidence


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int32, np.int64])
def test_counts_are_found_in_x(tmp_path: Path, dtype: type) -> None:
    adata = counts_atlas()
    adata.X = adata.X.astype(dtype)
    expression = found(adata, tmp_path)
    assert (expression.matrix, expression.content) == ("X", "counts")
    assert "normalised once, by this program" in expression.evidence


def test_a_layer_of_a_usual_name_is_preferred(tmp_path: Path) -> None:
    adata = counts_atlas()
    adata.layers["spliced"] = adata.X.copy()
    adata.layers["UMIs"] = adata.X.copy()
    assert found(adata, tmp_path).matrix == "layers/UMIs"


def test_a_layer_of_log_values_is_passed_over(tmp_path: Path) -> None:
    adata = counts_atlas()
    adata.layers["counts"] = normalised(adata.X)
    assert found(adata, tmp_path).matrix == "X"


@pytest.mark.parametrize(("wanted", "matrix"), [("X", "X"), ("raw", "raw/X"), ("mine", "layers/mine")])
def test_counts_are_taken_from_the_matrix_that_the_user_names(
    tmp_path: Path, wanted: str, matrix: str
) -> None:
    adata = counts_atlas()
    adata.raw = adata.copy()
    adata.layers["mine"] = adata.X.copy()
    adata.layers["UMIs"] = adata.X.copy()
    assert found(adata, tmp_path, wanted) == Expression(matrix, "counts", f"raw counts in {matrix}, as asked")


def test_a_named_matrix_without_counts_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"data\.counts=X: X does not hold raw counts"):
        found(log_atlas(), tmp_path, "X")


def test_a_misspelt_layer_is_answered_with_the_nearest_name(tmp_path: Path) -> None:
    adata = log_atlas()
    adata.layers["UMIs"] = counts_atlas().X
    with pytest.raises(UserError, match="Did you mean 'UMIs'"):
        found(adata, tmp_path, "umi")


def test_log_values_equal_those_of_scanpy(tmp_path: Path) -> None:
    adata = counts_atlas()
    cohort = builders.cohort(adata, tmp_path)
    oligo = builders.arranged(adata[adata.obs["Subclass"] == "Oligodendrocyte"])
    np.testing.assert_allclose(builders.log_values(cohort), normalised(oligo.X).toarray(), rtol=0, atol=1e-6)
    assert builders.log_values(cohort).dtype == np.float32


def test_normalising_keeps_empty_nuclei_and_its_input() -> None:
    counts = sp.csr_matrix(np.array([[0, 0, 0], [1, 0, 3]], np.float32))
    logged = log_normalise(counts, np.array([0.0, 4.0])).toarray()
    np.testing.assert_allclose(logged, [[0, 0, 0], [np.log1p(2500), 0, np.log1p(7500)]], rtol=1e-6)
    assert counts.data.tolist() == [1, 3]


def test_some_genes_are_normalised_by_the_counts_of_all() -> None:
    counts = sp.csr_matrix(np.array([[2, 0, 6], [1, 0, 3]], np.float32))
    totals = np.array([8.0, 4.0])
    whole = log_normalise(counts, totals).toarray()
    np.testing.assert_array_equal(log_normalise(counts[:, [0, 1]], totals).toarray(), whole[:, :2])


@pytest.mark.parametrize(("content", "value"), [("counts", -1.0), ("counts", 0.5), ("log", -0.1)])
def test_one_value_of_the_wrong_kind_among_all_is_refused(content: str, value: float) -> None:
    block = sp.csr_matrix(np.array([[1, 0, 2], [value, 0, 3]], np.float32))
    kind = Expression("X", content, "", 1.0, ())  # type: ignore[arg-type]
    with pytest.raises(UserError, match=f"holds {value:g} among"):
        require(block, kind, "atlas.h5ad")
    require(block[:1], kind, "atlas.h5ad")


def test_a_nucleus_is_normalised_by_itself(tmp_path: Path) -> None:
    adata = counts_atlas()
    before = builders.log_values(builders.cohort(adata, tmp_path))
    adata.X[2, :10] *= 100
    cohort = builders.cohort(adata, tmp_path)
    changed = (before != builders.log_values(cohort)).any(axis=1)
    assert cohort.cells["barcode"][changed].tolist() == ["nucleus-2"]


def test_a_stored_zero_is_no_expressed_gene(tmp_path: Path) -> None:
    adata = counts_atlas()
    expressed = np.asarray((adata.X > 0).sum(axis=1)).ravel()
    adata.X.data[: adata.X.indptr[1]] = 0
    adata.X.data[0] = 5
    cohort = builders.cohort(adata, tmp_path)
    cells = cohort.cells.set_index("barcode")
    of_file = pd.Series([1, *expressed[1:]], adata.obs_names)
    assert cells["n_genes"].tolist() == of_file[cells.index].tolist()
    assert cells["total"]["nucleus-0"] == 5


def test_a_file_of_log_values_alone_is_taken_as_it_is(tmp_path: Path) -> None:
    adata = log_atlas()
    assert found(adata, tmp_path).content == "log"
    assert "10,000 counts per nucleus" in found(adata, tmp_path).evidence
    cohort = builders.cohort(adata, tmp_path)
    oligo = builders.arranged(adata[adata.obs["Subclass"] == "Oligodendrocyte"])
    np.testing.assert_array_equal(builders.log_values(cohort), oligo.X.toarray())
    assert cohort.cells["total"].isna().all()


def test_counts_are_ignored_where_the_user_wants_the_log_values(tmp_path: Path) -> None:
    adata = log_atlas()
    adata.layers["UMIs"] = counts_atlas().X
    expression = found(adata, tmp_path, "none")
    assert (expression.matrix, expression.content) == ("X", "log")


def test_counts_are_never_taken_for_log_values(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="counts"):
        found(counts_atlas(), tmp_path, "none")


def test_log_values_of_a_part_of_the_genes_are_taken(tmp_path: Path) -> None:
    expression = found(log_atlas()[:, :15].copy(), tmp_path)
    assert expression.content == "log"
    assert "taken as log-normalised" in expression.evidence


@pytest.mark.parametrize("target", [1e4, 1e3])
def test_values_logged_twice_are_refused(tmp_path: Path, target: float) -> None:
    adata = log_atlas()
    adata.X = normalised(counts_atlas().X, target).log1p()
    with pytest.raises(UserError, match="log-transformed twice"):
        found(adata, tmp_path)


def test_values_logged_twice_beside_counts_are_no_harm(tmp_path: Path) -> None:
    adata = log_atlas()
    adata.X = adata.X.log1p()
    adata.layers["UMIs"] = counts_atlas().X
    expression = found(adata, tmp_path)
    assert expression.matrix == "layers/UMIs"
    assert "X is something else and is not used" in expression.evidence


def test_an_x_of_other_genes_than_raw_is_reported(tmp_path: Path) -> None:
    adata = log_atlas()[:, :15].copy()
    adata.raw = counts_atlas()
    assert "X has other genes" in found(adata, tmp_path).evidence


def test_scaled_values_are_refused(tmp_path: Path) -> None:
    adata = counts_atlas()
    adata.X = (adata.X.toarray() - 2.5).astype(np.float32)
    with pytest.raises(UserError, match="negative values"):
        found(adata, tmp_path)


def test_normalised_values_without_a_logarithm_are_refused(tmp_path: Path) -> None:
    adata = counts_atlas()
    sc.pp.normalize_total(adata, target_sum=1e4)
    with pytest.raises(UserError, match="neither raw counts"):
        found(adata, tmp_path)


@pytest.mark.parametrize(
    ("values", "yes"), [([1, 2, 3], True), ([1.5, 2], False), ([-1, 2], False), ([0, 0], False)]
)
def test_counts_are_whole_and_not_negative(values: list[float], yes: bool) -> None:
    assert is_counts(sp.csr_matrix(np.array([values], np.float32))) is yes
