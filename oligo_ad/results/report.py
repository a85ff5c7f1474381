"""Results of a record: scores, tables, pictures, report.html, and a summary on the terminal."""

import base64
import io
import logging
import shlex
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

import pandas as pd
from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined, select_autoescape
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from oligo_ad.baselines.predictors import MEANING
from oligo_ad.facts import RunFacts
from oligo_ad.foreign import to_yaml
from oligo_ad.record import CARD, CELLS, DOME, DONORS, REPORT, RESULT, SPLIT, Record
from oligo_ad.results import confounders, plots, subgroups
from oligo_ad.results.alarms import alarms
from oligo_ad.results.checklist import card
from oligo_ad.results.evaluation import MODEL, TEST, Evaluation, evaluate_run
from oligo_ad.results.flow import flow
from oligo_ad.results.sentences import COVERAGE, INTERVAL_IS, RunSummary
from oligo_ad.results.verdict import added_value
from oligo_ad.sheets import to_csv
from oligo_ad.storage.shelf import published, write_json, write_text
from oligo_ad.words import command_of, word

PICTURES: dict[str, Callable[[RunSummary], Figure]] = {
    "donor scores": lambda run: plots.donor_scores(run.evaluation, run.class_names),
    "curves": lambda run: plots.curves(run.evaluation, run.class_names),
    "learning curves": lambda run: plots.learning_curves(
        [history.epochs for history in run.record.histories],
        [history.best_epoch for history in run.record.histories],
        of_nuclei=bool(run.evaluation.cells),
    ),
    "reliability": lambda run: plots.reliability(run.evaluation, run.evidence.calibrated),
    "confusion": lambda run: plots.confusion(run.evaluation, run.class_names),
    "flow": flow,
    "influence": lambda run: plots.influence(
        run.evidence.influence, run.evaluation.headline, run.class_names
    ),
}
OF_TESTS: dict[str, Callable[[RunSummary], Figure]] = {  # where labels were permuted
    "permuted labels": lambda run: plots.permuted(run.record.permuted, run.evaluation)
}
Drawn = TypeVar("Drawn")
log = logging.getLogger(__name__)


def conclude(record: Record, objective: dict[str, Any] | None = None) -> tuple[RunSummary, dict[str, Figure]]:
    """Score what a run has predicted, and write everything a reader needs; metrics.json comes last.

    The same record gives the same files at any time. A trial of a search, scored on validation
    donors, gets no pictures and no page, and has an `objective`: its name and value.
    """
    run = RunSummary(record, evaluate_run(record))
    is_result = run.evaluation.part == TEST
    found = alarms(run.evaluation) if is_result else []
    _write_tables(run)
    pictures = draw(run) if is_result else {}
    if is_result:
        sources = {name: attempt(name, svg, figure) for name, figure in pictures.items()}
        pictures = {name: figure for name, figure in pictures.items() if sources[name]}
        write_text(record.folder / REPORT, render(run, {name: sources[name] for name in pictures}, found))
        write_json(record.folder / DOME, card.dome(run))
        write_text(record.folder / CARD, card.card(run))
    more = {"objective": objective} if objective else {}
    write_json(record.folder / RESULT, metrics_of(run, found) | more)
    if is_result:
        log.info("%s", summary(run, found))
    return run, pictures


def draw(run: RunSummary) -> dict[str, Figure]:
    """The pictures by name, each stamped where the data are simulated; without those that cannot be drawn."""
    drawn = {name: attempt(name, function, run) for name, function in pictures_of(run).items()}
    pictures = {name: figure for name, figure in drawn.items() if figure}
    for figure in pictures.values():
        if run.stamp:
            figure.suptitle(run.stamp, color="#b00020", fontsize=8, fontweight="bold", x=0.99, ha="right")
    return pictures


def pictures_of(run: RunSummary) -> dict[str, Callable[[RunSummary], Figure]]:
    """What is drawn of a run."""
    return PICTURES | (OF_TESTS if run.evaluation.tests else {})


