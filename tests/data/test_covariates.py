"""Donor columns as numbers: what is unknown stays unknown, and what is the label is refused."""

from typing import Any

import numpy as np
import pandas as pd
import pytest

from oligo_ad.config import MetadataConfig
from oligo_ad.data.covariates import Covariates, encode, fit_coding, read_covariates
from oligo_ad.errors import UserError

N_POSITIVE, N_NEGATIVE = 8, 4
LABEL = pd.Series([1] * N_POSITIVE + [0] * N_NEGATIVE, [f"D{i:02d}" for i in range(N_POSITIVE + N_NEGATIVE)])
MIXED = ["a", "b", "c"] * 4  # tells nothing of the label


def table(**columns: Any) -> pd.DataFrame:
    """A donor table as a cohort has it, of eight positive and four negative donors."""
    given = {f"obs:{name}": pd.Series(values).set_axis(LABEL.index) for name, values in columns.items()}
    return pd.DataFrame(given, index=LABEL.index)


def read(donors: pd.DataFrame, *names: str, allow: bool = False) -> Covariates:
    return read_covariates(donors, LABEL, MetadataConfig(columns=names, fusion={}, allow_label_derived=allow))


@pytest.mark.parametrize(
    ("given", "number", "exact"),
    [
        (81, 81, True),
        (81.5, 81.5, True),
        ("81", 81, True),
        ("90+", 90, False),
        ("90+ years old", 90, False),
        ("78 to 89 years old", 83.5, False),
        ("Less than 65 years old", 65, False),
        ("78-year-old stage", 78, True),
        ("65-79 year-old stage", 72, False),
        ("80 year-old and over stage", 80, False),
    ],
)
def test_an_age_is_read_from_any_wording(given: object, number: float, exact: bool) -> None:
    ages = [70 + 3 * i % 11 for i in range(11)] + [given]
    found = read(table(**{"Age at Death": pd.Series(ages, dtype=object)}), "age")
    assert found.values["age"].tolist() == [*ages[:-1], number]
    assert any("1 donors have an open or binned value" in note for note in found.notes) is not exact


@pytest.mark.parametrize("name", ["Age at Death", "Age at death", "age_at_death", "development_stage"])
def test_the_age_column_is_known_under_the_name_of_each_release(name: str) -> None:
    assert read(table(**{name: [70 + i % 5 for i in range(12)]}), "age").values["age"].notna().all()


@pytest.mark.parametrize(
    ("genotype", "e4", "e2"),
    [
        ("3/4", 1, 0),
        ("E3/E4", 1, 0),
        ("e2/e4", 1, 1),
        ("4/4", 2, 0),
        ("2/2", 0, 2),
        ("3/3", 0, 0),
        ("34", 1, 0),
        (None, np.nan, np.nan),
        ("unknown", np.nan, np.nan),
        ("4", np.nan, np.nan),
    ],
)
def test_apoe_alleles_are_counted(genotype: str | None, e4: float, e2: float) -> None:
    found = read(table(**{"APOE Genotype": ["3/3", "3/4"] * 5 + ["2/3", genotype]}), "apoe4", "apoe2")
    assert found.values.columns.tolist() == ["apoe4", "apoe2"]
    np.testing.assert_array_equal(found.values.iloc[-1], [e4, e2])


@pytest.mark.parametrize("unknown", [None, np.nan, "", " Unknown ", "NA", "N/A", "missing", "none"])
def test_what_is_unknown_becomes_the_mean_beside_an_indicator(unknown: object) -> None:
    donors = table(
        Sex=pd.Series([unknown] + ["Male", "Female", "Male"] * 3 + ["Male", unknown], dtype=object)
    )
    found = read(donors, "sex")
    assert found.values.columns.tolist() == ["sex=Female", "sex=Male"]
    assert found.values["sex=Male"].isna().tolist() == [True] + [False] * 10 + [True]
    assert any("unknown for 2 donors" in note for note in found.notes)
    ready = fit_coding(found.values, tuple(donors.index)).apply(found.values)
    assert ready.columns.tolist() == ["sex=Female", "sex=Male", "sex=Female unknown", "sex=Male unknown"]
    assert ready.loc[["D00", "D11"], "sex=Male"].tolist() == [0, 0]
    assert ready["sex=Male unknown"].tolist() == [1] + [0] * 10 + [1]
    assert not ready.isna().any(axis=None)


