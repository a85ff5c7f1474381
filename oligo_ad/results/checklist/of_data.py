"""What a run knows of its data: source, numbers, outcome, parts, what was left out, and what is unknown."""

from collections.abc import Collection

import pandas as pd

from oligo_ad.errors import listing
from oligo_ad.results.checklist.items import Answer, Status, unknown
from oligo_ad.results.sentences import RunSummary

MOST = 8  # notes, columns or values in one answer; the report has all


def source(run: RunSummary) -> Answer:
    """The file, what identifies it, and its size."""
    facts = run.record.facts
    if "file" not in facts.cohort:
        return unknown("the file, which this run has not recorded")
    data = facts.sources.get("data")
    content = f"content {data.fingerprint}" if data else "its content was not recorded"
    file = "simulated, of no real donor: " if facts.simulated else ""
    columns = [
        f"{name} {facts.cohort[name]}" for name in ("donor column", "cell types") if name in facts.cohort
    ]
    described = ", ".join([f"{file}{facts.cohort['file']}", content, *columns])
    return Answer(f"{described}. {numbers(run).text}")


def numbers(run: RunSummary) -> Answer:
    """Donors and nuclei of each class."""
    donors = run.record.facts.donor_table
    parts = []
    for value in (1, 0):
        own = donors[donors["label"] == value]
        share = 100 * len(own) / len(donors)
        parts.append(
            f"{len(own)} {run.class_names[value]} donors ({share:.1f} %) with {own['nuclei'].sum():,} nuclei"
        )
    return Answer(f"{', '.join(parts)}{_locked(run)}")


def _locked(run: RunSummary) -> str:
    labels = [donor.label for donor in run.record.facts.locked.values()]
    counts = ", ".join(f"{labels.count(value)} {run.class_names[value]}" for value in (1, 0))
    return f"; besides, {len(labels)} donors in the lockbox ({counts})" if labels else ""


def sample_size(run: RunSummary) -> Answer:
    """Every donor there is, and what so many can show."""
    return Answer(
        f"{numbers(run).text}: every donor of the file that the selection leaves, not a number that was "
        f"computed beforehand. {run.evidence.power}"
    )


def characteristics(run: RunSummary) -> Answer:
    """Means of donor columns in each class."""
    table = run.record.facts.confounder_table
    known = [name for name in table if table[name].notna().any()]
    if not known:
        return unknown("facts of donors beside label and nuclei: this run has recorded none")
    label = run.record.facts.donor_table["label"]
    means = table.groupby(label.reindex(table.index)).mean()
    rows = [f"{name} {_mean(means, 1, name)} and {_mean(means, 0, name)}" for name in known]
    names = " and ".join(reversed(run.class_names))
    return Answer(
        f"{numbers(run).text}. Means (of yes and no, shares) in {names} donors: {listing(rows, 2 * MOST)}"
    )


def _mean(means: pd.DataFrame, label: int, name: str) -> str:
    value = means[name].get(label, float("nan"))
    return "unknown" if pd.isna(value) else f"{value:.3g}"


def outcome(run: RunSummary) -> Answer:
    """Which values of which column make the classes."""
    facts = run.record.facts
    if "label column" not in facts.cohort:
        return unknown("the column that defines the classes, which this run has not recorded")
    negative, positive = run.class_names
    others = listing([f"{row['value']} ({row['donors']} donors)" for row in facts.excluded], MOST)
    return Answer(
        f"of a donor, by {facts.cohort['label column']}: {positive} is 1, {negative} is 0; other values are "
        f"left out: {others or 'there are none'}"
    )


def split(run: RunSummary) -> Answer:
    """How donors were divided, with fewest and most donors of each class in each part."""
    config, n = run.record.config.split, len(run.record.folds)
    kind = "one stratified split" if config.kind == "holdout" else f"{config.folds} stratified folds"
    made = (
        f"{kind} of whole donors, {config.repeats} times" if config.repeats > 1 else f"{kind} of whole donors"
    )
    how = f"read from a saved split, {n} fold(s)" if config.file else f"{made}, seed {config.seed}"
    only = f", fold {config.only} alone" if config.only else ""
    few = f", of the training donors a share of {config.train_fraction}" if config.train_fraction < 1 else ""
    parts = run.parts.groupby("part", sort=False)
    sizes = "; ".join(f"{part} {_sizes(run, table)}" for part, table in parts)
    return Answer(f"{how}{only}{few}. Donors in a fold: {sizes}. split.json names each donor")


