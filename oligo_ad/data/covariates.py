"""Donor-level columns as numbers for the model, with a guard against columns that give the label away.

A value that is unknown stays unknown: it becomes the training mean (0 after standardising) beside an
indicator of it. Everything is fitted on training donors.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd
from sklearn.metrics import roc_auc_score

from oligo_ad.config import MetadataConfig
from oligo_ad.data.columns import MISSING
from oligo_ad.errors import UserError, listing, nearest

# ADNC is computed from Thal, Braak and CERAD; the others are read at the same examination, or
# follow from the disease. As features they give the answer away.
LABEL_DERIVED = {
    r"adnc|neuropathological change": "it is the label, or a coarser form of it",
    r"braak|thal|cerad": "ADNC is computed from Thal, Braak and CERAD",
    r"6e10|at8|amyloid|tau\b|positive area|gfap|neun|asyn|tdp": "it is a stain of the same examination",
    r"\blate\b|\bcaa\b|lewy": "it comes from the same examination",
    r"cognitive|dementia|casi|mmse|cdr|moca": "it follows from the disease",
    r"pseudo.?progression|severely affected": "it is computed from the pathology",
    r"diagnosis|disease|condition|case.?control|neurotypical": "it names the cases",
}
OPEN = r"\+|over|older|under|younger|less|more|[<>≤≥]"  # of an age that is only bounded
ALIASES = {
    "age": ("Age at Death", "Age at death", "age_at_death", "age", "Age", "development_stage"),
    "sex": ("Sex", "sex", "gender", "Gender"),
    "apoe": ("APOE Genotype", "APOE genotype", "APOE", "apoe_genotype"),
    "pmi": ("PMI", "pmi"),
    "education": ("Years of education", "education"),
}
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
            columns |= _encode(name, donors[f"obs:{source}"])[0]
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
            if name in COVARIATES:
                notes.append(f"metadata '{name}': the file has no such column, so it is left out")
                continue
            known = [c.removeprefix("obs:") for c in donors if c.startswith("obs:")]
            raise UserError(
                f"metadata.columns: no donor-level obs column '{name}'.{nearest(name, known)} "
                f"There are {listing(known, 40)}."
            )
        encoded, assumed = _encode(name, donors[f"obs:{source}"])
        notes += assumed
        if reason := _gives_label_away(source, encoded, label):
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
    key = "apoe" if name in ("apoe4", "apoe2") else name
    return next((c for c in ALIASES.get(key, (name,)) if f"obs:{c}" in donors), None)


def _encode(name: str, raw: pd.Series) -> tuple[dict[str, pd.Series], list[str]]:
    """One column of numbers, or one for each level; and notes on what was assumed."""
    raw = raw.map(lambda v: None if str(v).strip().casefold() in MISSING else v)
    alleles = {"apoe4": "4", "apoe2": "2"}
    encoded: dict[str, pd.Series]
    notes: list[str]
    if name in alleles:
        encoded, notes = {name: raw.map(_alleles(alleles[name]))}, []
    elif name == "age" or raw.dropna().infer_objects().dtype.kind in "iuf":
        encoded, notes = _ages(name, raw)
    else:
        # One column a level, none taken as the norm: which levels there are depends on all donors.
        encoded = {
            f"{name}={level}": (raw.astype(str) == level).astype(float).where(raw.notna())
            for level in sorted(raw.dropna().astype(str).unique())
        }
        notes = []
    unknown = int(raw.isna().sum())
    return encoded, notes + ([f"metadata '{name}': unknown for {unknown} donors"] if unknown else [])


def _alleles(allele: str) -> Callable[[object], float]:
    """`3/4`, `E3/E4`, `34` → how often the allele occurs; NaN for anything else."""

    def number(genotype: object) -> float:
        digits = re.sub(r"[^234]", "", str(genotype))
        return float(digits.count(allele)) if len(digits) == 2 else np.nan

    return number


def _ages(name: str, raw: pd.Series) -> tuple[dict[str, pd.Series], list[str]]:
    """Numbers, with `90+` read as 90 and `78 to 89` as its middle; and a note of how many were so."""
    inexact = 0

    def number(value: object) -> float:
        nonlocal inexact
        found = [float(part) for part in re.findall(r"\d+(?:\.\d+)?", str(value))]
        if not found:
            return np.nan
        inexact += len(found) > 1 or bool(re.search(OPEN, str(value).casefold()))
        return float(np.mean(found[:2]))

    values = raw.map(number)
    note = f"metadata '{name}': {inexact} donors have an open or binned value, read as its bound or middle"
    return {name: values}, [note] if inexact else []


def derived_from_label(column: str) -> str | None:
    """Why a column of this name must not be a feature; None where it may be one."""
    found = (why for pattern, why in LABEL_DERIVED.items() if re.search(pattern, column, re.IGNORECASE))
    return next(found, None)


def _gives_label_away(source: str, encoded: dict[str, pd.Series], label: pd.Series) -> str | None:
    """Why a column must not be a feature: by its name, or because it separates the classes."""
    if reason := derived_from_label(source):
        return reason
    values = pd.DataFrame(encoded)
    known = values.notna().all(axis=1)
    if 0 < known.sum() < len(known) and known.groupby(label).nunique().eq(1).all():
        return "it is known in one class only"
    if known.sum() < 4 or label[known].nunique() < 2:
        return None
    rows = label[known].groupby([values.loc[known, name] for name in values]).agg(["nunique", "size"])
    if 1 < len(rows) <= known.sum() // 4 and (rows["nunique"] == 1).all():
        return "each of its values occurs in one class only"
    for name in values:
        if values.loc[known, name].nunique() > 2:
            area = roc_auc_score(label[known], values.loc[known, name])
            if area in (0.0, 1.0):
                return "it separates the classes completely"
    return None


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
