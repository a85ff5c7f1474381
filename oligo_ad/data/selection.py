"""Selects the nuclei of a cohort: those of the wanted cell type that have a donor, whatever its label.

Read from obs alone, before any count is read. What is left out is counted by donor.
"""

from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from oligo_ad.config import DataConfig
from oligo_ad.data.columns import absent_values, find_column, merge_notes, passed_over, read_column, values_of
from oligo_ad.data.donors import Donors, read_donors
from oligo_ad.data.values import key
from oligo_ad.errors import UserError, listing, nearest
from oligo_ad.storage.atlas import Atlas

PRIMARY = "is_primary_data"  # CELLxGENE's flag: false for a nucleus that another data set holds as well


@dataclass(frozen=True)
class Columns:
    """The obs columns that were recognised."""

    donor: str
    cell_type: str | None


@dataclass(frozen=True)
class Selection:
    """The nuclei that take part.

    `cell_types` those of the wanted ones that occur, empty for all; `donors` of every nucleus that is primary
    data; `rows` [nuclei] their rows in the file, sorted; `donor` [nuclei] donor ids. `steps` [donors of the
    file, steps]: nuclei of each donor after each step. `notes`: remarks for the user.
    """

    columns: Columns
    cell_types: tuple[str, ...]
    donors: Donors
    rows: np.ndarray
    donor: np.ndarray
    steps: pd.DataFrame
    notes: tuple[str, ...]


def recognise(atlas: Atlas, config: DataConfig) -> Columns:
    """Find the donor and cell-type columns under any of their configured names.

    Raises:
        UserError: one is not there, or was not named.
    """
    wants_type = bool(config.cell_types or config.cell_type_key)
    return Columns(
        donor=find_column(atlas, "donor_key", config.donor_key),
        cell_type=find_column(atlas, "cell_type_key", config.cell_type_key) if wants_type else None,
    )


def select(atlas: Atlas, config: DataConfig) -> Selection:
    """Choose the nuclei of the wanted cell types.

    Raises:
        UserError: a cell type is misspelt, ids are ambiguous, or there is no donor.
    """
    columns = recognise(atlas, config)
    donors = read_donors(atlas, columns.donor)
    donor, notes = donors.of, [*donors.notes, *_other_ids(atlas, donors, config)]
    wanted = donor.notna().to_numpy()
    steps = {"in the file": wanted}
    primary, remarks = _primary(atlas, donors)
    if not primary.all():
        wanted = wanted & primary
        steps["primary data"] = wanted
        donors = replace(donors, of=donor.where(primary))
    types: tuple[str, ...] = ()
    if columns.cell_type and config.cell_types:
        types, of_type, merged = _of_types(atlas, donors, columns.cell_type, config)
        wanted, remarks = wanted & of_type, [*remarks, *merged]
    steps[f"cell type {listing(types) or 'any'}"] = wanted
    codes = donor.cat.codes.to_numpy()
    return Selection(
        columns=columns,
        cell_types=types,
        donors=donors,
        rows=np.flatnonzero(wanted),
        donor=donor.cat.categories.to_numpy(str)[codes[wanted]],
        steps=pd.DataFrame({step: _nuclei(donor[left]) for step, left in steps.items()}),
        notes=(*notes, *remarks),
    )


def _nuclei(donor: pd.Series) -> pd.Series:
    """Number of nuclei of each donor of the file, 0 included."""
    counts = donor.value_counts()
    return counts.set_axis(counts.index.astype(object)).rename_axis("donor").sort_index()


def _other_ids(atlas: Atlas, donors: Donors, config: DataConfig) -> list[str]:
    """A note on columns of the same name that divide the nuclei otherwise."""
    notes = []
    for name in passed_over(atlas, donors.column, config.donor_key):
        other = read_column(atlas, name).as_text()
        pairs = len(pd.DataFrame({"a": donors.of.cat.codes, "b": other.cat.codes}).drop_duplicates())
        if pairs > max(len(donors.of.cat.categories), len(other.cat.categories)):
            notes.append(
                f"donors are those of '{donors.column}'; '{name}', which divides the nuclei otherwise, was "
                "passed over"
            )
    return notes


def _primary(atlas: Atlas, donors: Donors) -> tuple[np.ndarray, list[str]]:
    """Which nuclei are not marked as copies of those in another data set [nuclei], and notes.

    Raises:
        UserError: the mark is neither true nor false.
    """
    everyone = np.ones(atlas.n_obs, dtype=bool)
    if PRIMARY not in atlas.columns:
        return everyone, []
    column = read_column(atlas, PRIMARY)
    primary = column.as_flags()
    if primary is None:
        raise UserError(
            f"obs column '{PRIMARY}' holds {listing(map(repr, column.texts), 4)}, which is not true or false "
            "throughout. Mend it, or remove it to use every nucleus."
        )
    if not primary.any():
        return everyone, [
            f"{PRIMARY} is false for every nucleus: the file is a copy of others, and all of it is used"
        ]
    if primary.all():
        return everyone, []
    lost = donors.of[~primary]
    whole = len(set(lost.dropna().unique()) - set(donors.of[primary].dropna().unique()))
    return primary, [
        f"{int((~primary).sum()):,} nuclei of {lost.nunique()} donors were left out because {PRIMARY} is not "
        f"true: another data set holds them{f'; {whole} donors are lost whole' if whole else ''}"
    ]


def _of_types(
    atlas: Atlas, donors: Donors, column: str, config: DataConfig
) -> tuple[tuple[str, ...], np.ndarray, list[str]]:
    """Those of the wanted cell types that occur, which nuclei are of one [nuclei], and notes.

    Raises:
        UserError: one of them does not occur, and no other spelling of it does.
    """
    stored = read_column(atlas, column)
    cell_type, twins = stored.merged(config.cell_types)
    counts = stored.as_text(config.cell_types).value_counts()
    absent = absent_values(config.cell_types, counts.index)
    # Releases spell a type with or without a capital; of such twins one is enough.
    present = {key(word) for word in config.cell_types if word not in absent}
    if lost := [word for word in config.cell_types if key(word) not in present]:
        raise UserError(
            f"data.cell_types={lost[0]}: no nucleus has this {column}."
            f"{nearest(lost[0], counts.index)} {values_of(column, counts)}"
        )
    types = tuple(word for word in config.cell_types if word in cell_type.cat.categories)
    of_type = cell_type.isin(types).to_numpy()
    return types, of_type, merge_notes(stored, donors.of, config.cell_types, twins)
