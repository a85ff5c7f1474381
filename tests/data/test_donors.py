"""Who a nucleus is of: ids that mean nobody, two people, or one person twice are noticed and named."""

from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from oligo_ad.data.labels import Labels, read_labels
from oligo_ad.data.people import check_people
from oligo_ad.data.selection import Selection, select
from oligo_ad.errors import UserError
from oligo_ad.storage.atlas import open_atlas
from oligo_ad.tasks.inspect import describe
from tests.builders import answer, assert_says, atlas, cohort, compared, configuration, contrast, write

DONOR, LABEL, CELL_TYPE = "Donor ID", "ADNC", "Subclass"


def changed(column: str, rows: Any, value: object, **obs: list[object]) -> ad.AnnData:
    """An atlas with other text in some rows of a column."""
    adata = atlas(**obs)
    values = adata.obs[column].astype(object)
    values.iloc[rows] = value
    adata.obs[column] = values
    return adata


def of(*names: str) -> np.ndarray:
    return atlas().obs[DONOR].isin(names).to_numpy()


def looked_at(adata: ad.AnnData, folder: Path, *overrides: str) -> tuple[Selection, Labels, str]:
    """What is chosen of an atlas, and what is said of it, before a count is read."""
    config = configuration(*overrides).data
    with open_atlas(write(adata, folder)) as opened:
        chosen = select(opened, config)
        labels = read_labels(opened, config, chosen)
        people = check_people(opened, chosen.donors, chosen.rows)
    return chosen, labels, "\n".join((*chosen.notes, *people, *labels.notes))


def noted(adata: ad.AnnData, folder: Path, *overrides: str) -> str:
    return looked_at(adata, folder, *overrides)[2]


# Labels and cell types


@pytest.mark.parametrize(
    "twin", ["High ", "high", "Ｈigh", "High\u200b", "Hi\u00adgh", "\ufeffHigh", '"High"', b"High"]
)
def test_a_value_spelled_otherwise_is_counted_as_the_one_asked_for(tmp_path: Path, twin: object) -> None:
    twin = twin.decode() if isinstance(twin, bytes) else twin
    _chosen, labels, notes = looked_at(changed(LABEL, of("D00", "D01"), twin), tmp_path)
    assert labels.of_donor.sum() == 9
    if twin != "High":
        assert_says(notes, "(48 nuclei, 2 donors) also counted as 'High'")


def test_a_cell_type_spelled_otherwise_is_counted(tmp_path: Path) -> None:
    adata = atlas()
    rows = (adata.obs[CELL_TYPE] == "Oligodendrocyte").to_numpy() & of("D00")
    chosen, _labels, notes = looked_at(changed(CELL_TYPE, rows, "Oligodendrocyte\u00a0"), tmp_path)
    assert len(chosen.rows) == 180
    assert_says(notes, "(12 nuclei, 1 donors) also counted as 'Oligodendrocyte'")


@pytest.mark.parametrize("alike", ["Not-AD", "Not_AD", "Not\u2013AD", "Not A\u0044".replace("A", "\u0410")])
def test_a_value_that_only_looks_like_one_is_left_out_and_said(tmp_path: Path, alike: str) -> None:
    _chosen, labels, notes = looked_at(changed(LABEL, of("D14"), alike), tmp_path)
    assert (labels.of_donor == 0).sum() == 5
    assert_says(notes, "(24 nuclei, 1 donors) not counted as 'Not AD'")


@pytest.mark.parametrize("word", ["none", "unknown", "Missing", "-"])
def test_a_word_for_unknown_that_is_asked_for_is_a_value(tmp_path: Path, word: str) -> None:
    adata = atlas()
    adata.obs[LABEL] = np.where(adata.obs[LABEL] == "High", "High", word)
    assert (looked_at(adata, tmp_path, f"data.negative='{word}'")[1].of_donor == 0).sum() == 6


