"""What a file may hold that a run cannot use, or must use with care, is told with names and numbers."""

from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pytest
import torch

from oligo_ad import tasks
from oligo_ad.data.covariates import Covariates
from oligo_ad.errors import UserError
from oligo_ad.inputs.featurizers import StandardisedPanel
from oligo_ad.training import fold_model
from tests.builders import answer, assert_says, atlas, cohort, configuration, contrast, write

DONOR, LABEL, CELL_TYPE = "Donor ID", "ADNC", "Subclass"


def relabelled(column: str, rows: Any, value: object) -> ad.AnnData:
    """An atlas with another value in some rows of a column."""
    adata = atlas()
    values = adata.obs[column].astype(object)
    values.iloc[rows] = value
    adata.obs[column] = values.astype("category")
    return adata


def of_donors(adata: ad.AnnData, *names: str) -> np.ndarray:
    return adata.obs[DONOR].isin(names).to_numpy()


# Columns and their values


@pytest.mark.parametrize(
    ("column", "field"), [(DONOR, "donor_key"), (LABEL, "label_key"), (CELL_TYPE, "cell_type_key")]
)
def test_a_missing_column_is_answered_with_the_nearest_name(tmp_path: Path, column: str, field: str) -> None:
    adata = atlas()
    adata.obs = adata.obs.rename(columns={column: f"{column}s"})
    message = answer(contrast, adata, tmp_path)
    assert_says(message, "atlas.h5ad", f"'{column}'", f"data.{field}", f"Did you mean '{column}s'?", "Sex")


def test_a_column_that_was_not_named_is_asked_for(tmp_path: Path) -> None:
    message = answer(contrast, atlas(), tmp_path, "data=anndata")
    assert_says(message, "data.donor_key is not set", "data.donor_key='Donor ID'", "ADNC, Subclass")


@pytest.mark.parametrize(
    ("override", "nearest", "values"),
    [
        ("data.positive=Hihg", "High", "Values of ADNC: High (216 nuclei), Not AD (144 nuclei)"),
        ("data.negative=not ad", "Not AD", "Values of ADNC: High (216 nuclei), Not AD (144 nuclei)"),
        ("data.positive=[High,NotAD]", "Not AD", "Values of ADNC: High (216 nuclei)"),
        ("data.cell_types=Oligodendrocytes", "Oligodendrocyte", "Astrocyte (180 nuclei)"),
        ("data.cell_types=[Oligodendrocyte,Astrocite]", "Astrocyte", "Astrocyte (180 nuclei)"),
    ],
)
def test_a_misspelt_value_is_answered_with_the_values_and_their_counts(
    tmp_path: Path, override: str, nearest: str, values: str
) -> None:
    message = answer(contrast, atlas(), tmp_path, override)
    field = override.partition("=")[0]
    assert_says(message, field, "no nucleus has this", f"Did you mean '{nearest}'?", values)


def test_a_value_of_both_classes_is_refused(tmp_path: Path) -> None:
    message = answer(contrast, atlas(), tmp_path, "data.positive=[High,Not AD]")
    assert_says(message, "'Not AD'", "data.positive", "data.negative")


def test_a_level_without_nuclei_is_no_value(tmp_path: Path) -> None:
    adata = atlas()
    for column in (DONOR, LABEL, CELL_TYPE):
        adata.obs[column] = adata.obs[column].cat.add_categories(["Ghost", "d00"])
    made = contrast(adata, tmp_path)
    assert (len(made.cohort.donors), len(made.cohort.cells), len(made.excluded)) == (15, 180, 0)
    for field in ("data.cell_types", "data.positive"):
        message = answer(contrast, adata, tmp_path, f"{field}=Ghost")
        assert_says(message, f"{field}=Ghost", "no nucleus has this")


@pytest.mark.parametrize(("positive", "negative"), [(1, 0), (True, False)], ids=["numbers", "booleans"])
def test_classes_may_be_numbers_or_booleans(tmp_path: Path, positive: object, negative: object) -> None:
    adata = atlas()
    adata.obs[LABEL] = np.where(adata.obs[LABEL] == "High", positive, negative)
    made = contrast(adata, tmp_path, f"data.positive={positive}", f"data.negative={negative}")
    assert made.labels.of_donor.value_counts().to_dict() == {1: 9, 0: 6}


