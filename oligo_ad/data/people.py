"""The people behind donor ids: facts that vary within one, ids that repeat over data sets."""

import re
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd

from oligo_ad.data.columns import ALIASES, Column, read_column
from oligo_ad.data.donors import Donors
from oligo_ad.data.values import key
from oligo_ad.errors import UserError, listing
from oligo_ad.storage.atlas import Atlas

DATASET = re.compile(r"(dataset|study|project|cohort|collection|source|batch|site)(id|name|accession)?")
MAY_SHARE = re.compile(r"source|batch|site")  # in which one person is often found more than once
SEXES = {"f": "female", "female": "female", "woman": "female", "m": "male", "male": "male", "man": "male"}


@dataclass(frozen=True)
class Grouping:
    """The donor of each nucleus that takes part, by number: `code` [nuclei], and `ids` [donors]."""

    code: np.ndarray
    ids: pd.Index
    rows: np.ndarray

    @classmethod
    def of(cls, donor: pd.Series, rows: np.ndarray) -> "Grouping":
        """The donors of some rows, each of which has one; numbered in the order of their ids."""
        of = donor.iloc[rows].cat.remove_unused_categories()
        of = of.cat.reorder_categories(sorted(of.cat.categories)).cat
        return cls(of.codes.to_numpy().astype(np.int64), of.categories, rows)

    @cached_property
    def by_donor(self) -> tuple[np.ndarray, np.ndarray]:
        """Places of the nuclei in the order of their donors [nuclei], and where each donor's end [donors]."""
        ends = np.cumsum(np.bincount(self.code, minlength=len(self.ids)))
        # Numbers of 16 bits are sorted ten times faster.
        small = self.code.astype(np.uint16) if len(self.ids) < 1 << 16 else self.code
        return np.argsort(small, kind="stable"), ends


@dataclass(frozen=True)
class Coded:
    """A column as numbers of its values [nuclei], -1 where unknown, and the values."""

    name: str
    code: np.ndarray
    words: np.ndarray

    @classmethod
    def of(cls, column: Column) -> "Coded":
        text = column.merged()[0].cat
        return cls(column.name, text.codes.to_numpy().astype(np.int64), text.categories.to_numpy())