@pytest.mark.parametrize(("typed", "stored"), [("True", "TRUE"), ("1", "1.0"), ("1", 1.0), ("True", True)])
def test_flags_and_whole_numbers_are_asked_for_as_they_can_be_typed(
    tmp_path: Path, typed: str, stored: object
) -> None:
    adata = atlas()
    other = "other" if isinstance(stored, str) else type(stored)(0)
    adata.obs[LABEL] = pd.Series(
        [stored if high else other for high in adata.obs[LABEL] == "High"], adata.obs_names
    )
    negative = {"1.0": "0", "True": "False"}.get(str(stored), "other") if other != "other" else "other"
    _, labels, _ = looked_at(adata, tmp_path, f"data.positive={typed}", f"data.negative={negative}")
    assert labels.of_donor.sum() == 9


# Ids


@pytest.mark.parametrize("twin", ["D\u200b00", "Ｄ00", "d00\u00a0", "D00\u00ad"])
def test_ids_in_two_unicode_forms_are_refused(tmp_path: Path, twin: str) -> None:
    message = answer(looked_at, changed(DONOR, [0, 15], twin), tmp_path)
    assert_says(message, "(22 nuclei)", "(2 nuclei)", "Unicode form", "Give each donor one id")


@pytest.mark.parametrize("alike", ["D_00", "D-00", "D0", "\u039400".replace("\u0394", "D") + "."])
def test_ids_that_only_look_alike_are_two_and_said(tmp_path: Path, alike: str) -> None:
    text = noted(changed(DONOR, [0, 15], alike), tmp_path)
    assert_says(text, "'D00' (22 nuclei)", f"'{alike}' (2 nuclei)", "if they are one person")


@pytest.mark.parametrize(
    "word", ["pooled", "Pool 3", "unassigned", "doublet", "AMB", "multiplexed", "mixed donors"]
)
def test_nuclei_of_no_single_person_are_left_out_and_counted(tmp_path: Path, word: str) -> None:
    chosen, _labels, notes = looked_at(changed(DONOR, slice(0, 30), word), tmp_path)
    assert len(chosen.rows) == 165
    assert word not in chosen.donor
    assert_says(notes, f"'{word}' (30 nuclei) names no single person")


def test_ids_rounded_by_their_type_are_refused(tmp_path: Path) -> None:
    adata = atlas()
    adata.obs[DONOR] = (adata.obs[DONOR].cat.codes.astype(int) + (1 << 25)).astype(np.float32)
    assert_says(answer(looked_at, adata, tmp_path), "float32", "16,777,216", "Store the ids as text")


def test_ids_as_fractions_are_said(tmp_path: Path) -> None:
    adata = atlas()
    adata.obs[DONOR] = adata.obs[DONOR].cat.codes + 0.5
    assert_says(noted(adata, tmp_path), "fractions", "20.1 and 20.10")


# Copies


def test_nuclei_that_another_data_set_holds_are_left_out_and_counted(tmp_path: Path) -> None:
    adata = atlas()
    adata.obs["is_primary_data"] = [None if i < 15 else i >= 45 for i in range(adata.n_obs)]
    adata.obs["is_primary_data"] = adata.obs["is_primary_data"].astype("boolean")
    made = contrast(adata, tmp_path)
    assert len(made.cohort.cells) == 150
    assert_says("\n".join(made.notes), "45 nuclei of 15 donors were left out because is_primary_data")
    assert "primary data" in set(made.flow["step"])


def test_a_file_without_primary_data_is_used_whole(tmp_path: Path) -> None:
    adata = atlas()
    adata.obs["is_primary_data"] = "False"
    made = contrast(adata, tmp_path)
    assert len(made.cohort.cells) == 180
    assert_says("\n".join(made.notes), "false for every nucleus", "all of it is used")


def test_a_mark_of_primary_data_that_is_no_flag_is_refused(tmp_path: Path) -> None:
    adata = atlas()
    adata.obs["is_primary_data"] = "perhaps"
    assert_says(answer(looked_at, adata, tmp_path), "'is_primary_data' holds 'perhaps'")


