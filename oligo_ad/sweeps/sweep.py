"""Sweeps: every trial recorded, none run twice, and a leaderboard at the end.

Hydra composes and its launchers run the trials (in this process, by joblib, submitit or Ray); which trials
there are, and what they say together, is decided here. `sweep.resume=DIR` goes on with what is not there yet.
"""

import json
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from filelock import FileLock, Timeout
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.plugins import Plugins
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, open_dict

from oligo_ad.errors import UserError
from oligo_ad.sweeps.trials import BEST, FAILURE, Sweeping, Trial, field_of

log = logging.getLogger(__name__)

PLAN = "sweep.json"


def sweep(context: HydraContext, task: TaskFunction, config: DictConfig, arguments: list[str]) -> None:
    """All of a sweep: `arguments` are the words of its command line.

    Raises:
        UserError: a trial failed (the others have run), or the command does not fit the sweep resumed.
    """
    if config.task != "train":
        raise UserError(f"task={config.task} is no task for a sweep: leave out -m and sweep=….")
    words = [word for word in arguments if field_of(word) != "sweep.resume"]
    folder = _directory(config, words)
    _keep_ray_local(config.hydra.launcher)
    with _claimed(folder):
        launcher = Plugins.instance().instantiate_launcher(
            hydra_context=context, task_function=task, config=config
        )
        sweeping = Sweeping(launcher, folder)
        try:
            if config.sweep.space:
                from oligo_ad.sweeps.search import search

                search(sweeping, config, words)
            else:
                trials = grid(context, words)
                for trial in trials:  # a mistyped word is told before anything runs
                    context.config_loader.load_sweep_config(config, trial.words)
                log.info("%d trials in %s", len(trials), folder)
                sweeping.run(trials)
        except KeyboardInterrupt:
            log.warning("interrupted: the same command with sweep.resume=%s goes on", folder)
            raise
        finally:
            n_failed = conclude(folder)
    if n_failed:
        raise UserError(
            f"{n_failed} trials have no result; their messages are in {folder}/leaderboard.html. If mended, "
            f"remove their {FAILURE} and give the same command with sweep.resume={folder}"
        )


def grid(context: HydraContext, words: list[str]) -> list[Trial]:
    """Every combination of the values that the command line lists."""
    overrides = OverridesParser.create(config_loader=context.config_loader).parse_overrides(words)
    (every,) = BasicSweeper.split_arguments(overrides, None)
    return [Trial(str(number), list(own)) for number, own in enumerate(every)]


def conclude(folder: Path) -> int:
    """Write the leaderboard of what there is; returns the number of trials without a result."""
    from oligo_ad.sweeps.comparison import compare, find_runs, result_of
    from oligo_ad.sweeps.leaderboard import write

    runs = find_runs([folder])
    chosen = [run for run in runs if run.folder.parent.name == BEST]
    trials = [run for run in runs if run not in chosen]
    if not trials:
        return 0
    board = replace(compare(trials), tested=result_of(chosen))
    write(board, folder)
    return board.n_failed + sum(not run.finished for run in chosen)


def _directory(config: DictConfig, words: list[str]) -> Path:
    """The sweep directory, the same for every process of it, with the words of the sweep in it."""
    resumed = config.sweep.resume
    folder = Path(resumed or config.hydra.sweep.dir).absolute()
    plan = folder / PLAN
    if resumed and not plan.exists():
        raise UserError(f"sweep.resume={resumed}: there is no sweep, which would have {PLAN}.")
    if plan.exists():
        before = json.loads(plan.read_text())["arguments"]
        if not resumed:
            raise UserError(f"{folder} already holds a sweep: go on with it by sweep.resume={folder}")
        if sorted(before) != sorted(words):
            raise UserError(
                f"sweep.resume={resumed} was started with other words, which would make other trials. "
                f"Type: python run.py -m {' '.join(before)} sweep.resume={resumed}"
            )
    folder.mkdir(parents=True, exist_ok=True)
    plan.write_text(json.dumps({"arguments": words}))
    # Trials compose their own configuration, perhaps elsewhere: what the clock decided is written out.
    with open_dict(config):
        config.hydra.sweep.dir = str(folder)
        config.hydra.overrides.hydra.append(f'hydra.sweep.dir="{folder}"')
    return folder


def _keep_ray_local(launcher: DictConfig) -> None:
    """Ray, unless it is told of a cluster, listens on this machine only, and serves no dashboard."""
    if "ray" not in launcher or launcher.ray.init.get("address"):
        return
    # Read when Ray is imported. The first lets it bind to 127.0.0.1, on Linux too in spite of its name.
    os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    with open_dict(launcher):
        launcher.ray.init.update(address="local", include_dashboard=False, _node_ip_address="127.0.0.1")


@contextmanager
def _claimed(folder: Path) -> Iterator[None]:
    lock = FileLock(folder / ".lock", timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise UserError(f"another sweep is at work in {folder}.") from None
    try:
        yield
    finally:
        lock.release()
