"""What a run knows of its results: scores, intervals, tests, subgroups, confounders, limits."""

import numpy as np

from oligo_ad.errors import listing
from oligo_ad.results import confounders as table_of_confounders
from oligo_ad.results.alarms import alarms
from oligo_ad.results.checklist.items import Answer, Status, not_applicable, not_done
from oligo_ad.results.checklist.of_data import MOST
from oligo_ad.results.checklist.of_model import model
from oligo_ad.results.evaluation import MODEL
from oligo_ad.results.sentences import INTERVAL_IS, SHOWN, RunSummary
from oligo_ad.results.verdict import shown, signed, tested


def evaluation(run: RunSummary) -> Answer:
    """How the model was evaluated."""
    split, n = run.record.config.split, len(run.record.folds)
    kind = "holdout" if split.kind == "holdout" else "cross-validation"
    return Answer(
        f"internal, by {kind}: {n} fold(s) of whole donors, everything fitted anew in each, its test donors "
        "scored once; scores are means over folds"
    )


def building(run: RunSummary) -> Answer:
    """The model, and its validation within the cohort."""
    return Answer(f"{model(run).text}. Validation: {evaluation(run).text}")


def measures(run: RunSummary) -> Answer:
    """Which scores, and why this one first."""
    level = "of donors first, of nuclei beside" if run.evaluation.cells else "of donors"
    return Answer(
        f"{level}: AUROC, which no threshold moves and naming the commoner class cannot raise; "
        f"{', '.join(SHOWN)}; calibration slope, intercept and in the large; pictures of scores, ROC, "
        "precision and recall, reliability, confusion"
    )


def result(run: RunSummary) -> Answer:
    """The headline with its interval, calibration, and the subgroups."""
    own = run.evaluation.donors[MODEL]
    mean = own.mean_over_folds
    text = (
        f"donor AUROC {run.evaluation.headline:.3f} ({shown(own.auroc)}), balanced accuracy "
        f"{mean['balanced_accuracy']:.3f} ({shown(own.balanced_accuracy)}), Brier {mean['brier']:.3f} "
        f"({shown(own.brier)}). {calibration(run)}"
    )
    groups = subgroups(run)
    if groups.status is Status.ANSWERED:
        return Answer(f"{text}. {groups.text}")
    return Answer(f"{text}. Subgroups: not done in this run", Status.PART)


def calibration(run: RunSummary) -> str:
    """Slope and Brier of donor probabilities at the cohort's prevalence."""
    found = run.evidence.calibrated
    own = found.scores["probability"]
    slope = "unknown" if np.isnan(own["slope"]) else f"{own['slope']:.3f}"
    return (
        f"Donor probabilities at the cohort's prevalence: slope {slope}, in the large "
        f"{own['in_the_large']:.3f}. {found.sentence().rstrip('.')}"
    )


def comparison(run: RunSummary) -> Answer:
    """The comparator that was named beforehand, and every other predictor."""
    differences = run.evaluation.differences
    if not differences:
        return not_done("baselines are scored with evaluation.baselines=true")
    named = run.evaluation.comparator
    every = ", ".join(f"{name} {signed(of)}" for name, of in differences.items())
    first = f"named beforehand: {named}" if named else "the comparator that was named was not scored"
    return Answer(f"{first}. Donor AUROC of {run.model} minus that of each predictor: {every}")


def uncertainty(run: RunSummary) -> Answer:
    """The interval, and how it is computed."""
    text = f"donor AUROC {shown(run.evaluation.donors[MODEL].auroc)}. Interval: {INTERVAL_IS}"
    own = test(run)
    if own.status is Status.ANSWERED:
        return Answer(f"{text}; {own.text}")
    return Answer(f"{text}. Test: not done in this run", Status.PART)