def test_the_coding_is_fitted_on_training_donors_alone() -> None:
    values = read(table(PMI=[5.0 * i % 12 for i in range(12)], Sex=MIXED), "pmi", "sex").values
    train = ("D01", "D04", "D06", "D10")
    changed = values.copy()
    changed.loc[~changed.index.isin(train)] = [1e6, np.nan, -3.0, 8.0]
    fitted = fit_coding(values, train)
    pd.testing.assert_frame_equal(fitted.apply(values), fit_coding(changed, train).apply(values))
    known = fitted.apply(values).loc[list(train), "pmi"]
    assert known.mean() == pytest.approx(0, abs=1e-6)
    assert known.std(ddof=0) == pytest.approx(1, abs=1e-6)


def test_a_category_that_only_a_test_donor_has_leaves_no_trace() -> None:
    usual, odd = MIXED, [*MIXED[:-1], "zebra"]
    ready = []
    for levels in (usual, odd):
        values = read(table(Method=levels), "Method").values
        ready.append(fit_coding(values, tuple(values.index[:-1])).apply(values).iloc[:-1])
    pd.testing.assert_frame_equal(*ready)


def test_a_level_that_no_donor_of_another_file_has_is_zero_and_an_absent_column_is_unknown() -> None:
    here = read(table(Sex=["Male", "Female"] * 6, PMI=[5.0 * i % 12 for i in range(12)]), "sex", "pmi").values
    coding = fit_coding(here, tuple(here.index))
    there = encode(table(Sex=["Male", "unknown", *["Male"] * 10]), ("sex", "pmi"))
    ready, male = coding.apply(there), coding.apply(here).loc["D00"]
    assert ready.loc["D00", ["sex=Female", "sex=Male"]].tolist() == male[["sex=Female", "sex=Male"]].tolist()
    assert ready.loc["D01"].tolist() == [0, 0, 0]
    assert ready["pmi"].tolist() == [0] * 12


def test_a_column_constant_or_unknown_in_training_is_left_out() -> None:
    values = pd.DataFrame({"pmi": [np.nan, np.nan, 5.0], "age": [80.0, 80.0, 90.0]}, index=["a", "b", "c"])
    assert fit_coding(values, ("a", "b")).apply(values).shape == (3, 0)


DREAM = [
    "ADNC",
    "Braak",
    "CERAD",
    "Cognitive Status",
    "Highest Lewy Body Disease",
    "LATE",
    "Thal",
    *(f"percent {stain} positive area" for stain in ("6e10", "AT8", "GFAP", "NeuN", "aSyn", "pTDP43")),
]
ALLEN = [
    "Overall AD neuropathological Change",
    "Braak",
    "CERAD score",
    "Thal",
    "Cognitive Status",
    "Continuous Pseudo-progression Score",
    "Highest Lewy Body Disease",
    "LATE",
    "Neurotypical reference",
    "Severely Affected Donor",
    "Last MMSE Score",
    "Last CASI Score",
    "Overall CAA Score",
]
CELLXGENE = [
    "ADNC",
    "Braak stage",
    "CERAD score",
    "Thal phase",
    "Cognitive status",
    "Continuous Pseudo-progression Score",
    "Lewy body disease pathology",
    "LATE-NC stage",
    "Neurotypical reference",
    "disease",
    "disease_ontology_term_id",
]


