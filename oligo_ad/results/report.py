"""The end of a run: pictures, report.html, files, the tracker, and a summary on the terminal."""

import base64
import io
import logging
from dataclasses import asdict
from pathlib import Path

import pandas as pd
from accelerate import Accelerator
from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined, select_autoescape
from matplotlib.figure import Figure
from omegaconf import OmegaConf

from oligo_ad.results import plots
from oligo_ad.results.alarms import alarms
from oligo_ad.results.baselines import MEANING
from oligo_ad.results.evaluation import MODEL
from oligo_ad.results.files import write_files
from oligo_ad.results.sentences import Story
from oligo_ad.results.tracking import track

log = logging.getLogger(__name__)


def write(story: Story, accelerator: Accelerator) -> None:
    """Write everything a reader needs into the run directory, then say where it is."""
    found = alarms(story.outcome)
    pictures = draw(story)
    page = render(story, pictures, found)
    (story.folder / "report.html").write_text(page)
    track(story, pictures, accelerator)
    write_files(story, found)
    log.info("%s", summary(story, found))


def draw(story: Story) -> dict[str, Figure]:
    """The pictures by name, each stamped where the data are simulated."""
    outcome, names = story.outcome, story.class_names
    histories, best = [f.history for f in story.fitted], [f.best_epoch for f in story.fitted]
    pictures = {
        "donor scores": plots.donor_scores(outcome, names),
        "curves": plots.curves(outcome, names),
        "learning curves": plots.learning_curves(histories, best),
        "reliability": plots.reliability(outcome),
        "confusion": plots.confusion(outcome, names),
    }
    for figure in pictures.values():
        if story.stamp:
            figure.suptitle(story.stamp, color="#b00020", fontsize=8, fontweight="bold", x=0.99, ha="right")
    return pictures


def render(story: Story, pictures: dict[str, Figure], found: list[str]) -> str:
    """report.html: one page that needs no other file."""
    return (
        environment()
        .get_template("report.html.j2")
        .render(
            story=story,
            outcome=story.outcome,
            model=story.outcome.donors[MODEL],
            model_cells=story.outcome.cells[MODEL],
            alarms=found,
            baselines={name: MEANING[name] for name in story.outcome.predictors if name in MEANING},
            pictures={name: svg(figure) for name, figure in pictures.items()},
            configuration=OmegaConf.to_yaml(OmegaConf.create(asdict(story.config))),
        )
    )


def environment() -> Environment:
    """The templates of this folder; everything put into them is escaped."""
    templates = Environment(
        loader=ChoiceLoader([PackageLoader("oligo_ad.results", "."), PackageLoader("oligo_ad.sweeps", ".")]),
        autoescape=select_autoescape(default=True),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    templates.filters["table"] = _html
    return templates


def summary(story: Story, found: list[str]) -> str:
    """The end of a run on the terminal: table, alarms, verdict, path."""
    heads = ["AUROC", "95 % interval", "balanced accuracy", "MCC", "F1 positive", "F1 negative"]
    tables = []
    for level, title in (("donors", "test donors"), ("cells", "test nuclei")):
        table = story.results_table(level)[heads]
        tables.append(f"{title} (means over {len(story.folds)} fold(s))\n{table.to_string()}")
    warnings = [f"! {alarm}" for alarm in found]
    place = f"report: {_shorter(story.folder / 'report.html')}"
    parts = [story.stamp, *tables, *warnings, story.verdict(), place]
    return "\n" + "\n\n".join(part for part in parts if part)


def svg(figure: Figure) -> str:
    """A figure as text to stand in an <img>."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="svg")
    return "data:image/svg+xml;base64," + base64.b64encode(buffer.getvalue()).decode()


def _html(table: pd.DataFrame, index: bool = True) -> str:
    return table.to_html(index=index, border=0, escape=True)


def _shorter(path: Path) -> Path:
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
