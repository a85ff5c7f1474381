"""A search for settings by Optuna: chosen on validation donors, then scored once on test donors.

Each outer fold has a study of its own, whose trials never see that fold's test donors: with `split=cv`
the search is nested (Varma 2006; Cawley 2010), so the result is that of the whole procedure, not of lucky
settings. Trials run as jobs of the sweep; a trial reports each epoch to its study, from its own process,
and stops where the median of earlier trials was better (Golovin 2017).
"""

import logging
import math
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, IntervalSweep, Override, RangeSweep
from omegaconf import DictConfig

from oligo_ad.config import SweepConfig
from oligo_ad.errors import UserError
from oligo_ad.record import Record
from oligo_ad.sweeps.study import STUDY, check_study, open_study, reading_study
from oligo_ad.sweeps.trials import BEST, Trial, TrialRunner, field_of
from oligo_ad.words import quoted

if TYPE_CHECKING:
    from optuna import Study
    from optuna.distributions import BaseDistribution

log = logging.getLogger(__name__)


def search(runner: TrialRunner, settings: SweepConfig, split: DictConfig, overrides: list[str]) -> None:
    """Search in each outer fold, then test what was chosen, once.

    Args:
        runner: of the sweep.
        settings: the space, the budget and how to search.
        split: which outer folds there are.
        overrides: of the command line, without those of the sweep and the task.
    """
    n_folds = _n_folds(split)
    space = _space(settings.space, overrides)
    deadline = time.monotonic() + 3600 * settings.hours if settings.hours else float("inf")
    chosen = []
    for fold in range(1, n_folds + 1):
        of_fold = [*overrides, f"split.only={fold}"] if n_folds > 1 else overrides
        study = open_study(runner.folder / STUDY, fold, settings)
        check_study(study, space, runner.folder / STUDY)
        subdir = f"fold_{fold}/" if n_folds > 1 else ""
        # What is left of the time is shared by the folds that are left.
        own = time.monotonic() + (deadline - time.monotonic()) / (n_folds - fold + 1)
        _FoldSearch(study, runner, of_fold, subdir, settings, own).run(space)
        if not study.get_trials(deepcopy=False, states=(_state("COMPLETE"),)):
            raise UserError(f"no trial of {runner.folder} has finished, so nothing can be chosen.")
        best = [f"{field}={value}" for field, value in study.best_params.items()]
        log.info("chosen on validation donors of fold %d: %s", fold, " ".join(best))
        chosen.append(Trial(f"{BEST}/{fold}", [*of_fold, *best]))
    runner.run(chosen)


class _FoldSearch:
    """The search in one outer fold.

    Args:
        study: of the fold.
        runner: of the sweep.
        overrides: that all its trials have.
        subdir: what the directories of its trials begin with.
        settings: the budget and how to search.
        deadline: no trial is started after this time.
    """

    def __init__(
        self,
        study: "Study",
        runner: TrialRunner,
        overrides: list[str],
        subdir: str,
        settings: SweepConfig,
        deadline: float,
    ) -> None:
        self.study, self.runner, self.settings, self.deadline = study, runner, settings, deadline
        self._overrides, self._subdir = overrides, subdir
        self._started, self._first = time.monotonic(), max(0, len(study.trials) - settings.parallel)

    def run(self, space: dict[str, "BaseDistribution"]) -> None:
        """Run trials until their number or the time is spent; those that were left open come first."""
        for frozen in self.study.get_trials(deepcopy=False, states=(_state("RUNNING"),)):
            self._run({frozen.number: frozen.params})
        while (
            left := self.settings.trials - len(self.study.trials)
        ) > 0 and time.monotonic() < self.deadline:
            proposed = [self.study.ask(space) for _ in range(min(left, self.settings.parallel))]
            self._run({trial.number: trial.params for trial in proposed})

    def _run(self, params: dict[int, dict[str, Any]]) -> None:
        """Run trials together, given their numbers and settings, and record how they ended."""
        trials = {number: self.trial(number, chosen) for number, chosen in params.items()}
        self.runner.run(list(trials.values()))
        for number, trial in trials.items():
            self._record(number, self.runner.folder / trial.subdir)

    def trial(self, number: int, params: dict[str, Any]) -> Trial:
        """The job of a trial: it scores validation donors only."""
        task = {
            "task": "validate",
            "task.study": quoted(str(self.runner.folder / STUDY)),
            "task.trial": number,
            "task.objective": self.settings.objective,
            "task.seeds": "[" + ",".join(map(str, self.settings.seeds)) + "]",
            "task.prune": str(self.settings.prune).lower(),
            "task.startup": self.settings.startup,
        }
        own = [f"{field}={value}" for field, value in (params | task).items()]
        return Trial(f"{self._subdir}{number}", [*self._overrides, *own])

    def _record(self, number: int, folder: Path) -> None:
        """Record in the study what became of a trial, and log it."""
        record = Record(folder)
        try:
            value = float(record.metrics["objective"]["value"]) if record.finished else None
        except (UserError, KeyError, TypeError, ValueError) as error:
            log.warning("%s is damaged, so trial %d counts as failed: %s", folder, number, error)
            value = None
        with reading_study(self.runner.folder / STUDY):
            if value is not None and math.isfinite(value):
                self.study.tell(number, value)
            else:
                self.study.tell(number, state=_state("PRUNED" if record.pruned else "FAIL"))
        self._log(number)

    def _log(self, number: int) -> None:
        ended = self.study.get_trials(deepcopy=False)[number]
        line = f"{self.study.study_name}, trial {number} ({number + 1} of {self.settings.trials}): "
        line += ended.state.name.lower()
        if ended.value is not None:
            line += f" {ended.value:.4f}"
        if self.study.get_trials(deepcopy=False, states=(_state("COMPLETE"),)):
            line += f", best {self.study.best_value:.4f} (trial {self.study.best_trial.number})"
        log.info("%s, about %.0f min left", line, self._minutes_left(number))

    def _minutes_left(self, number: int) -> float:
        """Estimated from the trials of this process, at most until the deadline."""
        here = number - self._first + 1
        elapsed = time.monotonic() - self._started
        left = elapsed / here * (self.settings.trials - number - 1)
        return max(0.0, min(left, self.deadline - time.monotonic())) / 60


def _state(name: str) -> Any:
    from optuna.trial import TrialState

    return TrialState[name]


def _n_folds(split: DictConfig) -> int:
    if split.file:
        from oligo_ad.data.split import read_folds

        return len(read_folds(Path(split.file)))
    return int(split.folds * split.repeats) if split.kind == "cv" else 1


def _space(written: dict[str, str], overrides: list[str]) -> dict[str, "BaseDistribution"]:
    """Optuna's distributions of the fields that the command line leaves open.

    Raises:
        UserError: a field's values are not of a kind that can be searched, or the command lists values.
    """
    parser = OverridesParser.create()
    for override in parser.parse_overrides(overrides):
        if override.is_sweep_override():
            raise UserError(
                f"{override.input_line} lists values, and sweep=… searches: give one value, or search "
                f"the list by '+sweep.space.{override.key_or_group}=\"choice(…)\"'."
            )
    given = {field_of(override) for override in overrides}
    return {
        field: _distribution(parser, field, values) for field, values in written.items() if field not in given
    }


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
