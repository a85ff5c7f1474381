"""A search for settings by Optuna: chosen on validation donors, then scored once on test donors.

Each outer fold has a study of its own, whose trials never see that fold's test donors: with `split=cv`
the search is nested (Varma 2006; Cawley 2010), so the result is that of the whole procedure, not of lucky
settings. Trials run as jobs of the sweep; a trial reports each epoch to its study, from its own process,
and stops where the median of earlier trials was better (Golovin 2017).
"""

import json
import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, IntervalSweep, Override, RangeSweep
from omegaconf import DictConfig

from oligo_ad.config import SweepConfig
from oligo_ad.errors import UserError
from oligo_ad.sweeps.trials import BEST, PRUNED, RESULT, Sweeping, Trial, field_of

if TYPE_CHECKING:
    from optuna import Study
    from optuna.distributions import BaseDistribution

    from oligo_ad.training.fit import Epoch

log = logging.getLogger(__name__)

STUDY = "study.db"


class Pruned(Exception):
    """A trial that is not worth going on; `value` is the best it reached."""

    def __init__(self, value: float) -> None:
        super().__init__(f"pruned at {value}")
        self.value = value


def search(sweeping: Sweeping, config: DictConfig, words: list[str]) -> None:
    """Search in each outer fold, then test what was chosen, once."""
    settings, n_folds = config.sweep, _n_folds(config.split)
    fixed = [word for word in words if not field_of(word).startswith("sweep")]
    space = _space(settings.space, fixed)
    until = time.monotonic() + 3600 * settings.hours if settings.hours else float("inf")
    chosen = []
    for fold in range(1, n_folds + 1):
        one_fold = [f"split.only={fold}"] if n_folds > 1 else []
        study = open_study(sweeping.folder / STUDY, _name(fold), settings)
        place = str if n_folds == 1 else lambda number, fold=fold: f"fold_{fold}/{number}"
        _optimise(_Fold(study, sweeping, fixed + one_fold, place, settings, until), space)
        if not study.get_trials(deepcopy=False, states=(_state("COMPLETE"),)):
            raise UserError(f"no trial of {sweeping.folder} has finished, so nothing can be chosen.")
        best = [f"{field}={value}" for field, value in study.best_params.items()]
        log.info("chosen on validation donors of fold %d: %s", fold, " ".join(best))
        chosen.append(Trial(f"{BEST}/{fold}", [*fixed, *one_fold, *best]))
    sweeping.run(chosen)


class _Fold:
    """The search in one outer fold."""

    def __init__(
        self,
        study: "Study",
        sweeping: Sweeping,
        words: list[str],
        place: Callable[[int], str],
        settings: DictConfig,
        until: float,
    ) -> None:
        self.study, self.sweeping, self.settings, self.until = study, sweeping, settings, until
        self._words, self._place = words, place
        self._started, self._first = time.monotonic(), max(0, len(study.trials) - settings.parallel)

    def trial(self, number: int, params: dict[str, Any]) -> Trial:
        """The job of a trial: it scores validation donors only."""
        own = {
            "task": "validate",
            "sweep.study": f"'{self.sweeping.folder / STUDY}'",
            "sweep.trial": number,
            "sweep.objective": self.settings.objective,
            "sweep.seeds": "[" + ",".join(map(str, self.settings.seeds)) + "]",
        }
        words = [f"{field}={value}" for field, value in (params | own).items()]
        return Trial(self._place(number), [*self._words, *words])

    def tell(self, trial: Trial, number: int) -> None:
        """Read from a trial's directory what became of it, and say so."""
        folder = self.sweeping.folder / trial.place
        if (folder / RESULT).exists():
            value = json.loads((folder / RESULT).read_text())["objective"]["value"]
            self.study.tell(number, value)
        elif (folder / PRUNED).exists():
            self.study.tell(number, state=_state("PRUNED"))
        else:
            self.study.tell(number, state=_state("FAIL"))
        ended = self.study.get_trials(deepcopy=False)[number]
        finished = self.study.get_trials(deepcopy=False, states=(_state("COMPLETE"),))
        best = (
            f", best {self.study.best_value:.4f} (trial {self.study.best_trial.number})" if finished else ""
        )
        shown = f" {ended.value:.4f}" if ended.value is not None else ""
        of = f"trial {number} ({number + 1} of {self.settings.trials})"
        said = f"{self.study.study_name}, {of}: {ended.state.name.lower()}{shown}{best}"
        log.info("%s, about %.0f min left", said, self._minutes_left(number))

    def _minutes_left(self, number: int) -> float:
        """By the trials of this process, and by the time that may be spent."""
        here = number - self._first + 1
        elapsed = time.monotonic() - self._started
        left = elapsed / here * (self.settings.trials - number - 1)
        return max(0.0, min(left, self.until - time.monotonic())) / 60


