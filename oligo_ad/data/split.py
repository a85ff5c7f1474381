"""Folds of whole donors: nuclei are never divided, since the donor is the independent unit.

Stratification is done on the donor table, which gives even folds; stratifying nuclei by group does
not. The folds are written to split.json, so that every model can be compared on the same ones.
"""

import json
from collections.abc import Collection, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from sklearn.model_selection import RepeatedStratifiedKFold, StratifiedShuffleSplit

from oligo_ad.config import SplitConfig
from oligo_ad.errors import UserError, listing, nearest
from oligo_ad.facts import PARTS
from oligo_ad.storage.shelf import write_json

FEWEST = 2  # training donors of a class, however small the share that is asked for


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


def make_folds(label: pd.Series, config: SplitConfig, locked: Collection[str] = ()) -> list[Fold]:
    """Divide donors into train, validation and test, each with both classes.

    Args:
        label: 0 or 1, indexed by donor id.
        config: `holdout` gives one fold, `cv` gives folds × repeats; `file` repeats a saved split,
            `only` leaves one fold of them.
        locked: donors of the lockbox, which no saved split may hold.

    Raises:
        UserError: a class has too few donors for that, or the saved split does not fit the cohort.
    """
    label = label.sort_index()
    folds = read_split(config, label, locked) if config.file else _made(label, config)
    for fold in folds:
        _check(fold, label, config)
    wanted = [fold for fold in folds if config.only in (None, fold.number)]
    if not wanted:
        raise UserError(f"split.only={config.only}: the folds are numbered 1 to {len(folds)}.")
    if config.train_fraction == 1 or (config.file and _saved(Path(config.file)).train_fraction < 1):
        return wanted
    return [replace(fold, train=_fewer_donors(fold, label, config)) for fold in wanted]


def _fewer_donors(fold: Fold, label: pd.Series, config: SplitConfig) -> tuple[str, ...]:
    """A share of each class of the training donors; a smaller share is a part of a larger one."""
    rng, kept = np.random.default_rng([config.seed, fold.number]), list[str]()
    for value in (0, 1):
        own = [donor for donor in fold.train if label[donor] == value]
        n = min(len(own), max(FEWEST, round(config.train_fraction * len(own))))
        kept += rng.permutation(np.array(own, dtype=object)).tolist()[:n]
    return tuple(sorted(kept))


def reduced(folds: list[Fold], label: pd.Series, config: SplitConfig) -> str:
    """What `split.train_fraction` leaves, for the user."""
    left = [label[list(fold.train)] for fold in folds]
    positive, negative = (sorted({int((own == value).sum()) for own in left}) for value in (1, 0))
    counts = f"{listing(positive)} positive and {listing(negative)} negative"
    return f"split.train_fraction={config.train_fraction:g}: a fold trains on {counts} donors"


def write_split(folds: list[Fold], label: pd.Series, config: SplitConfig, path: Path) -> None:
    """Save the folds and every donor's label."""
    saved = {
        "made_by": asdict(config),
        "label": {donor: int(value) for donor, value in label.items()},
        "folds": [asdict(fold) for fold in folds],
    }
    write_json(path, saved)


def read_split(config: SplitConfig, label: pd.Series, locked: Collection[str] = ()) -> list[Fold]:
    """The folds of `split.file`, a saved split.json, for exactly the donors and labels at hand.

    Raises:
        UserError: it is of other donors, or of another share of them.
    """
    path = Path(str(config.file))
    saved = _saved(path)
    if held := sorted(saved.labels.keys() & set(locked)):
        raise UserError(
            f"split.file={path} puts {len(held)} donors of the lockbox into its folds: {listing(held)}. "
            "Leave split.lockbox out, or use the split.json of a run with the same split.lockbox."
        )
    for donor, value in saved.labels.items():
        if donor not in label.index:
            raise UserError(
                f"split.file={path} names donor {donor}, who is not in this cohort."
                f"{nearest(donor, label.index)} Use the data choices of the run that wrote it."
            )
        if label[donor] != value:
            raise UserError(f"split.file={path} gives donor {donor} label {value}, not {label[donor]}.")
    if missing := sorted(set(label.index) - set(saved.labels)):
        raise UserError(f"split.file={path} leaves out donors of this cohort: {listing(missing)}.")
    if saved.train_fraction not in (1.0, config.train_fraction):
        raise UserError(
            f"split.file={path} holds split.train_fraction={saved.train_fraction:g} of the training donors. "
            "Add the same, or use the split.json of a run that trained on all of them."
        )
    return saved.folds


def read_folds(path: Path) -> list[Fold]:
    """The folds of a saved split.json."""
    return _saved(path).folds


class Saved(NamedTuple):
    """The content of a split.json: `labels` by donor id; `train_fraction`: how much of each training part."""

    folds: list[Fold]
    labels: dict[str, int]
    train_fraction: float


def _saved(path: Path) -> Saved:
    try:
        saved = json.loads(path.expanduser().read_text())
        folds = [Fold(f["number"], *(tuple(f[part]) for part in PARTS)) for f in saved["folds"]]
        # One that was written by hand need not say how it was made.
        found = Saved(folds, dict(saved["label"]), float(saved.get("made_by", {}).get("train_fraction", 1)))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        reason = f"{type(error).__name__}: {error}"[:200]
        raise UserError(f"split.file={path} is no split.json of a run ({reason}).") from None
    if not folds:
        raise UserError(f"split.file={path} is no split.json of a run (it holds no folds).")
    return found


