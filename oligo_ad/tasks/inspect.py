"""`task=inspect`: what a file holds and what a run would do with it, from obs and a few rows."""

from pathlib import Path

import numpy as np
import pandas as pd

from oligo_ad.config import Config, DataConfig, InspectTask
from oligo_ad.data.cache import source
from oligo_ad.data.columns import ALIASES, Column, find_column, passed_over, read_column
from oligo_ad.data.covariates import read_covariates
from oligo_ad.data.donor_columns import donor_columns
from oligo_ad.data.genes import VARIABLE, gene_names, gene_notes
from oligo_ad.data.labels import Labels, read_labels
from oligo_ad.data.leakage import LABEL_DERIVED, derived_from_label
from oligo_ad.data.lockbox import describe_box, locked_donors
from oligo_ad.data.overlap import people_in, people_of, shared, twins
from oligo_ad.data.people import Grouping, check_people, vary_within
from oligo_ad.data.selection import Selection, recognise, select
from oligo_ad.data.split import make_folds
from oligo_ad.errors import UserError, listing
from oligo_ad.record import open_run
from oligo_ad.storage.atlas import Atlas, open_atlas
from oligo_ad.storage.candidates import Candidate
from oligo_ad.storage.expression import Expression, NoExpressionError, find_expression

MANY = 60  # levels of a column, beyond which they are not listed
MANY_TEXTS = 10_000  # and beyond which they are not looked at one by one


def inspect(config: Config, folder: Path) -> None:
    """Print the description of a file; nothing is written to `folder`."""
    print(describe(config))  # noqa: T201 this text is what the user asked for


def describe(config: Config) -> str:
    """A description of the file that `config.data` names, as text.

    Raises:
        UserError: the file cannot be read at all. What a run would refuse is part of the text.
    """
    with open_atlas(source(config.data, config.cache.path)) as atlas:
        found = _decision(atlas, config.data)
        # Of a refused file, the genes of its first matrix.
        var = atlas.var(found.matrix if isinstance(found, Expression) else atlas.matrices[0])
        lines = [f"{'SIMULATED ' if atlas.simulated else ''}{atlas.path}"]
        lines += [f"{atlas.n_obs:,} nuclei x {len(var):,} genes", ""]
        lines += [*_matrices(atlas, found), "", *_genes(var), "", *_columns(atlas, config.data)]
        return "\n".join([*lines, "", *_would_use(atlas, config, var)])


def _decision(atlas: Atlas, config: DataConfig) -> Expression | UserError:
    """The matrix that a run would read, by the function that a run calls, or why there is none."""
    try:
        return find_expression(atlas, config.counts)
    except UserError as error:
        return error


def _matrices(atlas: Atlas, found: Expression | UserError) -> list[str]:
    """What was seen in each matrix, and the decision of a run."""
    lines = ["matrices: " + listing(f"{name} ({atlas.layout(name)})" for name in atlas.matrices)]
    if isinstance(found, UserError):
        candidates = found.candidates if isinstance(found, NoExpressionError) else ()
        return [*lines, *_seen(candidates), f"expression: REFUSED. {found}"]
    return [
        *lines,
        *_seen(found.candidates),
        f"expression: {found.evidence}",
        *(f"  note: {note}" for note in found.notes),
    ]


def _seen(candidates: tuple[Candidate, ...]) -> list[str]:
    return [f"  {one.matrix} ({one.layout}): {one.seen}; {one.verdict}" for one in candidates]


def _genes(var: pd.DataFrame) -> list[str]:
    names = gene_names(var)
    lines = [
        f"gene {kind}: {'none found' if names[kind].isna().all() else listing(names[kind].dropna(), 3)}"
        for kind in ("symbol", "ensembl")
    ]
    provided = "no"
    if VARIABLE in names:
        flags = names[VARIABLE]
        provided = f"yes, {int(flags.sum()):,} genes" if flags.dtype == bool else "neither true nor false"
    return [*lines, f"highly_variable column: {provided}"]


def _columns(atlas: Atlas, config: DataConfig) -> list[str]:
    """Each obs column: its role, whether it is donor-level, what it holds, and its levels."""
    try:
        columns, label = recognise(atlas, config), find_column(atlas, "label_key", config.label_key)
    except UserError as error:
        return [f"donor, label, cell type: REFUSED. {error}", "", *_levels(atlas, {})]
    roles = {columns.donor: "donor", label: "label"}
    asked = {columns.donor: config.donor_key, label: config.label_key}
    found = [f"{role}: {column}{_others(atlas, column, asked[column])}" for column, role in roles.items()]
    if columns.cell_type:
        roles[columns.cell_type] = "cell_type"
        found.append(
            f"cell type: {columns.cell_type}{_others(atlas, columns.cell_type, config.cell_type_key)}"
        )
    else:
        found.append("cell type: not named: every nucleus would be used")
    return [*found, "", *_levels(atlas, roles)]


def _others(atlas: Atlas, column: str, names: tuple[str, ...]) -> str:
    """Columns that bear the name of a role as well, and are not used for it."""
    others = passed_over(atlas, column, names)
    return f" (passed over: {listing(others)})" if others else ""


