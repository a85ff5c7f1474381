"""A contrast: the donors of two classes that are compared, with labels, covariates and folds.

A prepared cohort holds no label; whatever learns or predicts works on a contrast.
"""

from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd

from oligo_ad.config import DataConfig, MetadataConfig, SplitConfig
from oligo_ad.data.cache import load_cohort, source
from oligo_ad.data.cohort import Cohort, lost_in_quality_control
from oligo_ad.data.covariates import Covariates, read_covariates
from oligo_ad.data.labels import Labels, read_labels
from oligo_ad.data.permutation import exchanged, moved, relabelled
from oligo_ad.data.selection import select
from oligo_ad.data.split import Fold, make_folds
from oligo_ad.errors import UserError
from oligo_ad.storage.atlas import open_atlas


@dataclass(frozen=True)
class Contrast:
    """The donors that are compared.

    `cohort`: their nuclei. `labels`: which class each is in. `covariates`: what the model is given beside
    expression. `folds`: their train, validation and test parts. `flow`: donors and nuclei by step and class;
    `excluded`: the same by label value that is in neither class.
    """

    cohort: Cohort
    labels: Labels
    covariates: Covariates
    folds: list[Fold]
    flow: pd.DataFrame
    excluded: pd.DataFrame

    def permuted(self, strata: pd.Series, seed: int, number: int) -> "Contrast":
        """The same nuclei under permuted labels, with the folds that go with them."""
        source = exchanged(strata, seed, number)
        labels = replace(self.labels, of_donor=relabelled(self.labels.of_donor, source))
        return replace(self, labels=labels, folds=moved(self.folds, source))

    @property
    def notes(self) -> tuple[str, ...]:
        """Remarks for the user on nuclei, labels and covariates."""
        return self.cohort.notes + self.labels.notes + self.covariates.notes

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
    cohort = prepared.of(labels.donors)
    *_, before_quality, _ = prepared.steps
    return Contrast(
        cohort=cohort,
        labels=labels,
        covariates=read_covariates(cohort.donors, labels.of_donor, metadata),
        folds=make_folds(labels.of_donor, split),
        flow=labels.flow(prepared.steps),
        excluded=labels.excluded(prepared.steps[before_quality]),
    )


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
