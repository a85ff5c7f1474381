"""What may explain a difference between the classes beside disease: facts of donors, samples and nuclei.

Found by their names in obs. Columns that define the label, or follow from it, are none.
"""

import re
from collections.abc import Iterator

import numpy as np
import pandas as pd

from oligo_ad.data.cohort import Cohort
from oligo_ad.data.columns import ALIASES
from oligo_ad.data.covariates import COVARIATES, encode
from oligo_ad.data.encoding import encode_column
from oligo_ad.data.leakage import derived_from_label
from oligo_ad.errors import UserError, nearest

# Names as lower-case words.
NAMES = re.compile(
    r"rin\w*|rna integrity.*|ph|brain ph|hemisphere|.*education|"  # of a brain, or a person
    r"race.*|.*ethnicity|hispanic.*|ancestry|"
    r"method|assay|chemistry|.*10x.*|suspension type|sequencer|fresh.*|region|"  # of the laboratory
    r".*library.*|libraries|batch.*|.*batch|pool|capture|exp component name|"
    r".*brain ?bank|bank|site|cent(re|er)|institut\w+|cohort|study|data ?set.*|project|source|"
    r".*doublet.*|.*scrublet.*|.*mito.*|pct counts mt|percent mt|fraction mt|.*ribo.*|"  # of nuclei
    r".*intron\w*.*|.*ambient.*|cell cycle.*|.*viability.*"
)
FEWEST = 3  # donors of a level; rarer ones are joined
OTHER = "other"
MOST_LEVELS = 4  # of a column of numbers; for subgroups one with more is cut at its median


def read_confounders(cohort: Cohort) -> pd.DataFrame:
    """Confounders of donors as numbers [donors, columns], NaN where unknown.

    Of text, each level that `FEWEST` donors have is a column, and the rarer ones are joined; a text that is
    another one for nearly every donor, such as a library, is a column without any value.
    """
    donors = cohort.donors
    columns: dict[str, pd.Series] = {}
    for name in (*COVARIATES, "pmi", "education"):
        encoded = encode(donors, (name,))
        if not encoded.empty:
            columns |= _as_few(name, dict(encoded.items()))
    roles = {alias for role in ("age", "sex", "apoe", "pmi", "education") for alias in ALIASES[role]}
    for name in donors.columns:
        kind, _, source = name.partition(":")
        if kind in ("obs", "mean") and source not in roles and _is_one(source):
            given = donors[name]
            encoded = {source: given} if kind == "mean" else encode_column(source, given)[0]
            columns |= _as_few(source, encoded)
    found = pd.DataFrame(columns | dict(_of_nuclei(cohort)), index=donors.index, dtype=float)
    return found.loc[:, [n for n in found if found[n].nunique() != 1]]


def read_subgroups(cohort: Cohort, label: pd.Series, names: tuple[str, ...]) -> dict[str, pd.Series]:
    """The level of each donor in some columns, as text, None where unknown; many numbers are cut in two.

    Args:
        cohort: with its donors.
        label: 0 or 1 of those that are compared.
        names: of columns, as in `metadata.columns`.

    Raises:
        UserError: a column is not there, or has one value.
    """
    found = {}
    for name in names:
        columns = encode(cohort.donors, (name,)).reindex(label.index)
        if columns.empty or columns.notna().sum().sum() == 0:
            known = [*COVARIATES, *(c.partition(":")[2] for c in cohort.donors if c.startswith("obs:"))]
            raise UserError(
                f"evaluation.subgroups: the donors have no '{name}' that can be used.{nearest(name, known)}"
            )
        found[name] = _levels(columns)
        if found[name].nunique() < 2:
            raise UserError(f"evaluation.subgroups: all donors have the same '{name}'. Leave it out.")
    return found


def _levels(columns: pd.DataFrame) -> pd.Series:
    """One level a donor, from a column of numbers or from a column for each level."""
    if "=" in columns.columns[0]:
        words = [str(name).partition("=")[2] for name in columns]
        own = columns.fillna(0).to_numpy().argmax(1)
        text = pd.Series([words[place] for place in own], columns.index, dtype=object)
        return text.where(columns.notna().any(axis=1), None)
    values = columns.iloc[:, 0]
    if values.nunique() <= MOST_LEVELS:
        text = values.map("{:g}".format)
    else:
        middle = values.median()
        text = values.gt(middle).map({True: f"above {middle:g}", False: f"{middle:g} or less"})
    return text.astype(object).where(values.notna(), None)


def _is_one(name: str) -> bool:
    squeezed = " ".join(re.sub(r"[\W_]+", " ", name).casefold().split())
    return NAMES.fullmatch(squeezed) is not None and derived_from_label(name) is None


def _as_few(name: str, encoded: dict[str, pd.Series]) -> dict[str, pd.Series]:
    """Levels with enough donors, and the rest together; of two levels, one."""
    if len(encoded) < 2:
        return encoded
    table = pd.DataFrame(encoded)
    if table.shape[1] > table.notna().any(axis=1).sum() / 2:
        return {name: pd.Series(np.nan, table.index)}
    common = table.columns[table.sum() >= FEWEST]
    kept = table[common]
    if rare := [level for level in table if level not in common]:
        kept = kept.assign(**{f"{name}={OTHER}": table[rare].sum(axis=1).where(table.notna().any(axis=1))})
    return dict(list(kept.items())[: 1 if kept.shape[1] == 2 else None])


def _of_nuclei(cohort: Cohort) -> Iterator[tuple[str, pd.Series]]:
    """Numbers of nuclei, and what was read of each."""
    by_donor = cohort.cells.groupby("donor")
    yield "nuclei", by_donor.size()
    yield "genes per nucleus", by_donor["n_genes"].mean()
    if cohort.expression.content == "counts":
        yield (
            "UMIs per nucleus (mean ln)",
            np.log(cohort.cells["total"]).groupby(cohort.cells["donor"]).mean(),
        )