def _levels(atlas: Atlas, roles: dict[str, str]) -> list[str]:
    donor_column = next((name for name, role in roles.items() if role == "donor"), None)
    donor = read_column(atlas, donor_column).as_text() if donor_column else None
    group = None
    if donor is not None and donor.notna().any():
        group = Grouping.of(donor, np.flatnonzero(donor.notna().to_numpy()))
    roles = {alias: f"covariate {role}" for role, names in ALIASES.items() for alias in names} | roles
    lines = [f"{len(atlas.columns)} obs columns:"]
    for name in atlas.columns:
        column = read_column(atlas, name)
        role = roles.get(name) or ("gives the label away" if derived_from_label(name) else "")
        level = _level(column, group) if group is not None else ""
        lines.append(
            f"  {name:<50} {level:<8} {role:<22} {column.kind():<7} {_summary(column, group)}".rstrip()
        )
    return lines


def _level(column: Column, group: Grouping) -> str:
    codes = column.codes if len(column.levels) > MANY_TEXTS else column.merged()[0].cat.codes.to_numpy()
    return "nucleus" if vary_within(group, codes.astype(np.int64)[group.rows])[0].any() else "donor"


def _summary(column: Column, group: Grouping | None) -> str:
    """Levels with donors and nuclei, or the range of a number; what is unknown, and spelled in two ways."""
    remarks = [f"{column.missing:,} unknown"] if column.missing else []
    if column.is_stored_as_numbers:
        known = column.levels[column.known]
        return "; ".join([f"{known.min():g} to {known.max():g}" if len(known) else "no number", *remarks])
    if len(column.levels) > MANY_TEXTS or group is None:
        return "; ".join([f"{len(column.levels)} values", *remarks])
    words, twins = column.merged()
    remarks += [f"'{word}' is '{twins[word]}'" for word in sorted(twins)[:4]]
    counts = words.value_counts()
    if len(counts) > MANY:
        return "; ".join([f"{len(counts)} values", *remarks])
    of = pd.DataFrame(
        {"donor": group.code, "value": words.cat.codes.to_numpy()[group.rows]}
    ).drop_duplicates()
    donors = dict(
        zip(
            words.cat.categories,
            np.bincount(of["value"][of["value"] >= 0], minlength=len(counts)),
            strict=True,
        )
    )
    levels = [f"{value} ({donors[value]} donors, {n:,} nuclei)" for value, n in counts.items()]
    return "; ".join([listing(levels, 30), *remarks])


def _would_use(atlas: Atlas, config: Config, var: pd.DataFrame) -> list[str]:
    """The donors and nuclei of a run before quality control, or why there would be none."""
    try:
        chosen = select(atlas, config.data)
        labels = read_labels(atlas, config.data, chosen)
        people = check_people(atlas, chosen.donors, chosen.rows)
    except UserError as error:
        return [f"A run would REFUSE this: {error}"]
    lines = ["A run would use (before quality control):", *_classes(chosen, labels)]
    lines += [f"  note: {note}" for note in (*chosen.notes, *people, *gene_notes(var), *labels.notes)]
    lines += _covariates(atlas, config, chosen, labels)
    lines += _overlap(atlas, config, chosen)
    try:
        label, box = labels.of_donor, labels.of_donor.iloc[:0]
        if config.split.lockbox:
            box = locked_donors(label, config.split.lockbox)
            lines.append(f"  note: {describe_box(box, labels.names)}")
        folds = make_folds(label.drop(box.index), config.split, locked=box.index)
        parts = ", ".join(f"{len(donors)} {part}" for part, donors in folds[0].parts.items())
        lines.append(f"  split={config.split.kind}: {len(folds)} fold(s); donors of the first: {parts}")
    except UserError as error:
        lines.append(f"  split={config.split.kind} would REFUSE this: {error}")
    reasons = "; or ".join(sorted(set(LABEL_DERIVED.values())))
    return [*lines, f"  a column is refused as metadata where {reasons}"]


def _overlap(atlas: Atlas, config: Config, chosen: Selection) -> list[str]:
    """Donors that may be one person, and donors that an earlier run has seen."""
    donors = donor_columns(atlas, Grouping.of(chosen.donors.of, chosen.rows)).constant
    lines = [f"  note: {found}" for found in twins(people_of(donors))]
    if isinstance(config.task, InspectTask) and config.task.run:
        seen = people_in(open_run(config.task.run))
        cells = pd.DataFrame({"barcode": atlas.barcodes(chosen.rows), "donor": chosen.donor})
        found = shared(people_of(donors, cells), seen) or ["no donor of that run is found here"]
        lines += [f"  run={config.task.run}: {sentence}" for sentence in found]
    return lines


def _covariates(atlas: Atlas, config: Config, chosen: Selection, labels: Labels) -> list[str]:
    """What would become of the metadata of a run, before quality control."""
    if not config.metadata.columns:
        return []
    compared = chosen.donors.of.iloc[chosen.rows].isin(labels.donors).to_numpy()
    donors = donor_columns(atlas, Grouping.of(chosen.donors.of, chosen.rows[compared])).constant
    try:
        covariates = read_covariates(donors, labels.of_donor, config.metadata)
    except UserError as error:
        return [f"  metadata: REFUSED. {error}"]
    return [
        f"  metadata: {listing(covariates.values.columns, 30)}",
        *(f"  note: {note}" for note in covariates.notes),
    ]


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
