"""Obs columns summed up by donor: one value each, means of numbers of nuclei, counts of their kinds."""

from typing import NamedTuple

import numpy as np
import pandas as pd

from oligo_ad.data.columns import Column, plain, read_column
from oligo_ad.data.people import Grouping, vary_within
from oligo_ad.data.values import text_of
from oligo_ad.storage.atlas import Atlas

MOST_KINDS = 60  # values of an obs column by which nuclei are counted
MOST_TEXTS = 10_000  # distinct texts that are looked at for numbers
NO_KINDS = pd.DataFrame({"column": [], "level": [], "donor": [], "nuclei": []}).astype(
    {"column": object, "level": object, "donor": object, "nuclei": int}
)


class DonorColumns(NamedTuple):
    """Obs columns by donor, as in `Cohort`: its `donors`, `varying` and `kinds`."""

    donors: pd.DataFrame
    varying: dict[str, list[str]]
    kinds: pd.DataFrame

    @property
    def constant(self) -> pd.DataFrame:
        """`donors` without the columns that vary within one of them."""
        return self.donors.drop(columns=[f"obs:{name}" for name in self.varying])


def donor_columns(atlas: Atlas, group: Grouping) -> DonorColumns:
    """The obs columns of some nuclei, by donor.

    A column that varies within every donor describes nuclei, and its values are left out. Of numbers that
    vary within some donor there is the mean; where they, or text, have few values, the nuclei of each value
    are counted. Text is in its commonest spelling, and words for "unknown" are missing.
    """
    columns, varying, kinds = {}, {}, [NO_KINDS]
    for name in atlas.columns:
        if name.startswith("SIMULATED"):
            continue
        column = read_column(atlas, name, group.rows)
        code, levels = _distinct(column)
        several, first = vary_within(group, code)
        if several.any():
            if (numbers := _numbers(column)) is not None:
                columns[f"mean:{name}"] = means_by_donor(numbers, group)
            if 1 < len(levels) <= MOST_KINDS:
                kinds.append(_kinds(name, code, levels, group))
        if several.all():
            continue
        found = plain(column).iloc[np.maximum(first, 0)].set_axis(group.ids)
        columns[f"obs:{name}"] = found if (first >= 0).all() else found.where(first >= 0)
        if several.any():
            varying[name] = group.ids[several].tolist()
    return DonorColumns(pd.DataFrame(columns, index=group.ids), varying, pd.concat(kinds, ignore_index=True))


def _distinct(column: Column) -> tuple[np.ndarray, pd.Index]:
    """The number of the value of each entry, -1 where unknown, and the values; twins are one."""
    if column.is_stored_as_numbers or column.levels.dtype.kind == "b":
        return column.codes, column.levels
    text = column.merged()[0].cat
    return text.codes.to_numpy().astype(np.int64), text.categories


def _numbers(column: Column) -> np.ndarray | None:
    """The entries of a column of numbers, however they are stored; None of another."""
    if not column.is_stored_as_numbers and len(column.levels) > MOST_TEXTS:
        return None
    if column.kind() != "number":
        return None
    if column.is_stored_as_numbers:
        found = column.levels.to_numpy(float)
    else:
        found = np.array([np.nan if number is None else number.value for number in column.numbers()])
    numbers: np.ndarray = np.append(found, np.nan)[column.codes]
    return numbers


def means_by_donor(values: np.ndarray, group: Grouping) -> np.ndarray:
    """The mean of each donor's known values [donors]; NaN where there is none."""
    order, ends = group.by_donor
    means, start = np.full(len(ends), np.nan), 0
    ordered = np.where(np.isfinite(values), values, np.nan)[order]
    for donor, end in enumerate(ends):
        # Added in the order of their size, so that the order of nuclei in the file changes no bit.
        own = np.sort(ordered[start:end])
        if n_known := len(own) - np.count_nonzero(np.isnan(own)):
            means[donor] = own[:n_known].mean()
        start = end
    return means


def _kinds(name: str, code: np.ndarray, levels: pd.Index, group: Grouping) -> pd.DataFrame:
    """Nuclei of each donor by their value of one column; sorted, whatever the order of the file."""
    known = code >= 0
    place = group.code[known] * len(levels) + code[known]
    counts = np.bincount(place, minlength=len(group.ids) * len(levels))
    donor, level = np.divmod(np.flatnonzero(counts), len(levels))
    words = np.array([text_of(one) for one in levels], dtype=object)
    found = {"column": name, "level": words[level], "donor": group.ids[donor].astype(object)}
    table = pd.DataFrame(found).assign(nuclei=counts[counts > 0])
    return table.sort_values(["level", "donor"])
