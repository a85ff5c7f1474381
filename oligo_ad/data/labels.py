"""The label of each donor: one Series by donor, apart from the nuclei and their counts.

A cohort is prepared once for all donors of a cell type. Which of them are compared, and which class
each is in, is decided here from the label column of obs; another contrast prepares nothing anew.
"""

from dataclasses import dataclass, replace
from typing import Self

import numpy as np
import pandas as pd

from oligo_ad.config import DataConfig
from oligo_ad.data.columns import as_text, find_column, values_of
from oligo_ad.data.selection import Selection
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

    def permuted(self, seed: int) -> Self:
        """The same labels on donors drawn at random: what a model reaches on them is chance."""
        shuffled = np.random.default_rng(seed).permutation(self.of_donor.to_numpy())
        return replace(self, of_donor=pd.Series(shuffled, self.of_donor.index, name=self.of_donor.name))

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
    entries = as_text(atlas.column(column))
    _check_values(entries.value_counts(), column, config)
    donor = as_text(atlas.column(chosen.columns.donor))
    value, notes = _by_donor(donor, entries, column, config)
    classes = dict.fromkeys(config.positive, 1) | dict.fromkeys(config.negative, 0)
    label = value.map(classes).dropna().astype(np.int8).rename("label")
    found = Labels(label, value, column, config.positive, config.negative, notes)
    of_type = chosen.steps.index[chosen.steps.iloc[:, -1] > 0]
    for name, values in _classes(config).items():
        if not value.reindex(of_type).isin(values).any():
            raise UserError(
                f"no nucleus of cell type {listing(config.cell_types) or 'any'} has a donor with "
                f"{column} = {listing(values)} (data.{name}): both classes are needed."
            )
    return replace(found, of_donor=label[label.index.isin(of_type)])


def _by_donor(
    donor: pd.Series, entries: pd.Series, column: str, config: DataConfig
) -> tuple[pd.Series, tuple[str, ...]]:
    """The label value of each donor, and notes on what was assumed.

    Raises:
        UserError: a donor's nuclei have labels of two classes.
    """
    pairs = pd.DataFrame({"donor": donor, "value": entries})[donor.notna().to_numpy()]
    known = pairs.drop_duplicates().dropna().astype(str).groupby("donor")["value"]
    classes = dict.fromkeys(config.positive, POSITIVE) | dict.fromkeys(config.negative, NEGATIVE)
    for one, values in known:
        if values.map(classes).fillna(EXCLUDED).nunique() > 1:
            raise UserError(
                f"donor {one} has two labels in {column}: {listing(values)}. "
                "A donor's nuclei must share one label."
            )
    value = known.agg(lambda values: values.iloc[0]).reindex(sorted(donor.cat.categories))
    unlabelled = pairs["donor"][pairs["value"].isna().to_numpy()].astype(str)
    borrowed = unlabelled[unlabelled.isin(value.index[value.notna()])]
    if borrowed.empty:
        return value, ()
    return value, (
        f"{len(borrowed):,} nuclei of {borrowed.nunique()} donors have no {column} of their own and take "
        "that of their donor",
    )


def _classes(config: DataConfig) -> dict[str, tuple[str, ...]]:
    """The label values of each class, by the option that names them."""
    return {POSITIVE: config.positive, NEGATIVE: config.negative}


def _check_values(counts: pd.Series, column: str, config: DataConfig) -> None:
    """Refuse classes that are not set, misspelt, or overlap."""
    for name, wanted in _classes(config).items():
        if not wanted:
            raise UserError(f"data.{name} is not set. {values_of(column, counts)}")
        if absent := [value for value in wanted if value not in counts.index]:
            raise UserError(
                f"data.{name}={absent[0]}: no nucleus has this {column}."
                f"{nearest(absent[0], counts.index)} {values_of(column, counts)}"
            )
    if both := set(config.positive) & set(config.negative):
        raise UserError(f"'{both.pop()}' is in data.positive and in data.negative.")
