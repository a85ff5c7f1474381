"""The command line: Hydra composes the configuration, one task runs, a mistake gets one clear message.

Nothing heavy is imported before the configuration is known, so that `--help`, tab completion and
typing errors answer at once.
"""

import logging
import os
import re
import shlex
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from oligo_ad.errors import UserError, listing, nearest
from oligo_ad.faults import is_disk_fault
from oligo_ad.launch import is_first_process, settle_environment, write_any_text

if TYPE_CHECKING:
    from oligo_ad.config import Config

CONF = Path(__file__).resolve().parent.parent / "conf"
HELP = """oligo_ad: does the expression of single nuclei tell a donor with High Alzheimer's
neuropathology from one with none?

  python run.py                                              simulated cohort, no download
  python run.py task=inspect data=sea_ad data.path=FILE.h5ad
  python run.py data=sea_ad data.path=FILE.h5ad model=transformer metadata=on split=cv
  python run.py -m model=mlp,transformer 'seed=range(5)'     a sweep
  python run.py sweep=mlp split=cv                           a search for settings
  python run.py rerun=RUN                                    the same run again
  python run.py task=report run=RUN                          its report, drawn again
  python run.py task=permute run=RUN                         its result, tested against permuted labels

Tasks, as task=choice:
{tasks}

Groups, as group=choice:
{groups}

Fields, as field=value (their meaning: oligo_ad/config.py):

{fields}
Show the configuration of a run:  python run.py … --cfg job --resolve
Tab completion in bash:           eval "$(python run.py -sc install=bash)"
More of Hydra's options:          python run.py --hydra-help"""
# Fields of earlier versions. Commands that people have written down go on working.
RENAMED = {
    "model.encoder": "model.featurizer",
    "model.network.lora_rank": "model.adapt.lora_rank",
    "model.network.lora_alpha": "model.adapt.lora_alpha",
    "model.network.gradient_checkpointing": "model.adapt.recompute",
}
log = logging.getLogger(__name__)


class Stopped(Exception):
    """A run that ended early; the reason is already in its log and on the terminal."""


@hydra.main(config_path=str(CONF), config_name="config", version_base="1.3")
def _job(composed: DictConfig) -> float | None:
    """One run; also one trial of a sweep. Returns the headline number."""
    folder = Path(HydraConfig.get().runtime.output_dir)
    # As text: an interpolation in a word means something in the configuration, not among the words.
    words = OmegaConf.to_container(HydraConfig.get().overrides.task, resolve=False)
    assert isinstance(words, list)
    try:
        for message in settle_environment():
            log.warning(message)
        return _run(composed, folder, [str(word) for word in words])
    except UserError as error:
        log.error("%s", error)
        raise _stopped(folder, str(error)) from error
    except BrokenPipeError as error:  # as by `| head`: who reads the answer has read enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise Stopped("the terminal was closed") from error
    except Exception as error:
        if is_disk_fault(error):
            log.error("%s. The disk or its permissions are at fault, not the run: %s", error, folder)
        else:
            log.exception("a bug in oligo_ad, not a mistake of yours: please report it with all of this")
        raise _stopped(folder, repr(error)) from error
    finally:
        if is_first_process() and folder != Path.cwd():
            with suppress(OSError):  # of a task that has written nothing, the folder is empty
                folder.rmdir()


def _run(composed: DictConfig, folder: Path, words: list[str]) -> float | None:
    from oligo_ad import config, tasks

    if not composed.rerun:
        return tasks.run(config.read(composed), folder, words)
    moved = any(word.startswith("data.path=") for word in words)
    saved = _saved(composed.rerun, words, composed.data.path if moved else None)
    if not saved.cache.path.is_dir():  # of another machine, perhaps
        saved = replace(saved, cache=config.CacheConfig(dir=composed.cache.dir))
    return tasks.run(saved, folder, words)


def _stopped(folder: Path, message: str) -> Stopped:
    """The exception that ends a run; for a sweep, the message is also left in the trial's directory."""
    if HydraConfig.get().mode is RunMode.MULTIRUN:
        from oligo_ad.record import Record

        Record(folder).write_failure(message)
    return Stopped(message)


def _saved(run: str, overrides: Sequence[str], data_path: str | None = None) -> "Config":
    """The whole configuration of an earlier run, made of the same files; `data_path`: where the data are."""
    from oligo_ad.rerun import settings_of

    others = [word for word in overrides if not word.startswith(("rerun=", "data.path="))]
    if others:
        raise UserError(
            f"rerun={run} repeats a run as it was, so {', '.join(others)} has no use. To change something, "
            "type the overrides of that run, which are in its .hydra/overrides.yaml, and add yours."
        )
    return settings_of(run, data_path)


