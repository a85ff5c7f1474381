"""Every item of a standard is answered by a fact of the run, or left to its authors; none is invented."""

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

from oligo_ad import tasks
from oligo_ad.record import Record
from oligo_ad.results import checklist
from oligo_ad.results.evaluation import evaluate_run
from oligo_ad.results.sentences import RunSummary
from oligo_ad.results.standards import DOME, REFORMS, STANDARDS, TRIPOD_AI
from tests.builders import atlas, configuration, write

HOSTILE = "Not | AD`<script>alert(1)</script>\\*"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunSummary:
    folder = tmp_path_factory.mktemp("checklist")
    adata = atlas(10, 8, effect=0.5)
    adata.obs["ADNC"] = adata.obs["ADNC"].cat.rename_categories({"Not AD": HOSTILE})
    words = (f"data.path={write(adata, folder)}", f"cache.dir={folder / 'cache'}")
    config = configuration(*words, "fit.epochs=1", "model.network.hidden=[8]")
    tasks.run(replace(config, data=replace(config.data, negative=(HOSTILE,))), folder / "run")
    record = Record(folder / "run")
    return RunSummary(record, evaluate_run(record))


def test_each_standard_has_its_items_once_and_in_order() -> None:
    assert [len(items) for items in STANDARDS.values()] == [21, 32, 52]
    for items in STANDARDS.values():
        assert len({(item.section, item.number) for item in items}) == len(items)
        assert all(item.label for item in items)
    assert {item.section for item in DOME} == {"data", "optimization", "model", "evaluation"}
    for items, n in ((REFORMS, 8), (TRIPOD_AI, 27)):
        numbers = [int(re.match(r"\d+", item.number)[0]) for item in items]  # type: ignore[index]
        assert numbers == sorted(numbers)
        assert set(numbers) == set(range(1, n + 1))


def test_every_fact_is_asked_for_and_every_question_has_its_fact() -> None:
    asked = {item.fact for items in STANDARDS.values() for item in items} - {""}
    assert asked == set(checklist.FACTS)


def test_what_a_run_cannot_know_is_left_to_its_authors(run: RunSummary) -> None:
    for number in ("17", "18a", "18b", "18d", "19", "8c"):
        (item,) = [item for item in TRIPOD_AI if item.number == number]
        assert checklist.answer(run, item) == checklist.UNKNOWN
    for items in STANDARDS.values():
        assert all(checklist.answer(run, item).strip() for item in items)


def test_answers_are_the_numbers_of_the_run(run: RunSummary) -> None:
    facts = {name: fact(run) for name, fact in checklist.FACTS.items()}
    assert f"{run.evaluation.headline:.3f}" in facts["result"]
    assert "10 High donors" in facts["numbers"]
    assert facts["verdict"] == run.verdict()
    assert "not done in this run" in facts["test"]
    assert facts["subgroups"] == checklist.NOT_DONE
    assert run.evidence.power == facts["power"]


def test_the_card_counts_what_is_answered_and_is_text_whatever_names_hold(run: RunSummary) -> None:
    card = (run.folder / "card.md").read_text()
    assert card == checklist.card(run)
    rows = [line for line in card.splitlines() if line.startswith("| ") and not line.startswith("| item")]
    assert len(rows) == 21 + 32 + 52
    assert all(len(re.findall(r"(?<!\\)\|", row)) == 5 for row in rows)
    assert "<script>" not in card
    for name, items in STANDARDS.items():
        answers = [checklist.answer(run, item) for item in items]
        n = sum(text not in (checklist.UNKNOWN, checklist.NOT_DONE) for text in answers)
        assert f"## {name}: {n} of {len(items)} answered by the run" in card


def test_dome_json_has_the_fields_of_the_registry(run: RunSummary, tmp_path: Path) -> None:
    found = json.loads((run.folder / "dome.json").read_text())
    assert list(found)[3:] == ["data", "optimization", "model", "evaluation"]
    assert list(found["data"]) == ["provenance", "splits", "redundancy", "availability"]
    assert len(found["optimization"]) == 8
    assert found == checklist.dome(run)