def test_the_same_nucleus_under_two_donors_is_named(tmp_path: Path) -> None:
    adata = atlas(genes=200)
    first, second = (np.flatnonzero(of(name)) for name in ("D00", "D01"))
    rows = np.arange(adata.n_obs)
    rows[second[:5]] = first[:5]
    copied = ad.AnnData(sp.csr_matrix(adata.X[rows]), obs=adata.obs, var=adata.var)
    copied.obs_names = [f"n{i}" for i in rows]
    text = "\n".join(contrast(copied, tmp_path).notes)
    assert_says(text, "6 nuclei have exactly the counts of a nucleus of another donor (D00, D01)")
    assert_says(text, "3 barcodes are found in more than one donor, 6 of their nuclei with the same counts")
    assert not contrast(adata, tmp_path).notes


# People


def test_a_fact_that_varies_within_a_donor_is_said_with_donors_and_values(tmp_path: Path) -> None:
    adata = atlas()
    rows = np.flatnonzero(of("D03"))[:4]
    adata.obs["Age at Death"] = np.where(np.isin(np.arange(adata.n_obs), rows), 55, adata.obs["Age at Death"])
    assert_says(noted(adata, tmp_path), "Age at Death varies within 1 donors: D03 (55, 76)")


@pytest.mark.parametrize("own", [False, True])
def test_ids_of_other_people_in_another_data_set_are_refused(tmp_path: Path, own: bool) -> None:
    adata = atlas()
    late = np.arange(adata.n_obs) >= adata.n_obs // 2
    adata.obs["dataset_id"] = np.where(late, "two", "one")
    assert_says(noted(adata, tmp_path), "15 donors are in more than one dataset_id")
    adata.obs["Sex"] = np.where(late, adata.obs["Sex"].map({"Male": "F", "Female": "M"}), adata.obs["Sex"])
    if own:
        adata.obs["person"] = adata.obs["dataset_id"].astype(str) + adata.obs[DONOR].astype(str)
    message = answer(looked_at, adata, tmp_path)
    assert_says(message, "Sex varies within 15 donors: D00 (F", "Within each dataset_id it does not")
    assert_says(message, "data.donor_key='person'" if own else "joins dataset_id and Donor ID")
    if own:
        assert len(compared(write(adata, tmp_path), "data.donor_key=person").labels.of_donor) == 30


def test_a_donor_with_two_labels_is_explained_by_data_sets(tmp_path: Path) -> None:
    adata = atlas()
    late = np.arange(adata.n_obs) >= adata.n_obs // 2
    adata.obs["study"] = np.where(late, "two", "one")
    adata.obs[LABEL] = np.where(late & of("D00"), "Not AD", adata.obs[LABEL])
    message = answer(looked_at, adata, tmp_path)
    assert_says(
        message, "donor D00 has two labels", "Within each study it does not", "joins study and Donor ID"
    )


# What inspect shows


@pytest.mark.parametrize("twin", ["D00 ", "pooled", "High"])
def test_inspect_says_what_a_run_says(tmp_path: Path, twin: str) -> None:
    adata = changed(DONOR, [0, 30], twin)
    adata.obs["PMI"] = np.where(of("D02"), "x", "4 h")
    path = write(adata, tmp_path)
    words = ("metadata=on", "metadata.columns=[age,pmi]")
    shown = describe(configuration(f"data.path={path}", *words))
    try:
        notes = compared(path, *words).notes
    except UserError as error:
        refusal = str(error)
    else:
        refusal = "note: "
        assert [note for note in notes if f"note: {note}" not in shown] == []
        assert shown.count("note: ") == len(notes)
    assert refusal in shown


def test_nothing_of_a_usual_cohort_is_worth_a_note(tmp_path: Path) -> None:
    assert cohort(atlas(), tmp_path).notes == ()
