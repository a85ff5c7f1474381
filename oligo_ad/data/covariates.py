"""Donor-level columns as numbers for the model.

A value that is unknown stays unknown: it becomes the training mean (0 after standardising) beside an
indicator of it. Everything is fitted on training donors.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from oligo_ad.config import MetadataConfig
from oligo_ad.data.columns import ALIASES
from oligo_ad.data.encoding import ALLELES, encode_column
from oligo_ad.data.leakage import gives_label_away
from oligo_ad.data.values import key
from oligo_ad.errors import UserError, listing, nearest

COVARIATES = ("age", "sex", "apoe4", "apoe2")  # of the covariates-only baseline too


@dataclass(frozen=True)
class Covariates:
    """Donor columns as numbers.

    `values` [donors, columns], NaN where unknown. `label_derived`: obs columns among them that give the label
    away, where the configuration allows them. `notes`: remarks for the user.
    """

    values: pd.DataFrame
    label_derived: tuple[str, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Coding:
    """How covariates become inputs of a model, learned from training donors.

    `mean`, `sd`: of each column kept, over training donors. `with_unknown`: columns that get an "unknown"
    indicator.
    """

    mean: pd.Series
    sd: pd.Series
    with_unknown: tuple[str, ...]

    @property
    def size(self) -> int:
        """Inputs M of a donor."""
        return len(self.mean) + len(self.with_unknown)

    def apply(self, values: pd.DataFrame) -> pd.DataFrame:
        """Standardised values and indicators [donors, M] float32, without NaN.

        Args:
            values: [donors, columns], NaN where unknown; of these donors or of another file's.
        """
        known = pd.DataFrame({name: _column(name, values) for name in self.mean.index}, index=values.index)
        scaled = ((known - self.mean) / self.sd).fillna(0.0)
        unknown = {f"{name} unknown": _column(name, values).isna() for name in self.with_unknown}
        return scaled.join(pd.DataFrame(unknown, index=values.index, dtype=float)).astype(np.float32)


def _column(name: str, values: pd.DataFrame) -> pd.Series:
    """One column of the covariates. A level that no donor here has is 0 wherever another level is known."""
    if name in values:
        return values[name]
    # Another file may spell a level otherwise.
    if twin := next((other for other in values if key(other) == key(name)), None):
        return values[twin]
    other_levels = [other for other in values if other.startswith(name.partition("=")[0] + "=")]
    if not other_levels:
        return pd.Series(np.nan, values.index)
    return values[other_levels[0]] * 0.0


def fit_coding(values: pd.DataFrame, train: tuple[str, ...]) -> Coding:
    """Fit on training donors alone; a column constant there, such as a category that only a test
    donor has, is left out."""
    known = values.loc[list(train)]
    varies = known.columns[known.nunique() > 1]
    return Coding(
        mean=known[varies].mean(),
        sd=known[varies].std(ddof=0),
        with_unknown=tuple(known.columns[known.isna().any() & known.notna().any()]),
    )


def encode(donors: pd.DataFrame, names: tuple[str, ...]) -> pd.DataFrame:
    """Covariates of donors as numbers [donors, columns], NaN where unknown; columns that are not there are
    left out. For donors whose label is not known."""
    columns: dict[str, pd.Series] = {}
    for name in names:
        if source := _source(name, donors):
            columns |= encode_column(name, donors[f"obs:{source}"])[0]
    return pd.DataFrame(columns, index=donors.index, dtype=float)


def read_covariates(donors: pd.DataFrame, label: pd.Series, config: MetadataConfig) -> Covariates:
    """The configured columns of the donor table as numbers.

    Args:
        donors: the cohort's donor table (obs columns under `obs:…`).
        label: 0 or 1 of each of these donors, for the guard against columns that give it away.
        config: names: age, sex, apoe4, apoe2, pmi, education, or any donor-level obs column.

    Raises:
        UserError: a column is not there, is not donor-level, or gives the label away.
    """
    columns: dict[str, pd.Series] = {}
    notes: list[str] = []
    derived: list[str] = []
    for name in config.columns:
        source = _source(name, donors)
        if source is None:
            notes.append(_left_out(name, donors))
            continue
        encoded, assumed = encode_column(name, donors[f"obs:{source}"])
        notes += assumed
        if all(values.isna().all() for values in encoded.values()):
            if name not in COVARIATES:
                raise UserError(f"metadata.columns: '{source}' has no value that can be used. Remove it.")
            notes.append(f"metadata '{name}': '{source}' has no value that can be used, so it is left out")
            continue
        if reason := gives_label_away(source, encoded, label):
            if not config.allow_label_derived:
                raise UserError(
                    f"metadata.columns: '{source}' is refused, because {reason}. Remove it, or set "
                    "metadata.allow_label_derived=true, which marks every output."
                )
            derived.append(source)
        columns |= encoded
    if config.columns and not columns:
        raise UserError(f"metadata=on: the file has none of {listing(config.columns)}. Use metadata=off.")
    values = pd.DataFrame(columns, index=donors.index, dtype=float)
    return Covariates(values, tuple(derived), tuple(notes + _fingerprints(values)))


def _source(name: str, donors: pd.DataFrame) -> str | None:
    role = "apoe" if name in ALLELES else name
    return next((c for c in ALIASES.get(role, (name,)) if f"obs:{c}" in donors), None)


def _left_out(name: str, donors: pd.DataFrame) -> str:
    """A note on a usual covariate that the file does not have.

    Raises:
        UserError: it is no usual one, so it was asked for by the name of an obs column.
    """
    if name in COVARIATES:
        return f"metadata '{name}': the file has no such column, so it is left out"
    known = [c.removeprefix("obs:") for c in donors if c.startswith("obs:")]
    raise UserError(
        f"metadata.columns: no donor-level obs column '{name}'.{nearest(name, known)} "
        f"There are {listing(known, 40)}."
    )


def _fingerprints(values: pd.DataFrame) -> list[str]:
    """A note on rows that only one donor has: by them a network can recognise the donor."""
    if values.empty or values.shape[1] == 0:
        return []
    unique = int((~values.duplicated(keep=False)).sum())
    if not unique:
        return []
    return [
        f"metadata: the row of {unique} of {len(values)} donors is unique to them, so a network can "
        "recognise a training donor by it"
    ]
