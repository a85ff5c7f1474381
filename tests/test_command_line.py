"""What a user types: every file of conf/ composes, and every command of the README is one we take."""

import re
import shlex
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir

from oligo_ad import config
from oligo_ad.models.pretrained import read_pretrained
from oligo_ad.tasks import train
from tests.builders import CONF

README = CONF.parent / "README.md"
FILES = sorted(file.relative_to(CONF) for file in CONF.glob("*/*.yaml"))


def read(*overrides: str) -> config.Config:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return config.read(compose("config", overrides=list(overrides)))


@pytest.mark.parametrize("file", FILES, ids=str)
def test_every_configuration_file_composes_and_names_components_that_exist(file: Path) -> None:
    composed = read(f"{file.parent.name}={file.stem}")
    if composed.model.reader:
        composed = read(f"{file.parent.name}={file.stem}", "model.pretrained=false")
    train._check_components(composed, read_pretrained(composed.model))


def test_metadata_on_and_off_are_words_not_booleans() -> None:
    assert read("metadata=on").metadata.columns == ("age", "sex", "apoe4", "apoe2")
    assert read("metadata=off").metadata.columns == ()


def commands() -> list[str]:
    """Every `run.py` command of the README with its words, sweeps and placeholders left out."""
    text = README.read_text()
    found = re.findall(
        r"^(?:python|\.venv/bin/python|accelerate launch) run\.py(.*?)(?:\s{2,}#.*)?$", text, re.M
    )
    return sorted(
        {words.split(" #")[0].strip() for words in found if " -m" not in words and "…" not in words}
    )


@pytest.mark.parametrize("words", commands())
def test_every_command_of_the_readme_is_understood(words: str) -> None:
    read(*(word for word in shlex.split(words) if not word.startswith("--")))
