"""The donor of each nucleus, from ids that are checked.

A donor counted as two may be in two parts of a split; two counted as one blur both.
"""

import re
from collections import defaultdict
from dataclasses import dataclass

import numpy as np
import pandas as pd

from oligo_ad.data.columns import Column, read_column
from oligo_ad.data.values import key, loose_key
from oligo_ad.errors import UserError, listing
from oligo_ad.storage.atlas import Atlas

# Ids of mixtures: pooled samples, and what demultiplexing could not assign to one person.
POOLED = re.compile(
    r"(pool(ed)?|multiplex(ed)?|mixed|mixture|several|multiple)([-_.#]?(samples?|donors?)?[-_.#]?\d*[a-z]?)?"
    r"|(doublet|multiplet|ambient|unassigned|ambiguous|negative|dbl|amb|emptydroplets?)s?(/.*)?"
)
EXACT = {2: 2048, 4: 1 << 24, 8: 1 << 53}  # by bytes of a float: whole numbers up to here are exact


@dataclass(frozen=True)
class Donors:
    """The donor of each nucleus of a file. `of`: categories of ids, missing where there is no one donor."""

    column: str
    of: pd.Series
    notes: tuple[str, ...]


def read_donors(atlas: Atlas, name: str) -> Donors:
    """The donors of a file, by the column that names them.

    Raises:
        UserError: it names none, or ids may name one person twice, or two as one.
    """
    column = read_column(atlas, name)
    _check_numbers(column)
    donor = column.as_text()
    notes = []
    missing = int(donor.isna().sum())
    if missing:
        notes.append(f"{missing:,} nuclei without a donor id were left out")
    pooled = [word for word in donor.cat.categories if POOLED.fullmatch(key(word))]
    if pooled:
        counts = donor.value_counts()[pooled]
        given = listing(f"'{word}' ({n:,} nuclei)" for word, n in counts.items())
        notes.append(f"{name} {given} names no single person, so these nuclei were left out")
        donor = donor.cat.remove_categories(pooled)
    if not len(donor.cat.categories):
        raise UserError(
            f"{name} (data.donor_key) names no donor: it is empty for every nucleus"
            + (f", or {listing(pooled)}." if pooled else ".")
        )
    _refuse_twins(donor, name)
    return Donors(name, donor, (*notes, *_look_alikes(donor, name), *_fractions(column)))


def _check_numbers(column: Column) -> None:
    """Refuse ids stored as floats that cannot hold them: two donors may have become one."""
    if column.levels.dtype.kind != "f":
        return
    largest = EXACT[np.dtype(column.levels.dtype.name.lower()).itemsize]
    values = column.levels.to_numpy(float)
    if np.isfinite(values).any() and np.nanmax(np.abs(values[np.isfinite(values)])) >= largest:
        raise UserError(
            f"{column.name} (data.donor_key) holds ids as {column.levels.dtype}, in which whole numbers from "
            f"{largest:,} on are rounded: two donors may have become one. Store the ids as text."
        )


def _fractions(column: Column) -> list[str]:
    values = column.levels.to_numpy(float) if column.levels.dtype.kind == "f" else np.zeros(0)
    if not (values % 1 > 0).any():
        return []
    return [
        f"the ids in {column.name} are stored as fractions, in which 20.1 and 20.10 would be one donor: "
        "check that no two donors became one"
    ]


def _refuse_twins(donor: pd.Series, column: str) -> None:
    """Refuse ids that differ by blanks, case or Unicode form only: they may name one person twice."""
    seen: dict[str, str] = {}
    for one in sorted(donor.cat.categories):
        twin = seen.setdefault(key(one), one)
        if twin != one:
            counts = donor.value_counts()
            differ = (
                "blanks or case" if twin.isascii() and one.isascii() else "blanks or case or Unicode form"
            )
            raise UserError(
                f"donors '{twin}' ({counts[twin]:,} nuclei) and '{one}' ({counts[one]:,} nuclei) in {column} "
                f"differ by {differ} only{_invisible(twin, one)}: one person might be in two parts of the "
                "split. Give each donor one id."
            )


def _invisible(*words: str) -> str:
    """Words as code, where they look the same on a terminal."""
    shown = [ascii(word) for word in words]
    return f" ({' and '.join(shown)})" if not all(word.isascii() for word in words) else ""


def _look_alikes(donor: pd.Series, column: str) -> list[str]:
    """A note on ids that may name one person, but may be two as well."""
    alike: dict[str, list[str]] = defaultdict(list)
    for one in donor.cat.categories:
        alike[loose_key(one)].append(one)
    pairs = [sorted(ids) for ids in alike.values() if len(ids) > 1]
    if not pairs:
        return []
    counts = donor.value_counts()
    told = [
        " and ".join(f"'{one}' ({counts[one]:,} nuclei)" for one in ids) + _invisible(*ids)
        for ids in sorted(pairs)
    ]
    return [
        f"donors {listing(told, 4)} in {column} differ by punctuation, leading zeros or look-alike letters "
        "only: if they are one person, give each donor one id"
    ]
