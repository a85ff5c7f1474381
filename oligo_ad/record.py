"""The record of a run, its directory: written fold by fold, and read by everything after training.

    config.yaml                     the whole configuration
    split.json                      the donors of each fold, and their labels
    facts.json                      RunFacts: data, model and machine
    folds/<k>/history.json          FoldHistory: how a fold was trained
    folds/<k>/predictions.parquet   a row a sample: fold, seed, part, donor, barcode (none where a donor is a
                                    sample), logit; for a simulated file also `truth`
    folds/<k>/matched.parquet       predictions of test donors from counts thinned to a common depth
    folds/<k>/lockbox.parquet       predictions of donors that were set aside, with those of baselines
    folds/<k>/baselines.parquet     a row a test donor: fold, donor, and a column a baseline
    folds/<k>/model.safetensors     the trained model, with all that prediction needs
    permutations/<k>.json           Permutation: what a refit on permuted labels reached; k from 1
    metrics.json, donors.csv, cells.parquet, report.html, dome.json, card.md    what follows from all these
    failure.json, pruned.json       why there is no result
    .hydra/overrides.yaml           the words of the command line, as text
    run.log                         what the run has told

Nothing is written before the directory is claimed (`directory.py`), and a fold's folder appears when it is
whole. A trial of a search has no rows of part test, and no model.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from oligo_ad.config import Config, read_plain
from oligo_ad.errors import UserError, listing
from oligo_ad.facts import PARTS, FoldHistory, Permutation, Result, RunFacts, to_plain
from oligo_ad.foreign import to_yaml
from oligo_ad.record_files import (
    check_columns,
    check_finite,
    donors_table,
    first_line,
    is_number,
    parsed,
    parsed_json,
    parsed_yaml,
    read_facts,
    read_table,
    split_folds,
    unreadable,
)
from oligo_ad.storage.shelf import digest, published, write_json, write_text

CONFIG, SPLIT, FACTS, FOLDS = "config.yaml", "split.json", "facts.json", "folds"
PERMUTATIONS = "permutations"
HISTORY, PREDICTIONS, BASELINES = "history.json", "predictions.parquet", "baselines.parquet"
MATCHED, LOCKBOX, MODEL = "matched.parquet", "lockbox.parquet", "model.safetensors"
RESULT, DONORS, CELLS, REPORT = "metrics.json", "donors.csv", "cells.parquet", "report.html"
DOME, CARD = "dome.json", "card.md"
FAILURE, PRUNED = "failure.json", "pruned.json"
OVERRIDES = Path(".hydra") / "overrides.yaml"


@dataclass(frozen=True)
class FoldRecord:
    """The folder of one finished fold."""

    folder: Path

    @cached_property
    def history(self) -> FoldHistory:
        return parsed(self.folder / HISTORY, FoldHistory)

    @cached_property
    def predictions(self) -> pd.DataFrame:
        return self._predicted(self.folder / PREDICTIONS)

    @cached_property
    def matched(self) -> pd.DataFrame | None:
        """None where they were not predicted."""
        file = self.folder / MATCHED
        return self._predicted(file) if file.exists() else None

    @cached_property
    def lockbox(self) -> pd.DataFrame | None:
        """None where none was opened."""
        file = self.folder / LOCKBOX
        return self._predicted(file) if file.exists() else None

    def _predicted(self, file: Path) -> pd.DataFrame:
        table = read_table(file)
        check_columns(file, table, ["fold", "part", "donor", "barcode", "logit"])
        check_finite(file, table, ["logit", *(["truth"] if "truth" in table else [])])
        return table

    @cached_property
    def baselines(self) -> pd.DataFrame | None:
        """None where no baseline was scored."""
        file = self.folder / BASELINES
        if not file.exists():
            return None
        table = read_table(file)
        check_columns(file, table, ["fold", "donor"])
        check_finite(file, table, [name for name in table if name not in ("fold", "donor")])
        return table


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
        if self.finished or not file.exists():
            return ""
        content = parsed_json(file)
        if not isinstance(content.get("message"), str):
            raise unreadable(file, ValueError("it has no message"))
        return str(content["message"])

    @property
    def ended(self) -> bool:
        """Whether it finished, failed or was pruned, so that it need not run again."""
        return any((self.folder / mark).exists() for mark in (RESULT, FAILURE, PRUNED))

    # What it holds

    @cached_property
    def config(self) -> Config:
        try:
            return read_plain(self.plain_config)
        except UserError as error:
            raise UserError(f"{self.folder / CONFIG} cannot be used: {error}") from None

    @property
    def plain_config(self) -> dict[str, Any]:
        """The content of config.yaml, unchecked."""
        file = self.folder / CONFIG
        content = parsed_yaml(file)
        if not isinstance(content, dict):
            raise unreadable(file, TypeError("it holds no fields"))
        return {str(name): value for name, value in content.items()}

    @property
    def words(self) -> list[str]:
        """The words of the command line that started the run, as text, in which nothing is resolved."""
        return self.facts.words if (self.folder / FACTS).exists() else self.typed

    @property
    def typed(self) -> list[str]:
        """The same, as they were kept before anything else of the run."""
        file = self.folder / OVERRIDES
        content = parsed_yaml(file) if file.exists() else []
        if not isinstance(content, list) or not all(isinstance(word, str) for word in content):
            raise unreadable(file, TypeError("it is no list of words"))
        return content

    @cached_property
    def facts(self) -> RunFacts:
        return parsed(self.folder / FACTS, RunFacts)

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
        return _together([fold.baselines for fold in self.folds])

    @property
    def matched(self) -> pd.DataFrame | None:
        """Predictions from thinned counts of all folds; None where they were not made."""
        return _together([fold.matched for fold in self.folds])

    @property
    def lockbox(self) -> pd.DataFrame | None:
        """Predictions by all folds of the donors that were set aside; None where they were not opened."""
        return _together([fold.lockbox for fold in self.folds])

    @property
    def identity(self) -> str:
        """A hash of configuration, split and facts, which no two runs have in common."""
        return digest((self.folder / name).read_bytes() for name in (CONFIG, SPLIT, FACTS))

    @property
    def permutations(self) -> list[Permutation]:
        """The refits on permuted labels that are done, by number.

        Raises:
            UserError: one is damaged, or of another run, or they are of two tests.
        """
        files = (file for file in (self.folder / PERMUTATIONS).glob("*.json") if is_number(file.stem))
        in_order = sorted(files, key=lambda file: int(file.stem))
        identity = self.identity if in_order else ""
        found = [_permutation(file, identity) for file in in_order]
        if len(tests := {tuple(one.strata) for one in found}) > 1:
            within = " and ".join(listing(strata) or "no strata" for strata in sorted(tests))
            raise UserError(
                f"{self.folder / PERMUTATIONS} holds permutations within {within}, which are no one test: "
                "remove it, and permute anew."
            )
        return found

    @property
    def strata(self) -> tuple[str, ...] | None:
        """The donor columns within whose levels labels were permuted; None where they were not."""
        return next((tuple(one.strata) for one in self.permutations), None)

    @property
    def permuted(self) -> pd.DataFrame:
        """Donor AUROCs with permuted labels: a row a permutation, a column a predictor, NaN if not fitted."""
        return pd.DataFrame([one.auroc for one in self.permutations], dtype=float)

    @cached_property
    def metrics(self) -> dict[str, Any]:
        """The content of metrics.json; empty where the run has not finished."""
        return parsed_json(self.folder / RESULT) if self.finished else {}

    @cached_property
    def result(self) -> Result:
        """What runs are compared by."""
        return parsed(self.folder / RESULT, Result)

    @cached_property
    def donors(self) -> pd.DataFrame:
        """donors.csv: a row for each fold and scored donor; empty where the run has not finished."""
        return donors_table(self.folder / DONORS) if self.finished else pd.DataFrame()

    # Writing

    def write_config(self, config: dict[str, Any]) -> None:
        write_text(self.folder / CONFIG, to_yaml(config))

    def write_facts(self, facts: RunFacts) -> None:
        write_json(self.folder / FACTS, to_plain(facts))

    def write_failure(self, message: str) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        write_json(self.folder / FAILURE, {"message": message})

    def write_pruned(self, value: float) -> None:
        """Record that a search has stopped this trial, and the best it reached."""
        write_json(self.folder / PRUNED, {"value": value})

    def write_permutation(self, permutation: Permutation) -> None:
        (self.folder / PERMUTATIONS).mkdir(exist_ok=True)
        write_json(self.folder / PERMUTATIONS / f"{permutation.number}.json", to_plain(permutation))

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

    def write(
        self, history: FoldHistory, predictions: pd.DataFrame, more: dict[str, pd.DataFrame | None]
    ) -> None:
        """Write what is known of a fold; `more`: further tables by the names of their files."""
        for name, table in ({PREDICTIONS: predictions} | more).items():
            if table is not None:
                table.to_parquet(self.folder / name, index=False)
        write_json(self.folder / HISTORY, to_plain(history))


def _together(tables: list[pd.DataFrame | None]) -> pd.DataFrame | None:
    found = [table for table in tables if table is not None]
    return pd.concat(found, ignore_index=True) if found else None


def _permutation(file: Path, identity: str) -> Permutation:
    """A permutation of the run that has this identity."""
    try:
        found = read_facts(file, Permutation)
        if found.run != identity or str(found.number) != file.stem:
            raise ValueError("it is of another run, or has another number")
    except (OSError, ValueError) as error:
        raise UserError(
            f"{file} is no permutation of this run ({first_line(error)}). Remove it: task=permute makes it "
            "anew."
        ) from None
    return found


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
    return _opened(folder, (CONFIG, SPLIT, FACTS, RESULT))


def open_trained(folder: str | Path) -> Record:
    """The record of a run whose folds are all there; it may have been interrupted while labels were permuted.

    Raises:
        UserError: as `open_run`.
    """
    return _opened(folder, (CONFIG, SPLIT, FACTS))


def _opened(folder: str | Path, needed: tuple[str, ...]) -> Record:
    record = Record(Path(folder).expanduser())
    missing = [name for name in needed if not (record.folder / name).exists()]
    missing = missing or _missing_folds(record)
    if not record.folder.is_dir() or missing:
        lacks = f"it has no {listing(missing)}" if record.folder.is_dir() else "there is no such folder"
        raise UserError(
            f"run={folder} is no finished run: {lacks}. Give the directory that a run printed at its end, "
            "such as outputs/2026-11-22/10-00-00-000000."
        )
    _check_whole(record)
    return record


def _check_whole(record: Record) -> None:
    """Refuse a directory whose files do not belong together, as of one that was put together by hand."""
    model, folds = record.config.model, split_folds(record.folder / SPLIT)
    for component in (model.featurizer, model.network, model.pool, record.config.metadata.fusion):
        if not isinstance(component.get("_target_"), str):
            raise unreadable(record.folder / CONFIG, ValueError("a part of the model has no _target_"))
    donors, locked = set(record.facts.donors), set(record.facts.locked)
    numbers = {fold.folder.name for fold in record.folds}
    if {str(fold["number"]) for fold in folds} != numbers:
        raise unreadable(record.folder / SPLIT, ValueError(f"{FOLDS} holds other folds"))
    for fold in folds:
        if not {donor for part in PARTS for donor in fold[part]} <= donors:
            raise unreadable(record.folder / SPLIT, ValueError(f"it names donors that {FACTS} does not"))
    label = record.facts.donor_table["label"]
    for kept in record.folds:
        if str(kept.history.fold) != kept.folder.name:
            raise unreadable(kept.folder / HISTORY, ValueError("it is of another fold"))
        for name, table in (
            (PREDICTIONS, kept.predictions),
            (BASELINES, kept.baselines),
            (MATCHED, kept.matched),
            (LOCKBOX, kept.lockbox),
        ):
            if table is None:
                continue
            own = locked if name == LOCKBOX else donors
            if not set(table["donor"]) <= own or set(table["fold"].astype(str)) != {kept.folder.name}:
                raise unreadable(kept.folder / name, ValueError("it is of other donors, or another fold"))
        scored = kept.predictions["donor"][kept.predictions["part"] != PARTS[0]]
        if label[scored.unique()].nunique() < 2 or not set(kept.predictions["part"]) <= set(PARTS):
            raise unreadable(kept.folder / PREDICTIONS, ValueError("it lacks a class, or names other parts"))


def _missing_folds(record: Record) -> list[str]:
    """Folds of split.json that are not there."""
    finished = {fold.folder.name for fold in record.folds}
    numbers = [str(fold["number"]) for fold in split_folds(record.folder / SPLIT)]
    return [f"{FOLDS}/{number}" for number in numbers if number not in finished]


def _numbered(folders: Iterator[Path]) -> Iterator[Path]:
    return (folder for folder in folders if is_number(folder.name))