def vary_within(group: Grouping, code: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Which donors have more than one value, and a first known one of each.

    Args:
        group: the donor of each nucleus.
        code: [nuclei] the number of its value, -1 where unknown.

    Returns:
        Both [donors]: bool, and the row of the donor's first known value, -1 where it has none.
    """
    known = np.flatnonzero(code >= 0)
    first = np.full(len(group.ids), -1, dtype=np.int64)
    # The last write stands, so the order is turned round.
    first[group.code[known][::-1]] = known[::-1]
    other = known[code[known] != code[first[group.code[known]]]]
    several = np.zeros(len(group.ids), dtype=bool)
    several[group.code[other]] = True
    return several, first


def check_people(atlas: Atlas, donors: Donors, rows: np.ndarray) -> list[str]:
    """Notes on donors whose age, sex or genotype varies, and on ids that occur in several data sets.

    Args:
        atlas: the file.
        donors: of all its nuclei.
        rows: the nuclei that take part.

    Raises:
        UserError: an id has another sex or genotype in another data set, so it names several people.
    """
    group = Grouping.of(donors.of, rows)
    facts = {
        role: Coded.of(read_column(atlas, name, rows))
        for role in ("sex", "apoe", "age")
        for name in ALIASES[role]
        if name in atlas.columns
    }
    varying = {role: fact for role, fact in facts.items() if vary_within(group, fact.code)[0].any()}
    data_sets = _data_sets(atlas, group, donors.column)
    notes = []
    for role, fact in varying.items():
        hint = _hint(atlas, group, fact, data_sets, donors.column)
        if hint and role != "age" and _contradicts(role, fact, group):
            raise UserError(f"{_told(fact, group)}. {hint}")
        notes.append(f"{_told(fact, group)}. {hint}".rstrip(". "))
    return [*notes, *_shared(group, data_sets)]


def hint_of_data_sets(atlas: Atlas, donors: Donors, name: str) -> str:
    """What to do about a column that varies within donors, where another column tells people apart."""
    rows = np.flatnonzero(donors.of.notna().to_numpy())
    group = Grouping.of(donors.of, rows)
    fact = Coded.of(read_column(atlas, name, rows))
    return _hint(atlas, group, fact, _data_sets(atlas, group, donors.column), donors.column)


def _told(fact: Coded, group: Grouping) -> str:
    """Which donors have more than one value of a fact, and which."""
    several = np.flatnonzero(vary_within(group, fact.code)[0])
    told = []
    for donor in several[:4]:
        values = np.unique(fact.code[(group.code == donor) & (fact.code >= 0)])
        told.append(f"{group.ids[donor]} ({listing(fact.words[values], 4)})")
    more = f" and {len(several) - 4} more" if len(several) > 4 else ""
    return f"{fact.name} varies within {len(several)} donors: {', '.join(told)}{more}"


def _contradicts(role: str, fact: Coded, group: Grouping) -> bool:
    """Whether values differ in what they mean, not only in how they are written."""
    if role == "sex":
        meant = [SEXES.get(key(word)) for word in fact.words]
    else:
        digits = ["".join(sorted(re.findall("[234]", str(word)))) for word in fact.words]
        meant = [word if len(word) == 2 else None for word in digits]
    codes, _ = pd.factorize(np.array(meant, dtype=object))
    return bool(vary_within(group, np.append(codes, -1)[fact.code])[0].any())


def _data_sets(atlas: Atlas, group: Grouping, donor_column: str) -> list[Coded]:
    """The obs columns that divide a file into data sets, as far as some donor is in several."""
    named = [name for name in atlas.columns if DATASET.fullmatch(re.sub(r"[\W_]", "", name).casefold())]
    found = [Coded.of(read_column(atlas, name, group.rows)) for name in named if name != donor_column]
    return [data_set for data_set in found if vary_within(group, data_set.code)[0].any()]


def _shared(group: Grouping, data_sets: list[Coded]) -> list[str]:
    """A note for each column of data sets in which ids are found more than once."""
    notes = []
    for data_set in data_sets:
        if not MAY_SHARE.match(data_set.name.casefold()):
            several = vary_within(group, data_set.code)[0]
            notes.append(
                f"{int(several.sum())} donors are in more than one {data_set.name} "
                f"({listing(group.ids[several], 4)}), and taken as one person each"
            )
    return notes


def _hint(atlas: Atlas, group: Grouping, fact: Coded, data_sets: list[Coded], donor_column: str) -> str:
    """What to do where a fact that varies within donors does not vary within each data set."""
    varies = vary_within(group, fact.code)[0]
    for data_set in data_sets:
        width = len(data_set.words) + 1
        pair, of = np.unique(group.code * width + data_set.code + 1, return_inverse=True)
        pairs = Grouping(of, pd.Index(pair), group.rows)
        torn = pair[vary_within(pairs, fact.code)[0]] // width
        if varies[torn].any() or not vary_within(group, data_set.code)[0][varies].all():
            continue
        return (
            f"Within each {data_set.name} it does not, so these ids may name other people in another: "
            f"{_what_to_type(atlas, pairs, data_set.name, donor_column)}"
        )
    return ""


def _what_to_type(atlas: Atlas, pairs: Grouping, data_set: str, donor_column: str) -> str:
    """An obs column that has one value for each person, where there is one; else how to make it."""
    for name in atlas.columns:
        if name in (data_set, donor_column):
            continue
        column = read_column(atlas, name, pairs.rows)
        if len(column.levels) != len(pairs.ids) or not column.known.all() or (column.codes < 0).any():
            continue
        if not vary_within(pairs, column.codes)[0].any():
            return f"data.donor_key='{name}' tells them apart."
    return f"write an obs column that joins {data_set} and {donor_column}, and name it by data.donor_key."
