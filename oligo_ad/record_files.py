"""Files of a run directory, which may be damaged or another person's: each is checked as it is read.

What is wrong with one is a `UserError` that names it.
"""

from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
from pydantic import ValidationError

from oligo_ad.checking import explain
from oligo_ad.errors import UserError, listing
from oligo_ad.facts import PARTS, from_plain
from oligo_ad.foreign import MOST_TABLE, check_size, read_json, read_yaml
from oligo_ad.sheets import read_donors
from oligo_ad.storage.tables import read_parquet

MOST_ROWS = 1 << 27  # of a table

Facts = TypeVar("Facts")


def parsed_json(file: Path) -> dict[str, Any]:
    try:
        return read_json(file)
    except (OSError, ValueError) as error:
        raise unreadable(file, error) from None


def parsed_yaml(file: Path) -> Any:
    try:
        return read_yaml(file)
    except (OSError, ValueError) as error:
        raise unreadable(file, error) from None


def parsed(file: Path, kind: type[Facts]) -> Facts:
    try:
        return read_facts(file, kind)
    except (OSError, ValueError) as error:
        raise unreadable(file, error) from None


def read_facts(file: Path, kind: type[Facts]) -> Facts:
    """An instance of a class of facts.

    Raises:
        OSError, ValueError: the file cannot be read, or holds something else.
    """
    content = read_json(file)
    try:
        found: Facts = from_plain(content, kind)
    except ValidationError as error:
        raise ValueError("; ".join(explain(error, root=kind))[:300]) from None
    return found


def read_table(file: Path) -> pd.DataFrame:
    try:
        check_size(file)
        about = pq.read_metadata(file)
        inflated = sum(about.row_group(group).total_byte_size for group in range(about.num_row_groups))
        if about.num_rows > MOST_ROWS or inflated > 16 * MOST_TABLE:
            raise ValueError(f"it has {about.num_rows:,} rows, {inflated:,} bytes")
        return read_parquet(file)
    except (OSError, ValueError) as error:
        raise unreadable(file, error) from None


def check_columns(file: Path, table: pd.DataFrame, wanted: list[str]) -> None:
    if missing := [name for name in wanted if name not in table]:
        raise unreadable(file, ValueError(f"it has no column {listing(missing)}"))


def check_finite(file: Path, table: pd.DataFrame, columns: list[str]) -> None:
    for name in columns:
        if not pd.api.types.is_numeric_dtype(table[name]):
            raise unreadable(file, ValueError(f"its column {name} holds no numbers"))
        if n := int((~np.isfinite(table[name].to_numpy(float))).sum()):
            raise unreadable(file, ValueError(f"{n:,} of {len(table):,} values of {name} are not finite"))


def donors_table(file: Path) -> pd.DataFrame:
    """donors.csv, in a state by which runs can be compared."""
    try:
        check_size(file)
        table = read_donors(file)
    except (OSError, ValueError) as error:
        raise unreadable(file, error) from None
    check_columns(file, table, ["fold", "donor", "label", "model"])
    numbers = [name for name in table if pd.api.types.is_numeric_dtype(table[name])]
    check_finite(file, table, ["fold", "label", "model", *numbers])
    if set(table["label"]) != {0, 1}:
        raise unreadable(file, ValueError("its labels are not 0 and 1"))
    if table.duplicated(["fold", "donor"]).any() or table.groupby("donor")["label"].nunique().max() > 1:
        raise unreadable(file, ValueError("a donor is in a fold twice, or has two labels"))
    return table


def split_folds(file: Path) -> list[dict[str, Any]]:
    """The folds of split.json: number, and the donors of each part."""
    folds = parsed_json(file).get("folds")
    if not isinstance(folds, list) or not all(isinstance(fold, dict) for fold in folds):
        raise unreadable(file, ValueError("it has no folds"))
    if not all(is_number(str(fold.get("number"))) for fold in folds):
        raise unreadable(file, ValueError("its folds are not numbered"))
    parts = [fold.get(part) for fold in folds for part in PARTS]
    if not all(isinstance(own, list) and all(isinstance(donor, str) for donor in own) for own in parts):
        raise unreadable(file, ValueError("its parts are no lists of donors"))
    return folds


def is_number(name: str) -> bool:
    return name.isascii() and name.isdecimal() and len(name) < 10


def unreadable(file: Path, error: Exception) -> UserError:
    return UserError(f"{file} cannot be read, so {file.parent} is no finished run: {first_line(error)}.")


def first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]
