"""The label of each donor: one Series by donor, apart from the nuclei and their counts.

A cohort is prepared once for all donors of a cell type. Which of them are compared, and which class
each is in, is decided here from the label column of obs; another contrast prepares nothing anew.
"""

from dataclasses import dataclass, replace
from typing import Self

import numpy as np
import pandas as pd

from oligo_ad.config import DataConfig
from oligo_ad.data.columns import absent_values, find_column, merge_notes, read_column, values_of
from oligo_ad.data.people import hint_of_data_sets
from oligo_ad.data.selection import Selection
from oligo_ad.data.values import key
from oligo_ad.errors import UserError, listing, nearest
from oligo_ad.storage.atlas import Atlas

POSITIVE, NEGATIVE, EXCLUDED = GROUPS = ("positive", "negative", "excluded")


@dataclass(frozen=True)
class Labels:
    """Which donors are compared.

    `of_donor`: 1 for the positive class, 0 for the negative, by donor id, sorted; donors of other labels
    are not in it. `value`: the entry of the label column of every donor of the file, None where unknown.
    `column`: that column. `positive`, `negative`: its values that make each class. `notes`: for the user.
    """

    of_donor: pd.Series
    value: pd.Series
    column: str
    positive: tuple[str, ...]
    negative: tuple[str, ...]
    notes: tuple[str, ...] = ()

    @property
    def names(self) -> tuple[str, str]:
        """Names of the negative and the positive class."""
        return ", ".join(self.negative), ", ".join(self.positive)

    @property
    def donors(self) -> tuple[str, ...]:
        """Ids of the donors that are compared."""
        return tuple(self.of_donor.index)

    @property
    def empty_classes(self) -> list[str]:
        """Names of the classes that have no donor left."""
        present = set(self.of_donor)
        return [name for label, name in reversed([*enumerate(self.names)]) if label not in present]

    def among(self, donors: pd.Index) -> Self:
        """The labels of only those donors that are in `donors`."""
        return replace(self, of_donor=self.of_donor[self.of_donor.index.isin(donors)])

    def flow(self, steps: pd.DataFrame) -> pd.DataFrame:
        """Donors and nuclei of each class after each step.

        Args:
            steps: nuclei of each donor of the file after each step; the last is quality control.

        Returns:
            A row for each step and class: class, donors, nuclei, step.
        """
        group = self._group(steps.index)
        *before, last = steps
        compared = steps[before[-1]].where(group != EXCLUDED, 0)
        wanted = f"label {listing(self.positive)} or {listing(self.negative)}"
        shown = {**steps[before], wanted: compared, last: steps[last].where(group != EXCLUDED, 0)}
        rows = []
        for step, nuclei in shown.items():
            for name in GROUPS:
                own = nuclei[(group == name) & (nuclei > 0)]
                rows.append({"class": name, "donors": len(own), "nuclei": int(own.sum()), "step": step})
        return pd.DataFrame(rows)

    def excluded(self, nuclei: pd.Series) -> pd.DataFrame:
        """Donors and nuclei of each label value that is in neither class: value, donors, nuclei.

        Args:
            nuclei: of each donor of the file, before quality control.
        """
        out = (self._group(nuclei.index) == EXCLUDED) & (nuclei > 0)
        by_value = nuclei[out].groupby(self.value.reindex(nuclei.index)[out].fillna("missing"))
        return by_value.agg(donors="size", nuclei="sum").rename_axis("value").reset_index()

    def _group(self, donors: pd.Index) -> pd.Series:
        """`positive`, `negative` or `excluded` by the label value of each donor."""
        of_value = dict.fromkeys(self.positive, POSITIVE) | dict.fromkeys(self.negative, NEGATIVE)
        return self.value.reindex(donors).map(of_value).fillna(EXCLUDED)


