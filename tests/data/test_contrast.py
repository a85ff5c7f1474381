"""Labels stand apart from nuclei: another contrast on the same file prepares nothing anew."""

from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest

from oligo_ad.data import cache
from oligo_ad.data.contrast import open_contrast, prepared_cohort
from tests import builders
from tests.builders import answer, assert_says

LEVELS = ["High"] * 5 + ["Low"] * 4 + ["Intermediate"] * 4 + ["Not AD"] * 5


def graded(**obs: list[object]) -> ad.AnnData:
    """Eighteen donors of four levels, and of three ages."""
    adata = builders.atlas(9, 9, **obs)
    donor = adata.obs["Donor ID"].cat.codes.to_numpy()
    adata.obs["ADNC"] = pd.Categorical(np.array(LEVELS)[donor])
    adata.obs["Group"] = pd.Categorical(np.where(donor % 3 == 0, "old", "young"))
    return adata


def test_a_cohort_holds_every_donor_of_the_cell_type_and_no_label(tmp_path: Path) -> None:
    cohort = builders.cohort(graded(), tmp_path)
    assert len(cohort.donors) == 18
    assert len(cohort.cells) == 18 * 12
    assert "label" not in {*cohort.cells, *cohort.donors}


def test_another_contrast_on_the_same_file_prepares_nothing_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = builders.write(graded(), tmp_path)
    first = builders.compared(path)
    monkeypatch.setattr(cache, "build", lambda *_: pytest.fail("it prepares again"))
    graded_up = builders.compared(path, "data.positive=[High,Intermediate]", "data.negative=[Not AD,Low]")
    by_age = builders.compared(path, "data.label_key=Group", "data.positive=old", "data.negative=young")
    assert first.labels.of_donor.value_counts().to_dict() == {1: 5, 0: 5}
    assert graded_up.labels.of_donor.value_counts().to_dict() == {1: 9, 0: 9}
    assert by_age.labels.of_donor.value_counts().to_dict() == {0: 12, 1: 6}
    assert graded_up.excluded.empty
    assert len(list((tmp_path / "cache").glob("cohort-????????????????"))) == 1


def test_a_contrast_sees_its_own_donors_as_if_there_were_no_others(tmp_path: Path) -> None:
    adata = graded()
    kept = adata.obs["ADNC"].isin(["High", "Not AD"]).to_numpy()
    whole = builders.contrast(adata, tmp_path)
    (tmp_path / "alone").mkdir()
    alone = builders.contrast(adata[kept].copy(), tmp_path / "alone")
    np.testing.assert_array_equal(builders.counts(whole.cohort), builders.counts(alone.cohort))
    np.testing.assert_array_equal(whole.cohort.sums.values, alone.cohort.sums.values)
    pd.testing.assert_frame_equal(whole.cohort.cells, alone.cohort.cells)
    pd.testing.assert_frame_equal(whole.cohort.donors, alone.cohort.donors)
    assert whole.folds == alone.folds
    assert whole.excluded.set_index("value")["nuclei"].to_dict() == {"Low": 48, "Intermediate": 48}


def test_a_column_is_of_donors_where_it_does_not_vary_in_the_donors_compared(tmp_path: Path) -> None:
    adata = graded()
    low = (adata.obs["ADNC"] == "Low").to_numpy()
    adata.obs["Batch"] = np.where(low, np.arange(len(adata)), 7)
    adata.obs["Depth"] = np.arange(len(adata))
    path = builders.write(adata, tmp_path)
    donors = builders.compared(path).cohort.donors
    assert donors["obs:Batch"].tolist() == [7] * 10
    assert "obs:Depth" not in donors
    with_low = builders.compared(path, "data.negative=[Not AD,Low]").cohort.donors
    assert "obs:Batch" not in with_low


def test_mistakes_in_labels_are_found_before_a_count_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache, "build", lambda *_: pytest.fail("it prepares"))
    path = builders.write(graded(), tmp_path)
    message = answer(builders.compared, path, "data.positive=Hgih")
    assert_says(message, "data.positive=Hgih", "Did you mean 'High'?", "Low (96 nuclei)")


def test_nuclei_without_a_label_take_that_of_their_donor_and_are_counted(tmp_path: Path) -> None:
    adata = graded()
    adata.obs.loc[adata.obs_names[:3], "ADNC"] = np.nan
    contrast = builders.contrast(adata, tmp_path)
    assert len(contrast.cohort.cells) == 120
    assert contrast.notes == ("3 nuclei of 3 donors have no ADNC of their own and take that of their donor",)


def test_a_file_without_labels_is_prepared(tmp_path: Path) -> None:
    adata = graded()
    del adata.obs["ADNC"]
    assert len(builders.cohort(adata, tmp_path, "data.label_key=null").donors) == 18


def test_donors_that_quality_control_leaves_no_nucleus_of_are_not_compared(tmp_path: Path) -> None:
    adata = graded()
    poor = (adata.obs["Donor ID"] == "D17").to_numpy()
    adata.X.data[np.repeat(poor, np.diff(adata.X.indptr))] = 0
    path = builders.write(adata, tmp_path)
    config = builders.configuration(f"data.path={path}")
    cohort, labels = prepared_cohort(config.data, tmp_path / "cache")
    assert "D17" not in {*cohort.donors.index, *labels.donors}
    last = labels.flow(cohort.steps).set_index("class").tail(3)
    assert last["donors"].to_dict() == {"positive": 5, "negative": 4, "excluded": 0}


def test_permuted_contrasts_differ_and_need_no_other_cohort(tmp_path: Path) -> None:
    config = builders.configuration(f"data.path={builders.write(graded(), tmp_path)}")
    contrast = open_contrast(config.data, config.split, config.metadata, tmp_path / "cache")
    strata = pd.Series("", contrast.labels.of_donor.index)
    drawn = [contrast.permuted(strata, 0, number) for number in range(1, 21)]
    assert len({tuple(one.labels.of_donor) for one in drawn}) > 10
    assert all(one.cohort is contrast.cohort for one in drawn)
    for one in drawn:
        (fold,), label = one.folds, one.labels.of_donor
        for part, donors in contrast.folds[0].parts.items():
            own = fold.parts[part]
            assert sorted(label[list(own)]) == sorted(contrast.labels.of_donor[list(donors)])


def test_what_defines_a_contrast_and_who_is_left_out_is_told_as_the_file_has_it(tmp_path: Path) -> None:
    """Excluded nuclei are counted as they come, whatever quality control would make of them."""
    adata = graded()
    # Too poor to be kept: a third of the nuclei, and all of two donors that are not compared.
    poor = (np.arange(adata.n_obs) % 7 == 0) | np.isin(adata.obs["Donor ID"], ["D06", "D10"])
    adata.X = adata.X.multiply(~poor[:, None]).tocsr()
    found = builders.contrast(adata, tmp_path)
    about = found.about
    assert (about["label column"], about["positive (1)"], about["negative (0)"]) == ("ADNC", "High", "Not AD")
    oligo = adata.obs[adata.obs["Subclass"] == "Oligodendrocyte"]
    expected = oligo.groupby("ADNC", observed=True)["Donor ID"].agg(["nunique", "size"])
    told = found.excluded.set_index("value")[["donors", "nuclei"]]
    assert told.to_dict("index") == {
        level: {"donors": expected["nunique"][level], "nuclei": expected["size"][level]}
        for level in ("Low", "Intermediate")
    }
    assert len(found.cohort.cells) < oligo["ADNC"].isin(["High", "Not AD"]).sum()
