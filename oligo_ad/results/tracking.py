"""Sends the results of a run to the tracker: scores, pictures, curves, and the settings."""

from dataclasses import asdict

import numpy as np
from accelerate import Accelerator
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from oligo_ad.results.evaluation import MODEL, TEST, Evaluation
from oligo_ad.results.sentences import RunSummary
from oligo_ad.training.machine import flat


def track(run: RunSummary, pictures: dict[str, Figure], accelerator: Accelerator) -> None:
    """Send final metrics to any tracker; pictures, PR curves and hparams to TensorBoard."""
    evaluation = run.evaluation
    kind = "result" if evaluation.part == TEST else evaluation.part
    final = {f"{kind}/{name}": value for name, value in final_metrics(evaluation).items()}
    accelerator.log(final)
    if run.record.config.tracker != "tensorboard":
        return
    writer = accelerator.get_tracker("tensorboard", unwrap=True)
    for name, figure in pictures.items():
        writer.add_image(name, pixels(figure), dataformats="HWC")
    tables = {"donors": evaluation.donor_table} | (
        {"nuclei": evaluation.cell_table} if evaluation.cells else {}
    )
    for level, table in tables.items():
        writer.add_pr_curve(f"precision_recall/{level}", table["label"].to_numpy(), table[MODEL].to_numpy())
    writer.add_text("verdict", run.verdict())
    # In the same event file as the metrics; Accelerate's own way makes a separate, empty run.
    settings = {
        name: value
        for name, value in flat(asdict(run.record.config)).items()
        if not name.startswith(("cache.", "task."))
    }
    writer.add_hparams(settings, final, run_name=".")


def final_metrics(evaluation: Evaluation) -> dict[str, float]:
    """The main scores of a run, by name."""
    donors = evaluation.donors[MODEL]
    found = {
        "donor_auroc": evaluation.headline,
        "donor_auroc_low": donors.auroc.low,
        "donor_auroc_high": donors.auroc.high,
        "donor_balanced_accuracy": donors.mean_over_folds["balanced_accuracy"],
        "donor_mcc": donors.mean_over_folds["mcc"],
        "gain_over_comparator": evaluation.gain,
    }
    if evaluation.cells:
        found["cell_auroc"] = evaluation.cells[MODEL].mean_over_folds["auroc"]
    return found


def pixels(figure: Figure) -> np.ndarray:
    """A figure as an RGB image [height, width, 3] uint8."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3]
