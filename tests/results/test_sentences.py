"""What is said of a result follows from its numbers: verdicts, marks and tables."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pandas as pd
import pytest

from oligo_ad.data.split import Fold, write_split
from oligo_ad.record import Record
from oligo_ad.results.evaluation import Evaluation
from oligo_ad.results.metrics import Interval
from oligo_ad.results.sentences import RunSummary
from tests.builders import configuration
from tests.results.test_plots import NAMES, result


def summary(evaluation: Evaluation, folder: Path = Path("run"), **facts: Any) -> RunSummary:
    plain = {"simulated": False, "random_weights": False, "classes": NAMES, "sample": "nucleus"}
    record = SimpleNamespace(folder=folder, config=configuration(), facts=SimpleNamespace(**plain | facts))
    return RunSummary(cast(Record, record), evaluation)


def ranked(low: float, high: float, gain: tuple[float, float] = (-0.1, 0.1), **sizes: int) -> Evaluation:
    """A result with these intervals of donor AUROC, and of its gain over the baseline."""
    evaluation = result(**sizes)
    model = replace(evaluation.donors["model"], auroc=Interval(low, high))
    return replace(evaluation, donors=evaluation.donors | {"model": model}, gain_interval=Interval(*gain))


CLAIMS = {
    "can be told apart by": ranked(0.51, 0.9),
    "cannot be told apart beyond chance": ranked(0.49, 0.9),
    "are ranked the wrong way round": ranked(0.1, 0.49),
    "are too few to say": ranked(0.51, 0.9, n_negative=4),
}


@pytest.mark.parametrize("claim", CLAIMS)
def test_a_verdict_claims_what_its_interval_allows_and_nothing_else(claim: str) -> None:
    verdict = summary(CLAIMS[claim]).verdict()
    assert [other for other in CLAIMS if other in verdict] == [claim]
    auroc = CLAIMS[claim].donors["model"].auroc
    assert f"donor AUROC {CLAIMS[claim].headline:.3f}" in verdict
    assert f"{auroc.low:.3f} to {auroc.high:.3f}" in verdict


@pytest.mark.parametrize(
    ("gain", "said"),
    [((0.01, 0.3), "That is more than"), ((-0.01, 0.3), "not shown to be more"), ((-0.3, -0.1), "not shown")],
)
def test_a_gain_is_claimed_where_its_interval_is_above_zero(gain: tuple[float, float], said: str) -> None:
    evaluation = ranked(0.6, 0.9, gain)
    verdict = summary(evaluation).verdict()
    assert said in verdict
    assert f"{evaluation.gain:+.3f}, {gain[0]:+.3f} to {gain[1]:+.3f}" in verdict
    assert (evaluation.gain > 0) == (
        evaluation.headline > evaluation.donors["rival"].mean_over_folds["auroc"]
    )


MARKS = {
    "SIMULATED": ({"simulated": True}, {}),
    "RANDOM WEIGHTS, NOT PRETRAINED": ({"random_weights": True}, {}),
    "VALIDATION DONORS, NOT TEST DONORS": ({}, {"part": "validation"}),
    "LABEL-DERIVED METADATA": ({}, {"label_derived": ("Braak",)}),
}


def test_every_output_is_marked_by_what_its_reader_must_know() -> None:
    assert summary(result()).stamp == ""
    for mark, (facts, changed) in MARKS.items():
        run = summary(replace(result(), **changed), **facts)
        assert run.stamp == mark
        assert run.verdict().startswith(f"{mark}. ")
    facts = {name: value for given, _ in MARKS.values() for name, value in given.items()}
    changed = {name: value for _, given in MARKS.values() for name, value in given.items()}
    assert summary(replace(result(), **changed), **facts).stamp == " · ".join(MARKS)


@pytest.mark.parametrize("level", ["donors", "cells"])
def test_the_table_of_results_has_each_predictor_and_the_model_on_its_training_donors(level: str) -> None:
    evaluation = result()
    evaluation = replace(
        evaluation,
        training_donors=dict.fromkeys(evaluation.training_donors, 0.111),
        training_cells=dict.fromkeys(evaluation.training_cells, 0.222),
    )
    table = summary(evaluation).results_table(level)  # type: ignore[arg-type]
    assert table.index.tolist() == ["mlp", "mlp, on its training donors", "baseline: rival"]
    scores = getattr(evaluation, level)
    for row, name in (("mlp", "model"), ("baseline: rival", "rival")):
        assert table["AUROC"][row] == f"{scores[name].mean_over_folds['auroc']:.3f}"
        assert table["MCC"][row] == f"{scores[name].mean_over_folds['mcc']:.3f}"
    training = table.loc["mlp, on its training donors"].drop("95 % interval")
    assert set(training) == {"0.111" if level == "donors" else "0.222"}


def test_the_table_of_parts_counts_donors_and_nuclei_of_each_class(tmp_path: Path) -> None:
    label = pd.Series([1, 1, 1, 1, 0, 0, 0], [f"D{n}" for n in range(7)])
    nuclei = pd.Series(range(1000, 8000, 1000), label.index)
    fold = Fold(3, ("D0", "D1", "D4"), ("D2", "D5"), ("D3", "D6"))
    write_split([fold], label, configuration().split, tmp_path / "split.json")
    donors = pd.DataFrame({"label": label, "nuclei": nuclei})
    table = summary(result(), tmp_path, donor_table=donors).split_table().set_index("part")
    assert table["fold"].tolist() == [3, 3, 3]
    assert table["High donors"].to_dict() == {"train": 2, "validation": 1, "test": 1}
    assert table["Not AD donors"].to_dict() == {"train": 1, "validation": 1, "test": 1}
    assert table["High nuclei"].to_dict() == {"train": "3,000", "validation": "3,000", "test": "4,000"}
    assert table["Not AD nuclei"].to_dict() == {"train": "5,000", "validation": "6,000", "test": "7,000"}
