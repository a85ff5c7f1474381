"""One reader of columns: the same values mean the same, whatever type they are stored in."""

import unicodedata
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from oligo_ad.data.columns import column_of, plain
from oligo_ad.data.genes import gene_names, gene_notes, marked_genes
from oligo_ad.data.numbers import to_numbers
from oligo_ad.data.values import is_missing, key, loose_key
from oligo_ad.errors import UserError
from tests.builders import atlas, compared, read, write

finite = st.floats(-1e12, 1e12, allow_nan=False)


def number(text: str, unit: str = "") -> float | None:
    (found,) = to_numbers([text], unit)
    return None if found is None else found.value


# Numbers


@given(finite)
def test_reading_a_number_undoes_writing_it(value: float) -> None:
    for written in (repr(value), f"{value:.17e}", f" {value!r} ", repr(value).replace("-", "−")):
        assert number(written) == value
    assert number(f"{value:,.3f}") == pytest.approx(float(f"{value:.3f}"))


@given(st.integers(0, 120), st.integers(0, 120))
def test_the_middle_of_a_bin_lies_in_it_however_it_is_written(a: int, b: int) -> None:
    low, high = sorted((a, b))
    for written in (f"{low} to {high}", f"{low}-{high}", f"{low} – {high} years", f"({low}, {high}]"):
        assert number(written) == (low + high) / 2


@pytest.mark.parametrize(
    ("text", "unit", "value"),
    [
        ("1e-5", "", 1e-5),
        ("-1.5", "", -1.5),
        ("7,5", "", 7.5),
        ("1.234,5", "", 1234.5),
        ("1,234,567", "", 1234567),
        ("1 234", "", 1234),
        ("90+", "year", 90),
        ("≥ 89", "year", 89),
        (">=89", "year", 89),
        ("<65", "year", 65),
        ("90 or older", "year", 90),
        ("[90, inf)", "year", 90),
        ("85y", "year", 85),
        ("85 yrs", "year", 85),
        ("14 months", "year", 14 / 12),
        ("P85Y", "year", 85),
        ("P3M", "year", 0.25),
        ("P1Y6M", "year", 1.5),
        ("15-month-old stage", "year", 1.25),
        ("4 h", "hour", 4),
        ("4:30", "hour", 4.5),
        ("4 h 30 min", "hour", 4.5),
        ("270 min", "hour", 4.5),
    ],
)
def test_a_number_is_read_with_its_sign_exponent_separators_and_unit(
    text: str, unit: str, value: float
) -> None:
    assert number(text, unit) == pytest.approx(value)


@pytest.mark.parametrize(
    "text",
    [
        "2019-05-04",
        "12.05.2019",
        "12/05/2019",
        "05-2019",
        "3-Apr",
        "3/4",
        "1_000",
        "0x1F",
        "Batch 1",
        "10x v3",
        "adult stage",
        "1,234",
        "nan",
        "inf",
        "1e400",
        "",
        "-",
        "5 kg of 7",
        "1" * 1000,
        "9" * 60 + "y" * 19,
    ],
)
def test_what_is_no_number_or_may_be_two_is_none(text: str) -> None:
    assert number(text) is None


def test_what_a_comma_means_is_seen_from_the_rest_of_the_column() -> None:
    assert [n and n.value for n in to_numbers(["1,234", "7,5"])] == [1.234, 7.5]
    assert [n and n.value for n in to_numbers(["1,234", "12,345.5"])] == [1234, 12345.5]
    assert to_numbers(["1,234", "7,5", "1,234,567"])[0] is None


# Text


@given(st.text(max_size=12))
def test_the_key_of_a_key_is_itself_and_blanks_case_and_form_do_not_count(text: str) -> None:
    assert key(key(text)) == key(text)
    assert key(f" {text}\u00a0\u200b") == key(text)
    for form in ("NFC", "NFD"):
        assert key(unicodedata.normalize(form, text)) == key(text)


@given(st.from_regex(r"[A-Za-z]{1,3}[0-9]{1,4}", fullmatch=True))
def test_punctuation_and_look_alike_letters_do_not_count_in_the_loose_key(name: str) -> None:
    assert loose_key(f"{name[0]}-{name[1:]}") == loose_key(name[:1] + "_" + name[1:])
    assert loose_key(name.upper().replace("H", "\u041d")) == loose_key(name.upper())
    assert loose_key("1_12") != loose_key("11_2")
    assert loose_key("AD+") != loose_key("AD-")


@pytest.mark.parametrize(
    "word", ["NULL", " n.a. ", "#N/A", "<NA>", "Not available", "?", "-", ".", "NaN", "\ufeff"]
)
def test_words_for_unknown_are_known_in_any_spelling(word: str) -> None:
    assert is_missing(word)