def test(run: RunSummary) -> Answer:
    """The permutation test, and what it assumes."""
    found = run.evaluation.tests.get(MODEL)
    if not found:
        return not_done("labels are permuted among donors by task=permute run=RUN")
    strata = listing(run.record.permutations[0].strata) if run.record.permutations else ""
    within = f" within levels of {strata}" if strata else ""
    return Answer(
        f"{tested(found)}, one-sided, every permutation with a whole refit. It assumes that without an "
        f"effect donors{within} could exchange their labels"
    )


def subgroups(run: RunSummary) -> Answer:
    """The headline in levels of donor columns."""
    found = run.evidence.subgroups
    if not found:
        return not_done("the headline in levels of donor columns is given with evaluation.subgroups=[COLUMN]")
    rows = []
    for one in found:
        score = "too few donors" if one.auroc is None else f"AUROC {one.auroc:.3f}"
        spread = f" ({shown(one.interval)})" if one.interval else ""
        n = " and ".join(f"{one.n[value]} {run.class_names[value]}" for value in (1, 0))
        rows.append(f"{one.column} {one.level}: {n} donors, {score}{spread}")
    return Answer(f"Subgroups: {listing(rows, 2 * MOST)}. Nothing was adjusted to make them equal")


def clusters(run: RunSummary) -> Answer:
    """Donors as clusters of nuclei; sites and the like as confounders."""
    text = (
        "nuclei lie in donors, so donors are the unit of folds, scores and intervals. "
        f"{run.evidence.influence_sentence} Of sites and other groups of donors: {confounders(run)}"
    )
    return Answer(f"{text}. {subgroups(run).text}" if run.evidence.subgroups else text)


def confounders(run: RunSummary) -> str:
    """What differs between the classes and is followed by the score; the score at a common depth."""
    found, matched = run.evidence.confounders, run.evidence.matched
    text = table_of_confounders.sentence(found) if found else "this run has recorded no confounders."
    if not matched:
        return text
    scores, change = matched
    auroc = scores.mean_over_folds["auroc"]
    return f"{text} Counts thinned to a common depth: AUROC {auroc:.3f}, {signed(change)}"


def external(run: RunSummary) -> Answer:
    """Donors that no fold has seen, or none."""
    if not run.evidence.lockbox:
        box = f"; {len(run.record.facts.locked)} donors in the lockbox are unopened" * _is_shut(run)
        return not_done(f"every test donor is of the same file{box}. Another cohort is needed")
    return Answer(f"none from another cohort. {_of_lockbox(run)}", Status.PART)


def _is_shut(run: RunSummary) -> bool:
    return bool(run.record.facts.locked) and not run.record.facts.box_is_open


def _of_lockbox(run: RunSummary) -> str:
    own = run.evidence.lockbox[MODEL]
    return (
        f"{len(run.record.facts.locked)} donors of the same file that no fold has seen: AUROC "
        f"{own.pooled['auroc']:.3f} ({shown(own.auroc)})"
    )


def evaluation_data(run: RunSummary) -> Answer:
    """How test donors differ from training donors by design."""
    made = "as a saved split says" if run.record.config.split.file else "at random within classes"
    text = f"none by design: training and test donors are of the same file, divided {made}"
    return Answer(f"{text}. {_of_lockbox(run)}" if run.evidence.lockbox else text)


def shift(run: RunSummary) -> Answer:
    """Whether predictors are distributed alike in training and test donors."""
    if run.record.config.split.kind == "cv" and not run.evidence.lockbox:
        return not_applicable(
            "no separate evaluation data: donors of the same file take turns as test donors"
        )
    return not_done("distributions of predictors in training and test donors are not compared")


def verdict(run: RunSummary) -> Answer:
    """The report's own words."""
    return Answer(run.verdict())


def limits(run: RunSummary) -> Answer:
    """What the alarms say, what so few donors can show, and what one donor decides."""
    found = alarms(run.evaluation)
    rung = f"Alarms: {' '.join(found)}" if found else "No alarm rang"
    return Answer(f"one cohort. {rung.rstrip('.')}. {run.evidence.power} {run.evidence.influence_sentence}")
