"""What a run answers of DOME, REFORMS and TRIPOD+AI: dome.json, and card.md for people.

Answers are facts of this run. What a run cannot know is called unknown, and stays for its authors.
"""

from collections.abc import Callable
from importlib.metadata import version
from typing import Any

import numpy as np

from oligo_ad.results import confounders
from oligo_ad.results.alarms import alarms
from oligo_ad.results.evaluation import MODEL
from oligo_ad.results.sentences import INTERVAL_IS, RunSummary
from oligo_ad.results.standards import DOME, STANDARDS, Item
from oligo_ad.results.verdict import shown, signed, tested
from oligo_ad.words import command_of, word

UNKNOWN = "unknown to the run; for its authors"
NOT_DONE = "not done in this run"

Fact = Callable[[RunSummary], str]


def answer(run: RunSummary, item: Item) -> str:
    """The answer of a run to an item."""
    return FACTS[item.fact](run) if item.fact else UNKNOWN


def dome(run: RunSummary) -> dict[str, Any]:
    """The content of dome.json: the fields of the DOME registry."""
    sections: dict[str, dict[str, str]] = {}
    for item in DOME:
        sections.setdefault(item.section, {})[item.number] = answer(run, item)
    about = {"standard": "DOME", "program": f"oligo_ad {version('oligo_ad')}", "stamp": run.stamp}
    return about | sections


def card(run: RunSummary) -> str:
    """The content of card.md: every item of every standard."""
    negative, positive = run.class_names
    lines = [f"# {_cell(positive)} against {_cell(negative)}, predicted by {_cell(run.model)}", ""]
    lines += [f"**{_cell(run.stamp)}**", ""] if run.stamp else []
    lines += [_cell(run.verdict()), ""]
    for name, items in STANDARDS.items():
        answers = [(item, answer(run, item)) for item in items]
        known = sum(text not in (UNKNOWN, NOT_DONE) for _, text in answers)
        lines += [f"## {name}: {known} of {len(items)} answered by the run", ""]
        lines += ["| item | section | asks for | answer |", "|---|---|---|---|"]
        lines += [
            f"| {item.number} | {item.section} | {item.label} | {_cell(text)} |" for item, text in answers
        ]
        lines += [""]
    return "\n".join(lines)


def _cell(text: str) -> str:
    """Text that is nothing but text in Markdown, on one line."""
    plain = " ".join(text.split())
    for sign in "\\`*_[]<>|#":
        plain = plain.replace(sign, f"\\{sign}")
    return plain


def _source(run: RunSummary) -> str:
    facts = run.record.facts
    data = facts.sources.get("data")
    content = f", content {data.fingerprint}" if data else ""
    simulated = "a simulated file; no real donor" if facts.simulated else facts.cohort.get("file", "?")
    return f"{simulated}{content}; {_numbers(run)}"


def _numbers(run: RunSummary) -> str:
    table = run.record.facts.donor_table
    parts = [
        f"{int((table['label'] == value).sum())} {run.class_names[value]} donors with "
        f"{int(table.loc[table['label'] == value, 'nuclei'].sum()):,} nuclei"
        for value in (1, 0)
    ]
    return " and ".join(parts)


def _split(run: RunSummary) -> str:
    split, folds = run.record.config.split, run.record.histories
    ranges = {
        part: sorted({history.donors[part] for history in folds}) for part in ("train", "validation", "test")
    }
    sizes = ", ".join(
        f"{part} {own[0]}{f' to {own[-1]}' if len(own) > 1 else ''}" for part, own in ranges.items()
    )
    kind = (
        f"{split.repeats} x {split.folds} stratified folds" if split.kind == "cv" else "one stratified split"
    )
    saved = f"read from {split.file}" if split.file else f"{kind} of donors, seed {split.seed}"
    return f"{saved}; donors of a fold: {sizes}; every donor in split.json"


def _independence(run: RunSummary) -> str:
    locked = len(run.record.facts.locked)
    box = f"; {locked} more donors are in a lockbox" if locked else ""
    return (
        "whole donors: no donor is in two parts of a fold; genes, scales, weights, epoch, threshold and "
        f"penalties are fitted without test donors{box}"
    )


def _notes(run: RunSummary) -> str:
    return "; ".join(run.record.facts.notes) or "nothing was found that had to be told"


