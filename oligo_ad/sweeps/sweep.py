"""Sweeps: every trial recorded, none run twice, and a leaderboard at the end.

Hydra composes and its launchers run the trials (in this process, by joblib, submitit or Ray); which trials
there are, and what they show together, is decided here. `sweep.resume=DIR` runs the trials that are still
missing.
"""

import logging
import os
import shlex
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.plugins import Plugins
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf, open_dict

from oligo_ad.config import SweepConfig, read_sweep
from oligo_ad.errors import UserError, listing
from oligo_ad.faults import writing
from oligo_ad.foreign import read_json
from oligo_ad.launch import world_size
from oligo_ad.record import FAILURE
from oligo_ad.storage.shelf import claimed, write_json
from oligo_ad.sweeps.trials import BEST, Trial, TrialRunner, field_of
from oligo_ad.words import command_of, quoted, word

log = logging.getLogger(__name__)

PLAN = "sweep.json"
NOTHING: Mapping[str, str] = MappingProxyType({})


def sweep(context: HydraContext, task: TaskFunction, config: DictConfig, arguments: list[str]) -> None:
    """Run a whole sweep; `arguments` are the overrides of its command line.

    Raises:
        UserError: a trial failed (the others have run), or the command does not fit the sweep resumed.
    """
    if (size := world_size()) > 1:
        raise UserError(
            f"a sweep is started once, not in {size} processes: leave out torchrun or accelerate launch. Its "
            "trials run one after the other, or side by side by hydra/launcher=joblib."
        )
    settings = read_sweep(config)
    _check_task(config, arguments)
    overrides = [override for override in arguments if field_of(override) != "sweep.resume"]
    folder = _directory(config, settings)
    with claimed(folder, f"another sweep is at work in {folder}."):
        preset = settings.space if settings.sampler == "grid" else {}
        overrides = _record_command(folder, overrides, settings.resume is not None, preset)
        launcher = Plugins.instance().instantiate_launcher(
            hydra_context=context, task_function=task, config=config
        )
        try:
            _run(TrialRunner(launcher, folder), context, config, settings, overrides)
        except KeyboardInterrupt:
            log.warning("interrupted: the same command with %s goes on", _resume(folder))
            raise
        finally:
            n_failed = conclude(folder)
    if n_failed:
        raise UserError(
            f"{n_failed} trials have no result; their messages are in {folder}/leaderboard.html. To run them "
            f"again, remove their {FAILURE} (of a damaged one, its directory) and repeat the command with "
            f"{_resume(folder)}"
        )


def _run(
    runner: TrialRunner,
    context: HydraContext,
    config: DictConfig,
    settings: SweepConfig,
    overrides: list[str],
) -> None:
    """A search where there is a space to search in; a grid otherwise."""
    typed = [override for override in overrides if _group(override) not in ("sweep", "task")]
    if settings.space and settings.sampler != "grid":
        from oligo_ad.sweeps.search import search

        search(runner, settings, config.split, typed)
        return
    varied = _varied(settings, typed)
    for trial in grid(context, typed) if varied else []:
        _check_fields(varied, settings, context.config_loader.load_sweep_config(config, trial.overrides))
    trials = grid(context, [*typed, *(f"{field}={values}" for field, values in varied.items())])
    for trial in trials:  # a mistyped override is reported before anything runs
        context.config_loader.load_sweep_config(config, trial.overrides)
    log.info("%d trials in %s", len(trials), runner.folder)
    runner.run(trials)


def grid(context: HydraContext, overrides: list[str]) -> list[Trial]:
    """Every combination of the values that the command line lists.

    Raises:
        UserError: it gives a range that has no steps.
    """
    parsed = OverridesParser.create(config_loader=context.config_loader).parse_overrides(overrides)
    for override in parsed:
        if override.is_sweep_override() and not override.is_discrete_sweep():
            raise UserError(
                f"{override.input_line}: a grid needs single values, choice(…) or range(…); an interval can "
                "only be searched, by sweep=… with sweep.sampler=tpe or random."
            )
    (combinations,) = BasicSweeper.split_arguments(parsed, None)
    return [Trial(str(number), list(own)) for number, own in enumerate(combinations)]


def _varied(settings: SweepConfig, typed: list[str]) -> dict[str, str]:
    """The values of a preset that is a grid; what is typed stands in the place of its own."""
    if settings.sampler != "grid":
        return {}
    fields = {field_of(override) for override in typed}
    return {field: values for field, values in settings.space.items() if field not in fields}


