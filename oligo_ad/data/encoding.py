"""A donor-level column as numbers: as it is, as an indicator, or as one indicator for each of its levels."""

import re
from collections.abc import Sequence

import numpy as np
import pandas as pd

from oligo_ad.data.columns import ALIASES, Column, column_of
from oligo_ad.data.values import key
from oligo_ad.errors import listing

ALLELES = {"apoe4": "4", "apoe2": "2"}
GENOTYPE = re.compile(r"\D*([234])\D*([234])(?:\.0)?\D*")
UNITS = {"age": "year", "pmi": "hour", "education": "year"}
# What these can be; anything else stands for "unknown", or is a mistake.
POSSIBLE = {"age": (0.0, 120.0), "pmi": (0.0, np.inf), "education": (0.0, 40.0)}
CODES = (-9.0, -99.0, -999.0, -9999.0, 999.0, 9999.0)  # often written for "unknown"

Encoded = tuple[dict[str, pd.Series], list[str]]


def encode_column(name: str, raw: pd.Series) -> Encoded:
    """One column of numbers, or one for each level; and notes on what was assumed.

    Args:
        name: age, sex, apoe4, apoe2, pmi, education, or the name of any column.
        raw: [donors] the values.
    """
    column = column_of(raw)
    if name in ALLELES:
        counts = [_alleles(ALLELES[name], text) for text in column.texts]
        values = _spread(column, counts, raw.index)
        return {name: values}, [*_unread(name, column, counts, "genotype"), *_unknown(name, values)]
    role = next((role for role, names in ALIASES.items() if name == role or name in names), name)
    kind = column.kind(UNITS.get(role, ""))
    if role == "age" or kind == "number" or (role in POSSIBLE and any(column.numbers(UNITS[role]))):
        return _numbers(name, role, column, raw.index)
    if kind == "flag":
        flags = [
            float(key(text) == "true") if yes else None
            for text, yes in zip(column.texts, column.known, strict=True)
        ]
        values = _spread(column, flags, raw.index)
        return {name: values}, _unknown(name, values)
    return _levels(name, column, raw.index)


def _numbers(name: str, role: str, column: Column, index: pd.Index) -> Encoded:
    found = column.numbers(UNITS.get(role, ""))
    numbers = [None if number is None else number.value for number in found]
    notes = _unread(name, column, numbers, "number")
    if role in POSSIBLE:
        low, high = POSSIBLE[role]
        possible = [n is None or (low <= n <= high and n not in CODES) for n in numbers]
        notes += _impossible(name, column, possible, role)
        numbers = [n if yes else None for n, yes in zip(numbers, possible, strict=True)]
    elif codes := sorted({n for n in numbers if n in CODES}):
        n_donors = _donors(column, [n in CODES for n in numbers])
        notes.append(
            f"metadata '{name}': {n_donors} donors have {listing(f'{n:g}' for n in codes)}, which often "
            "stands for unknown, and is taken as a number here"
        )
    kept = [
        number is not None and value is not None and not number.exact
        for number, value in zip(found, numbers, strict=True)
    ]
    if inexact := _donors(column, kept):
        notes = [
            f"metadata '{name}': {inexact} donors have an open or binned value, read as its bound or middle",
            *notes,
        ]
    values = _spread(column, numbers, index)
    return {name: values}, [*notes, *_unknown(name, values)]


def _levels(name: str, column: Column, index: pd.Index) -> Encoded:
    """One column a level, none taken as the norm: which levels there are depends on all donors."""
    text, twins = column.merged()
    text = text.set_axis(index)
    encoded = {
        f"{name}={level}": (text == level).astype(float).where(text.notna())
        for level in sorted(text.cat.categories)
    }
    words = column.as_text()
    notes = [
        f"metadata '{name}': '{word}' ({int((words == word).sum())} donors) also counted as '{twins[word]}'"
        for word in sorted(twins)
    ]
    return encoded, notes + _unknown(name, text)


def _alleles(allele: str, genotype: str) -> float | None:
    """`3/4`, `E3/E4`, `34` → how often the allele occurs; None for anything else."""
    found = GENOTYPE.fullmatch(genotype)
    return float(found.groups().count(allele)) if found else None


def _spread(column: Column, by_level: Sequence[float | None], index: pd.Index) -> pd.Series:
    """The number of each donor; NaN where its level has none."""
    values = np.array([*(np.nan if value is None else value for value in by_level), np.nan])
    return pd.Series(values[column.codes], index)


def _donors(column: Column, levels: Sequence[bool]) -> int:
    """How many donors have one of some levels."""
    return int(column.counts[np.array(levels, dtype=bool)].sum()) if any(levels) else 0


def _unread(name: str, column: Column, numbers: Sequence[float | None], what: str) -> list[str]:
    """A note on values that are known, but cannot be read."""
    lost = [number is None and yes for number, yes in zip(numbers, column.known, strict=True)]
    if not any(lost):
        return []
    words = [f"'{text}'" for text, yes in zip(column.texts, lost, strict=True) if yes]
    return [
        f"metadata '{name}': {_donors(column, lost)} donors have {listing(words, 3)}, which is no {what} "
        "that can be read, and is taken as unknown"
    ]


def _impossible(name: str, column: Column, possible: list[bool], role: str) -> list[str]:
    """A note on numbers that cannot be."""
    if all(possible):
        return []
    words = [f"'{text}'" for text, yes in zip(column.texts, possible, strict=True) if not yes]
    lost = _donors(column, [not yes for yes in possible])
    return [
        f"metadata '{name}': {lost} donors have {listing(words, 3)}, which is no {role}, and is "
        "taken as unknown"
    ]


def _unknown(name: str, values: pd.Series) -> list[str]:
    unknown = int(values.isna().sum())
    return [f"metadata '{name}': unknown for {unknown} donors"] if unknown else []