# Classes


def test_a_file_of_one_class_is_refused(tmp_path: Path) -> None:
    adata = atlas()
    message = answer(contrast, adata[adata.obs[LABEL] == "High"].copy(), tmp_path)
    assert_says(message, "data.negative=Not AD", "no nucleus has this ADNC", "High (216 nuclei)")


def test_a_cell_type_of_one_class_is_refused(tmp_path: Path) -> None:
    adata = atlas()
    kept = (adata.obs[LABEL] == "High") | (adata.obs[CELL_TYPE] == "Astrocyte")
    message = answer(contrast, adata[kept].copy(), tmp_path)
    assert_says(message, "cell type Oligodendrocyte", "ADNC = Not AD", "data.negative", "both classes")


def test_a_class_lost_in_quality_control_is_named(tmp_path: Path) -> None:
    adata = atlas()
    adata.X.data[np.repeat(adata.obs[LABEL] == "Not AD", np.diff(adata.X.indptr))] = 0
    message = answer(contrast, adata, tmp_path)
    assert_says(message, "quality control", "data.min_genes=1", "data.min_nuclei=2", "Lower", "Not AD")


def test_the_loss_of_both_classes_in_quality_control_is_told_as_such(tmp_path: Path) -> None:
    message = answer(contrast, atlas(), tmp_path, "data.min_nuclei=500")
    assert_says(message, "quality control", "data.min_nuclei=500", "Lower")
    assert "of the other" not in message


# Donors


def test_a_donor_with_two_labels_is_named(tmp_path: Path) -> None:
    message = answer(contrast, relabelled(LABEL, [0], "Not AD"), tmp_path)
    assert_says(message, "donor D00", "two labels in ADNC", "Not AD", "High")


@pytest.mark.parametrize("missing", [None, "unknown", " "])
def test_nuclei_without_a_donor_are_left_out_and_counted(tmp_path: Path, missing: str | None) -> None:
    made = cohort(relabelled(DONOR, slice(7), missing), tmp_path)
    assert made.notes == ("7 nuclei without a donor id were left out",)
    assert (len(made.donors), len(made.cells)) == (15, 173)


def test_a_file_without_any_donor_id_is_answered_with_the_column(tmp_path: Path) -> None:
    message = answer(contrast, relabelled(DONOR, slice(None), "unknown"), tmp_path)
    assert_says(message, "Donor ID", "data.donor_key")


@pytest.mark.parametrize("missing", [0, 3])
def test_donor_ids_may_be_numbers(tmp_path: Path, missing: int) -> None:
    """Missing ids turn a column of whole numbers into one of floats."""
    adata = atlas()
    adata.obs[DONOR] = adata.obs[DONOR].cat.codes.astype(int) + 100
    if missing:
        adata.obs[DONOR] = adata.obs[DONOR].where(np.arange(adata.n_obs) >= missing)
    assert list(cohort(adata, tmp_path).donors.index) == [str(100 + i) for i in range(15)]


@pytest.mark.parametrize("twin", ["D00 ", " D00", "D 00", "d00"])
def test_donor_ids_that_differ_by_blanks_or_case_are_refused(tmp_path: Path, twin: str) -> None:
    message = answer(contrast, relabelled(DONOR, [0], twin), tmp_path)
    assert_says(message, f"'{twin}'", "'D00'", "blanks or case", "Give each donor one id")


def test_reference_donors_are_excluded_and_counted(tmp_path: Path) -> None:
    made = contrast(relabelled(LABEL, of_donors(atlas(), "D00", "D14"), "Reference"), tmp_path)
    assert not {"D00", "D14"} & set(made.cohort.donors.index)
    assert made.excluded.to_dict("records") == [{"value": "Reference", "donors": 2, "nuclei": 24}]


# Nuclei, genes and values


def test_donors_of_one_nucleus_each_reach_the_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def begin(*_: object) -> None:
        raise UserError("the training begins")

    monkeypatch.setattr(fold_model, "fit_members", begin)
    path = write(atlas(nuclei=2), tmp_path)
    config = configuration(f"data.path={path}", f"cache.dir={tmp_path / 'cache'}", "data.min_nuclei=1")
    assert answer(tasks.run, config, tmp_path / "run") == "the training begins"