@pytest.mark.parametrize("name", sorted({*DREAM, *ALLEN, *CELLXGENE}))
def test_a_column_that_follows_from_the_label_is_refused_by_name(name: str) -> None:
    with pytest.raises(UserError, match=f"'{name}' is refused"):
        read(table(**{name: MIXED}), name)


def test_names_are_refused_in_any_case() -> None:
    with pytest.raises(UserError, match="is refused"):
        read(table(braak_stage=MIXED), "braak_stage")


@pytest.mark.parametrize(
    "name",
    [
        "PMI",
        "Years of education",
        "Method",
        "Hispanic/Latino",
        "Race (choice=White)",
        "library_prep",
        "APOE4 Status",
        "self_reported_ethnicity",
        "tissue",
        "assay",
        "RIN",
    ],
)
def test_a_column_that_tells_nothing_of_the_label_is_taken(name: str) -> None:
    found = read(table(**{name: MIXED}), name)
    assert found.values.columns.tolist() == [f"{name}=a", f"{name}=b", f"{name}=c"]
    assert found.label_derived == ()


def test_the_override_takes_a_refused_column_and_reports_it() -> None:
    donors = table(Braak=MIXED, PMI=[5 * i % 12 for i in range(12)])
    found = read(donors, "Braak", "pmi", allow=True)
    assert found.label_derived == ("Braak",)
    assert found.values.columns.tolist() == ["Braak=a", "Braak=b", "Braak=c", "pmi"]


SEPARATING = {
    "two levels": ["yes"] * 8 + ["no"] * 4,
    "three levels": ["mild"] * 4 + ["severe"] * 4 + ["no"] * 4,
    "numbers": [*range(20, 28), *range(10, 14)],
    "numbers, lower in cases": [*range(10, 18), *range(20, 24)],
    "numbers, some unknown": [np.nan, *range(21, 28), *range(10, 13), np.nan],
    "numbers held as objects": pd.Series([*range(20, 28), *range(10, 14)], dtype=object),
    "truth values": [True] * 8 + [False] * 4,
}


@pytest.mark.parametrize("kind", SEPARATING)
def test_a_column_that_separates_the_classes_is_refused_whatever_its_name(kind: str) -> None:
    with pytest.raises(UserError, match=r"'batch' is refused.*(one class only|completely)"):
        read(table(batch=SEPARATING[kind]), "batch")
    assert read(table(batch=SEPARATING[kind]), "batch", allow=True).label_derived == ("batch",)


def test_an_age_in_words_that_separates_the_classes_is_refused() -> None:
    ages = [f"{age} years old" for age in (*range(80, 87), "90+", *range(60, 64))]
    with pytest.raises(UserError, match="'Age at Death' is refused"):
        read(table(**{"Age at Death": ages}), "age")


def test_a_column_known_in_one_class_only_is_refused() -> None:
    with pytest.raises(UserError, match="'RIN' is refused"):
        read(table(RIN=[7.0, 8.0, 7.5, 8.5] * 2 + [np.nan] * 4), "RIN")


def test_a_column_that_almost_separates_the_classes_is_taken() -> None:
    assert read(table(batch=[*range(20, 27), 12, *range(10, 14)]), "batch").label_derived == ()
    assert read(table(batch=["yes"] * 7 + ["no"] * 5), "batch").label_derived == ()


def test_rows_that_only_one_donor_has_are_counted_in_a_warning() -> None:
    found = read(table(Sex=["Male", "Female"] * 6, PMI=[1, 2] * 5 + [3, 4]), "sex", "pmi")
    assert any("the row of 2 of 12 donors is unique" in note for note in found.notes)
    assert not any("unique" in note for note in read(table(Sex=["Male", "Female"] * 6), "sex").notes)


def test_a_named_column_that_is_missing_is_told_with_the_nearest_name() -> None:
    donors = table(**{"Years of education": range(12), "PMI": range(12)})
    with pytest.raises(UserError, match="no donor-level obs column 'years of educaton'") as caught:
        read(donors, "years of educaton")
    assert "Did you mean 'Years of education'?" in str(caught.value)
    assert "There are Years of education, PMI." in str(caught.value)


