"""Thinned counts: what a shallower sequencing of the same nuclei would have given, and nothing else."""

from pathlib import Path

import anndata as ad
import numpy as np
import pytest
import scipy.sparse as sp
from sklearn.metrics import roc_auc_score

from oligo_ad.data.cache import load_cohort, load_matched
from oligo_ad.data.cohort import Cohort
from oligo_ad.data.depth import common_depth, thinned
from oligo_ad.errors import UserError
from oligo_ad.storage.matrix import open_matrix
from tests import builders


def uneven(seed: int = 0) -> ad.AnnData:
    """Positive donors were sequenced three times deeper."""
    adata = builders.atlas(9, 6, nuclei=40, genes=60, seed=seed)
    deep = np.where(adata.obs["ADNC"] == "High", 3, 1)
    adata.X = sp.csr_matrix(adata.X.multiply(deep[:, None]).astype(np.float32))
    return adata


def made(adata: ad.AnnData, folder: Path) -> tuple[Cohort, Cohort]:
    folder.mkdir(exist_ok=True)
    (folder / "thin").mkdir()
    cohort = builders.cohort(adata, folder)
    return cohort, thinned(cohort, folder / "thin")


def test_no_count_grows_and_each_is_kept_as_often_as_the_others_of_its_nucleus(tmp_path: Path) -> None:
    cohort, thin = made(uneven(), tmp_path)
    before, after = builders.counts(cohort), builders.counts(thin)
    assert (after <= before).all()
    assert (after == np.round(after)).all()
    share = np.minimum(1, common_depth(cohort) / cohort.cells["total"].to_numpy())
    deep = share < 1
    assert (after[~deep] == before[~deep]).all()
    expected = (before * share[:, None])[deep]
    error = (after[deep] - expected).sum(0) / np.sqrt((before * (share * (1 - share))[:, None])[deep].sum(0))
    assert np.abs(error).max() < 4.5
    assert error.std() == pytest.approx(1, abs=0.35)


def test_totals_genes_and_sums_are_those_of_the_thinned_counts(tmp_path: Path) -> None:
    _, thin = made(uneven(), tmp_path)
    counts = builders.counts(thin)
    assert thin.cells["total"].tolist() == counts.sum(1).tolist()
    assert thin.cells["n_genes"].tolist() == (counts > 0).sum(1).tolist()
    assert (thin.matrix.data > 0).all()
    for row, donor in enumerate(thin.donors.index):
        own = counts[(thin.cells["donor"] == donor).to_numpy()]
        assert thin.sums.raw[row] == pytest.approx(own.sum(0))


def test_depth_no_longer_tells_the_classes_apart(tmp_path: Path) -> None:
    cohort, thin = made(uneven(), tmp_path)
    label = builders.labels(cohort, 9)
    auroc = [roc_auc_score(label, one.cells.groupby("donor")["total"].median()) for one in (cohort, thin)]
    assert auroc[0] == 1.0
    assert 0.1 < auroc[1] < 0.9
    assert any("depth is matched" in note for note in thin.notes)


def test_what_is_drawn_for_a_donor_depends_on_its_own_nuclei(tmp_path: Path) -> None:
    """And on the common depth, which the poorest donor sets."""
    adata = uneven()
    _, thin = made(adata, tmp_path / "all")
    cohort = builders.cohort(adata, tmp_path)
    poorest = str(cohort.cells.groupby("donor")["total"].median().idxmin())
    some = adata[adata.obs["Donor ID"].isin([poorest, "D01", "D14"])]
    shuffled = some[np.random.default_rng(0).permutation(len(some))].copy()
    _, alone = made(shuffled, tmp_path / "few")
    rows = thin.rows_of(alone.donors.index)
    assert thin.cells["barcode"].iloc[rows].tolist() == alone.cells["barcode"].tolist()
    assert (builders.counts(thin)[rows] == builders.counts(alone)).all()


def test_the_cache_keeps_both_cohorts_and_an_option_chooses(tmp_path: Path) -> None:
    path = builders.write(uneven(), tmp_path)
    plain, matched = (
        builders.configuration(f"data.path={path}", f"data.match_depth={value}").data
        for value in ("false", "true")
    )
    cache = tmp_path / "cache"
    thin = load_cohort(matched, cache)
    assert len(list(cache.glob("cohort-*"))) == len({*cache.glob("cohort-*")}) >= 2
    whole = load_cohort(plain, cache)
    assert whole.cells["total"].sum() > thin.cells["total"].sum()
    again = load_matched(plain, cache)
    assert (again.matrix.data == thin.matrix.data).all()
    assert "matched" in again.about["depth"]
    assert open_matrix(next(f for f in cache.glob("cohort-*") if f.is_dir())).shape == whole.matrix.shape


def test_values_that_are_no_counts_are_not_thinned(tmp_path: Path) -> None:
    adata = uneven()
    adata.X = adata.X.multiply(1e4 / adata.X.sum(axis=1)).tocsr().log1p()
    path = builders.write(adata, tmp_path)
    config = builders.configuration(f"data.path={path}", "data.match_depth=true").data
    with pytest.raises(UserError, match="needs raw counts"):
        load_cohort(config, tmp_path / "cache")
