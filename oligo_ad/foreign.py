"""Reads files that somebody else may have written: as plain values, with bounds, and nothing in them runs."""

import json
import stat
from pathlib import Path
from typing import Any

import yaml
from omegaconf._utils import get_omega_conf_dumper, get_yaml_loader

MOST_JSON, MOST_YAML, MOST_TABLE = 1 << 26, 1 << 20, 1 << 28  # bytes


def read_json(file: Path) -> dict[str, Any]:
    """The object in a JSON file.

    Raises:
        OSError, ValueError: there is none.
    """
    try:
        content = json.loads(_text(file, MOST_JSON))
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    if not isinstance(content, dict):
        raise ValueError(f"it holds a {type(content).__name__}")
    return content


def read_yaml(file: Path) -> Any:
    """The values in a YAML file. What OmegaConf would resolve, such as `${oc.env:HOME}`, stays text.

    Raises:
        OSError, ValueError: it is no YAML, or has aliases, by which a short file can mean a huge one.
    """
    text = _text(file, MOST_YAML)
    try:
        if any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(text)):
            raise ValueError("it has aliases")
        return yaml.load(text, Loader=get_yaml_loader())
    except yaml.YAMLError as error:
        raise ValueError(str(error).replace("\n", " ")) from None
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def to_yaml(content: Any) -> str:
    """YAML that `read_yaml` reads as the same values."""
    # OmegaConf's dumper quotes what its loader would take for a number.
    return yaml.dump(
        _listed(content), default_flow_style=False, allow_unicode=True, sort_keys=False,
        Dumper=get_omega_conf_dumper(),
    )  # fmt: skip


def _listed(value: Any) -> Any:
    """The same with lists in the place of tuples, which YAML has no word for."""
    if isinstance(value, dict):
        return {name: _listed(inner) for name, inner in value.items()}
    return [_listed(inner) for inner in value] if isinstance(value, list | tuple) else value


def check_size(file: Path, most: int = MOST_TABLE) -> None:
    """Refuse what is no file, such as a pipe, and what is larger than anything that this program writes.

    Raises:
        OSError, ValueError: saying which.
    """
    found = file.stat()
    if not stat.S_ISREG(found.st_mode):
        raise ValueError("it is no file")
    if found.st_size > most:
        raise ValueError(f"it has {found.st_size:,} bytes, more than {most:,}")


def _text(file: Path, most: int) -> str:
    check_size(file, most)
    return file.read_text(encoding="utf-8")