def attempt(name: str, function: Callable[..., Drawn], *given: Any) -> Drawn | None:
    """What a function draws; None where it fails, since numbers that took so long are worth more."""
    try:
        return function(*given)
    except Exception as error:
        log.warning("the picture '%s' cannot be drawn: %r", name, error)
        return None


def render(run: RunSummary, pictures: dict[str, str | None], found: list[str]) -> str:
    """report.html: one page that needs no other file; `pictures`: by name, as text."""
    evaluation = run.evaluation
    return (
        environment()
        .get_template("report.html.j2")
        .render(
            run=run,
            config=run.record.config,
            facts=run.record.facts,
            coverage=COVERAGE,
            histories=run.record.histories,
            evaluation=evaluation,
            samples=evaluation.cells or evaluation.donors,
            alarms=found,
            baselines={name: MEANING[name] for name in evaluation.predictors if name in MEANING},
            added=added_value(evaluation, run.model),
            pictures=pictures,
            missing=[name for name in pictures_of(run) if name not in pictures],
            evidence=run.evidence,
            confounder_table=confounders.table(run.evidence.confounders, run.class_names),
            confounder_sentence=confounders.sentence(run.evidence.confounders),
            subgroups=subgroups.table(run.evidence.subgroups, run.class_names),
            lockbox_table=run.lockbox_table(),
            command=command_of(run.record.facts.words),
            again=shlex.join(["metadata=on", word("split.file", run.folder.absolute() / SPLIT)]),
            checklists=card.tables(run),
            configuration=to_yaml(asdict(run.record.config)),
        )
    )