def _sizes(run: RunSummary, table: pd.DataFrame) -> str:
    of_class = {value: table.loc[table["label"] == value, "donors"] for value in (1, 0)}
    return " and ".join(f"{span(own)} {run.class_names[value]}" for value, own in of_class.items())


def span(counts: Collection[int]) -> str:
    """`5`, or `5 to 7`."""
    low, high = min(counts), max(counts)
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


def exclusions(run: RunSummary) -> Answer:
    """What each step of the selection left."""
    left = pd.DataFrame(run.record.facts.flow).groupby("step", sort=False)[["donors", "nuclei"]].sum()
    steps = [f"{step}: {row.donors:,} donors, {row.nuclei:,} nuclei" for step, row in left.iterrows()]
    return Answer(f"{'; '.join(steps)}{_locked(run)}")


def flow(run: RunSummary) -> Answer:
    """The same, with the picture."""
    return Answer(f"{exclusions(run).text}. {split(run).text}. Drawn in report.html")


def corrupt(run: RunSummary) -> Answer:
    """What was done with what cannot be right."""
    return Answer(
        "predictions that are not finite end a run, and so do matrices that can be neither counts nor their "
        f"logarithms; poor nuclei and donors are left out. {_told(run)}"
    )


def duplicates(run: RunSummary) -> Answer:
    """How equal nuclei and persons are looked for."""
    donors = run.record.facts.donors.values()
    known = sum(donor.person != "" for donor in donors)
    return Answer(
        "nuclei with equal counts and one person under two ids are looked for, the latter by facts that "
        f"chance would not repeat, which are known of {known} of {len(donors)} donors. All nuclei of a donor "
        f"are in one part. {_told(run)}"
    )


def _told(run: RunSummary) -> str:
    notes = run.record.facts.notes
    more = f" and {len(notes) - MOST} more in report.html" if len(notes) > MOST else ""
    return (
        f"Told to the user: {'; '.join(notes[:MOST])}{more}"
        if notes
        else "Nothing had to be told to the user"
    )


def preprocessing(run: RunSummary) -> Answer:
    """What the featurizer reports, the same for each donor."""
    facts, first = run.record.facts, run.record.histories[0]
    if not first.input:
        return unknown("what the model reads, which this run has not recorded")
    read = "; ".join(f"{name}: {value}" for name, value in first.input.items())
    depth = "; counts thinned to a common depth" if run.record.config.data.match_depth else ""
    data = run.record.config.data
    quality = f"{data.min_genes} genes a nucleus and {data.min_nuclei} nuclei a donor at least"
    return Answer(
        f"in the file {facts.cohort.get('expression', 'unknown values')}{depth}. Kept: {quality}. "
        f"Input, in fold {first.fold}, by the same steps for every donor: {read}"
    )


def missing(run: RunSummary) -> Answer:
    """Unknown values of donor columns, by class; not of columns that the record holds no value of, which may
    be names of nearly every donor's own."""
    facts = run.record.facts
    every, label = facts.confounder_table, facts.donor_table["label"]
    table = every.loc[:, every.notna().any()]
    if table.empty:
        return unknown("which facts of donors are missing: this run has recorded none")
    gaps = table.isna().groupby(label.reindex(table.index)).agg(["sum", "size"])
    rows = [
        f"{name} of {' and '.join(_gap(run, gaps[name], value) for value in (1, 0))}"
        for name in table
        if table[name].isna().any()
    ]
    found = f"unknown values: {listing(rows, MOST)}" if rows else "no unknown value"
    own = listing(every.columns.difference(table.columns), MOST)
    besides = f"; not counted: {own}, unknown or another value for nearly every donor" if own else ""
    return Answer(f"{found}, in {table.shape[1]} columns of donors{besides}")


def _gap(run: RunSummary, gaps: pd.DataFrame, label: int) -> str:
    n, size = gaps["sum"].get(label, 0), gaps["size"].get(label, 0)
    return f"{n} of {size} {run.class_names[label]} donors ({100 * n / max(size, 1):.1f} %)"


def handling(run: RunSummary) -> Answer:
    """What is done about missing values."""
    found = missing(run)
    told = f". {found.text}" if found.status is Status.ANSWERED else ""
    imputed = "unknown covariates become the mean of the training donors, beside an indicator"
    given = imputed if run.record.facts.covariates else "the model is given no covariate, so none is imputed"
    return Answer(f"donors without a label are left out; a count that is not stored is 0; {given}{told}")