def read_labels(atlas: Atlas, config: DataConfig, chosen: Selection) -> Labels:
    """The label of every donor, for the donors that have nuclei of the wanted cell type.

    Raises:
        UserError: the column is not there, a value is misspelt, a donor has two labels, or a class is empty.
    """
    column = find_column(atlas, "label_key", config.label_key)
    stored, wanted = read_column(atlas, column), config.positive + config.negative
    _check_values(stored.as_text(wanted).value_counts(), column, config)
    entries, twins = stored.merged(wanted)
    value, notes = _by_donor(atlas, chosen, entries, column, config)
    remarks = (*merge_notes(stored, chosen.donors.of, wanted, twins), *notes)
    classes = dict.fromkeys(config.positive, 1) | dict.fromkeys(config.negative, 0)
    label = value.map(classes).dropna().astype(np.int8).rename("label")
    found = Labels(label, value, column, config.positive, config.negative, remarks)
    of_type = chosen.steps.index[chosen.steps.iloc[:, -1] > 0]
    for name, values in _classes(config).items():
        if not value.reindex(of_type).isin(values).any():
            raise UserError(
                f"no nucleus of cell type {listing(config.cell_types) or 'any'} has a donor with "
                f"{column} = {listing(values)} (data.{name}): both classes are needed."
            )
    return replace(found, of_donor=label[label.index.isin(of_type)])


def _by_donor(
    atlas: Atlas, chosen: Selection, entries: pd.Series, column: str, config: DataConfig
) -> tuple[pd.Series, list[str]]:
    """The label value of each donor, and notes on what was assumed.

    Raises:
        UserError: a donor's nuclei have labels of two classes.
    """
    ids, values = chosen.donors.of.cat.categories, entries.cat.categories
    pairs = pd.DataFrame({"donor": chosen.donors.of.cat.codes, "value": entries.cat.codes})
    known = pairs[(pairs["donor"] >= 0) & (pairs["value"] >= 0)].drop_duplicates()
    classes = dict.fromkeys(config.positive, 1) | dict.fromkeys(config.negative, 0)
    of_value = np.array([classes.get(value, -1) for value in values], dtype=int)
    n_classes = known.assign(value=of_value[known["value"]]).groupby("donor")["value"].nunique()
    if torn := sorted(ids[code] for code in n_classes.index[n_classes > 1]):
        given = [values[code] for code in known["value"][ids[known["donor"]] == torn[0]]]
        others = f" So have {len(torn) - 1} other donors." if len(torn) > 1 else ""
        raise UserError(
            f"donor {torn[0]} has two labels in {column}: {listing(given)}. A donor's nuclei must share one "
            f"label.{others} {hint_of_data_sets(atlas, chosen.donors, column)}".rstrip()
        )
    first = known.drop_duplicates("donor")
    value = pd.Series(values[first["value"]], ids[first["donor"]], dtype=object).reindex(sorted(ids))
    notes = _disagreements(known, ids, values, column)
    has_label = np.zeros(len(ids) + 1, dtype=bool)
    has_label[first["donor"]] = True
    borrowed = pairs["donor"][(pairs["value"] < 0) & has_label[pairs["donor"]]]
    if len(borrowed):
        notes.append(
            f"{len(borrowed):,} nuclei of {borrowed.nunique()} donors have no {column} of their own and take "
            "that of their donor"
        )
    return value, notes


def _disagreements(known: pd.DataFrame, ids: pd.Index, values: pd.Index, column: str) -> list[str]:
    """A note on donors whose nuclei have several values of one class, or of none."""
    several = known[known.duplicated("donor", keep=False)].groupby("donor")["value"]
    told = [f"{ids[donor]} ({listing(values[codes], 4)})" for donor, codes in several]
    return (
        [f"{column} varies within {len(told)} donors: {listing(told, 4)}; its first is taken"] if told else []
    )


def _classes(config: DataConfig) -> dict[str, tuple[str, ...]]:
    """The label values of each class, by the option that names them."""
    return {POSITIVE: config.positive, NEGATIVE: config.negative}


def _check_values(counts: pd.Series, column: str, config: DataConfig) -> None:
    """Refuse classes that are not set, misspelt, or overlap."""
    for name, wanted in _classes(config).items():
        if not wanted:
            raise UserError(f"data.{name} is not set. {values_of(column, counts)}")
        if absent := absent_values(wanted, counts.index):
            raise UserError(
                f"data.{name}={absent[0]}: no nucleus has this {column}."
                f"{nearest(absent[0], counts.index)} {values_of(column, counts)}"
            )
    negative = {key(value): value for value in config.negative}
    if both := [value for value in config.positive if key(value) in negative]:
        raise UserError(f"'{both[0]}' is in data.positive and in data.negative.")