def environment() -> Environment:
    """The templates of this folder and of the sweeps; everything put into them is escaped."""
    templates = Environment(
        loader=ChoiceLoader([PackageLoader("oligo_ad.results", "."), PackageLoader("oligo_ad.sweeps", ".")]),
        autoescape=select_autoescape(default=True),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    templates.filters["table"] = _html
    return templates


def summary(run: RunSummary, found: list[str]) -> str:
    """The end of a run on the terminal: table, alarms, verdict, path."""
    heads = [
        "AUROC",
        "95 % interval",
        f"{run.model} minus it",
        "p",
        "balanced accuracy",
        "MCC",
        "F1 positive",
    ]
    tables = []
    results = {"test donors": run.results_table("donors")}
    if run.evaluation.cells:
        results["test nuclei"] = run.results_table("cells")
    for title, table in results.items():
        text = table[[head for head in heads if head in table]].to_string()
        tables.append(f"{title} (means over {len(run.record.folds)} fold(s))\n{text}")
    warnings = [f"! {alarm}" for alarm in found]
    place = f"report: {_shorter(run.folder / REPORT)}"
    parts = [run.stamp, *tables, *warnings, run.verdict(), run.offer(), place]
    return "\n" + "\n\n".join(part for part in parts if part)


def metrics_of(run: RunSummary, found: list[str]) -> dict[str, Any]:
    """The content of metrics.json."""
    evaluation, facts, config = run.evaluation, run.record.facts, run.record.config
    histories = run.record.histories
    return {
        "headline": _headline(evaluation),
        "scored_on": f"{evaluation.part} donors",
        "sample": facts.sample,
        "verdict": run.verdict(),
        "simulated": facts.simulated,
        "label_derived_metadata": list(evaluation.label_derived),
        "alarms": found,
        "model": run.model,
        "parameters": histories[0].parameters,
        "donors": {name: asdict(scores) for name, scores in evaluation.donors.items()},
        "cells": {name: asdict(scores) for name, scores in evaluation.cells.items()},
        "training": {"donors": evaluation.training_donors, "cells": evaluation.training_cells},
        "differences": {name: asdict(of) for name, of in evaluation.differences.items()},
        "expression_over_covariates": (of := evaluation.expression_over_covariates) and asdict(of),
        "permutation_tests": {name: test._asdict() for name, test in evaluation.tests.items()},
        f"calibration_of_{'cells' if evaluation.cells else 'donors'}": evaluation.calibration,
        "evidence": run.evidence.plain() if evaluation.part == TEST else {},
        "baselines_are": MEANING,
        "folds": [
            {
                "fold": history.fold,
                "donors": history.donors,
                "best_epoch": history.best_epoch,
                "pos_weight": history.pos_weight,
                "history": [asdict(epoch) for epoch in history.epochs],
            }
            for history in histories
        ],
        "cohort": _cohort(facts),
        "panel": {"genes": len(histories[0].genes), "in_all_folds": run.shared_genes, **histories[0].input},
        "pretrained": facts.pretrained,
        "attention_kernels": histories[0].attention,
        "precision": config.precision.name,
        "seed": config.seed,
        "seconds": run.seconds,
        "environment": facts.environment,
        "sources": {name: asdict(source) for name, source in facts.sources.items()},
    }


def _headline(evaluation: Evaluation) -> dict[str, Any]:
    """Donor AUROC with its interval, the gain over the comparator, and the permutation test."""
    test = evaluation.tests.get(MODEL)
    return {
        "metric": "donor AUROC, mean over folds",
        "value": evaluation.headline,
        "interval": asdict(evaluation.donors[MODEL].auroc),
        "interval_is": INTERVAL_IS,
        "p": test.p if test else None,
        "permutations": test.n if test else 0,
        "comparator": evaluation.comparator,
        "gain": evaluation.gain,
        "gain_interval": evaluation.gain_interval and asdict(evaluation.gain_interval),
        "trained_donors": evaluation.trained,
    }


def _cohort(facts: RunFacts) -> dict[str, Any]:
    """What defines the cohort, and its donors and nuclei by class."""
    donors = facts.donor_table
    return {
        **facts.cohort,
        "flow": facts.flow,
        "excluded": facts.excluded,
        "notes": facts.notes,
        "donors_per_class": donors["label"].value_counts().sort_index().to_list(),
        "nuclei_per_class": donors.groupby("label")["nuclei"].sum().to_list(),
    }


def _write_tables(run: RunSummary) -> None:
    """donors.csv, and cells.parquet where nuclei are predicted, each row marked as the report is."""
    facts, evaluation = run.record.facts, run.evaluation
    marks: dict[str, object] = {"simulated": facts.simulated}
    if evaluation.label_derived:
        marks["label_derived_metadata"] = ", ".join(evaluation.label_derived)
    if facts.random_weights:
        marks["weights"] = "random, not pretrained"
    with published(run.folder / DONORS) as staging:
        staging.write_text(to_csv(_donors(run).assign(**marks)), encoding="utf-8")
    if evaluation.cells:
        with published(run.folder / CELLS) as staging:
            evaluation.cell_table.assign(**marks).to_parquet(staging, index=False)


def _donors(run: RunSummary) -> pd.DataFrame:
    """The scores of donors; of test donors also the probability at the cohort's prevalence, and a stated."""
    table = run.evaluation.donor_table
    if run.evaluation.part != TEST:
        return table
    found, stated = run.evidence.calibrated.donors, run.record.config.evaluation.prevalence
    table = table.assign(probability=found["probability"].to_numpy())
    return table.assign(**{f"probability at {stated:g}": found["stated"].to_numpy()}) if stated else table


def svg(figure: Figure) -> str:
    """A figure as text to stand in an <img>; the same figure is the same text, whatever the day."""
    buffer = io.BytesIO()
    # Not by `savefig`, which draws each figure twice to find its layout.
    FigureCanvasSVG(figure).print_svg(buffer, metadata={"Date": None})
    return "data:image/svg+xml;base64," + base64.b64encode(buffer.getvalue()).decode()


def _html(table: pd.DataFrame, index: bool = True) -> str:
    return table.to_html(index=index, border=0, escape=True)


def _shorter(path: Path) -> Path:
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
