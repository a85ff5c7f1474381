"""Tables as CSV: what a spreadsheet would run as a formula is marked as text, and read back unchanged."""

import csv
import re
from pathlib import Path

import pandas as pd

# With one of these a formula begins, in spreadsheets of all countries; an apostrophe before it says: text.
FORMULA = ("=", "+", "-", "@", "'", "＝", "＋", "－", "＠")
NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)


def as_text(cell: str) -> str:
    """A cell that no spreadsheet runs; a number stays a number."""
    runs = cell.strip().startswith(FORMULA) or cell.startswith(("\t", "\r", "\n"))
    return f"'{cell}" if runs and not NUMBER.fullmatch(cell) else cell


def as_written(cell: str) -> str:
    """The cell that `as_text` was given."""
    return cell[1:] if cell.startswith("'") and as_text(cell[1:]) == cell else cell


def to_csv(table: pd.DataFrame) -> str:
    """A table, without its index, with every text marked where it has to be."""

    def marked(value: object) -> object:
        return as_text(value) if isinstance(value, str) else value

    texts = {name: table[name].map(marked) for name in table.select_dtypes(exclude=["number", "bool"])}
    # A carriage return alone ends a line, and pandas does not quote it.
    returns = any(texts[name].astype(str).str.contains("\r").any() for name in texts)
    quoting = csv.QUOTE_NONNUMERIC if returns else csv.QUOTE_MINIMAL
    return table.assign(**texts).rename(columns=marked).to_csv(index=False, quoting=quoting)


def read_donors(file: Path) -> pd.DataFrame:
    """A donors.csv, every number to the bit; ids are text, also what pandas takes for missing, such as NA."""
    return pd.read_csv(file, converters={"donor": as_written}, encoding="utf-8", float_precision="round_trip")