def _optimise(fold: _Fold, space: dict[str, "BaseDistribution"]) -> None:
    """Ask, run and tell until trials or time are spent; what an earlier process left open comes first."""
    for frozen in fold.study.get_trials(deepcopy=False, states=(_state("RUNNING"),)):
        trial = fold.trial(frozen.number, frozen.params)
        fold.sweeping.run([trial])
        fold.tell(trial, frozen.number)
    while (left := fold.settings.trials - len(fold.study.trials)) > 0 and time.monotonic() < fold.until:
        asked = [fold.study.ask(space) for _ in range(min(left, fold.settings.parallel))]
        trials = [fold.trial(trial.number, trial.params) for trial in asked]
        fold.sweeping.run(trials)
        for trial, asked_for in zip(trials, asked, strict=True):
            fold.tell(trial, asked_for.number)


def open_study(file: Path, name: str, settings: Any) -> "Study":
    """A study in an SQLite file, made now or by an earlier process.

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
    pruner = optuna.pruners.MedianPruner(startup, n_warmup_steps=2) if settings.prune else None
    return optuna.create_study(
        storage=f"sqlite:///{file}",
        study_name=name,
        direction="maximize",
        sampler=samplers[settings.sampler](),
        pruner=pruner or optuna.pruners.NopPruner(),
        load_if_exists=True,
    )


def watcher(settings: SweepConfig, fold: int) -> Callable[[int, float], None]:
    """What a trial calls after each epoch with its best value so far; raises `Pruned` when it should stop."""
    if settings.study is None or settings.trial is None:
        return lambda step, value: None
    import optuna

    study = open_study(Path(settings.study), _name(fold), settings)
    frozen = study.get_trials(deepcopy=False)[settings.trial]
    own = optuna.trial.Trial(study, frozen._trial_id)

    def watch(step: int, value: float) -> None:
        # A trial that was killed and runs again says the same once more.
        if step not in frozen.intermediate_values:
            own.report(value, step)
        if settings.prune and own.should_prune():
            raise Pruned(value)

    return watch


def epoch_watcher(
    settings: SweepConfig, fold: int, done: list[float], epochs: int
) -> Callable[["Epoch"], None]:
    """The same for the training loop: the mean of folds and seeds that are done and the best of this one.

    Args:
        settings: with the study and the trial's number, or without: then nothing is told.
        fold: the outer fold.
        done: what a trial reached in earlier folds and with earlier seeds.
        epochs: most epochs of each.
    """
    watch, reached = watcher(settings, fold), list[float]()

    def tell(epoch: "Epoch") -> None:
        reached.append(score_of(epoch, settings.objective))
        watch(len(done) * epochs + epoch.epoch, sum([*done, max(reached)]) / (len(done) + 1))

    return tell


def score_of(epoch: "Epoch", name: str) -> float:
    """What a search maximises, on validation donors."""
    return -epoch.loss if name == "loss" else float(getattr(epoch, name))


def _name(fold: int) -> str:
    return f"fold_{fold}"


def _state(name: str) -> Any:
    from optuna.trial import TrialState

    return TrialState[name]


def _n_folds(split: DictConfig) -> int:
    if split.file:
        return len(json.loads(Path(split.file).expanduser().read_text())["folds"])
    return int(split.folds * split.repeats) if split.kind == "cv" else 1


def _space(written: DictConfig, fixed: list[str]) -> dict[str, "BaseDistribution"]:
    """Optuna's distributions of the fields that the command line leaves open.

    Raises:
        UserError: a field's values are not of a kind that can be searched, or the command lists values.
    """
    parser = OverridesParser.create()
    for override in parser.parse_overrides(fixed):
        if override.is_sweep_override():
            raise UserError(
                f"{override.input_line} lists values, and sweep=… searches: give one value, or search "
                f"the list by '+sweep.space.{override.key_or_group}=\"choice(…)\"'."
            )
    taken = {field_of(word) for word in fixed}
    open_fields = {str(field): str(values) for field, values in written.items() if field not in taken}
    return {field: _distribution(parser, field, values) for field, values in open_fields.items()}


def _distribution(parser: OverridesParser, field: str, values: str) -> "BaseDistribution":
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    override: Override = parser.parse_override(f"{field}={values}")
    value = override.value()
    if isinstance(value, ChoiceSweep):
        return CategoricalDistribution(list(override.sweep_string_iterator()))
    if isinstance(value, RangeSweep):
        steps = sorted(value.range())
        if all(isinstance(step, int) for step in steps):
            return IntDistribution(int(steps[0]), int(steps[-1]), step=abs(int(value.step)))
        return FloatDistribution(steps[0], steps[-1], step=abs(value.step))
    if isinstance(value, IntervalSweep):
        low, high, log_scale = value.start, value.end, "log" in value.tags
        if isinstance(low, int) and isinstance(high, int):
            return IntDistribution(low, high, log=log_scale)
        assert low is not None
        assert high is not None
        return FloatDistribution(low, high, log=log_scale)
    raise UserError(
        f"sweep.space.{field}={values}: write choice(…), range(…), interval(…) or tag(log, interval(…))."
    )
