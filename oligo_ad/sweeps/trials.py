"""Trials of a sweep: run by a launcher, each in a directory that shows how it ended.

`<sweep directory>/<number>` holds metrics.json when the trial has finished, failure.json when it failed and
why, pruned.json when a search stopped it. So any process may be killed at any time.
"""

import logging
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from hydra.plugins.launcher import Launcher

from oligo_ad.errors import UserError
from oligo_ad.record import Record

log = logging.getLogger(__name__)

BEST = "best"  # directory of what a search chose


class Trial(NamedTuple):
    """One run of a sweep: its directory inside the sweep's, and the overrides that make it."""

    subdir: str
    overrides: list[str]


class TrialRunner:
    """Runs trials by a launcher, and none of them twice.

    Args:
        launcher: Hydra's.
        folder: the sweep directory.
    """

    def __init__(self, launcher: Launcher, folder: Path) -> None:
        self._launcher, self.folder = launcher, folder
        self._n_launched = 0

    def has_ended(self, trial: Trial) -> bool:
        """Whether a trial need not be run."""
        return Record(self.folder / trial.subdir).ended

    def run(self, trials: Sequence[Trial]) -> None:
        """Run those that have not ended; what an interrupted one left is removed first.

        Raises:
            UserError: the launcher starts none of them.
        """
        while remaining := [trial for trial in trials if not self.has_ended(trial)]:
            for trial in remaining:
                shutil.rmtree(self.folder / trial.subdir, ignore_errors=True)
            self._launch(remaining)

    def _launch(self, trials: list[Trial]) -> None:
        """Launch all; one that has started but recorded no end has died, and may have stopped the others."""
        jobs = [[*trial.overrides, f"hydra.sweep.subdir={trial.subdir}"] for trial in trials]
        self._n_launched += len(jobs)
        broken = ""
        try:
            self._launcher.launch(jobs, initial_job_idx=self._n_launched - len(jobs))
        except Exception as error:
            broken = repr(error)
            log.error("the launcher stopped with an error: %s", broken)
        started = [trial for trial in trials if (self.folder / trial.subdir).exists() or not broken]
        if not started:
            raise UserError(f"no trial could be started: {broken}")
        for trial in started:
            if not self.has_ended(trial):
                died = f"killed, or out of memory: it ended without a result or a message. {broken}"
                Record(self.folder / trial.subdir).write_failure(died)


def field_of(override: str) -> str:
    """The field that an override sets: `fit.epochs` of `+fit.epochs=3`."""
    return override.partition("=")[0].lstrip("+~")
