"""Every item of a standard is answered by facts of the run, or left to people; nothing is invented."""

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from oligo_ad import tasks
from oligo_ad.facts import RunFacts, from_plain, to_plain
from oligo_ad.record import CARD, DOME, Record
from oligo_ad.results import report
from oligo_ad.results.checklist import card
from oligo_ad.results.checklist.answers import ANSWERS, STANDARDS, Entry, counted, entries
from oligo_ad.results.checklist.items import Item, Status
from oligo_ad.results.evaluation import MODEL, evaluate_run
from oligo_ad.results.evidence import Evidence
from oligo_ad.results.intervals import Interval
from oligo_ad.results.permutation import PermutationTest
from oligo_ad.results.sentences import RunSummary
from oligo_ad.results.subgroups import Subgroup
from oligo_ad.results.verdict import shown, signed
from tests.builders import atlas, configuration, write

REGISTRY = {  # dome-registry-core/src/review.ts
    "dataset": "provenance splits redundancy availability",
    "optimization": "algorithm meta encoding parameters features fitting regularization config",
    "model": "interpretability output duration availability",
    "evaluation": "method measure comparison confidence availability",
}
NUMBERS = {
    "DOME": " ".join(REGISTRY.values()),
    "REFORMS": "1a 1b 1c 2a 2b 2c 2d 2e 3a 3b 3c 3d 3e 3f 3g 4a 4b 4c 5a 5b 5c 5d 5e 5f 6a 6b 6c 7a 7b 7c "
    "8a 8b",
    "TRIPOD+AI": "1 2 3a 3b 3c 4 5a 5b 6a 6b 6c 7 8a 8b 8c 9a 9b 9c 10 11 12a 12b 12c 12d 12e 12f 12g 13 14 "
    "15 16 17 18a 18b 18c 18d 18e 18f 19 20a 20b 20c 21 22 23a 23b 24 25 26 27a 27b 27c",
}
# Aims, people, ethics, money, registers: nothing in a file of counts tells them.
OF_PEOPLE = {
    "DOME": "",
    "REFORMS": "1a 1b 1c 3b 3c 3g 5b",
    "TRIPOD+AI": "1 2 3a 3b 3c 4 5b 6a 6c 8b 8c 17 18a 18b 18c 18d 18e 19 27b 27c",
}
HOSTILE = "Not | AD`<script>alert(1)</script>\\|*_x_*\n| forged | row |\n# [a](javascript:b) www.c.de \u202e"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run, of which no test changes a file."""
    place = tmp_path_factory.mktemp("checklist")
    words = (f"data.path={write(atlas(10, 8, effect=0.5), place)}", f"cache.dir={place / 'cache'}")
    short = ("fit.epochs=1", "model.network.hidden=[8]", "split=cv", "split.folds=3")
    tasks.run(configuration(*words, *short), place / "run")
    return place / "run"


@pytest.fixture(scope="module")
def run(folder: Path) -> RunSummary:
    return summary(folder)


def summary(folder: Path) -> RunSummary:
    record = Record(folder)
    return RunSummary(record, evaluate_run(record))


def changed(run: RunSummary, histories: dict[str, Any] | None = None, **facts: Any) -> RunSummary:
    """The same run with other facts, as read from a file; without those that are None."""
    record = Record(run.folder)
    plain = to_plain(run.record.facts) | facts
    left_out = {name for name, value in facts.items() if value is None}
    plain = {name: value for name, value in plain.items() if name not in left_out}
    record.__dict__["facts"] = from_plain(plain, RunFacts)
    for fold in record.folds:
        fold.__dict__["history"] = replace(fold.history, **histories or {})
    label_derived = tuple(record.facts.label_derived)
    return with_evidence(
        RunSummary(record, replace(run.evaluation, label_derived=label_derived)), run.evidence
    )


def with_evidence(run: RunSummary, evidence: Evidence) -> RunSummary:
    other = RunSummary(run.record, run.evaluation)
    other.__dict__["evidence"] = evidence
    return other


def every(run: RunSummary) -> dict[tuple[str, str, str], Entry]:
    """By standard, section and number."""
    return {
        (standard.name, entry.section, entry.item.number): entry
        for standard in STANDARDS
        for entry in entries(run, standard)
    }


def status(run: RunSummary, question: str) -> Status:
    return ANSWERS[question](run).status


def text(run: RunSummary, question: str) -> str:
    return ANSWERS[question](run).text


def test_each_standard_has_its_items_once_and_in_order() -> None:
    found = {standard.name: " ".join(item.number for item in standard.items) for standard in STANDARDS}
    assert found == NUMBERS
    assert [len(standard.items) for standard in STANDARDS] == [21, 32, 52]
    assert [len(standard.sections) for standard in STANDARDS] == [4, 8, 9]
    assert len({re.sub(r"\D", "", item.number) for item in STANDARDS[2].items}) == 27


def test_every_question_has_its_answer_and_every_answer_is_asked_for() -> None:
    items = [item for standard in STANDARDS for item in standard.items]
    assert {item.answer for item in items} - {""} == set(ANSWERS)
    assert all(item.label and (item.answer or item.add) for item in items)


def test_no_answer_is_empty_and_what_only_people_know_stays_unknown(run: RunSummary) -> None:
    for (name, _, number), entry in every(run).items():
        assert len(entry.text) > 3, number
        assert (number in OF_PEOPLE[name].split()) == (not entry.item.answer)
        if not entry.item.answer:
            assert entry.status is Status.UNKNOWN
            assert entry.text == f"unknown: {entry.item.add}"


def test_an_answer_to_which_people_must_add_is_one_in_part(run: RunSummary) -> None:
    for entry in every(run).values():
        if entry.item.answer and entry.item.add:
            assert entry.status is not Status.ANSWERED
        if entry.status in (Status.NOT_DONE, Status.NOT_APPLICABLE):
            assert entry.text.startswith(entry.status.value)


def test_answers_are_the_numbers_of_the_report(run: RunSummary) -> None:
    evaluation, facts = run.evaluation, run.record.facts
    assert f"donor AUROC {evaluation.headline:.3f}" in text(run, "result")
    assert shown(evaluation.donors[MODEL].auroc) in text(run, "result")
    assert shown(evaluation.donors[MODEL].auroc) in text(run, "uncertainty")
    assert text(run, "verdict") == run.verdict()
    for name, difference in evaluation.differences.items():
        assert f"{name} {signed(difference)}" in text(run, "comparison")
    assert "10 High donors (55.6 %) with" in text(run, "numbers")
    assert "8 Not AD donors (44.4 %) with" in text(run, "numbers")
    assert facts.sources["data"].fingerprint in text(run, "source")
    assert f"{run.record.histories[0].parameters:,}" in text(run, "parameters")
    assert run.evidence.power in text(run, "sample_size")
    assert "fold 1 alone" not in text(run, "split")
    assert "test 3 to 4 High and 2 to 3 Not AD" in text(run, "split")


def test_what_a_run_did_not_do_is_called_so(run: RunSummary) -> None:
    assert status(run, "test") is Status.NOT_DONE
    assert status(run, "subgroups") is Status.NOT_DONE
    assert status(run, "external") is Status.NOT_DONE
    assert status(run, "uncertainty") is Status.PART
    assert status(run, "result") is Status.PART
    no_rivals = RunSummary(run.record, replace(run.evaluation, differences={}, comparator=None))
    assert status(no_rivals, "comparison") is Status.NOT_DONE
    assert "baselines:" not in text(no_rivals, "independence")


def test_what_it_did_is_told_with_its_numbers(run: RunSummary) -> None:
    tested = replace(run.evaluation, tests={MODEL: PermutationTest(200, 0.015, 0.5, 0.1)})
    with_test = RunSummary(run.record, tested)
    assert "p = 0.015, 200 permutations" in text(with_test, "test")
    assert "p = 0.015, 200 permutations" in text(with_test, "uncertainty")
    assert status(with_test, "uncertainty") is Status.ANSWERED
    groups = [
        Subgroup("Sex", "Female", (4, 6), (4, 6), 0.625, Interval(0.25, 0.875)),
        Subgroup("Sex", "Male", (1, 2), (0, 0), None, None),
    ]
    grouped = with_evidence(run, replace(run.evidence, subgroups=groups))
    for question in ("subgroups", "result", "clusters"):
        assert status(grouped, question) is Status.ANSWERED
        assert "Sex Female: 6 High and 4 Not AD donors, AUROC 0.625 (0.250 to 0.875)" in text(
            grouped, question
        )
        assert "Sex Male: 2 High and 1 Not AD donors, too few" in text(grouped, question)
    opened = with_evidence(run, replace(run.evidence, lockbox={MODEL: run.evaluation.donors[MODEL]}))
    assert status(opened, "external") is Status.PART
    assert f"{run.evaluation.donors[MODEL].pooled['auroc']:.3f}" in text(opened, "external")


def test_missing_values_are_counted_in_each_class(run: RunSummary) -> None:
    donors = run.record.facts.donors
    ages = {donor: 80.0 + facts.label for donor, facts in donors.items()}
    gaps = dict(zip(ages, [None, None, *list(ages.values())[2:]], strict=True))
    first = [donors[donor].label for donor in list(ages)[:2]]
    own = dict.fromkeys(ages)  # of a text that is another one for every donor nothing is recorded
    told = text(changed(run, confounders={"age": ages, "pmi": gaps, "library": own}), "missing")
    assert "library of" not in told
    assert "not counted: library" in told
    assert (
        text(changed(run, confounders={"age": ages}), "missing") == "no unknown value, in 1 columns of donors"
    )
    for label, name, n in ((1, "High", 10), (0, "Not AD", 8)):
        k = first.count(label)
        assert f"{k} of {n} {name} donors ({100 * k / n:.1f} %)" in told
    assert "age" not in told
    assert "age 81 and 80" in text(changed(run, confounders={"age": ages}), "characteristics")


def test_facts_that_an_earlier_version_did_not_record_are_unknown(run: RunSummary) -> None:
    none = {"sources": None, "confounders": None, "subgroups": None, "locked": None, "box_is_open": None}
    old = changed(run, {"input": {}}, cohort={}, environment={}, **none)
    for question in (
        "source",
        "outcome",
        "preprocessing",
        "characteristics",
        "missing",
        "environment",
        "program",
    ):
        assert status(old, question) is Status.UNKNOWN, question
    for question in ("features", "independence", "predictors", "time"):
        assert "unknown" in text(old, question), question
    for entry in every(old).values():
        assert entry.text.strip()
    assert "unknown" not in text(old, "numbers")
    assert card.dome(old)["dataset"]["provenance"] == "unknown"
    assert card.dome(old)["program"]["version"] == "unknown"


def test_covariates_that_need_judgement_or_give_the_label_away_are_not_passed_over(run: RunSummary) -> None:
    assert status(changed(run, covariates=["age", "sex=Female"]), "judgement") is Status.ANSWERED
    judged = changed(run, covariates=["age", "frailty"])
    assert status(judged, "judgement") is Status.UNKNOWN
    assert "frailty" in text(judged, "judgement")
    assert "age" not in text(judged, "judgement")
    assert text(changed(run, covariates=["Braak"], label_derived=["Braak"]), "legitimate").startswith(
        "NO: Braak"
    )


MARKS = {"simulated": True, "random_weights": True, "label_derived": ["Braak"]}


@pytest.mark.parametrize("field", MARKS)
def test_a_stamp_stands_at_the_top_of_both(field: str, run: RunSummary) -> None:
    other = changed(run, **{field: MARKS[field]})
    assert other.stamp
    assert card.card(other).splitlines()[2] == f"**{other.stamp}**"
    assert next(iter(card.dome(other).items())) == ("stamp", other.stamp)


def rows_of(page: str, standard: str) -> list[list[str]]:
    """The cells of the rows of a table in card.md."""
    (part,) = [part for part in page.split("\n## ")[1:] if part.startswith(f"{standard}: ")]
    lines = [line for line in part.splitlines() if line.startswith("|")]
    return [re.split(r"(?<!\\)(?:\\\\)*\|", line)[1:-1] for line in lines[2:]]


def test_the_card_has_a_row_an_item_and_counts_them_right(folder: Path, run: RunSummary) -> None:
    page = (folder / CARD).read_text()
    for standard in STANDARDS:
        rows = rows_of(page, standard.name)
        assert [row[0].strip() for row in rows] == [item.number for item in standard.items]
        n = pd.Series([row[3].strip() for row in rows]).value_counts()
        (head,) = re.findall(rf"^## {re.escape(standard.name)}: (.*)$", page, re.M)
        more = [f"{n[s.value]} {s.value}" for s in list(Status)[1:] if s.value in n]
        assert head == ", ".join([f"{n['answered']} of {len(rows)} answered", *more])
        assert head == counted(entries(run, standard))
        assert sum(map(int, re.findall(r"(?<!of )\b\d+", head))) == len(rows)


def test_names_from_a_file_are_text_in_the_card_whatever_they_hold(run: RunSummary) -> None:
    flow = [{"step": HOSTILE, "class": "positive", "donors": 10, "nuclei": 99}]
    other = changed(
        run, classes=[HOSTILE, "High"], notes=[HOSTILE], flow=flow, covariates=[HOSTILE],
        cohort={"file": HOSTILE, "label column": HOSTILE},
        excluded=[{"value": HOSTILE, "donors": 1, "nuclei": 1}],
    )  # fmt: skip
    page = card.card(other)
    for standard in STANDARDS:
        assert [len(row) for row in rows_of(page, standard.name)] == [5] * len(standard.items)
    assert len(re.findall(r"^#", page, re.M)) == 1 + len(STANDARDS)
    assert not re.search(r"(?<!\\)[<>\[\]`]", page)
    assert "\u202e" not in page
    assert "www.c" not in page
    assert json.loads(json.dumps(card.dome(other))) == card.dome(other)


@given(st.text())
def test_escaped_text_is_one_line_of_itself(name: str) -> None:
    line = card.plain(name)
    assert len(line.splitlines()) <= 1
    assert not re.search(r"(?<!\\)(?:\\\\)*[|<>\[\]`*_#&@]", line)
    bare = re.sub(r"\\(.)", r"\1", line)
    assert bare.split() == "".join(sign if sign.isprintable() else " " for sign in name).split()


def test_dome_json_has_the_fields_of_the_registry_and_says_what_people_must_add(
    folder: Path, run: RunSummary
) -> None:
    found = json.loads((folder / DOME).read_text())
    for section, names in REGISTRY.items():
        fields = dict(found[section])
        done, skip = fields.pop("done"), fields.pop("skip")
        assert list(fields) == names.split()
        assert all(isinstance(value, str) and value for value in fields.values())
        assert skip == sum(value == "unknown" for value in fields.values())
        assert done + skip == len(fields)
    assert found["publication"]["skip"] == 6
    assert "licence" in found["to_add"]["dataset"]["availability"]
    assert "10.1038/s41592-021-01205-4" in found["recommendations"]
    assert found["program"]["version"] == run.record.facts.environment["oligo_ad"]


def test_what_was_not_done_is_no_field_that_says_something(run: RunSummary) -> None:
    bare = RunSummary(run.record, replace(run.evaluation, differences={}, comparator=None))
    evaluation = card.dome(bare)["evaluation"]
    assert (evaluation["comparison"], evaluation["skip"]) == ("unknown", 1)


def test_the_same_record_gives_the_same_bytes_wherever_it_lies(folder: Path, tmp_path: Path) -> None:
    other = tmp_path / "elsewhere" / "of another name"
    shutil.copytree(folder, other)
    again = summary(other)
    assert card.card(again) == (folder / CARD).read_text()
    assert card.dome(again) == json.loads((folder / DOME).read_text())


def test_the_report_shows_every_item_as_text(run: RunSummary) -> None:
    other = changed(run, notes=[HOSTILE])
    page = report.render(other, {}, [])
    part = page.partition("<h2>Checklists</h2>")[2]
    assert part.count("<tr>") == 21 + 32 + 52
    assert part.count("<details>") == 3
    assert "<script" not in page
    assert "&lt;script&gt;" in part


def test_an_item_without_question_and_an_answer_in_part_are_counted_apart() -> None:
    item = Item("1", "label")
    found = [
        Entry("s", item, one, "text") for one in (Status.ANSWERED, Status.PART, Status.UNKNOWN, Status.PART)
    ]
    assert counted(found) == "1 of 4 answered, 2 in part, 1 unknown"