@pytest.mark.parametrize("word", ["NA12878", "None detected", "0", "No", "Na+", "normal", "nanog"])
def test_values_that_resemble_a_word_for_unknown_are_values(word: str) -> None:
    assert not is_missing(word)


STORED = {
    "text": lambda values: pd.Series(values, dtype=object),
    "categories": lambda values: pd.Series(values, dtype=object).astype("category"),
    "nullable text": lambda values: pd.Series(values, dtype="string"),
    "bytes": lambda values: pd.Series([v if v is None else str(v).encode() for v in values], dtype=object),
}


@pytest.mark.parametrize("stored", STORED)
@given(st.lists(st.sampled_from(["a", "A", "b ", "é", "7", "unknown", None]), min_size=1, max_size=12))
def test_text_is_the_same_however_it_is_stored(stored: str, values: list[str | None]) -> None:
    expected = plain(column_of(pd.Series(values, dtype=object)))
    found = plain(column_of(STORED[stored](values)))
    assert found.tolist() == expected.tolist() or found.isna().equals(expected.isna())
    assert found.dropna().tolist() == expected.dropna().tolist()


@given(st.lists(st.sampled_from([True, False, None]), min_size=1, max_size=9))
def test_a_flag_is_the_same_however_it_is_stored(values: list[bool | None]) -> None:
    expected = [value is True for value in values]
    numbers = [np.nan if value is None else float(value) for value in values]
    words = [None if value is None else str(value) for value in values]
    for stored in (
        pd.Series(values, dtype="boolean"),
        pd.Series(numbers),
        pd.Series(words, dtype=object),
        pd.Series(words, dtype="category"),
        pd.Series([None if w is None else w.upper() for w in words], dtype=object),
        pd.Series(values, dtype="category"),
        pd.Series([str(w).replace("None", "nan") for w in words], dtype=object),
        pd.Series(numbers).astype("Int64"),
    ):
        flags = column_of(stored).as_flags()
        assert flags is not None
        assert flags.tolist() == expected


@pytest.mark.parametrize("values", [["high", "low"], [0.5, 1.0], [2, 1]])
def test_what_is_neither_true_nor_false_is_no_flag(values: list[Any]) -> None:
    assert column_of(pd.Series(values)).as_flags() is None


# Genes


def test_marked_genes_are_asked_for_only_by_who_wants_them(tmp_path: Path) -> None:
    adata = atlas()
    adata.var["highly_variable"] = ["yes", "perhaps"] * 30
    made = read(write(adata, tmp_path))
    with pytest.raises(UserError, match=r"'highly_variable' holds 'yes', 'perhaps'.*genes=hvg"):
        marked_genes(made.genes)
    with pytest.raises(UserError, match="marks no gene"):
        marked_genes(made.genes.assign(highly_variable=False))


def test_names_of_genes_are_text_without_genome_and_missing_where_unknown() -> None:
    symbols = pd.Categorical(["GRCh38_MALAT1", None, "GRCh38_MBP", "mm10___Mbp"])
    var = pd.DataFrame({"feature_name": symbols}, index=[f"ENSG0000000000{i}" for i in range(4)])
    genes = gene_names(var)
    assert genes["symbol"].fillna("?").tolist() == ["MALAT1", "?", "MBP", "mm10___Mbp"]
    assert genes["ensembl"].tolist() == var.index.tolist()
    numbered = gene_names(var.reset_index(drop=True))
    assert numbered["name"].tolist() == ["0", "1", "2", "3"]
    assert numbered["symbol"].fillna("?").tolist() == ["MALAT1", "?", "MBP", "mm10___Mbp"]
    notes = gene_notes(pd.DataFrame(index=["GRCh38premrna-A", "MMP24-AS1", "1-Mar", "2-Sep", "B", "B"]))
    assert [
        word in note
        for word, note in zip(("'GRCh38premrna-' (1 genes)", "2 names", "1 genes"), notes, strict=True)
    ] == [True] * 3


# Whole cohorts


@pytest.mark.parametrize("seed", [0, 1])
def test_the_order_of_nuclei_changes_no_donor_label_or_note(tmp_path: Path, seed: int) -> None:
    adata = atlas(nuclei=6)
    spelled = [f"{value} " if i % 7 == 0 else str(value) for i, value in enumerate(adata.obs["ADNC"])]
    adata.obs["ADNC"] = spelled
    order = np.random.default_rng(seed).permutation(adata.n_obs)
    first, second = (
        compared(write(adata[rows].copy(), tmp_path, f"{name}.h5ad"))
        for name, rows in (("a", np.arange(adata.n_obs)), ("b", order))
    )
    pd.testing.assert_series_equal(first.labels.of_donor, second.labels.of_donor)
    pd.testing.assert_frame_equal(first.cohort.donors, second.cohort.donors)
    assert (first.notes, first.folds) == (second.notes, second.folds)
    assert first.notes