def test_nuclei_and_genes_may_share_names(tmp_path: Path) -> None:
    adata = atlas()
    adata.obs_names = ["nucleus"] * adata.n_obs
    adata.var_names = ["GENE0"] * 3 + list(adata.var_names[3:])
    made = cohort(adata, tmp_path)
    assert made.matrix.shape == (180, 60)
    assert made.genes["name"].is_unique


def test_empty_nuclei_are_dropped_and_counted(tmp_path: Path) -> None:
    adata = atlas()
    adata.X.data[: adata.X.indptr[30]] = 0  # two nuclei of each donor; one is an oligodendrocyte
    made = contrast(adata, tmp_path, "data.min_genes=0")
    nuclei = made.flow.query("step.str.startswith('quality')")["nuclei"].sum()
    assert nuclei == len(made.cohort.cells) == 165
    assert (made.cohort.cells["total"] > 0).all()


def test_genes_that_do_not_vary_give_no_nan(tmp_path: Path) -> None:
    adata = atlas()
    adata.X.data[np.isin(adata.X.indices, [0, 1])] = 0
    adata.var["highly_variable"] = True
    made = cohort(adata, tmp_path)
    featurizer = StandardisedPanel(genes="provided").fit(made, tuple(made.donors.index))
    _, values, _ = featurizer.pack(featurizer.tokens(made), torch.arange(len(made.cells)), 60, 0)
    assert values.shape == (180, 60)
    assert torch.isfinite(values).all()


@pytest.mark.parametrize(
    ("logarithms", "wanted", "words"),
    [
        (1, "X", ["data.counts=X", "does not hold raw counts", "data.counts=none"]),
        (0, "none", ["data.counts=none", "raw counts", "data.counts=auto"]),
        (2, "auto", ["log-transformed twice", "no raw counts"]),
    ],
    ids=["log values for counts", "counts for log values", "log1p twice"],
)
def test_values_of_the_wrong_kind_are_refused(
    tmp_path: Path, logarithms: int, wanted: str, words: list[str]
) -> None:
    adata = atlas()
    if logarithms:
        adata.X = adata.X.multiply(1e4 / adata.X.sum(axis=1)).tocsr()
    for _ in range(logarithms):
        adata.X = adata.X.log1p()
    assert_says(answer(contrast, adata, tmp_path, f"data.counts={wanted}"), *words)


# Metadata


def covariates(folder: Path, columns: str, **obs: list[object]) -> Covariates:
    return contrast(atlas(**obs), folder, "metadata=on", f"metadata.columns={columns}").covariates


@pytest.mark.parametrize(("inexact", "read"), [("90+", 90.0), ("78 to 89 years old", 83.5)])
def test_open_and_binned_ages_are_read_and_counted(tmp_path: Path, inexact: str, read: float) -> None:
    ages = [inexact if i % 5 == 0 else str(70 + i) for i in range(15)]
    made = covariates(tmp_path, "[age]", **{"Age at Death": ages})
    assert made.values.loc["D00", "age"] == read
    assert "metadata 'age': 3 donors have an open or binned value" in made.notes[0]


def test_unknown_apoe_stays_unknown_and_is_counted(tmp_path: Path) -> None:
    made = covariates(tmp_path, "[apoe4]", **{"APOE Genotype": ["3/4", "3/3", None, "unknown", "2/3"] * 3})
    assert made.values["apoe4"].isna().sum() == 6
    assert "metadata 'apoe4': unknown for 6 donors" in made.notes


def test_a_column_that_gives_the_label_away_is_refused(tmp_path: Path) -> None:
    message = answer(covariates, tmp_path, "[age,ADNC]")
    assert_says(message, "'ADNC' is refused", "it is the label", "Remove it", "allow_label_derived=true")


def test_a_misspelt_metadata_column_is_answered_with_the_nearest(tmp_path: Path) -> None:
    message = answer(covariates, tmp_path, "[Age at Deth]")
    assert_says(message, "metadata.columns", "'Age at Deth'", "Did you mean 'Age at Death'?", "Sex")