def _check_fields(varied: dict[str, str], settings: SweepConfig, composed: DictConfig) -> None:
    """Refuse a grid over fields that a model has not."""
    for field in varied:
        parent, _, last = field.rpartition(".")
        if last not in (OmegaConf.select(composed, parent) or ()):
            raise UserError(
                f"sweep={settings.name} varies {field}, which model={composed.model.name} has not. To leave "
                f"it out, add '+sweep.space.{field}=null'."
            )


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
    return board.n_failed + sum(run.status != "finished" for run in chosen)


def _check_task(config: DictConfig, overrides: list[str]) -> None:
    """Refuse what a sweep cannot do: another task than training, or several values of a field of its own."""
    if config.task.name != "train":
        raise UserError(f"task={config.task.name} is no task for a sweep: leave out -m and sweep=….")
    for override in OverridesParser.create().parse_overrides(overrides):
        if _group(override.key_or_group) in ("sweep", "task") and override.is_sweep_override():
            raise UserError(
                f"{override.input_line} lists values, and a sweep takes one. A space to search is quoted: "
                f"'+sweep.space.seed=\"choice(1,2)\"'."
            )


def _group(override: str) -> str:
    """What the field of an override begins with: `sweep` of `sweep.trials=3`."""
    return field_of(override).partition(".")[0]


def _directory(config: DictConfig, settings: SweepConfig) -> Path:
    """The sweep directory, the same for every process of it."""
    folder = Path(settings.resume or config.hydra.sweep.dir).absolute()
    if settings.resume and not (folder / PLAN).exists():
        raise UserError(f"sweep.resume={settings.resume}: there is no sweep, since it has no {PLAN}.")
    folder.mkdir(parents=True, exist_ok=True)
    # Trials compose their own configuration, perhaps elsewhere: what the clock decided is written out.
    with open_dict(config):
        config.hydra.sweep.dir = str(folder)
        config.hydra.overrides.hydra.append(f"hydra.sweep.dir={quoted(str(folder))}")
    _keep_ray_local(config.hydra.launcher)
    return folder


def _record_command(
    folder: Path, overrides: list[str], resumed: bool, preset: Mapping[str, str] = NOTHING
) -> list[str]:
    """Keep the overrides of a sweep, by which alone it is resumed, and those of a preset that is a grid.

    Returns:
        The overrides in the order in which they were given first: trials are numbered by it.
    """
    plan = folder / PLAN
    in_order = [[*pair] for pair in preset.items()]
    if plan.exists():
        before = _planned(plan)
        if not resumed:
            raise UserError(f"{folder} already holds a sweep: go on with it by {_resume(folder)}")
        if sorted(before) != sorted(overrides):
            raise UserError(
                f"{_resume(folder)} was started with another command. "
                f"Type: {command_of(['-m', *before, word('sweep.resume', folder)])}"
            )
        if read_json(plan).get("grid", in_order) != in_order:
            raise UserError(
                f"{_resume(folder)} was started with other values of its preset, and trials are numbered by "
                "them. Start it anew in another directory."
            )
        return before
    if others := [file.name for file in folder.iterdir() if file.name != ".lock"]:
        raise UserError(
            f"{folder} holds {listing(sorted(others))} and no sweep, and trials would replace what has their "
            "names. Choose another hydra.sweep.dir, or leave it out."
        )
    with writing(folder):
        write_json(plan, {"arguments": overrides, "grid": in_order})
    return overrides


def _planned(plan: Path) -> list[str]:
    """The words that a sweep was started with."""
    try:
        words = read_json(plan).get("arguments")
        if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
            raise ValueError("it has no list of arguments")
    except (OSError, ValueError) as error:
        raise UserError(f"{plan} cannot be read, so {plan.parent} holds no sweep: {error}.") from None
    return words


def _resume(folder: Path) -> str:
    return shlex.quote(word("sweep.resume", folder))


def _keep_ray_local(launcher: DictConfig) -> None:
    """Keep Ray on this machine, without a dashboard, unless it is given the address of a cluster."""
    if "ray" not in launcher or launcher.ray.init.get("address"):
        return
    # Read when Ray is imported. The first lets it bind to 127.0.0.1, on Linux too in spite of its name.
    os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    with open_dict(launcher):
        launcher.ray.init.update(address="local", include_dashboard=False, _node_ip_address="127.0.0.1")
