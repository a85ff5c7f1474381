"""One answer to each question, whichever standards ask it."""

from collections.abc import Callable
from typing import NamedTuple

from oligo_ad.results.checklist import of_data, of_model, of_program, of_results
from oligo_ad.results.checklist.dome import DOME
from oligo_ad.results.checklist.items import Answer, Item, Standard, Status
from oligo_ad.results.checklist.reforms import REFORMS
from oligo_ad.results.checklist.tripod_ai import TRIPOD_AI
from oligo_ad.results.sentences import RunSummary

STANDARDS = (DOME, REFORMS, TRIPOD_AI)
ANSWERS: dict[str, Callable[[RunSummary], Answer]] = {
    function.__name__: function
    for function in (
        of_data.source, of_data.numbers, of_data.sample_size, of_data.characteristics, of_data.outcome,
        of_data.split, of_data.exclusions, of_data.flow, of_data.corrupt, of_data.duplicates,
        of_data.preprocessing, of_data.missing, of_data.handling,
        of_model.model, of_model.meta, of_model.parameters, of_model.features, of_model.predictors,
        of_model.judgement, of_model.legitimate, of_model.independence, of_model.fitting,
        of_model.regularisation, of_model.selection, of_model.interpretability, of_model.output,
        of_model.prediction, of_model.imbalance, of_model.updating,
        of_program.settings, of_program.time, of_program.environment, of_program.program,
        of_program.reproduction, of_program.split_file, of_program.model_files, of_program.result_files,
        of_results.evaluation, of_results.building, of_results.measures, of_results.result,
        of_results.comparison, of_results.uncertainty, of_results.test, of_results.subgroups,
        of_results.clusters, of_results.external, of_results.evaluation_data, of_results.shift,
        of_results.verdict, of_results.limits,
    )
}  # fmt: skip
OPENING = {
    Status.NOT_DONE: "not done in this run: ",
    Status.UNKNOWN: "unknown: ",
    Status.NOT_APPLICABLE: "not applicable: ",
}


class Entry(NamedTuple):
    """An item, how far a run answers it, and what it says; `item.add` is left to people."""

    section: str
    item: Item
    status: Status
    text: str


def entries(run: RunSummary, standard: Standard) -> list[Entry]:
    """What a run says to every item of a standard, in order."""
    return [
        Entry(section, item, *_answered(run, item))
        for section, items in standard.sections.items()
        for item in items
    ]


def _answered(run: RunSummary, item: Item) -> tuple[Status, str]:
    if not item.answer:
        return Status.UNKNOWN, f"{OPENING[Status.UNKNOWN]}{item.add}"
    text, status = ANSWERS[item.answer](run)
    if item.add and status is Status.ANSWERED:
        status = Status.PART
    return status, OPENING.get(status, "") + text.rstrip(".")


def counted(found: list[Entry]) -> str:
    """`14 of 21 answered, 5 in part, 2 unknown`."""
    n = {status: sum(entry.status is status for entry in found) for status in Status}
    more = [f"{n[status]} {status.value}" for status in list(Status)[1:] if n[status]]
    return ", ".join([f"{n[Status.ANSWERED]} of {len(found)} answered", *more])
