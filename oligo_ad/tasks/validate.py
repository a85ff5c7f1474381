"""`task=validate`: a trial of a search. Every fold with every seed, scored on validation donors.

No test donor is looked at, and no model is saved: a search only compares settings.
"""

import logging
import time
from dataclasses import replace
from pathlib import Path

from oligo_ad.config import Config, ValidateTask
from oligo_ad.data.split import Fold, write_split
from oligo_ad.results.files import write_files, write_json
from oligo_ad.results.tracking import track
from oligo_ad.sweeps.study import Pruned, epoch_reporter
from oligo_ad.sweeps.trials import PRUNED
from oligo_ad.tasks.train import FoldResult, Run, best_score, opened, story_of, train_fold, write_results

log = logging.getLogger(__name__)


def validate(config: Config, folder: Path) -> float | None:
    """Score settings on validation donors.

    Returns:
        The donor AUROC there; None of a trial that its study stopped.
    """
    started, task = time.perf_counter(), config.task
    assert isinstance(task, ValidateTask)
    with opened(config, folder) as run:
        try:
            run, results = _train_with_every_seed(run, task)
        except Pruned as pruned:
            write_json(run.folder / PRUNED, {"value": pruned.value})
            log.info("stopped: earlier trials were better at this epoch")
            return None
        return write_results(run, lambda: _conclude(run, task, results, time.perf_counter() - started))


def _train_with_every_seed(run: Run, task: ValidateTask) -> tuple[Run, list[FoldResult]]:
    """Seeds are like repeats of a split: folds of their own, of the same donors."""
    results: list[FoldResult] = []
    folds: list[Fold] = []
    reached: list[float] = []
    for i, seed in enumerate(task.seeds):
        for fold in run.folds:
            numbered = replace(fold, number=fold.number + i * run.folds[-1].number)
            of_seed = replace(run, config=replace(run.config, seed=seed), folds=[*folds, numbered])
            report_epoch = epoch_reporter(task, fold.number, reached, run.config.fit.epochs)
            result = train_fold(of_seed, numbered, "validation", report_epoch)
            folds.append(numbered)
            results.append(result)
            reached.append(best_score(result, task.objective))
    return replace(run, folds=folds), results


def _conclude(run: Run, task: ValidateTask, results: list[FoldResult], seconds: float) -> float:
    """Scores, and the files of the run directory; no baselines, which would be scored on test donors."""
    write_split(run.folds, run.cohort.donors["label"], run.config.split, run.folder / "split.json")
    story = story_of(run, results, None, task.objective, seconds)
    track(story, {}, run.accelerator)
    write_files(story, [])
    return story.outcome.headline