def test_a_usual_covariate_that_the_file_lacks_is_left_out_with_a_note() -> None:
    found = read(table(Sex=["Male", "Female"] * 6), "age", "sex", "apoe4")
    assert found.values.columns.tolist() == ["sex=Female", "sex=Male"]
    assert [note for note in found.notes if "left out" in note] == [
        f"metadata '{name}': the file has no such column, so it is left out" for name in ("age", "apoe4")
    ]


def test_metadata_with_none_of_its_columns_is_refused() -> None:
    with pytest.raises(UserError, match="Use metadata=off"):
        read(table(), "age", "sex")


def test_without_columns_there_is_nothing_to_read() -> None:
    assert read(table(Sex=MIXED)).values.shape == (12, 0)


# Numbers, flags and levels as they are stored


@pytest.mark.parametrize(
    "values", [[(i - 5.5) / 4 for i in range(12)], [1e-5 * (1 + i * 7 % 12) for i in range(12)]]
)
@pytest.mark.parametrize("stored", [float, str, "category"])
def test_numbers_keep_their_sign_and_exponent(values: list[float], stored: Any) -> None:
    mixed = [values[i * 5 % 12] for i in range(12)]
    found = read(
        table(score=pd.Series([repr(v) for v in mixed] if stored is str else mixed).astype(stored)), "score"
    )
    assert found.values["score"].tolist() == mixed
    assert found.values.columns.tolist() == ["score"]


@pytest.mark.parametrize("stored", [bool, str, "boolean", "category"])
def test_a_flag_is_one_indicator_however_it_is_stored(stored: Any) -> None:
    found = read(table(flag=pd.Series([True, False, False] * 4).astype(stored)), "flag")
    assert found.values["flag"].tolist() == [1.0, 0.0, 0.0] * 4


def test_levels_spelled_in_two_ways_are_one_and_said() -> None:
    found = read(table(Sex=["Male", "Female", "Male", "male "] * 3), "sex")
    assert found.values.columns.tolist() == ["sex=Female", "sex=Male"]
    assert "metadata 'sex': 'male ' (3 donors) also counted as 'Male'" in found.notes


def test_a_level_of_another_file_is_found_in_its_own_spelling() -> None:
    coding = fit_coding(read(table(Sex=["Male", "Female", "Male"] * 4), "sex").values, tuple(LABEL.index))
    there = encode(table(Sex=["MALE", "female "] * 6), ("sex",))
    here = encode(table(Sex=["Male", "Female"] * 6), ("sex",))
    pd.testing.assert_frame_equal(coding.apply(there), coding.apply(here))


def test_a_word_among_numbers_is_unknown_and_said() -> None:
    values = [str(12 + i % 5) for i in range(11)] + ["Reference"]
    found = read(table(**{"Years of education": values}), "education")
    assert found.values["education"].isna().tolist() == [False] * 11 + [True]
    assert "1 donors have 'Reference', which is no number that can be read" in found.notes[0]
    assert "metadata 'education': unknown for 1 donors" in found.notes


@pytest.mark.parametrize("age", [-9, 999, 150, "P900Y", "-1"])
def test_an_age_that_cannot_be_is_unknown_and_said(age: object) -> None:
    found = read(
        table(**{"Age at Death": pd.Series([70 + 5 * i % 11 for i in range(11)] + [age], dtype=object)}),
        "age",
    )
    assert found.values["age"].isna().sum() == 1
    assert f"1 donors have '{age}', which is no age" in found.notes[0]


def test_a_code_for_unknown_among_other_numbers_is_said() -> None:
    found = read(table(score=[*range(11), -999]), "score")
    assert "1 donors have -999, which often stands for unknown" in found.notes[0]


