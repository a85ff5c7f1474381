"""`task=validate`: a trial of a search. Every fold with every seed, scored on validation donors.

No test donor is predicted, and no model is saved: a search only compares settings.
"""

import logging
from dataclasses import replace
from pathlib import Path

import numpy as np

from oligo_ad.config import Config, ValidateTask
from oligo_ad.sweeps.study import Pruned, epoch_reporter
from oligo_ad.tasks.train import Run, begin, finish, opened, train_fold

log = logging.getLogger(__name__)


def validate(config: Config, folder: Path) -> float | None:
    """Score settings on validation donors.

    Returns:
        The donor AUROC there; None for a trial that its study stopped.
    """
    task = config.task
    assert isinstance(task, ValidateTask)
    with opened(config, folder) as run:
        try:
            run, reached = _train_with_every_seed(run, task)
        except Pruned as pruned:
            run.record.write_pruned(pruned.value)
            log.info("stopped: earlier trials were better at this epoch")
            return None
        return finish(run, {"name": task.objective, "value": float(np.mean(reached))})


def _train_with_every_seed(run: Run, task: ValidateTask) -> tuple[Run, list[float]]:
    """Train every fold with every seed; returns what each reached. A further seed repeats the folds."""
    outer = run.contrast.folds
    trainings = [
        (seed, fold, replace(fold, number=fold.number + i * outer[-1].number))
        for i, seed in enumerate(task.seeds)
        for fold in outer
    ]
    run = replace(run, contrast=replace(run.contrast, folds=[numbered for *_, numbered in trainings]))
    begin(run)
    reached: list[float] = []
    for seed, fold, numbered in trainings:
        of_seed = replace(run, config=replace(run.config, seed=seed))
        report_epoch = epoch_reporter(task, fold.number, reached, run.config.fit.epochs)
        history = train_fold(of_seed, numbered, is_trial=True, watch=report_epoch)
        reached.append(history.epochs[history.best_epoch - 1].score(task.objective))
    return run, reached
