"""What obs says of nuclei, by donor: means of numbers and counts of kinds, whatever the order of the file."""

from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest

from oligo_ad.data.cohort import Cohort
from tests import builders


def described(seed: int = 0) -> ad.AnnData:
    """An atlas whose obs describes nuclei in several types."""
    adata, rng = builders.atlas(4, 3, nuclei=40, seed=seed), np.random.default_rng(seed)
    n = adata.n_obs
    adata.obs["doublet_score"] = rng.lognormal(size=n)
    adata.obs["percent mito"] = rng.uniform(size=n).astype(np.float32)
    adata.obs.loc[adata.obs_names[rng.random(n) < 0.3], "percent mito"] = np.nan
    adata.obs["reads"] = rng.integers(500, 90_000, n)
    adata.obs["Supertype"] = pd.Categorical(rng.choice(["Oligo_1", "Oligo_2", "OPC"], n))
    adata.obs["cluster"] = rng.integers(0, 4, n)
    adata.obs["flagged"] = rng.random(n) < 0.4
    adata.obs["well"] = [f"well {i}" for i in range(n)]
    adata.obs["RIN"] = adata.obs.groupby("Donor ID", observed=True)["reads"].transform("min") / 1e4
    return adata


def kept(adata: ad.AnnData) -> pd.DataFrame:
    """Obs of the nuclei that a cohort keeps."""
    return adata.obs[adata.obs["Subclass"] == "Oligodendrocyte"]


@pytest.mark.parametrize("name", ["doublet_score", "percent mito", "reads", "cluster"])
def test_numbers_of_nuclei_have_their_mean_over_the_known_ones(name: str, tmp_path: Path) -> None:
    adata = described()
    means = builders.cohort(adata, tmp_path).donors[f"mean:{name}"]
    expected = kept(adata).groupby("Donor ID", observed=True)[name].mean()
    assert means.to_dict() == pytest.approx(expected.to_dict(), rel=1e-6)


def test_a_donor_of_whom_no_number_is_known_has_no_mean(tmp_path: Path) -> None:
    adata = described()
    adata.obs.loc[adata.obs["Donor ID"] == "D02", "percent mito"] = np.nan
    adata.obs.loc[adata.obs["Donor ID"] == "D03", "percent mito"] = np.inf
    means = builders.cohort(adata, tmp_path).donors["mean:percent mito"]
    assert set(means.index[means.isna()]) == {"D02", "D03"}


@pytest.mark.parametrize("name", ["Supertype", "cluster", "flagged"])
def test_nuclei_are_counted_by_their_kind(name: str, tmp_path: Path) -> None:
    adata = described()
    counted = builders.cohort(adata, tmp_path).nuclei_by(name)
    own = kept(adata)
    expected = pd.crosstab(own["Donor ID"].astype(str), own[name].astype(str))
    assert counted.to_dict() == expected.to_dict()


def test_columns_of_donors_and_of_single_nuclei_are_counted_by_no_kind(tmp_path: Path) -> None:
    cohort = builders.cohort(described(), tmp_path)
    for name in ("RIN", "Sex", "well", "reads", "no such column"):
        assert cohort.nuclei_by(name).shape == (7, 0)
    assert "obs:RIN" in cohort.donors
    assert not {"mean:RIN", "mean:Supertype", "mean:flagged", "mean:well"} & set(cohort.donors)


def test_a_number_that_varies_within_one_donor_is_both_of_donors_and_of_nuclei(tmp_path: Path) -> None:
    adata = described()
    first = kept(adata).index[kept(adata)["Donor ID"] == "D01"][0]
    adata.obs.loc[first, "RIN"] += 1
    cohort = builders.cohort(adata, tmp_path)
    assert cohort.varying["RIN"] == ["D01"]
    others = cohort.of(set(cohort.donors.index) - {"D01"}).donors
    assert others["mean:RIN"].to_numpy() == pytest.approx(others["obs:RIN"].to_numpy(float))
    assert "obs:RIN" not in cohort.of(cohort.donors.index).donors


def test_a_column_means_the_same_stored_as_numbers_or_as_text(tmp_path: Path) -> None:
    adata = described()
    plain = builders.cohort(adata, tmp_path)
    for name in ("doublet_score", "cluster", "percent mito"):
        adata.obs[name] = adata.obs[name].astype(object).map(str)
    some = adata.obs_names[(adata.obs["Supertype"] == "OPC") & (np.arange(adata.n_obs) % 3 == 0)]
    adata.obs["Supertype"] = adata.obs["Supertype"].astype(object)
    adata.obs.loc[some, "Supertype"] = " opc"
    text = builders.cohort(adata, tmp_path)
    pd.testing.assert_frame_equal(plain.donors.filter(like="mean:"), text.donors.filter(like="mean:"))
    assert plain.nuclei_by("cluster").equals(text.nuclei_by("cluster"))
    assert plain.nuclei_by("Supertype").equals(text.nuclei_by("Supertype"))


def same(one: Cohort, other: Cohort) -> None:
    pd.testing.assert_frame_equal(one.donors, other.donors, check_exact=True)
    pd.testing.assert_frame_equal(one.kinds, other.kinds, check_exact=True)


def test_the_order_of_nuclei_in_the_file_changes_no_bit(tmp_path: Path) -> None:
    adata = described()
    first = builders.cohort(adata, tmp_path)
    for seed in range(4):
        shuffled = adata[np.random.default_rng(seed).permutation(adata.n_obs)].copy()
        same(first, builders.cohort(shuffled, tmp_path))


def test_only_nuclei_that_pass_quality_control_count(tmp_path: Path) -> None:
    adata = described()
    genes = np.asarray((adata.X > 0).sum(axis=1)).ravel()
    least = int(np.median(genes))
    rich = adata[genes >= least].copy()
    strict = builders.cohort(adata, tmp_path, f"data.min_genes={least}")
    same(strict, builders.cohort(rich, tmp_path))
    assert strict.nuclei_by("Supertype").sum(axis=1).equals(strict.donors["nuclei"].rename(None))
