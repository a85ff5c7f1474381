"""The study of a search: Optuna's record of its trials, to which a running trial reports each epoch."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from oligo_ad.config import SweepConfig, ValidateTask
from oligo_ad.errors import UserError, listing
from oligo_ad.faults import is_disk_fault

if TYPE_CHECKING:
    from optuna import Study
    from optuna.distributions import BaseDistribution
    from optuna.pruners import BasePruner

    from oligo_ad.facts import Epoch

STUDY = "study.db"  # in the directory of the sweep


ANEW = "Start the search anew in another directory."


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
    with reading_study(file):
        return optuna.create_study(
            storage=f"sqlite:///{file}",
            study_name=study_name(fold),
            direction="maximize",
            sampler=samplers[settings.sampler](),
            pruner=_pruner(settings.prune, startup),
            load_if_exists=True,
        )


@contextmanager
def reading_study(file: Path) -> Iterator[None]:
    """Turn what SQLite or Optuna find wrong with a study into one message."""
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except (SQLAlchemyError, OSError, ValueError, KeyError, RuntimeError) as error:
        first = str(error).partition("\n")[0]
        if is_disk_fault(error):
            raise UserError(
                f"{file} cannot be written: {first}. Free the disk, then resume the sweep."
            ) from None
        raise UserError(f"{file} is no study of a search, or is damaged: {first}. {ANEW}") from None


def check_study(study: "Study", space: dict[str, "BaseDistribution"], file: Path) -> None:
    """Refuse a study that holds anything else than trials of this space: settings become words of a command.

    Raises:
        UserError: a trial has other fields, other values, or no numbers where numbers belong.
    """
    with reading_study(file):
        trials = study.get_trials(deepcopy=False)
    if study.direction.name != "MAXIMIZE":
        raise UserError(f"{file} is a study of another kind. {ANEW}")
    for trial in trials:
        wrong = [
            field
            for field in {*trial.params, *trial.distributions, *(space if trial.params else ())}
            if field not in space or trial.distributions.get(field) != space[field]
        ]
        wrong += [
            field
            for field, value in trial.params.items()
            if field not in wrong and not space[field]._contains(space[field].to_internal_repr(value))
        ]
        if wrong:
            raise UserError(
                f"{file}: trial {trial.number} sets {listing(map(repr, wrong))} otherwise than the space of "
                f"this sweep allows, so it is another sweep's, or was changed. {ANEW}"
            )
        if trial.state.name == "WAITING" or "fixed_params" in trial.system_attrs:
            raise UserError(f"{file}: trial {trial.number} was not proposed by this sweep. {ANEW}")


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
    with reading_study(Path(task.study)):
        study = optuna.load_study(
            storage=f"sqlite:///{task.study}",
            study_name=study_name(fold),
            pruner=_pruner(task.prune, task.startup),
        )
        trials = study.get_trials(deepcopy=False)
    if task.trial >= len(trials):
        raise UserError(f"task.trial={task.trial}: {task.study} has {len(trials)} trials.")
    frozen = trials[task.trial]
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
