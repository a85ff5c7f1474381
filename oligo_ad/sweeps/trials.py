"""Trials of a sweep: run by a launcher, each in a directory that says what became of it.

`<sweep directory>/<number>` holds metrics.json when the trial has finished, failure.json when it failed and
why, pruned.json when a search stopped it. So any process may be killed at any time.
"""

import json
import logging
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from hydra.plugins.launcher import Launcher

from oligo_ad.errors import UserError

log = logging.getLogger(__name__)

RESULT, FAILURE, PRUNED = "metrics.json", "failure.json", "pruned.json"
BEST = "best"  # directory of what a search chose


class Trial(NamedTuple):
    """Its directory in the sweep's, and its words on the command line."""

    place: str
    words: list[str]


class Sweeping:
    """A sweep directory with the launcher that fills it.

    Args:
        launcher: Hydra's.
        folder: the directory.
    """

    def __init__(self, launcher: Launcher, folder: Path) -> None:
        self._launcher, self.folder = launcher, folder
        self._launched = 0

    def ended(self, trial: Trial) -> bool:
        """Whether a trial need not be run."""
        return any((self.folder / trial.place / mark).exists() for mark in (RESULT, FAILURE, PRUNED))

    def run(self, trials: Sequence[Trial]) -> None:
        """Run those that have not ended; what an interrupted one left is removed first.

        Raises:
            UserError: the launcher starts none of them.
        """
        while todo := [trial for trial in trials if not self.ended(trial)]:
            for trial in todo:
                shutil.rmtree(self.folder / trial.place, ignore_errors=True)
            self._launch(todo)

    def _launch(self, todo: list[Trial]) -> None:
        """Launch all; what was started and left no word has died, and may have taken the rest with it."""
        jobs = [[*trial.words, f"hydra.sweep.subdir={trial.place}"] for trial in todo]
        self._launched += len(jobs)
        broken = ""
        try:
            self._launcher.launch(jobs, initial_job_idx=self._launched - len(jobs))
        except Exception as error:
            broken = repr(error)
            log.error("the launcher broke off: %s", broken)
        started = [trial for trial in todo if (self.folder / trial.place).exists() or not broken]
        if not started:
            raise UserError(f"no trial could be started: {broken}")
        for trial in started:
            if not self.ended(trial):
                fail(
                    self.folder / trial.place, f"killed, or out of memory: it ended without a word. {broken}"
                )


def field_of(word: str) -> str:
    """The field that a word of the command line sets: `fit.epochs` of `+fit.epochs=3`."""
    return word.partition("=")[0].lstrip("+~")


def fail(folder: Path, message: str) -> None:
    """Record that a trial failed."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / FAILURE).write_text(json.dumps({"message": message}))
