"""The study of a search: Optuna's record of its trials, to which a running trial reports each epoch."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from oligo_ad.config import SweepConfig, ValidateTask
from oligo_ad.errors import UserError

if TYPE_CHECKING:
    from optuna import Study
    from optuna.pruners import BasePruner

    from oligo_ad.facts import Epoch

STUDY = "study.db"  # in the directory of the sweep


class Pruned(Exception):
    """A trial was stopped, since earlier trials were better; `value` is the best it reached."""

    def __init__(self, value: float) -> None:
        super().__init__(f"pruned at {value}")
        self.value = value


def study_name(fold: int) -> str:
    """The study of an outer fold, in the file of all."""
    return f"fold_{fold}"


def open_study(file: Path, fold: int, settings: SweepConfig) -> "Study":
    """The study of an outer fold in an SQLite file, made now or by an earlier process.

    Raises:
        UserError: Optuna is not installed.
    """
    try:
        import optuna
    except ImportError:
        raise UserError("a search needs Optuna: pip install -e '.[sweep]'.") from None
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    seed, startup = 0, settings.startup
    samplers = {
        "tpe": lambda: optuna.samplers.TPESampler(n_startup_trials=startup, seed=seed),
        "random": lambda: optuna.samplers.RandomSampler(seed=seed),
    }
    return optuna.create_study(
        storage=f"sqlite:///{file}",
        study_name=study_name(fold),
        direction="maximize",
        sampler=samplers[settings.sampler](),
        pruner=_pruner(settings.prune, startup),
        load_if_exists=True,
    )


def reporter(task: ValidateTask, fold: int) -> Callable[[int, float], None]:
    """A function that reports a trial's best value after each epoch, and raises `Pruned` to stop the trial.

    Raises:
        UserError: there is no such study.
    """
    if task.study is None or task.trial is None:
        return lambda step, value: None
    import optuna

    if not Path(task.study).exists():
        raise UserError(f"task.study={task.study}: there is no such file. Only a search sets this field.")
    study = optuna.load_study(
        storage=f"sqlite:///{task.study}",
        study_name=study_name(fold),
        pruner=_pruner(task.prune, task.startup),
    )
    frozen = study.get_trials(deepcopy=False)[task.trial]
    trial = optuna.trial.Trial(study, frozen._trial_id)

    def report(step: int, value: float) -> None:
        # A trial that was killed and runs again repeats its reports.
        if step not in frozen.intermediate_values:
            trial.report(value, step)
        if task.prune and trial.should_prune():
            raise Pruned(value)

    return report


def epoch_reporter(
    task: ValidateTask, fold: int, reached: list[float], epochs: int
) -> Callable[["Epoch"], None]:
    """A `reporter` for the training loop, which trains one fold with one seed at a time.

    What is reported is the mean of what was reached in earlier folds and seeds and the best of this one.

    Args:
        task: with the study and the trial's number, or without: then nothing is reported.
        fold: the outer fold.
        reached: in earlier folds and with earlier seeds.
        epochs: most epochs of each.
    """
    report, values = reporter(task, fold), list[float]()

    def report_epoch(epoch: "Epoch") -> None:
        values.append(epoch.score(task.objective))
        report(len(reached) * epochs + epoch.epoch, sum([*reached, max(values)]) / (len(reached) + 1))

    return report_epoch


def _pruner(prune: bool, startup: int) -> "BasePruner":
    import optuna

    return optuna.pruners.MedianPruner(startup, n_warmup_steps=2) if prune else optuna.pruners.NopPruner()
