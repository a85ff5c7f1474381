"""Which nuclei take part: read from obs alone, before any count is read.

A nucleus takes part when its cell type is wanted and its donor's label is one of the two classes.
Everything left out is counted, by step and by class.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from oligo_ad.config import DataConfig
from oligo_ad.errors import UserError, listing, nearest
from oligo_ad.storage.atlas import Atlas

CLASSES = pd.Index(["positive", "negative", "excluded"])
# Words that mean "nothing known" where a value is expected.
MISSING = frozenset({"", "nan", "none", "na", "n/a", "unknown", "missing"})


@dataclass(frozen=True)
class Columns:
    """The obs columns that were recognised."""

    donor: str
    label: str
    cell_type: str | None


@dataclass(frozen=True)
class Selection:
    """The nuclei that take part.

    `cell_types` those of the wanted ones that occur, empty for all;
    `rows` [cells] their rows in the file, sorted; `donor` [cells] donor ids; `label` [cells] 0 or 1.
    `flow` counts donors and nuclei by step and class; `excluded` by excluded label value; `notes` what a
    user should know.
    """

    columns: Columns
    cell_types: tuple[str, ...]
    rows: np.ndarray
    donor: np.ndarray
    label: np.ndarray
    flow: pd.DataFrame
    excluded: pd.DataFrame
    notes: tuple[str, ...]


def recognise(atlas: Atlas, config: DataConfig) -> Columns:
    """Find the donor, label and cell-type columns under any of their configured names.

    Raises:
        UserError: one is not there, or was not named.
    """

    def find(field: str, names: tuple[str, ...]) -> str:
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

    wants_type = bool(config.cell_types or config.cell_type_key)
    return Columns(
        donor=find("donor_key", config.donor_key),
        label=find("label_key", config.label_key),
        cell_type=find("cell_type_key", config.cell_type_key) if wants_type else None,
    )


def select(atlas: Atlas, config: DataConfig) -> Selection:
    """Choose the nuclei of the wanted cell types whose donors belong to one of the two classes.

    Raises:
        UserError: a value is misspelt, a class is empty, a donor has two labels, ids are ambiguous.
    """
    columns = recognise(atlas, config)
    obs = pd.DataFrame(
        {
            "donor": _text(atlas.column(columns.donor)),
            "value": _text(atlas.column(columns.label)),
        }
    )
    if columns.cell_type:
        obs["cell_type"] = _text(atlas.column(columns.cell_type))
    obs["class"] = _classes(obs["value"], columns.label, config)
    notes = _check_donors(obs, columns)
    has_donor = obs["donor"].notna()
    wanted = has_donor & _of_wanted_type(obs, columns, config)
    labelled = wanted & (obs["class"] != "excluded")
    types = tuple(word for word in config.cell_types if (obs["cell_type"] == word).any())
    flow = pd.concat(
        [
            count("in the file", obs[has_donor]),
            count(f"cell type {listing(types) or 'any'}", obs[wanted]),
            count(f"label {listing(config.positive)} or {listing(config.negative)}", obs[labelled]),
        ]
    )
    left_out = obs.loc[wanted & (obs["class"] == "excluded"), ["value", "donor"]].astype(object)
    excluded = left_out.fillna({"value": "missing"}).groupby("value")["donor"]
    kept = obs[labelled]
    for name in ("positive", "negative"):
        if not (kept["class"] == name).any():
            given = listing(getattr(config, name))
            raise UserError(
                f"no nucleus of cell type {listing(config.cell_types) or 'any'} has a donor with "
                f"{columns.label} = {given} (data.{name}): both classes are needed."
            )
    return Selection(
        columns=columns,
        cell_types=types,
        rows=np.flatnonzero(labelled),
        donor=kept["donor"].to_numpy(str),
        label=(kept["class"] == "positive").to_numpy(np.int8),
        flow=flow,
        excluded=excluded.agg(donors="nunique", nuclei="size").reset_index(),
        notes=tuple(notes),
    )


def count(step: str, obs: pd.DataFrame) -> pd.DataFrame:
    """Donors and nuclei of each class after a step. `obs` has columns donor and class."""
    grouped = obs.groupby("class", observed=True)["donor"].agg(donors="nunique", nuclei="size")
    grouped.index = grouped.index.astype(object)
    grouped = grouped.reindex(["positive", "negative", "excluded"], fill_value=0)
    return grouped.rename_axis("class").reset_index().assign(step=step)


def _text(values: pd.Series) -> pd.Series:
    """Values as categories of text, words for "unknown" turned into missing.

    Categories are cleaned and kept, not nuclei: a million nuclei have a hundred donors.
    """
    levels = values.astype("category").cat.remove_unused_categories().cat
    words = [_word(level) for level in levels.categories]
    known = pd.Index([word for word in words if word is not None], dtype=object).unique()
    return _recoded(levels.codes, known.get_indexer(words), known)


def _recoded(codes: pd.Series, of_level: np.ndarray, levels: pd.Index) -> pd.Series:
    """A categorical whose levels are others: `of_level` gives the new code of each old one."""
    # The code -1, missing, reads the last entry.
    return pd.Series(pd.Categorical.from_codes(np.append(of_level, -1)[codes], levels), index=codes.index)


def _word(level: object) -> str | None:
    """A level as text; whole numbers without the `.0` that a missing neighbour gave them."""
    text = str(int(level)) if isinstance(level, float) and level.is_integer() else str(level)
    return None if text.strip().casefold() in MISSING else text


def _classes(values: pd.Series, column: str, config: DataConfig) -> pd.Series:
    counts = values.value_counts()
    for name in ("positive", "negative"):
        wanted = getattr(config, name)
        if not wanted:
            raise UserError(f"data.{name} is not set. {_values(column, counts)}")
        if absent := [value for value in wanted if value not in counts.index]:
            raise UserError(
                f"data.{name}={absent[0]}: no nucleus has this {column}."
                f"{nearest(absent[0], counts.index)} {_values(column, counts)}"
            )
    if both := set(config.positive) & set(config.negative):
        raise UserError(f"'{both.pop()}' is in data.positive and in data.negative.")
    known = dict.fromkeys(config.positive, 0) | dict.fromkeys(config.negative, 1)
    of_level = np.array([known.get(level, 2) for level in values.cat.categories], int)
    return _recoded(values.cat.codes, of_level, CLASSES).fillna("excluded")


def _of_wanted_type(obs: pd.DataFrame, columns: Columns, config: DataConfig) -> pd.Series:
    if not config.cell_types:
        return pd.Series(True, index=obs.index)
    values = obs["cell_type"]
    counts = values.value_counts()
    # Releases spell a type with or without a capital; of such twins one is enough.
    present = {word.casefold() for word in config.cell_types if word in counts.index}
    if absent := [word for word in config.cell_types if word.casefold() not in present]:
        raise UserError(
            f"data.cell_types={absent[0]}: no nucleus has this {columns.cell_type}."
            f"{nearest(absent[0], counts.index)} {_values(str(columns.cell_type), counts)}"
        )
    return values.isin(config.cell_types)


def _values(column: str, counts: pd.Series) -> str:
    return f"Values of {column}: {listing([f'{v} ({n:,} nuclei)' for v, n in counts.items()], 30)}."


def _check_donors(obs: pd.DataFrame, columns: Columns) -> list[str]:
    """Refuse ids that may hide one person in two donors, and donors of two labels."""
    ids = obs["donor"].cat.categories
    if not len(ids):
        raise UserError(f"{columns.donor} (data.donor_key) names no donor: it is empty for every nucleus.")
    seen: dict[str, str] = {}
    for donor in sorted(ids):
        twin = seen.setdefault("".join(donor.split()).casefold(), donor)
        if twin != donor:
            raise UserError(
                f"donors '{twin}' and '{donor}' in {columns.donor} differ by blanks or case only: one "
                "person might be in two parts of the split. Give each donor one id."
            )
    pairs = obs[["donor", "value", "class"]].drop_duplicates().dropna().astype(str)
    for donor, of_donor in pairs.groupby("donor"):
        values = of_donor["value"]
        if of_donor["class"].nunique() > 1:
            raise UserError(
                f"donor {donor} has two labels in {columns.label}: {listing(values)}. "
                "A donor's nuclei must share one label."
            )
    missing = int(obs["donor"].isna().sum())
    return [f"{missing:,} nuclei without a donor id were left out"] if missing else []
