"""The record of a run, its directory: written fold by fold, and read by everything after training.

    config.yaml                     the whole configuration
    split.json                      the donors of each fold, and their labels
    facts.json                      RunFacts: data, model and machine
    folds/<k>/history.json          FoldHistory: how a fold was trained
    folds/<k>/predictions.parquet   a row a sample: fold, seed, part, donor, barcode (none where a donor is a
                                    sample), logit; for a simulated file also `truth`
    folds/<k>/baselines.parquet     a row a test donor: fold, donor, and a column a baseline
    folds/<k>/model.safetensors     the trained model, with all that prediction needs
    metrics.json, donors.csv, cells.parquet, report.html    what follows from all these
    failure.json, pruned.json       why there is no result

A fold's folder appears when it is whole. A trial of a search has no rows of part test, and no model.
"""

import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pandas as pd
from omegaconf import DictConfig, OmegaConf
from pydantic import ValidationError
from yaml import YAMLError

from oligo_ad.config import Config, read
from oligo_ad.errors import UserError, listing
from oligo_ad.facts import FoldHistory, RunFacts, from_plain, to_plain
from oligo_ad.storage.shelf import published, write_json, write_text
from oligo_ad.storage.tables import read_parquet

CONFIG, SPLIT, FACTS, FOLDS = "config.yaml", "split.json", "facts.json", "folds"
HISTORY, PREDICTIONS, BASELINES, MODEL = (
    "history.json",
    "predictions.parquet",
    "baselines.parquet",
    "model.safetensors",
)
RESULT, DONORS, CELLS, REPORT = "metrics.json", "donors.csv", "cells.parquet", "report.html"
FAILURE, PRUNED = "failure.json", "pruned.json"
OVERRIDES = Path(".hydra") / "overrides.yaml"


Facts = TypeVar("Facts")


@dataclass(frozen=True)
class FoldRecord:
    """The folder of one finished fold."""

    folder: Path

    @cached_property
    def history(self) -> FoldHistory:
        return _parse(self.folder / HISTORY, FoldHistory)

    @cached_property
    def predictions(self) -> pd.DataFrame:
        return _table(self.folder / PREDICTIONS)

    @cached_property
    def baselines(self) -> pd.DataFrame | None:
        """None where no baseline was scored."""
        file = self.folder / BASELINES
        return _table(file) if file.exists() else None


@dataclass(frozen=True)
class Record:
    """A run directory, of this run or of any other; a field is read when it is first used."""

    folder: Path

    # How it ended

    @property
    def finished(self) -> bool:
        return (self.folder / RESULT).exists()

    @property
    def pruned(self) -> bool:
        return (self.folder / PRUNED).exists()

    @property
    def failure(self) -> str:
        """Why it failed; empty where it did not fail, or left no message."""
        file = self.folder / FAILURE
        return str(_json(file)["message"]) if file.exists() and not self.finished else ""

    @property
    def ended(self) -> bool:
        """Whether it finished, failed or was pruned, so that it need not run again."""
        return any((self.folder / mark).exists() for mark in (RESULT, FAILURE, PRUNED))

    # What it holds

    @cached_property
    def config(self) -> Config:
        file = self.folder / CONFIG
        try:
            saved = OmegaConf.load(file)
        except (OSError, YAMLError) as error:
            raise _unreadable(file, error) from None
        if not isinstance(saved, DictConfig):
            raise _unreadable(file, TypeError("it holds no fields"))
        return read(saved)

    @property
    def words(self) -> list[str]:
        """The words of the command line that started the run."""
        file = self.folder / OVERRIDES
        return [str(word) for word in OmegaConf.load(file)] if file.exists() else []

    @cached_property
    def facts(self) -> RunFacts:
        return _parse(self.folder / FACTS, RunFacts)

    @cached_property
    def folds(self) -> list[FoldRecord]:
        """The finished folds, by number."""
        folders = (self.folder / FOLDS).glob("*")
        return [FoldRecord(folder) for folder in sorted(_numbered(folders), key=lambda one: int(one.name))]

    @property
    def histories(self) -> list[FoldHistory]:
        return [fold.history for fold in self.folds]

    @property
    def predictions(self) -> pd.DataFrame:
        """Those of all folds."""
        return pd.concat([fold.predictions for fold in self.folds], ignore_index=True)

    @property
    def baselines(self) -> pd.DataFrame | None:
        """Those of all folds; None where none was scored."""
        tables = [table for fold in self.folds if (table := fold.baselines) is not None]
        return pd.concat(tables, ignore_index=True) if tables else None

    @cached_property
    def metrics(self) -> dict[str, Any]:
        """The content of metrics.json; empty where the run has not finished."""
        return _json(self.folder / RESULT) if self.finished else {}

    @cached_property
    def donors(self) -> pd.DataFrame:
        """donors.csv: a row for each fold and scored donor; empty where the run has not finished."""
        return pd.read_csv(self.folder / DONORS, dtype={"donor": str}) if self.finished else pd.DataFrame()

    # Writing

    def write_config(self, config: dict[str, Any]) -> None:
        write_text(self.folder / CONFIG, OmegaConf.to_yaml(OmegaConf.create(config)))

    def write_facts(self, facts: RunFacts) -> None:
        write_json(self.folder / FACTS, to_plain(facts))

    def write_failure(self, message: str) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        write_json(self.folder / FAILURE, {"message": message})

    def write_pruned(self, value: float) -> None:
        """Record that a search has stopped this trial, and the best it reached."""
        write_json(self.folder / PRUNED, {"value": value})

    @contextmanager
    def fold(self, number: int) -> Iterator["FoldWriter"]:
        """The folder of a fold, which appears when all of it is written."""
        (self.folder / FOLDS).mkdir(exist_ok=True)
        with published(self.folder / FOLDS / str(number)) as staging:
            staging.mkdir()
            yield FoldWriter(staging)