def _exclusions(run: RunSummary) -> str:
    flow = run.record.facts.flow
    steps: dict[str, list[int]] = {}
    for row in flow:
        totals = steps.setdefault(row["step"], [0, 0])
        totals[0] += row["donors"]
        totals[1] += row["nuclei"]
    return "; ".join(
        f"{step}: {donors} donors, {nuclei:,} nuclei" for step, (donors, nuclei) in steps.items()
    )


def _preprocessing(run: RunSummary) -> str:
    found = "; ".join(f"{key}: {value}" for key, value in run.record.histories[0].input.items())
    return f"{run.record.facts.cohort.get('expression', '?')}; {found}"


def _missing(run: RunSummary) -> str:
    facts = run.record.facts
    if not facts.covariates:
        return "no covariate is given to the model; a count that is not stored is 0"
    known = facts.confounder_table
    lacks = [f"{n}: {int(known[n].isna().sum())} donors" for n in facts.covariates if n in known]
    found = f"; unknown of {', '.join(lacks)}" if lacks else ""
    return f"unknown covariates become the training mean beside an indicator{found}"


def _model(run: RunSummary) -> str:
    model, n = run.record.config.model, run.record.histories[0].parameters
    started = f", from {run.record.facts.pretrained}" if run.record.facts.pretrained else ""
    return (
        f"{run.model}: {model.network['_target_']} on {model.featurizer['_target_']}, pooled by "
        f"{model.pool['_target_']}; a sample is a {run.record.facts.sample}; {n:,} parameters are "
        f"trained{started}"
    )


def _features(run: RunSummary) -> str:
    n = len(run.record.histories[0].genes)
    fitted = run.record.histories[0].input.get("fitted", "not told")
    return f"{n:,} genes in fold 1, {run.shared_genes:,} of them in all folds; fitted on: {fitted}"


def _predictors(run: RunSummary) -> str:
    columns = run.record.facts.covariates
    more = f", and {', '.join(columns)}" if columns else ", and no covariate"
    return f"expression of the genes in folds/*/history.json{more}"


def _fitting(run: RunSummary) -> str:
    train, test = run.evaluation.training_donors["auroc"], run.evaluation.headline
    epochs = ", ".join(str(history.best_epoch) for history in run.record.histories)
    return f"donor AUROC {train:.3f} on training donors, {test:.3f} held out; epoch kept, by fold: {epochs}"


def _regularisation(run: RunSummary) -> str:
    fit = run.record.config.fit
    decay = fit.optimizer.get("weight_decay", "the optimizer's default")
    dropout = run.record.config.model.network.get("dropout", "none named")
    return (
        f"weight decay {decay}, dropout {dropout}, stopping after {fit.patience} epochs without a better "
        f"{fit.monitor} on validation donors"
    )


def _parameters(run: RunSummary) -> str:
    return f"{run.record.histories[0].parameters:,} trained; the architecture is that of the configuration"


def _output(run: RunSummary) -> str:
    negative, positive = run.class_names
    return (
        f"a probability of {positive} against {negative} for each {run.record.facts.sample}, and each donor"
    )


def _evaluation(run: RunSummary) -> str:
    return f"{len(run.record.folds)} fold(s); test donors are scored once each fold; means over folds"


def _comparison(run: RunSummary) -> str:
    parts = [f"{name} {signed(of)}" for name, of in run.evaluation.differences.items()]
    named = run.evaluation.comparator
    return f"named beforehand: {named}; model minus each: {', '.join(parts)}" if parts else NOT_DONE


def _uncertainty(run: RunSummary) -> str:
    return f"donor AUROC {shown(run.evaluation.donors[MODEL].auroc)}; {INTERVAL_IS}; {_test(run)}"


def _test(run: RunSummary) -> str:
    test = run.evaluation.tests.get(MODEL)
    return tested(test) if test else f"permutation of donor labels: {NOT_DONE}"


def _legitimate(run: RunSummary) -> str:
    if run.evaluation.label_derived:
        return f"NO: {', '.join(run.evaluation.label_derived)} give the label away, and were allowed"
    return "columns that define the label or follow from it are refused as features"


