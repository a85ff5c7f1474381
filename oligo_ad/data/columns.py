"""The one reader of obs and var columns: what a column holds, whatever type it is stored in.

Work is done once per distinct value, never per nucleus: a million nuclei have a hundred donors.
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
import pandas as pd

from oligo_ad.data.numbers import Number, to_numbers
from oligo_ad.data.values import is_missing, key, loose_key, spelling, text_of, to_flag
from oligo_ad.errors import UserError, listing, nearest
from oligo_ad.storage.atlas import Atlas

# Obs columns that hold what is known of a donor, by what it is.
ALIASES = {
    "age": ("Age at Death", "Age at death", "age_at_death", "age_death", "age", "Age", "development_stage"),
    "sex": ("Sex", "sex", "gender", "Gender", "msex"),
    "apoe": ("APOE Genotype", "APOE genotype", "APOE", "apoe_genotype"),
    "pmi": ("PMI", "pmi"),
    "education": ("Years of education", "education", "educ"),
}
Kind = Literal["number", "flag", "text", "empty"]
# Share of the known entries that must be numbers, for words among them to be no values.
MOSTLY = 0.8


@dataclass(frozen=True)
class Column:
    """A stored column: `codes` [entries] number its distinct values, `levels`; -1 where nothing is stored."""

    name: str
    codes: np.ndarray
    levels: pd.Index

    @property
    def is_stored_as_numbers(self) -> bool:
        return self.levels.dtype.kind in "iuf"

    @cached_property
    def texts(self) -> list[str]:
        """Each level as text."""
        return [text_of(level) for level in self.levels]

    @cached_property
    def known(self) -> np.ndarray:
        """Whether each level is a value, not a word for "unknown" [levels]."""
        if self.is_stored_as_numbers:
            return np.isfinite(self.levels.to_numpy(float))
        return np.array([not is_missing(text) for text in self.texts], dtype=bool)

    @property
    def missing(self) -> int:
        """Entries without a known value."""
        return int((~np.append(self.known, False)[self.codes]).sum())

    @cached_property
    def counts(self) -> np.ndarray:
        """Entries of each level [levels]."""
        return np.bincount(self.codes[self.codes >= 0], minlength=len(self.levels))

    def kind(self, unit: str = "") -> Kind:
        """What the known values are; words that stand beside numbers do not make a column text.

        Args:
            unit: what numbers would be of, such as `hour`.
        """
        if not self.known.any():
            return "empty"
        if self.is_stored_as_numbers:
            return "number"
        texts = [text for text, known in zip(self.texts, self.known, strict=True) if known]
        if {key(text) for text in texts} <= {"true", "false"}:
            return "flag"
        numbers = np.array([number is not None for number in to_numbers(texts, unit)])
        weights = self.counts[self.known]
        return "number" if weights[numbers].sum() >= MOSTLY * weights.sum() else "text"

    def as_text(self, wanted: Collection[str] = ()) -> pd.Series:
        """The entries as categories of text, exactly as spelled; unknown is missing.

        Args:
            wanted: values asked for by name; one of them that is a word for "unknown" is a value.
        """
        asked = {key(word) for word in wanted}
        known = [yes or key(text) in asked for text, yes in zip(self.texts, self.known, strict=True)]
        return self._coded([text if yes else None for text, yes in zip(self.texts, known, strict=True)])

    def merged(self, wanted: Collection[str] = ()) -> tuple[pd.Series, dict[str, str]]:
        """The same, with texts that differ by blanks, case or Unicode form as one value.

        Returns:
            The entries, and by text the value that it was counted as, where that is spelled otherwise:
            the one that was asked for, else the commonest of them.
        """
        exact = self.as_text(wanted)
        words = exact.value_counts()
        asked = sorted(wanted, key=lambda word: word not in words.index)
        names: dict[str, str] = {}
        for word in [*asked, *sorted(words.index, key=lambda word: (-words[word], word))]:
            names.setdefault(key(word), word)
        renamed = [word if word in asked else names[key(word)] for word in exact.cat.categories]
        index = pd.Index(renamed, dtype=object).unique()
        codes = np.append(index.get_indexer(renamed), -1)[exact.cat.codes]
        merged = pd.Series(pd.Categorical.from_codes(codes, index), index=exact.index)
        return merged, {a: b for a, b in zip(exact.cat.categories, renamed, strict=True) if a != b}

    def numbers(self, unit: str = "") -> list[Number | None]:
        """The number of each level; None where it is unknown or none."""
        if self.is_stored_as_numbers or self.levels.dtype.kind == "b":
            values = self.levels.to_numpy(float)
            return [Number(float(value), unit) if np.isfinite(value) else None for value in values]
        found = iter(to_numbers([t for t, known in zip(self.texts, self.known, strict=True) if known], unit))
        return [next(found) if known else None for known in self.known]

    def as_flags(self) -> np.ndarray | None:
        """True where the column says so [entries]; None where a value is neither true nor false."""
        if self.is_stored_as_numbers:
            values = self.levels.to_numpy(float)
            flags = [bool(value) if value in (0, 1) else None for value in values]
        else:
            flags = [to_flag(text) for text in self.texts]
        # An unknown value is no mark.
        flags = [flag if known else False for flag, known in zip(flags, self.known, strict=True)]
        if None in flags:
            return None
        found: np.ndarray = np.array([*flags, False], dtype=bool)[self.codes]
        return found

    def _coded(self, words: list[str | None]) -> pd.Series:
        """The entries as categories: the given word for each level."""
        index = pd.Index([word for word in words if word is not None], dtype=object).unique()
        codes = np.append(index.get_indexer(pd.Index(words, dtype=object)), -1)[self.codes]
        return pd.Series(pd.Categorical.from_codes(codes, index))


def plain(column: Column) -> pd.Series:
    """The entries of a column as numbers, flags or text, missing where unknown; twins are one value."""
    if column.is_stored_as_numbers or column.levels.dtype.kind == "b":
        levels = column.levels.to_numpy()
        if (column.codes >= 0).all():
            return pd.Series(levels[column.codes])
        levels = levels.astype(
            object if levels.dtype.kind == "b" else np.result_type(levels.dtype, np.float16)
        )
        return pd.Series(np.append(levels, np.array([np.nan], levels.dtype))[column.codes])
    return column.merged()[0].astype(object)


def column_of(values: pd.Series) -> Column:
    """The column that holds these entries, stored in any type."""
    if isinstance(values.dtype, pd.CategoricalDtype):
        codes = values.cat.codes.to_numpy()
        used = np.bincount(codes[codes >= 0], minlength=len(values.cat.categories)) > 0
        new = np.append(np.where(used, np.cumsum(used) - 1, -1), -1)
        codes, levels = new[codes], values.cat.categories[used]
    else:
        codes, found = pd.factorize(values)
        levels = pd.Index(found)
    if levels.dtype == object and len(levels):
        levels = levels.infer_objects()
    if levels.dtype.kind == "b" and isinstance(levels.dtype, pd.api.extensions.ExtensionDtype):
        levels = levels.astype(bool)
    return Column(str(values.name), np.asarray(codes, dtype=np.int64), levels)


def read_column(atlas: Atlas, name: str, rows: np.ndarray | None = None) -> Column:
    """An obs column of a file, of all nuclei or of some rows (sorted)."""
    return column_of(atlas.column(name, rows))


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


def passed_over(atlas: Atlas, found: str, names: Iterable[str]) -> list[str]:
    """Other obs columns that bear one of the names, up to case and punctuation."""
    keys = {loose_key(name) for name in names}
    return [name for name in atlas.columns if name != found and loose_key(name) in keys]


def values_of(column: str, counts: pd.Series) -> str:
    """The values of a column with their nuclei, as the end of an error message."""
    return f"Values of {column}: {listing([f'{v} ({n:,} nuclei)' for v, n in counts.items()], 30)}."


def merge_notes(
    column: Column, donor: pd.Series, wanted: Collection[str], twins: dict[str, str]
) -> list[str]:
    """Notes on values counted as one that was asked for, and on those that only look like one.

    Args:
        column: as stored.
        donor: [entries] the donor of each.
        wanted: values asked for by name.
        twins: by text the value that it is counted as.
    """
    exact = column.as_text(wanted)
    own = [word for word in twins if twins[word] in wanted]
    notes = [
        f"{column.name}: {_told(exact, donor, word)} also counted as '{twins[word]}'" for word in sorted(own)
    ]
    taken = {loose_key(word): word for word in wanted}
    others = sorted(set(exact.cat.categories) - {*own, *wanted})
    return notes + [
        f"{column.name}: {_told(exact, donor, word)} not counted as '{alike}', from which it differs by "
        "punctuation, leading zeros or look-alike letters only"
        for word in others
        if (alike := taken.get(loose_key(word))) and key(word) != key(alike)
    ]


def _told(exact: pd.Series, donor: pd.Series, word: str) -> str:
    """A value with its nuclei and donors."""
    mine = (exact == word).to_numpy()
    shown = ascii(word) if not word.isascii() else f"'{word}'"
    return f"{shown} ({int(mine.sum()):,} nuclei, {donor[mine].nunique()} donors)"


def absent_values(wanted: tuple[str, ...], present: Iterable[str]) -> list[str]:
    """Those of the values asked for by name that do not occur, in this or another Unicode form or spacing."""
    spelled = {_spelled(word) for word in present}
    return [word for word in wanted if _spelled(word) not in spelled]


def _spelled(word: str) -> str:
    """A value as it may be typed: true, TRUE and True are one, and 1.0 is 1."""
    whole = key(word)
    return whole if whole in ("true", "false") or whole.lstrip("+-").isdigit() else spelling(word)