@dataclass(frozen=True)
class FoldWriter:
    """The folder of a fold that is not finished."""

    folder: Path

    @property
    def model(self) -> Path:
        return self.folder / MODEL

    def write(self, history: FoldHistory, predictions: pd.DataFrame, baselines: pd.DataFrame | None) -> None:
        predictions.to_parquet(self.folder / PREDICTIONS, index=False)
        if baselines is not None:
            baselines.to_parquet(self.folder / BASELINES, index=False)
        write_json(self.folder / HISTORY, to_plain(history))


def probability_of(logit: np.ndarray) -> np.ndarray:
    """The probability of the positive class that a logit stands for."""
    probability: np.ndarray = 1 / (1 + np.exp(-logit))
    return probability


def run_folders(folders: Iterable[Path]) -> set[Path]:
    """Every run directory at or under some folders, however the run ended."""
    marks = (RESULT, FAILURE, PRUNED, OVERRIDES)
    found = {mark: [file for folder in folders for file in folder.rglob(str(mark))] for mark in marks}
    return {file.parents[len(Path(mark).parts) - 1] for mark, files in found.items() for file in files}


def open_run(folder: str | Path) -> Record:
    """The record of a run that has finished.

    Raises:
        UserError: there is none, or it is incomplete.
    """
    record = Record(Path(folder).expanduser())
    missing = [name for name in (CONFIG, SPLIT, FACTS, RESULT) if not (record.folder / name).exists()]
    missing = missing or _missing_folds(record)
    if not record.folder.is_dir() or missing:
        lacks = f"it has no {listing(missing)}" if record.folder.is_dir() else "there is no such folder"
        raise UserError(
            f"run={folder} is no finished run: {lacks}. Give the directory that a run printed at its end, "
            "such as outputs/2026-11-22/10-00-00-000000."
        )
    return record


def _missing_folds(record: Record) -> list[str]:
    """Folds of split.json that are not there."""
    finished = {fold.folder.name for fold in record.folds}
    numbers = [str(fold["number"]) for fold in _json(record.folder / SPLIT)["folds"]]
    return [f"{FOLDS}/{number}" for number in numbers if number not in finished]


def _numbered(folders: Iterator[Path]) -> Iterator[Path]:
    return (folder for folder in folders if folder.name.isdigit())


def _json(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text())
        if not isinstance(content, dict):
            raise ValueError(f"it holds a {type(content).__name__}")
    except (OSError, ValueError, RecursionError) as error:
        raise _unreadable(file, error) from None
    return content


def _parse(file: Path, kind: type[Facts]) -> Facts:
    try:
        found: Facts = from_plain(_json(file), kind)
    except ValidationError as error:
        raise _unreadable(file, error) from None
    return found


def _table(file: Path) -> pd.DataFrame:
    try:
        return read_parquet(file)
    except (OSError, ValueError) as error:
        raise _unreadable(file, error) from None


def _unreadable(file: Path, error: Exception) -> UserError:
    first = str(error).partition("\n")[0]
    return UserError(f"{file} cannot be read, so {file.parent} is no finished run: {first}.")
