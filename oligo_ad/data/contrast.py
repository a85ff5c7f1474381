"""A contrast: the donors of two classes that are compared, with labels, covariates and folds.

A prepared cohort holds no label; whatever learns or predicts works on a contrast.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd

from oligo_ad.config import DataConfig, MetadataConfig, SplitConfig
from oligo_ad.data.cache import load_cohort, source
from oligo_ad.data.cohort import Cohort, lost_in_quality_control
from oligo_ad.data.covariates import Covariates, encode, read_covariates
from oligo_ad.data.labels import NEGATIVE, POSITIVE, Labels, read_labels
from oligo_ad.data.lockbox import describe_box, locked_donors
from oligo_ad.data.overlap import people_of, twins
from oligo_ad.data.permutation import exchanged, moved, relabelled
from oligo_ad.data.selection import select
from oligo_ad.data.split import Fold, make_folds, reduced
from oligo_ad.errors import UserError
from oligo_ad.storage.atlas import open_atlas


@dataclass(frozen=True)
class Contrast:
    """The donors that are compared.

    `cohort`: their nuclei. `labels`: which class each is in. `covariates`: what the model is given beside
    expression. `folds`: their train, validation and test parts. `flow`: donors and nuclei by step and class;
    `excluded`: the same by label value that is in neither class. `prepared`: the nuclei of every donor of the
    file, and `box`: the labels of those that are in the lockbox. `remarks`: for the user.
    """

    cohort: Cohort
    labels: Labels
    covariates: Covariates
    folds: list[Fold]
    flow: pd.DataFrame
    excluded: pd.DataFrame
    prepared: Cohort
    box: pd.Series
    remarks: tuple[str, ...]

    def permuted(self, strata: pd.Series, seed: int, number: int) -> "Contrast":
        """The same nuclei under permuted labels, with the folds that go with them."""
        source = exchanged(strata, seed, number)
        labels = replace(self.labels, of_donor=relabelled(self.labels.of_donor, source))
        return replace(self, labels=labels, folds=moved(self.folds, source))

    @property
    def notes(self) -> tuple[str, ...]:
        """Remarks for the user on nuclei, labels and covariates."""
        return self.cohort.notes + self.labels.notes + self.covariates.notes + self.remarks

    def covariates_of_box(self, names: tuple[str, ...]) -> pd.DataFrame:
        """Covariates of the donors in the lockbox, NaN where unknown, read as those of the other donors."""
        everyone = self.prepared.donors.loc[[*self.cohort.donors.index, *self.box.index]]
        table = everyone[[name for name in everyone if name in self.cohort.donors]].copy()
        for name, varies_in in self.prepared.varying.items():
            if f"obs:{name}" in table:
                table[f"obs:{name}"] = table[f"obs:{name}"].mask(table.index.isin(varies_in))
        return encode(table, names).loc[self.box.index]

    def with_box(self) -> "Contrast":
        """The same with the donors of the lockbox among those that are compared, in no fold."""
        label = pd.concat([self.labels.of_donor, self.box]).sort_index()
        return replace(
            self,
            labels=replace(self.labels, of_donor=label),
            cohort=self.prepared.of(label.index),
            box=self.box.iloc[:0],
        )

    @property
    def about(self) -> dict[str, str]:
        """Which columns and values define the contrast, for the report."""
        negative, positive = self.labels.names
        label = {"label column": self.labels.column, "positive (1)": positive, "negative (0)": negative}
        known = self.cohort.about
        first = {key: known[key] for key in ("file", "donor column")}
        return first | label | known


def open_contrast(data: DataConfig, split: SplitConfig, metadata: MetadataConfig, cache: Path) -> Contrast:
    """The contrast of a configuration; its cohort comes from the cache, or is prepared now.

    Raises:
        UserError: anything wrong with the file or the choices; what obs shows, before a count is read.
    """
    prepared, labels = prepared_cohort(data, cache)
    flow = labels.flow(prepared.steps)
    box = locked_donors(labels.of_donor, split.lockbox) if split.lockbox else labels.of_donor.iloc[:0]
    if split.lockbox:
        labels = labels.among(labels.of_donor.index.difference(box.index))
        flow = pd.concat([flow, _outside(flow, labels, prepared)], ignore_index=True)
    cohort = prepared.of(labels.donors)
    folds = make_folds(labels.of_donor, split, locked=box.index)
    *_, before_quality, _ = prepared.steps
    return Contrast(
        cohort=cohort,
        labels=labels,
        covariates=read_covariates(cohort.donors, labels.of_donor, metadata),
        folds=folds,
        flow=flow,
        excluded=labels.excluded(prepared.steps[before_quality]),
        prepared=prepared,
        box=box,
        remarks=tuple(_remarks(prepared, labels, split, box, folds)),
    )


def _outside(flow: pd.DataFrame, labels: Labels, prepared: Cohort) -> pd.DataFrame:
    """The last step of the flow: donors that are not in the lockbox."""
    last = flow[flow["step"] == flow["step"].iloc[-1]].assign(step="not in the lockbox")
    for group, value in ((POSITIVE, 1), (NEGATIVE, 0)):
        own = labels.of_donor.index[labels.of_donor == value]
        nuclei = prepared.donors["nuclei"][own].sum()
        last.loc[last["class"] == group, ["donors", "nuclei"]] = [len(own), int(nuclei)]
    return last


def _remarks(
    prepared: Cohort, labels: Labels, split: SplitConfig, box: pd.Series, folds: list[Fold]
) -> Iterator[str]:
    """What is said of donors beside their nuclei, labels and covariates."""
    yield from twins(people_of(prepared.table_of(labels.of_donor.index.union(box.index))))
    if split.lockbox:
        yield describe_box(box, labels.names)
    if split.train_fraction < 1:
        yield reduced(folds, labels.of_donor, split)


def prepared_cohort(data: DataConfig, cache: Path) -> tuple[Cohort, Labels]:
    """The prepared cohort, whole, and the labels of those of its donors that are compared.

    Raises:
        UserError: as `open_contrast`, or quality control leaves no donor of a class.
    """
    with open_atlas(source(data, cache)) as atlas:
        labels = read_labels(atlas, data, select(atlas, data))
    prepared = load_cohort(data, cache)
    labels = labels.among(prepared.donors.index)
    if lost := labels.empty_classes:
        raise UserError(lost_in_quality_control(" and none of ".join(lost), data))
    return prepared, labels
