"""Obs columns: found by any of their names, and read as text with words for "unknown" as missing."""

import numpy as np
import pandas as pd

from oligo_ad.errors import UserError, listing, nearest
from oligo_ad.storage.atlas import Atlas

# Words that mean "nothing known" where a value is expected.
MISSING = frozenset({"", "nan", "none", "na", "n/a", "unknown", "missing"})


def find_column(atlas: Atlas, field: str, names: tuple[str, ...]) -> str:
    """The first of `names` that is an obs column; `field` is the option that gives them.

    Raises:
        UserError: none is there, or none was named.
    """
    if not names:
        raise UserError(
            f"data.{field} is not set. Name the obs column, for instance data.{field}="
            f"'{atlas.columns[0]}'. Columns of {atlas.path.name}: {listing(atlas.columns, 40)}."
        )
    found = atlas.first_column(names)
    if found is None:
        raise UserError(
            f"{atlas.path.name} has no obs column {' or '.join(map(repr, names))} "
            f"(data.{field}).{nearest(names[0], atlas.columns)} "
            f"Its columns: {listing(atlas.columns, 40)}."
        )
    return found


def as_text(values: pd.Series) -> pd.Series:
    """A column as categories of text, words for "unknown" turned into missing.

    Categories are cleaned and kept, not entries: a million nuclei have a hundred donors.
    """
    levels = values.astype("category").cat.remove_unused_categories().cat
    words = [_text(level) for level in levels.categories]
    known = pd.Index([word for word in words if word is not None], dtype=object).unique()
    # The code -1, missing, reads the last entry.
    codes = np.append(known.get_indexer(words), -1)[levels.codes]
    return pd.Series(pd.Categorical.from_codes(codes, known), index=values.index)


def values_of(column: str, counts: pd.Series) -> str:
    """The values of a column with their nuclei, as the end of an error message."""
    return f"Values of {column}: {listing([f'{v} ({n:,} nuclei)' for v, n in counts.items()], 30)}."


def _text(level: object) -> str | None:
    """A level as text; whole numbers without the `.0` that a missing neighbour gave them."""
    text = str(int(level)) if isinstance(level, float) and level.is_integer() else str(level)
    return None if text.strip().casefold() in MISSING else text
