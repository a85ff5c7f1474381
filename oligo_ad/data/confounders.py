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
from oligo_ad.data.encoding import ALLELES, encode_column
from oligo_ad.data.leakage import derived_from_label
from oligo_ad.errors import UserError, nearest

# Names as lower-case words: of facts that have a unit or a code of their own, and of others.
ROLES = {
    "age": r"(expired )?age( (at|of) death| death)?( in)?( years?| yrs?)?|development stage",
    "sex": r"m ?sex|(reported |inferred )?sex|gender",
    "apoe": r"apoe|apoe genotypes?",
    "pmi": r"pmi( in)?( h| hrs?| hours?)?|pm[di]|post ?mortem (interval|delay).*",
    "education": r".*education.*|(years? )?educ( years?)?",
}
NAMES = re.compile(
    r"rin\w*( score)?|rna integrity.*|(brain |donor |tissue |csf )?ph|hemisphere|"  # of a brain, or a person
    r"apoe ?e?[24]( .*)?|race.*|.*ethnicity|hispanic.*|ancestry|"
    r"method|assay|.*chemistry|.*10x.*|suspension type|.*sequencer|fresh.*|(brain )?region|"  # of laboratory
    r"(.* )?librar(y|ies)( .*)?|(.* )?\w*batch(es)?( .*)?|pool|capture|exp component name|load name|"
    r"(.* )?brain ?bank( .*)?|bank|(.* )?site|cent(re|er)|institut\w+|cohort|"
    r"(.* )?study( .*)?|data ?set.*|project|source|"
    r".*doublet.*|.*scrublet.*|(.* )?mito.*|.*mitochond.*|(pct|percent|fraction|frac)( counts)? mt|mt frac|"
    r"(.* )?ribo.*|(.* )?intron\w*.*|(.* )?ambient.*|cell cycle.*|(.* )?viability.*"  # of nuclei
)
# Of nuclei too; they are counted where the file has counts.
DEPTH = re.compile(
    r"(log )?(n|num|number of|total)? ?(counts?|umis?|features?|genes)( rna| detected| by counts)?"
)
FEWEST = 3  # donors of a level; rarer ones are joined
OTHER = "other"
SEVERAL = "several"  # of a donor whose nuclei differ
MOST_LEVELS = 4  # of a column of numbers; for subgroups one with more is cut at its median


def read_confounders(cohort: Cohort, label_column: str) -> pd.DataFrame:
    """Confounders of donors as numbers [donors, columns], NaN where unknown.

    Of text, each level that `FEWEST` donors have is a column, and the rarer ones are joined; where nuclei of
    a donor differ, it is their share. A text that is another one for nearly every donor, such as a library,
    is a column without any value.

    Args:
        cohort: of the donors that are compared.
        label_column: the obs column that labels are made of.
    """
    given = {name: values for name, values in _given(cohort) if _words(name) != _words(label_column)}
    roles = {name: role for name in given if (role := _role(name))}
    columns: dict[str, pd.Series] = {}
    for name in (*COVARIATES, "pmi", "education"):
        role = "apoe" if name in ALLELES else name
        own = [source for source in given if roles.get(source) == role]
        usual = [source for source in ALIASES[role] if source in own]
        for source in (usual or own)[:1]:
            columns |= _as_few(name, encode_column(name, given[source])[0])
    for name, values in given.items():
        if name not in roles and _is_one(name, cohort):
            columns |= _as_few(name, encode_column(name, values)[0])
    for name in [*cohort.kinds["column"].unique(), *cohort.varying]:
        if name not in given and _words(name) != _words(label_column) and _is_one(name, cohort):
            columns |= _shares(name, cohort.nuclei_by(name))
    found = pd.DataFrame(columns | dict(_of_nuclei(cohort)), index=cohort.donors.index, dtype=float)
    return found.loc[:, [n for n in found if found[n].nunique() != 1]]


def read_subgroups(cohort: Cohort, label: pd.Series, names: tuple[str, ...]) -> dict[str, pd.Series]:
    """The level of each donor in some columns, as text, None where unknown; many numbers are cut in two.

    Args:
        cohort: with its donors.
        label: 0 or 1 of those that are compared.
        names: of columns, as in `metadata.columns`, or of what differs between nuclei of a donor.

    Raises:
        UserError: a column is not there, or has one value.
    """
    found = {}
    for name in names:
        levels = _levels(name, cohort)
        if levels is None or levels.reindex(label.index).isna().all():
            own = [column.partition(":")[2] for column in cohort.donors if ":" in column]
            known = [*COVARIATES, *own, *cohort.kinds["column"].unique()]
            raise UserError(
                f"evaluation.subgroups: the donors have no '{name}' that can be used.{nearest(name, known)}"
            )
        found[name] = levels.reindex(label.index)
        if found[name].nunique() < 2:
            raise UserError(f"evaluation.subgroups: all donors have the same '{name}'. Leave it out.")
    return found


