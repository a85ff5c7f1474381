"""What a tracker gets at the end is what the evaluation holds, under names that say what was scored."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from matplotlib.figure import Figure

from oligo_ad.results.evaluation import Evaluation
from oligo_ad.results.sentences import RunSummary
from oligo_ad.results.tracking import final_metrics, track
from tests.builders import configuration
from tests.results.test_plots import result


class Heard:
    """A tracker that keeps what it is given."""

    def __init__(self) -> None:
        self.values: dict[str, float] = {}
        self.curves: dict[str, tuple[list[float], list[float]]] = {}
        self.settings: dict[str, Any] = {}
        self.images: dict[str, np.ndarray] = {}

    def log(self, values: dict[str, float]) -> None:
        self.values |= values

    def get_tracker(self, name: str, unwrap: bool) -> "Heard":
        assert (name, unwrap) == ("tensorboard", True)
        return self

    def add_image(self, name: str, image: np.ndarray, dataformats: str) -> None:
        assert dataformats == "HWC"
        self.images[name] = image

    def add_pr_curve(self, name: str, label: np.ndarray, score: np.ndarray) -> None:
        self.curves[name] = (label.tolist(), score.tolist())

    def add_text(self, name: str, text: str) -> None:
        assert (name, text) == ("verdict", "so it is")

    def add_hparams(self, settings: dict[str, Any], metrics: dict[str, float], run_name: str) -> None:
        assert metrics == self.values
        self.settings = settings


def tracked(evaluation: Evaluation, tracker: str = "tensorboard") -> Heard:
    heard, config = Heard(), replace(configuration(), tracker=tracker)
    run = SimpleNamespace(
        evaluation=evaluation, verdict=lambda: "so it is", record=SimpleNamespace(config=config)
    )
    track(cast(RunSummary, run), {"blank": Figure(figsize=(2, 1), dpi=50)}, heard)  # type: ignore[arg-type]
    return heard


def test_final_metrics_are_those_of_the_evaluation() -> None:
    evaluation = result()
    model = evaluation.donors["model"]
    assert final_metrics(evaluation) == {
        "donor_auroc": evaluation.headline,
        "donor_auroc_low": model.auroc.low,
        "donor_auroc_high": model.auroc.high,
        "donor_balanced_accuracy": model.mean_over_folds["balanced_accuracy"],
        "donor_mcc": model.mean_over_folds["mcc"],
        "gain_over_comparator": evaluation.gain,
        "cell_auroc": evaluation.cells["model"].mean_over_folds["auroc"],
    }
    assert len(set(final_metrics(evaluation).values())) == 7


@pytest.mark.parametrize(("part", "prefix"), [("test", "result/"), ("validation", "validation/")])
@pytest.mark.parametrize("tracker", ["tensorboard", "wandb"])
def test_a_trial_is_not_tracked_as_a_result(part: str, prefix: str, tracker: str) -> None:
    evaluation = replace(result(), part=part)
    heard = tracked(evaluation, tracker)
    assert heard.values == {f"{prefix}{name}": value for name, value in final_metrics(evaluation).items()}
    assert bool(heard.curves) == bool(heard.images) == (tracker == "tensorboard")


def test_curves_are_of_the_labels_and_scores_of_donors_and_nuclei() -> None:
    evaluation = result()
    tables = {"donors": evaluation.donor_table, "nuclei": evaluation.cell_table}
    assert tracked(evaluation).curves == {
        f"precision_recall/{level}": (table["label"].tolist(), table["model"].tolist())
        for level, table in tables.items()
    }


def test_settings_have_their_names_without_those_of_this_machine_or_task(tmp_path: Path) -> None:
    settings = tracked(result()).settings
    assert settings["fit.batch_size"] == 16
    assert not [name for name in settings if name.startswith(("cache.", "task."))]
    assert tracked(result()).images["blank"].shape == (50, 100, 3)