def start() -> None:
    """Run the command line in `sys.argv`; exits with 1 after any error."""
    write_any_text()
    logging.raiseExceptions = (
        False  # a terminal that is gone, or a full disk behind it, is worth no traceback
    )
    try:
        for message in settle_environment():
            print(f"{message}.", file=sys.stderr)  # noqa: T201 before there is a log
    except UserError as error:
        sys.exit(str(error))
    # Hydra then hands its exceptions to us instead of printing them its own way.
    os.environ["HYDRA_FULL_ERROR"] = "1"
    sys.argv[1:] = [_renamed(word) for word in _without_removed(sys.argv[1:])] + _quiet_unless_first_process()
    if any(argument.startswith("sweep=") and argument != "sweep=none" for argument in sys.argv):
        sys.argv[1:1] = ["--multirun"]
    try:
        if {"--help", "-h"} & set(sys.argv):
            print(_help([given for given in sys.argv[1:] if not given.startswith("-")]))  # noqa: T201
        else:
            _job()
    except Stopped:
        sys.exit(1)
    except UserError as error:  # of a sweep as a whole
        sys.exit(str(error) if is_first_process() else 1)
    except (HydraException, OmegaConfBaseException) as error:
        sys.exit(_plainly(str(error)))
    except (OSError, ValueError) as error:
        # Of Hydra: a run directory that cannot be made, a group set to null. Those of a run are `Stopped`.
        sys.exit(_plainly(str(error)))
    except KeyboardInterrupt:
        sys.exit("interrupted")
    except Exception as error:
        if not is_disk_fault(error):
            raise
        sys.exit(f"{error}\nThe disk or its permissions are at fault.")


def _without_removed(arguments: list[str]) -> list[str]:
    """The words of a command line that still mean something; whoever types one that does not is told."""
    from oligo_ad.config import REMOVED

    kept = []
    for argument in arguments:
        reason = REMOVED.get(argument.partition("=")[0].lstrip("+~"))
        if reason is None:
            kept.append(argument)
        else:
            print(f"{argument} is ignored: {reason}", file=sys.stderr)  # noqa: T201 before there is a log
    return kept


def _renamed(argument: str) -> str:
    """An override with the name that its field has now; whoever types the old one is told."""
    field, equals, value = argument.partition("=")
    for old, new in RENAMED.items():
        found = re.sub(rf"(?<!\w){re.escape(old)}(?![\w])", new, field)
        if found != field:
            print(f"{old} is called {new} now", file=sys.stderr)  # noqa: T201 before there is a log
            field = found
    return f"{field}{equals}{value}"


def _help(overrides: list[str]) -> str:
    """The text of `--help`. Hydra's own takes three times as long and also lists Hydra's groups."""
    groups = (f"  {group}: {', '.join(_choices(group))}" for group in _groups())
    tasks = (f"  {name:<12} {_purpose(CONF / 'task' / f'{name}.yaml')}" for name in _choices("task"))
    fields = OmegaConf.to_yaml(_compose(overrides))
    return HELP.format(tasks="\n".join(tasks), groups="\n".join(groups), fields=fields)


def _purpose(file: Path) -> str:
    """What a configuration file is for: its first comment that is not for Hydra."""
    lines = file.read_text(encoding="utf-8").splitlines()
    return next(line.removeprefix("# ") for line in lines if not line.startswith("# @"))


def _quiet_unless_first_process() -> list[str]:
    """Overrides that keep Hydra from making a run directory and a log in processes 1, 2, …"""
    if is_first_process():
        return []
    return [
        "hydra.run.dir=.",
        "hydra/job_logging=none",
        "hydra/hydra_logging=none",
    ]


def _plainly(message: str) -> str:
    """Hydra's message about an override on the command line, with the nearest legal one."""
    if choice := re.search(r"Could not find '([\w/]+)/([\w-]+)'", message):
        group, given = choice.groups()
        legal = _choices(group)
        return f"{group}={given}: {group} is one of {', '.join(legal)}.{nearest(given, legal)}"
    if key := re.search(r"[Cc]ould not override '([\w./@ -]+)'", message):
        if key[1] in _groups():
            return f"{key[1]} chooses what data=demo simulates: leave it out, or take data=demo."
        fields = set(_fields())
        tasks = [f"task={name}" for name in _choices("task") if key[1] in _fields(f"task={name}")]
        if tasks and key[1] not in fields:
            those = listing(tasks)
            one = "it" if len(tasks) == 1 else "one"
            return f"{key[1]} is a field of {those}: add {one}, or leave {key[1]} out."
        hint = nearest(key[1], fields - {key[1]})
        return f"There is no field '{key[1]}'.{hint} `python run.py --help` lists every field."
    if "override must be a string" in message:
        nulled = [group for group in _groups() if f"{group}=null" in sys.argv]
        return " ".join(f"{group}=null: {group} is one of {', '.join(_choices(group))}." for group in nulled)
    if "overrides/basic" in message or "override_grammar" in message:
        arguments = shlex.join(sys.argv[1:])
        return f"{arguments}: {message.splitlines()[0]}. Quote values with signs: 'data.path=\"a=b.h5ad\"'."
    return message


def _fields(*overrides: str) -> list[str]:
    """Every name that may stand before `=` on the command line."""

    def walk(node: DictConfig, prefix: str) -> list[str]:
        names = []
        for key, value in node.items_ex(resolve=False):
            name = prefix + str(key)
            names += [name, *(walk(value, name + ".") if isinstance(value, DictConfig) else ())]
        return names

    return walk(_compose(list(overrides)), "") + _groups()


def _compose(overrides: list[str]) -> DictConfig:
    with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        return hydra.compose("config", overrides)


def _groups() -> list[str]:
    folders = {file.parent.relative_to(CONF) for file in CONF.glob("*/**/*.yaml")}
    return sorted(folder.as_posix() for folder in folders if folder.parts[0] != "hydra")


def _choices(group: str) -> list[str]:
    return sorted(file.stem for file in (CONF / group).glob("*.yaml"))
