"""From the command line to `experiment.run`: Hydra composes, and mistakes get one clear message.

Nothing heavy is imported before the configuration is known, so that `--help`, tab completion and
typing errors answer at once.
"""

import logging
import os
import re
import sys
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from oligo_ad.errors import UserError, nearest

CONF = Path(__file__).resolve().parent.parent / "conf"
log = logging.getLogger(__name__)


class Stopped(Exception):
    """A run that ended early; why is already in its log and on the terminal."""


@hydra.main(config_path=str(CONF), config_name="config", version_base="1.3")
def _job(composed: DictConfig) -> float | None:
    """One run; also one trial of a sweep. Returns the headline number."""
    try:
        from oligo_ad import config, experiment

        return experiment.run(config.read(composed), Path(HydraConfig.get().runtime.output_dir))
    except UserError as error:
        log.error("%s", error)
        raise Stopped(str(error)) from error
    except Exception as error:
        log.exception("a bug in oligo_ad, not a mistake of yours: please report it with this file")
        raise Stopped(repr(error)) from error


def start() -> None:
    """Run the command line in `sys.argv`; exits with 1 after any error."""
    # Hydra then hands its exceptions to us instead of printing them its own way.
    os.environ["HYDRA_FULL_ERROR"] = "1"
    sys.argv[1:] += _quiet_unless_first_process()
    try:
        _job()
    except Stopped:
        sys.exit(1)
    except (HydraException, OmegaConfBaseException) as error:
        sys.exit(_plainly(str(error)))
    except KeyboardInterrupt:
        sys.exit("interrupted")


def _quiet_unless_first_process() -> list[str]:
    """Overrides that keep Hydra from making a run directory and a log in processes 1, 2, …"""
    if os.environ.get("RANK", "0") == "0":
        return []
    return [
        "hydra.run.dir=.",
        "hydra.output_subdir=null",
        "hydra/job_logging=none",
        "hydra/hydra_logging=none",
    ]


def _plainly(message: str) -> str:
    """Hydra's complaint about a word on the command line, with the nearest legal word."""
    if choice := re.search(r"Could not find '([\w/]+)/([\w-]+)'", message):
        group, given = choice.groups()
        legal = sorted(file.stem for file in (CONF / group).glob("*.yaml"))
        return f"{group}={given}: {group} is one of {', '.join(legal)}.{nearest(given, legal)}"
    if key := re.search(r"[Cc]ould not override '([\w./@ -]+)'", message):
        hint = nearest(key[1], set(_fields()) - {key[1]})
        return f"There is no field '{key[1]}'.{hint} `python run.py --help` lists every field."
    return message


def _fields() -> list[str]:
    """Every word that may stand before `=` on the command line."""
    with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        composed = hydra.compose("config")

    def walk(node: DictConfig, prefix: str) -> list[str]:
        names = []
        for key, value in node.items_ex(resolve=False):
            name = prefix + str(key)
            names += [name, *(walk(value, name + ".") if isinstance(value, DictConfig) else ())]
        return names

    return walk(composed, "") + [folder.name for folder in CONF.iterdir() if folder.is_dir()]