def _levels(name: str, cohort: Cohort) -> pd.Series | None:
    """The level of each donor; None where there is no such column."""
    columns = encode(cohort.donors, (name,))
    if columns.empty and f"mean:{name}" in cohort.donors:
        columns = cohort.donors[[f"mean:{name}"]].set_axis([name], axis=1)
    if list(columns) == [name]:
        return _cut(columns[name])
    if columns.empty:
        columns = cohort.nuclei_by(name)
    if columns.empty:
        return None
    words = [str(column).removeprefix(f"{name}=") for column in columns]
    there = columns.to_numpy() > 0
    text = pd.Series([words[place] for place in there.argmax(1)], columns.index, dtype=object)
    return text.mask(there.sum(1) > 1, SEVERAL).where(there.any(1), None)


def _cut(values: pd.Series) -> pd.Series:
    """Numbers as text, or, where they are many, on which side of their median they are."""
    if values.nunique() <= MOST_LEVELS:
        text = values.map("{:.12g}".format)
    else:
        middle = values.median()
        above = values.gt(middle)
        if above.any():
            text = above.map({True: f"above {middle:.4g}", False: f"{middle:.4g} or less"})
        else:  # most have the largest one
            text = values.lt(middle).map({True: f"below {middle:.4g}", False: f"{middle:.4g}"})
    return text.astype(object).where(values.notna(), None)


def _given(cohort: Cohort) -> Iterator[tuple[str, pd.Series]]:
    """Obs columns of donors by name: what does not vary within one, else the mean over nuclei."""
    for kind in ("mean", "obs"):
        for name in cohort.donors:
            if name.startswith(f"{kind}:"):
                yield name.partition(":")[2], cohort.donors[name]


def _words(name: str) -> str:
    return " ".join(re.sub(r"[\W_]+", " ", name).casefold().split())


def _is_named(pattern: str | re.Pattern[str], name: str) -> bool:
    """Whether a name is meant, also where capitals part its words: `capBatch`, but `pH`."""
    apart = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name)
    return any(re.fullmatch(pattern, _words(form)) for form in (name, apart))


def _role(name: str) -> str | None:
    return next((role for role, pattern in ROLES.items() if _is_named(pattern, name)), None)


def _is_one(name: str, cohort: Cohort) -> bool:
    of_depth = cohort.expression.content != "counts" and _is_named(DEPTH, name)
    return (of_depth or _is_named(NAMES, name)) and derived_from_label(name) is None


def _as_few(name: str, encoded: dict[str, pd.Series]) -> dict[str, pd.Series]:
    """Levels with enough donors, and the rest together; of two levels, one. None of what is all unknown."""
    table = pd.DataFrame(encoded)
    if table.isna().all(axis=None):
        return {}
    if len(encoded) < 2:
        return encoded
    common = table.columns[table.sum() >= FEWEST]
    if not len(common) or table.shape[1] > table.notna().any(axis=1).sum() / 2:
        return {name: pd.Series(np.nan, table.index)}
    kept = table[common]
    if rare := [level for level in table if level not in common]:
        kept = kept.assign(**{f"{name}={OTHER}": table[rare].sum(axis=1).where(table.notna().any(axis=1))})
    return dict(list(kept.items())[: 1 if kept.shape[1] == 2 else None])


def _shares(name: str, nuclei: pd.DataFrame) -> dict[str, pd.Series]:
    """Of the nuclei of each donor [donors, levels], how many in one are of each level."""
    common = nuclei.columns[(nuclei > 0).sum() >= FEWEST]
    if not len(common):
        return {name: pd.Series(np.nan, nuclei.index)}
    total = nuclei.sum(axis=1)
    shares = nuclei[common].div(total.where(total > 0), axis=0)
    if len(common) < nuclei.shape[1]:
        shares[OTHER] = 1 - shares.sum(axis=1, min_count=1)
    named = {f"{name}={level} (share of nuclei)": shares[level] for level in shares}
    return dict(list(named.items())[: 1 if len(named) == 2 else None])


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
