"""`task=inspect`: what a file holds and what a run would do with it, from obs and a few rows."""

from pathlib import Path

import pandas as pd

from oligo_ad.config import Config, DataConfig
from oligo_ad.data.cache import source
from oligo_ad.data.cohort import gene_names
from oligo_ad.data.columns import find_column
from oligo_ad.data.covariates import ALIASES, LABEL_DERIVED, derived_from_label
from oligo_ad.data.labels import Labels, read_labels
from oligo_ad.data.selection import Selection, recognise, select
from oligo_ad.data.split import make_folds
from oligo_ad.errors import UserError, listing
from oligo_ad.storage.atlas import Atlas, open_atlas
from oligo_ad.storage.candidates import Candidate
from oligo_ad.storage.expression import NoExpressionError, find_expression

MANY = 60  # levels of a column, beyond which they are not listed


def inspect(config: Config, folder: Path) -> None:
    """Print the description of a file; nothing is written to `folder`."""
    print(describe(config))  # noqa: T201 this text is what the user asked for


def describe(config: Config) -> str:
    """A description of the file that `config.data` names, as text.

    Raises:
        UserError: the file cannot be read at all. What a run would refuse is part of the text.
    """
    with open_atlas(source(config.data, config.cache.path)) as atlas:
        lines = [f"{'SIMULATED ' if atlas.simulated else ''}{atlas.path}"]
        lines += [f"{atlas.n_obs:,} nuclei x {atlas.shape(atlas.matrices[0])[1]:,} genes", ""]
        lines += [*_matrices(atlas, config.data), "", *_genes(atlas), "", *_columns(atlas, config.data)]
        return "\n".join([*lines, "", *_would_use(atlas, config)])


def _matrices(atlas: Atlas, config: DataConfig) -> list[str]:
    """What was seen in each matrix, and the decision of a run, from the function that a run calls."""
    lines = ["matrices: " + listing(f"{name} ({atlas.layout(name)})" for name in atlas.matrices)]
    try:
        found = find_expression(atlas, config.counts)
    except NoExpressionError as error:
        return [*lines, *_seen(error.candidates), f"expression: REFUSED. {error}"]
    except UserError as error:
        return [*lines, f"expression: REFUSED. {error}"]
    return [
        *lines,
        *_seen(found.candidates),
        f"expression: {found.evidence}",
        *(f"  note: {note}" for note in found.notes),
    ]


def _seen(candidates: tuple[Candidate, ...]) -> list[str]:
    return [f"  {one.matrix} ({one.layout}): {one.seen}; {one.verdict}" for one in candidates]


def _genes(atlas: Atlas) -> list[str]:
    names = gene_names(atlas.var(atlas.matrices[0]))
    lines = [
        f"gene {kind}: {'none found' if names[kind].isna().all() else listing(names[kind], 3)}"
        for kind in ("symbol", "ensembl")
    ]
    provided = "highly_variable" in names
    return [*lines, f"highly_variable column: {'yes' if provided else 'no'}"]


def _columns(atlas: Atlas, config: DataConfig) -> list[str]:
    """Each obs column: its role, whether it is donor-level, and its levels."""
    try:
        columns, label = recognise(atlas, config), find_column(atlas, "label_key", config.label_key)
    except UserError as error:
        return [f"donor, label, cell type: REFUSED. {error}", "", *_levels(atlas, {})]
    roles = {columns.donor: "donor", label: "label"}
    found = [f"{role}: {column}" for column, role in roles.items()]
    found.append(f"cell type: {columns.cell_type or 'not named: every nucleus would be used'}")
    roles |= {columns.cell_type: "cell_type"} if columns.cell_type else {}
    return [*found, "", *_levels(atlas, roles)]


def _levels(atlas: Atlas, roles: dict[str, str]) -> list[str]:
    donor = next((atlas.column(name) for name, role in roles.items() if role == "donor"), None)
    codes = donor.astype("category").cat.codes if donor is not None else None
    roles = roles | {alias: f"covariate {name}" for name, aliases in ALIASES.items() for alias in aliases}
    lines = [f"{len(atlas.columns)} obs columns:"]
    for name in atlas.columns:
        values = atlas.column(name)
        role = roles.get(name) or ("gives the label away" if derived_from_label(name) else "")
        level = _level(values, codes) if codes is not None else ""
        lines.append(f"  {name:<50} {level:<8} {role:<22} {_summary(values, codes)}".rstrip())
    return lines


def _level(values: pd.Series, donor: pd.Series) -> str:
    codes = pd.Series(pd.factorize(values)[0])
    return "donor" if (codes.groupby(donor.to_numpy()).nunique() <= 1).all() else "nucleus"


def _summary(values: pd.Series, donor: pd.Series | None) -> str:
    """Levels with donors and nuclei, or the range of a number."""
    if pd.api.types.is_numeric_dtype(values) and not pd.api.types.is_bool_dtype(values):
        return f"{values.min():g} to {values.max():g}"
    counts = values.astype(object).value_counts()
    if len(counts) > MANY or donor is None:
        return f"{len(counts)} values"
    donors = donor.groupby(values.astype(str).to_numpy()).nunique()
    levels = [f"{value} ({donors[str(value)]} donors, {n:,} nuclei)" for value, n in counts.items()]
    return listing(levels, 30)


def _would_use(atlas: Atlas, config: Config) -> list[str]:
    """The donors and nuclei of a run before quality control, or why there would be none."""
    try:
        chosen = select(atlas, config.data)
        labels = read_labels(atlas, config.data, chosen)
    except UserError as error:
        return [f"A run would REFUSE this: {error}"]
    lines = ["A run would use (before quality control):", *_classes(chosen, labels)]
    lines += [f"  note: {note}" for note in chosen.notes + labels.notes]
    try:
        folds = make_folds(labels.of_donor, config.split)
        parts = ", ".join(f"{len(donors)} {part}" for part, donors in folds[0].parts.items())
        lines.append(f"  split={config.split.kind}: {len(folds)} fold(s); donors of the first: {parts}")
    except UserError as error:
        lines.append(f"  split={config.split.kind} would REFUSE this: {error}")
    reasons = "; or ".join(sorted(set(LABEL_DERIVED.values())))
    return [*lines, f"  a column is refused as metadata where {reasons}"]


def _classes(chosen: Selection, labels: Labels) -> list[str]:
    """Donors and nuclei of both classes, and of label values that are in neither."""
    of_type = chosen.steps.iloc[:, -1]
    lines = []
    for value, values in ((1, labels.positive), (0, labels.negative)):
        own = labels.of_donor.index[labels.of_donor == value]
        lines.append(f"  {listing(values)} = {value}: {len(own)} donors, {of_type[own].sum():,} nuclei")
    return lines + [
        f"  excluded {row.value}: {row.donors} donors, {row.nuclei:,} nuclei"
        for row in labels.excluded(of_type).itertuples()
    ]
