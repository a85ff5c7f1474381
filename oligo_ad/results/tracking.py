"""What the tracker gets at the end of a run: pictures, curves, and the settings with the results."""

from dataclasses import asdict

import numpy as np
from accelerate import Accelerator
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from oligo_ad.results.evaluation import MODEL
from oligo_ad.results.sentences import Story
from oligo_ad.training.machine import flat


def track(story: Story, pictures: dict[str, Figure], accelerator: Accelerator) -> None:
    """Send final metrics to any tracker; pictures, PR curves and hparams to TensorBoard."""
    kind = "validation" if story.config.task.name == "validate" else "result"
    final = {f"{kind}/{name}": value for name, value in final_metrics(story).items()}
    accelerator.log(final)
    if story.config.tracker != "tensorboard":
        return
    writer = accelerator.get_tracker("tensorboard", unwrap=True)
    for name, figure in pictures.items():
        writer.add_image(name, pixels(figure), dataformats="HWC")
    for level, table in (("donors", story.outcome.donor_table), ("nuclei", story.outcome.cell_table)):
        writer.add_pr_curve(f"precision_recall/{level}", table["label"].to_numpy(), table[MODEL].to_numpy())
    writer.add_text("verdict", story.verdict())
    # In the same event file as the metrics; Accelerate's own way makes a separate, empty run.
    settings = {
        name: value
        for name, value in flat(asdict(story.config)).items()
        if not name.startswith(("cache.", "task."))
    }
    writer.add_hparams(settings, final, run_name=".")


def final_metrics(story: Story) -> dict[str, float]:
    """The numbers that tell runs apart."""
    donors, cells = story.outcome.donors[MODEL], story.outcome.cells[MODEL]
    return {
        "donor_auroc": story.outcome.headline,
        "donor_auroc_low": donors.auroc.low,
        "donor_auroc_high": donors.auroc.high,
        "donor_balanced_accuracy": donors.mean_over_folds["balanced_accuracy"],
        "donor_mcc": donors.mean_over_folds["mcc"],
        "cell_auroc": cells.mean_over_folds["auroc"],
        "gain_over_best_baseline": story.outcome.gain,
    }


def pixels(figure: Figure) -> np.ndarray:
    """A figure as an RGB image [height, width, 3] uint8."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3]
