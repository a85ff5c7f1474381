"""Selects the nuclei of a cohort: those of the wanted cell type that have a donor, whatever its label.

Read from obs alone, before any count is read. What is left out is counted by donor.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from oligo_ad.config import DataConfig
from oligo_ad.data.columns import as_text, find_column, values_of
from oligo_ad.errors import UserError, listing, nearest
from oligo_ad.storage.atlas import Atlas


@dataclass(frozen=True)
class Columns:
    """The obs columns that were recognised."""

    donor: str
    cell_type: str | None


@dataclass(frozen=True)
class Selection:
    """The nuclei that take part.

    `cell_types` those of the wanted ones that occur, empty for all; `rows` [nuclei] their rows in the
    file, sorted; `donor` [nuclei] donor ids. `steps` [donors of the file, steps]: nuclei of each donor
    after each step. `notes`: remarks for the user.
    """

    columns: Columns
    cell_types: tuple[str, ...]
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
    donor = as_text(atlas.column(columns.donor))
    _check_ids(donor, columns.donor)
    has_donor = donor.notna()
    types: tuple[str, ...] = ()
    wanted = has_donor
    if columns.cell_type and config.cell_types:
        cell_type = as_text(atlas.column(columns.cell_type))
        types = _present(cell_type.value_counts(), columns.cell_type, config)
        wanted = has_donor & cell_type.isin(types)
    steps = {"in the file": has_donor, f"cell type {listing(types) or 'any'}": wanted}
    missing = int(donor.isna().sum())
    return Selection(
        columns=columns,
        cell_types=types,
        rows=np.flatnonzero(wanted),
        donor=donor[wanted].to_numpy(str),
        steps=pd.DataFrame({step: _nuclei(donor[left]) for step, left in steps.items()}),
        notes=(f"{missing:,} nuclei without a donor id were left out",) if missing else (),
    )


def _nuclei(donor: pd.Series) -> pd.Series:
    """Number of nuclei of each donor of the file, 0 included."""
    counts = donor.value_counts()
    return counts.set_axis(counts.index.astype(object)).rename_axis("donor").sort_index()


def _present(counts: pd.Series, column: str, config: DataConfig) -> tuple[str, ...]:
    """Those of the wanted cell types that occur.

    Raises:
        UserError: one of them does not, and no other spelling of it does.
    """
    occurring = set(counts.index[counts > 0])
    # Releases spell a type with or without a capital; of such twins one is enough.
    present = {word.casefold() for word in config.cell_types if word in occurring}
    if absent := [word for word in config.cell_types if word.casefold() not in present]:
        raise UserError(
            f"data.cell_types={absent[0]}: no nucleus has this {column}."
            f"{nearest(absent[0], occurring)} {values_of(column, counts)}"
        )
    return tuple(word for word in config.cell_types if word in occurring)


def _check_ids(donor: pd.Series, column: str) -> None:
    """Refuse ids that differ by blanks or case only: they may name one person twice."""
    ids = donor.cat.categories
    if not len(ids):
        raise UserError(f"{column} (data.donor_key) names no donor: it is empty for every nucleus.")
    seen: dict[str, str] = {}
    for one in sorted(ids):
        twin = seen.setdefault("".join(one.split()).casefold(), one)
        if twin != one:
            raise UserError(
                f"donors '{twin}' and '{one}' in {column} differ by blanks or case only: one "
                "person might be in two parts of the split. Give each donor one id."
            )
