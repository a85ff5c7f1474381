"""Tables that spreadsheets open, and words that shells and Hydra read."""

import shlex
import tempfile
from pathlib import Path

import pandas as pd
import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import given
from hypothesis import strategies as st

from oligo_ad.sheets import NUMBER, as_text, as_written, read_donors, to_csv
from oligo_ad.words import command_of, quoted, word

ANY = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))
HOSTILE = st.text("=+-@'\t\r\n 1e.,;\"", max_size=6)
MISSING = st.sampled_from(["NA", "NULL", "nan", "None", "", "<NA>", "-", "007", "1e5", "True", "inf", "#N/A"])


@given(ANY | HOSTILE | MISSING)
def test_no_spreadsheet_runs_a_cell_and_our_reader_reads_it_unchanged(cell: str) -> None:
    shown = as_text(cell)
    assert as_written(shown) == cell
    assert NUMBER.fullmatch(shown) or not shown.strip().startswith(("=", "+", "-", "@"))


@pytest.mark.parametrize(
    "cell", ["=1+1", "+cmd|' /C calc'!A0", "-2+3", "@SUM(A1)", " =1", "\t=1", "＝1", "-", "'a"]
)
def test_formulas_are_marked(cell: str) -> None:
    assert as_text(cell) == f"'{cell}"


@pytest.mark.parametrize("cell", ["-1", "+1.5", "-1e-3", "1e-3", ".5", "D01", "", "a=b", "model=mlp"])
def test_numbers_and_plain_words_stay(cell: str) -> None:
    assert as_text(cell) == cell


@given(st.lists(ANY | HOSTILE | MISSING, unique=True, min_size=1, max_size=8))
def test_donors_of_any_name_survive_their_table(names: list[str]) -> None:
    table = pd.DataFrame({"fold": 1, "donor": names, "model": [0.1 * i for i in range(len(names))]})
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "donors.csv"
        file.write_bytes(to_csv(table).encode())
        pd.testing.assert_frame_equal(read_donors(file), table, check_exact=True)


def test_heads_of_columns_are_marked_too() -> None:
    assert to_csv(pd.DataFrame({"=1": ["-a"], "x": [-1.5]})) == "'=1,x\n'-a,-1.5\n"


@given(st.text(st.characters(categories=["L", "N", "P", "S", "Zs"]), min_size=1))
def test_a_word_means_the_same_to_the_shell_and_to_hydra(value: str) -> None:
    (_, _, typed) = shlex.split(command_of([word("data.path", value)]))
    parsed = OverridesParser.create().parse_override(typed).value()
    assert str(getattr(parsed, "text", parsed)) == value


@given(st.text("\\\"'a ", max_size=8))
def test_backslashes_and_quotes_keep_their_number(value: str) -> None:
    parsed = OverridesParser.create().parse_override(f"x={quoted(value)}").value()
    assert getattr(parsed, "text", parsed) == value