def _made(label: pd.Series, config: SplitConfig) -> list[Fold]:
    """New folds.

    Raises:
        UserError: there are too few donors of a class.
    """
    smallest = int(label.value_counts().min())
    if config.kind == "cv" and smallest < config.folds:
        raise UserError(
            f"split.folds={config.folds} needs as many donors of each class; the smaller class has "
            f"{smallest}. {_advice(label, config)}"
        )
    try:
        return list(_split(label, config))
    except ValueError:
        raise _too_few(label, config) from None


def _split(label: pd.Series, config: SplitConfig) -> Iterator[Fold]:
    donors, classes = label.index.to_numpy(), label.to_numpy()
    for number, (rest, test) in enumerate(_test_parts(label, config), start=1):
        inner = StratifiedShuffleSplit(
            1, test_size=config.validation_fraction, random_state=_seed(config.seed, number)
        )
        train, validation = next(inner.split(rest, classes[rest]))
        parts = (rest[train], rest[validation], test)
        yield Fold(number, *(tuple(sorted(donors[part])) for part in parts))


def _test_parts(label: pd.Series, config: SplitConfig) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    splitter = (
        RepeatedStratifiedKFold(n_splits=config.folds, n_repeats=config.repeats, random_state=config.seed)
        if config.kind == "cv"
        else StratifiedShuffleSplit(1, test_size=config.test_fraction, random_state=config.seed)
    )
    yield from splitter.split(label.index, label)


def _check(fold: Fold, label: pd.Series, config: SplitConfig) -> None:
    everyone = fold.train + fold.validation + fold.test
    if len(set(everyone)) != len(everyone):
        raise UserError(f"fold {fold.number} has a donor in two parts.")
    # The saved folds of a run that trained on a share of its donors leave the others out.
    left_out = set() if config.file and config.train_fraction < 1 else set(label.index) - set(everyone)
    if odd := left_out | (set(everyone) - set(label.index)):
        raise UserError(f"fold {fold.number} and the cohort differ in donors: {listing(sorted(odd))}.")
    for part, donors in fold.parts.items():
        if label[list(donors)].nunique() < 2:
            raise UserError(
                f"the {part} part of fold {fold.number} lacks a class: of {int((label == 1).sum())} "
                f"positive and {int((label == 0).sum())} negative donors, each part needs one of "
                f"each. {_advice(label, config)}"
            )


def _advice(label: pd.Series, config: SplitConfig) -> str:
    """What to type for a split that has both classes in every part: tried, not only thought of."""
    if config.file:
        return "Use another split.file, or leave it out."
    for words in _alternatives(label, config):
        if _works(label, replace(config, only=None, **words)):
            asked = {name: value for name, value in words.items() if value != getattr(config, name)}
            typed = [f"split{'' if n == 'kind' else f'.{n}'}={value}" for n, value in asked.items()]
            if [*asked] == ["folds"]:
                typed += [_fewer(label, config, int(asked["folds"]))]
            return f"Set {' '.join(filter(None, typed))}, or add donors."
    return "Add donors: no split of these has both classes in train, validation and test."


def _fewer(label: pd.Series, config: SplitConfig, most: int) -> str:
    """What else there is below the largest number of folds."""
    works = [n for n in range(most, 1, -1) if _works(label, replace(config, only=None, folds=n))]
    if len(works) == most - 1:
        return "or fewer" if most > 2 else ""
    return f"(of split.folds={most} or fewer, {listing(works)} would do)"


def _alternatives(label: pd.Series, config: SplitConfig) -> Iterator[dict[str, Any]]:
    """Other splits, the nearest first; a saved kind of split last."""
    most = min(config.folds, int(label.value_counts().min()))
    fractions = [config.validation_fraction, 0.2, 0.25, 0.3, 0.35, 0.4, 0.5]
    if config.kind == "cv":
        yield from (
            {"folds": n, "validation_fraction": part} for part in fractions for n in range(most, 1, -1)
        )
    tests = [config.test_fraction, 0.2, 0.25, 0.3, 0.35, 0.4]
    yield from (
        {"kind": "holdout", "test_fraction": test, "validation_fraction": part}
        for test in tests
        for part in fractions
    )


def _works(label: pd.Series, config: SplitConfig) -> bool:
    """Whether a split has both classes in each part of each fold."""
    smallest = int(label.value_counts().min())
    if config.kind == "cv" and smallest < config.folds:
        return False
    try:
        folds = list(_split(label, config))
    except ValueError:
        return False
    return all(label[list(donors)].nunique() == 2 for fold in folds for donors in fold.parts.values())


def _too_few(label: pd.Series, config: SplitConfig) -> UserError:
    positive, negative = int((label == 1).sum()), int((label == 0).sum())
    return UserError(
        f"too few donors to split ({config.kind}): {positive} positive and {negative} negative. Each "
        f"of train, validation and test needs one of each class. {_advice(label, config)}"
    )


def _seed(seed: int, number: int) -> int:
    return int(np.random.SeedSequence([seed, number]).generate_state(1)[0])
