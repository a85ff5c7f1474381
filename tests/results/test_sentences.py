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
from oligo_ad.results.sentences import RunSummary
from tests.builders import configuration
from tests.results.test_plots import NAMES, result


def summary(evaluation: Evaluation, folder: Path = Path("run"), **facts: Any) -> RunSummary:
    plain = {"simulated": False, "random_weights": False, "classes": NAMES, "sample": "nucleus"}
    record = SimpleNamespace(folder=folder, config=configuration(), facts=SimpleNamespace(**plain | facts))
    return RunSummary(cast(Record, record), evaluation)


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
    training = table.loc["mlp, on its training donors"].drop(
        ["95 % interval", *table.columns[table.columns.str.contains("minus")]]
    )
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