def test_a_column_without_any_value_is_refused() -> None:
    with pytest.raises(UserError, match="'RIN' has no value that can be used"):
        read(table(RIN=["unknown", None] * 6), "RIN")
    found = read(table(Sex=MIXED, APOE=["?"] * 12), "sex", "apoe4")
    assert any("'APOE' has no value that can be used, so it is left out" in note for note in found.notes)


# Columns that give the label away

DONOR_TABLE = [
    "Consensus Clinical Dx (choice=Control)",
    "Consensus Clinical Dx (choice=Alzheimers Possible/ Probable)",
    "If other Consensus dx, describe",
    "Fresh Brain Weight",
    "Atherosclerosis",
    "Arteriolosclerosis",
    "Total Microinfarcts (not observed grossly)",
    "Age of onset cognitive symptoms",
    "Age of Dementia diagnosis",
    "Interval from last MMSE in months",
    "Last MOCA Score",
    "Overall CAA Score",
    "LATE_NC",
    "cogdx",
    "braaksc",
    "ceradsc",
    "niareagansc",
    "ADStatus",
    "pTau",
]


@pytest.mark.parametrize("name", DONOR_TABLE)
def test_a_column_of_the_donor_table_that_follows_from_the_label_is_refused(name: str) -> None:
    with pytest.raises(UserError, match="is refused"):
        read(table(**{name: MIXED}), name)


@pytest.mark.parametrize(
    "name", ["Age at Death", "Sex", "APOE Genotype", "PMI", "RIN", "Brain pH", "msex", "Template", "Race"]
)
def test_a_column_that_describes_the_person_is_taken(name: str) -> None:
    assert read(table(**{name: [3.0, 4.0, 5.0] * 4}), name).label_derived == ()


def cohort_of(n_positive: int, n_negative: int) -> pd.Series:
    return pd.Series(
        [1] * n_positive + [0] * n_negative, [f"D{i:02d}" for i in range(n_positive + n_negative)]
    )


@pytest.mark.parametrize("turn", [1, -1])
@pytest.mark.parametrize("name", ["score", "PMI"])
def test_a_number_that_almost_tells_the_classes_apart_is_refused_unless_it_is_of_the_person(
    name: str, turn: int
) -> None:
    label = cohort_of(39, 9)
    values = turn * np.array([*range(100, 138), 3, *range(1, 9), 101], dtype=float) + 200
    donors = pd.DataFrame({f"obs:{name}": values}, index=label.index)
    wanted = MetadataConfig(columns=(name,), fusion={}, allow_label_derived=False)
    if name == "score":
        with pytest.raises(UserError, match="tells the classes apart"):
            read_covariates(donors, label, wanted)
    else:
        assert read_covariates(donors, label, wanted).label_derived == ()


@pytest.mark.parametrize(
    ("values", "refused"),
    [
        (["a"] * 20 + ["b"] * 19 + ["c"] * 9, True),
        (["a"] * 38 + ["b"] + ["b"] * 9, True),
        (["a"] * 20 + ["b"] * 19 + ["b"] * 9, False),
        ([f"{i // 2}" for i in range(38)] + ["x"] + [f"n{i // 2}" for i in range(8)] + ["y"], True),
        ([f"own{i}" for i in range(48)], False),
        (["seen"] * 20 + [None] * 28, True),
        (["seen", "other"] + [None] * 46, False),
    ],
)
def test_levels_are_refused_where_they_tell_the_classes_apart_beyond_accident(
    values: list[str | None], refused: bool
) -> None:
    label = cohort_of(39, 9)
    donors = pd.DataFrame({"obs:batchwise": pd.Series(values, dtype=object).to_numpy()}, index=label.index)
    wanted = MetadataConfig(columns=("batchwise",), fusion={}, allow_label_derived=False)
    if refused:
        with pytest.raises(UserError, match="'batchwise' is refused"):
            read_covariates(donors, label, wanted)
    else:
        assert read_covariates(donors, label, wanted).label_derived == ()
