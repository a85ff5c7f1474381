"""Folds of whole donors: nuclei are never divided, since the donor is the independent unit.

Stratification is done on the donor table, which gives even folds; stratifying nuclei by group does
not. The folds are written to split.json, so that every model can be compared on the same ones.
"""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.model_selection import RepeatedStratifiedKFold, StratifiedShuffleSplit

from oligo_ad.config import SplitConfig
from oligo_ad.errors import UserError, listing, nearest
from oligo_ad.storage.shelf import write_json

PARTS = ("train", "validation", "test")


@dataclass(frozen=True)
class Fold:
    """Donor ids of each part; no donor is in two. `number` counts from 1."""

    number: int
    train: tuple[str, ...]
    validation: tuple[str, ...]
    test: tuple[str, ...]

    @property
    def parts(self) -> dict[str, tuple[str, ...]]:
        """Donor ids by the names in `PARTS`."""
        return dict(zip(PARTS, (self.train, self.validation, self.test), strict=True))

    @property
    def development(self) -> tuple[str, ...]:
        """Every donor that is not a test donor: train and validation."""
        return self.train + self.validation


def make_folds(label: pd.Series, config: SplitConfig) -> list[Fold]:
    """Divide donors into train, validation and test, each with both classes.

    Args:
        label: 0 or 1, indexed by donor id.
        config: `holdout` gives one fold, `cv` gives folds × repeats; `file` repeats a saved split,
            `only` leaves one fold of them.

    Raises:
        UserError: a class has too few donors for that, or the saved split does not fit the cohort.
    """
    label = label.sort_index()
    folds = read_split(Path(config.file), label) if config.file else list(_split(label, config))
    for fold in folds:
        _check(fold, label)
    wanted = [fold for fold in folds if config.only in (None, fold.number)]
    if not wanted:
        raise UserError(f"split.only={config.only}: the folds are numbered 1 to {len(folds)}.")
    return wanted


def write_split(folds: list[Fold], label: pd.Series, config: SplitConfig, path: Path) -> None:
    """Save the folds and every donor's label."""
    saved = {
        "made_by": asdict(config),
        "label": {donor: int(value) for donor, value in label.items()},
        "folds": [asdict(fold) for fold in folds],
    }
    write_json(path, saved)


def read_split(path: Path, label: pd.Series) -> list[Fold]:
    """The folds of a saved split.json, for exactly the donors and labels at hand."""
    folds, labels = _saved(path)
    for donor, value in labels.items():
        if donor not in label.index:
            raise UserError(
                f"split.file={path} names donor {donor}, who is not in this cohort."
                f"{nearest(donor, label.index)} Use the data choices of the run that wrote it."
            )
        if label[donor] != value:
            raise UserError(f"split.file={path} gives donor {donor} label {value}, not {label[donor]}.")
    if missing := sorted(set(label.index) - set(labels)):
        raise UserError(f"split.file={path} leaves out donors of this cohort: {listing(missing)}.")
    return folds


def read_folds(path: Path) -> list[Fold]:
    """The folds of a saved split.json."""
    return _saved(path)[0]


def _saved(path: Path) -> tuple[list[Fold], dict[str, int]]:
    try:
        saved = json.loads(path.expanduser().read_text())
        folds = [Fold(f["number"], *(tuple(f[part]) for part in PARTS)) for f in saved["folds"]]
        labels = dict(saved["label"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        reason = f"{type(error).__name__}: {error}"[:200]
        raise UserError(f"split.file={path} is no split.json of a run ({reason}).") from None
    if not folds:
        raise UserError(f"split.file={path} is no split.json of a run (it holds no folds).")
    return folds, labels


def _split(label: pd.Series, config: SplitConfig) -> Iterator[Fold]:
    donors, classes = label.index.to_numpy(), label.to_numpy()
    for number, (rest, test) in enumerate(_test_parts(label, config), start=1):
        inner = StratifiedShuffleSplit(
            1, test_size=config.validation_fraction, random_state=_seed(config.seed, number)
        )
        try:
            train, validation = next(inner.split(rest, classes[rest]))
        except ValueError:
            raise _too_few(label, config) from None
        parts = (rest[train], rest[validation], test)
        yield Fold(number, *(tuple(sorted(donors[part])) for part in parts))


def _test_parts(label: pd.Series, config: SplitConfig) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    smallest = int(label.value_counts().min())
    if config.kind == "cv" and smallest < config.folds:
        raise UserError(
            f"split.folds={config.folds} needs as many donors of each class; the smaller class has "
            f"{smallest}. "
            + (f"Set split.folds={smallest} or fewer." if smallest > 1 else "Add more donors.")
        )
    splitter = (
        RepeatedStratifiedKFold(n_splits=config.folds, n_repeats=config.repeats, random_state=config.seed)
        if config.kind == "cv"
        else StratifiedShuffleSplit(1, test_size=config.test_fraction, random_state=config.seed)
    )
    try:
        yield from splitter.split(label.index, label)
    except ValueError:
        raise _too_few(label, config) from None


def _check(fold: Fold, label: pd.Series) -> None:
    everyone = fold.train + fold.validation + fold.test
    if len(set(everyone)) != len(everyone):
        raise UserError(f"fold {fold.number} has a donor in two parts.")
    if odd := set(everyone) ^ set(label.index):
        raise UserError(f"fold {fold.number} and the cohort differ in donors: {listing(sorted(odd))}.")
    for part, donors in fold.parts.items():
        if label[list(donors)].nunique() < 2:
            raise UserError(
                f"the {part} part of fold {fold.number} lacks a class: of {int((label == 1).sum())} "
                f"positive and {int((label == 0).sum())} negative donors, each part needs one of "
                "each. Raise split.validation_fraction or split.test_fraction, lower split.folds, "
                "or add more donors."
            )


def _too_few(label: pd.Series, config: SplitConfig) -> UserError:
    positive, negative = int((label == 1).sum()), int((label == 0).sum())
    return UserError(
        f"too few donors to split ({config.kind}): {positive} positive and {negative} negative. Each "
        "of train, validation and test needs one of each class. Change split.test_fraction="
        f"{config.test_fraction} or split.validation_fraction={config.validation_fraction}, or add donors."
    )


def _seed(seed: int, number: int) -> int:
    return int(np.random.SeedSequence([seed, number]).generate_state(1)[0])