def _subgroups(run: RunSummary) -> str:
    found = run.evidence.subgroups
    if not found:
        return NOT_DONE
    return "; ".join(
        f"{one.column} {one.level} ({one.n[1]} + {one.n[0]} donors): "
        + (f"{one.auroc:.3f}" if one.auroc is not None else "too few")
        for one in found
    )


def _confounders(run: RunSummary) -> str:
    found = run.evidence.confounders
    return confounders.sentence(found) if found else NOT_DONE


def _limits(run: RunSummary) -> str:
    return "; ".join(alarms(run.evaluation)) or "no alarm rang; one cohort is one cohort"


def _result(run: RunSummary) -> str:
    scores = run.evaluation.donors[MODEL]
    more = f"; subgroups: {_subgroups(run)}" if run.evidence.subgroups else ""
    return f"donor AUROC {run.evaluation.headline:.3f} ({shown(scores.auroc)}){more}; all in metrics.json"


def _scores(run: RunSummary) -> str:
    slope = run.evidence.calibrated.scores["probability"]["slope"]
    known = "unknown" if np.isnan(slope) else f"{slope:.2f}"
    return (
        "donor AUROC first, since guessing the commoner class cannot raise it; balanced accuracy, MCC, AUPRC "
        f"of the rarer class, Brier, F1; calibration slope of donors {known}; pictures in report.html"
    )


def _imbalance(run: RunSummary) -> str:
    return f"{run.weighting()}; scores that guessing cannot raise"


def _outcome(run: RunSummary) -> str:
    cohort = run.record.facts.cohort
    negative, positive = run.class_names
    return f"{cohort.get('label column', '?')}: {positive} = 1, {negative} = 0; other values are left out"


def _environment(run: RunSummary) -> str:
    return ", ".join(f"{name} {value}" for name, value in run.record.facts.environment.items())


def _external(run: RunSummary) -> str:
    if run.evidence.lockbox:
        return (
            f"donors of the lockbox: AUROC {run.evidence.lockbox[MODEL].pooled['auroc']:.3f}; no other cohort"
        )
    return NOT_DONE


FACTS: dict[str, Fact] = {
    "source": _source,
    "numbers": _numbers,
    "split": _split,
    "independence": _independence,
    "files": lambda run: (
        "in the run directory: split.json, predictions, scores and models of every fold; the data stay where "
        "they were"
    ),
    "model": _model,
    "meta": lambda run: (
        f"it starts from {run.record.facts.pretrained}, whose donors are not listed here"
        if run.record.facts.pretrained
        else "no; the ensemble with pseudobulk is shown apart"
    ),
    "preprocessing": _preprocessing,
    "parameters": _parameters,
    "features": _features,
    "predictors": _predictors,
    "judgement": lambda run: "none: counts are measured",
    "fitting": _fitting,
    "regularisation": _regularisation,
    "configuration": lambda run: "config.yaml and the end of report.html hold every field",
    "selection": lambda run: (
        "nothing is selected by test donors; a search (sweep=…) selects on validation donors"
    ),
    "interpretability": lambda run: f"a network explains nothing by itself; attributions: {NOT_DONE}",
    "output": _output,
    "prediction": lambda run: f"the model of the fold that tests a donor; {_output(run)}",
    "time": lambda run: f"{run.seconds:.0f} s in all on {run.record.facts.environment.get('device', '?')}",
    "code": lambda run: f"oligo_ad {version('oligo_ad')}, with README and docs",
    "evaluation": _evaluation,
    "scores": _scores,
    "comparison": _comparison,
    "uncertainty": _uncertainty,
    "test": _test,
    "outcome": _outcome,
    "environment": _environment,
    "reproduction": lambda run: command_of([word("rerun", run.folder.name)]),
    "exclusions": _exclusions,
    "flow": lambda run: f"{_exclusions(run)}; picture in report.html",
    "notes": _notes,
    "duplicates": lambda run: f"equal nuclei, ids and persons are looked for; told: {_notes(run)}",
    "missing": _missing,
    "legitimate": _legitimate,
    "subgroups": _subgroups,
    "confounders": _confounders,
    "influence": lambda run: run.evidence.influence_sentence,
    "power": lambda run: run.evidence.power,
    "updating": lambda run: NOT_DONE,
    "imbalance": _imbalance,
    "external": _external,
    "result": _result,
    "verdict": lambda run: run.verdict(),
    "limits": _limits,
}
