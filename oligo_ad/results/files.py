"""The machine-readable files of a run directory; metrics.json last, so that it marks a whole run."""

import json
import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from oligo_ad.results.baselines import MEANING
from oligo_ad.results.evaluation import MODEL
from oligo_ad.results.sentences import Story
from oligo_ad.sweeps.trials import RESULT


def write_files(story: Story, alarms: list[str]) -> None:
    """config.yaml, donors.csv, cells.parquet, metrics.json."""
    folder = story.folder
    (folder / "config.yaml").write_text(OmegaConf.to_yaml(OmegaConf.create(asdict(story.config))))
    marks: dict[str, object] = {"simulated": story.cohort.simulated}
    if story.outcome.label_derived:
        marks["label_derived_metadata"] = ", ".join(story.outcome.label_derived)
    if story.random_weights:
        marks["weights"] = "random, not pretrained"
    story.outcome.donor_table.assign(**marks).to_csv(folder / "donors.csv", index=False)
    story.outcome.cell_table.assign(**marks).to_parquet(folder / "cells.parquet", index=False)
    write_json(folder / RESULT, metrics_of(story, alarms))


def metrics_of(story: Story, alarms: list[str]) -> dict[str, Any]:
    """The content of metrics.json."""
    outcome, cohort = story.outcome, story.cohort
    return {
        "headline": {
            "metric": "donor AUROC, mean over folds",
            "value": outcome.headline,
            "interval": asdict(outcome.donors[MODEL].auroc),
            "interval_is": "approximate 95 %, class-stratified bootstrap of donors",
            "best_baseline": outcome.best_baseline,
            "gain": outcome.gain,
            "gain_interval": outcome.gain_interval and asdict(outcome.gain_interval),
        },
        "scored_on": "validation donors" if story.config.task.name == "validate" else "test donors",
        "objective": {"name": story.objective_name, "value": story.objective},
        "verdict": story.verdict(),
        "simulated": cohort.simulated,
        "label_derived_metadata": list(outcome.label_derived),
        "alarms": alarms,
        "model": story.config.model.name,
        "parameters": story.n_parameters(),
        "donors": {name: asdict(scores) for name, scores in outcome.donors.items()},
        "cells": {name: asdict(scores) for name, scores in outcome.cells.items()},
        "training": {"donors": outcome.training_donors, "cells": outcome.training_cells},
        "calibration_of_cells": outcome.calibration,
        "baselines_are": MEANING,
        "folds": [
            {
                "fold": fold.number,
                "donors": {part: len(getattr(fold, part)) for part in ("train", "validation", "test")},
                "best_epoch": fitted.best_epoch,
                "pos_weight": fitted.pos_weight,
                "history": [asdict(epoch) for epoch in fitted.history],
            }
            for fold, fitted in zip(story.folds, story.fitted, strict=True)
        ],
        "cohort": {
            **cohort.about,
            "flow": cohort.flow.to_dict("records"),
            "excluded": cohort.excluded.to_dict("records"),
            "notes": [*cohort.notes, *story.covariates.notes],
            "donors_per_class": cohort.donors["label"].value_counts().sort_index().to_list(),
            "nuclei_per_class": cohort.cells["label"].value_counts().sort_index().to_list(),
        },
        "panel": {
            "genes": len(story.gene_names[0]),
            "in_all_folds": story.shared_genes(),
            **story.about_input,
        },
        "pretrained": story.pretrained and story.pretrained.origin,
        "attention_kernels": story.attention,
        "precision": story.config.precision.name,
        "seed": story.config.seed,
        "seconds": story.seconds,
        "environment": story.environment,
    }


def write_json(path: Path, content: dict[str, Any]) -> None:
    """JSON that any reader accepts: NaN becomes null. Whole or not at all."""
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(_without_nan(content), indent=1, allow_nan=False))
    partial.rename(path)


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _without_nan(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
