"""Whole donors are divided: none in two parts, both classes in each part, the same folds again."""

import json
import re
from collections import Counter
from dataclasses import replace
from pathlib import Path
from random import Random

import pandas as pd
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from oligo_ad.config import SplitConfig
from oligo_ad.data.split import Fold, make_folds, read_split, reduced, write_split
from oligo_ad.errors import UserError
from oligo_ad.facts import PARTS
from tests import builders

HOLDOUT = builders.configuration("split=holdout").split
CV = builders.configuration("split=cv").split


def donors(n_positive: int, n_negative: int) -> pd.Series:
    labels = [1] * n_positive + [0] * n_negative
    return pd.Series(labels, index=[f"D{i:02d}" for i in range(len(labels))])


SEA_AD = donors(39, 9)


@st.composite
def tables(draw: st.DrawFn) -> pd.Series:
    """Labels of donors with odd names, in no order."""
    labels = draw(st.permutations([1] * draw(st.integers(2, 20)) + [0] * draw(st.integers(2, 12))))
    names = st.text("abXY019 ./é", min_size=1, max_size=5)
    return pd.Series(labels, draw(st.lists(names, min_size=len(labels), max_size=len(labels), unique=True)))


protocols = st.builds(
    SplitConfig,
    kind=st.sampled_from(["holdout", "cv"]),
    test_fraction=st.floats(0.1, 0.6),
    validation_fraction=st.floats(0.1, 0.6),
    folds=st.integers(2, 4),
    repeats=st.integers(1, 3),
    seed=st.integers(0, 2**31 - 1),
    file=st.none(),
    only=st.none(),
)


def divide(label: pd.Series, config: SplitConfig) -> list[Fold]:
    """The folds; a table that is refused is not what the test is about."""
    try:
        return make_folds(label, config)
    except UserError:
        assume(False)
        raise


@settings(max_examples=30, deadline=None)
@given(tables(), protocols)
def test_every_donor_is_in_exactly_one_part_and_each_part_has_both_classes(
    label: pd.Series, config: SplitConfig
) -> None:
    for fold in divide(label, config):
        assert sorted(fold.train + fold.validation + fold.test) == sorted(label.index)
        for part in PARTS:
            assert set(label[list(getattr(fold, part))]) == {0, 1}


@settings(max_examples=30, deadline=None)
@given(tables(), protocols)
def test_cross_validation_tests_every_donor_once_per_repeat(label: pd.Series, config: SplitConfig) -> None:
    folds = divide(label, replace(config, kind="cv"))
    tested = pd.Series([donor for fold in folds for donor in fold.test]).value_counts()
    assert (tested[label.index] == config.repeats).all()
    assert [fold.number for fold in folds] == list(range(1, config.folds * config.repeats + 1))


@settings(max_examples=30, deadline=None)
@given(tables(), protocols, st.randoms(use_true_random=False))
def test_folds_depend_on_the_seed_alone_and_not_on_the_order_of_donors(
    label: pd.Series, config: SplitConfig, random: Random
) -> None:
    shuffled = label.loc[random.sample(list(label.index), len(label))]
    assert divide(shuffled, config) == divide(label, config)


@settings(max_examples=20, deadline=None)
@given(tables(), protocols)
def test_a_written_split_is_read_back_as_it_was(
    tmp_path_factory: pytest.TempPathFactory, label: pd.Series, config: SplitConfig
) -> None:
    folds = divide(label, config)
    path = tmp_path_factory.mktemp("split") / "split.json"
    write_split(folds, label, config, path)
    assert read_split(replace(config, file=str(path)), label) == folds
    assert make_folds(label, replace(config, seed=(config.seed + 1) % 2**31, file=str(path))) == folds


@pytest.mark.parametrize("config", [HOLDOUT, CV], ids=["holdout", "cv"])
def test_another_seed_gives_other_folds(config: SplitConfig) -> None:
    first, second = (make_folds(SEA_AD, replace(config, seed=seed)) for seed in (0, 1))
    assert {fold.test for fold in first}.isdisjoint(fold.test for fold in second)


def test_a_seed_that_cannot_be_used_is_told_as_such() -> None:
    with pytest.raises(UserError, match="seed"):
        make_folds(SEA_AD, builders.configuration("split.seed=-1").split)


def test_repeats_divide_the_donors_anew() -> None:
    folds = make_folds(SEA_AD, replace(CV, repeats=4))
    assert len({fold.test for fold in folds}) == len(folds) == 4 * CV.folds


def test_the_sea_ad_donors_are_divided_evenly() -> None:
    for fold in make_folds(SEA_AD, CV):
        positive = SEA_AD[list(fold.test)].sum()
        assert positive in (7, 8)
        assert len(fold.test) - positive in (1, 2)
        assert len(fold.validation) == pytest.approx(CV.validation_fraction * len(fold.development), abs=1)


def test_the_holdout_fraction_is_a_share_of_donors() -> None:
    (fold,) = make_folds(SEA_AD, replace(HOLDOUT, test_fraction=0.25))
    assert len(fold.test) == 12
    assert fold.development == fold.train + fold.validation


@pytest.mark.parametrize("n_negative", [0, 1, 2])
@pytest.mark.parametrize("config", [HOLDOUT, CV], ids=["holdout", "cv"])
def test_too_few_donors_of_a_class_are_refused(config: SplitConfig, n_negative: int) -> None:
    with pytest.raises(UserError, match=r"donors|class"):
        make_folds(donors(20, n_negative), config)


def test_more_folds_than_donors_of_a_class_are_refused_with_the_number_to_set() -> None:
    with pytest.raises(UserError, match=r"split\.folds=4 or fewer"):
        make_folds(donors(20, 4), CV)


def saved(folder: Path, **changes: object) -> SplitConfig:
    """A saved split of 12 and 8 donors with some top-level entries replaced (None: taken out)."""
    path, label = folder / "split.json", donors(12, 8)
    write_split(make_folds(label, HOLDOUT), label, HOLDOUT, path)
    content = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({key: value for key, value in content.items() if value is not None}))
    return replace(HOLDOUT, file=str(path))


def test_a_saved_split_with_a_donor_in_two_parts_is_refused(tmp_path: Path) -> None:
    (fold,) = make_folds(donors(12, 8), HOLDOUT)
    leaking = {"number": 1, "train": fold.train, "validation": fold.validation, "test": fold.development}
    with pytest.raises(UserError, match="in two parts"):
        make_folds(donors(12, 8), saved(tmp_path, folds=[leaking]))


def test_a_saved_split_that_leaves_a_donor_out_of_a_fold_is_refused(tmp_path: Path) -> None:
    (fold,) = make_folds(donors(12, 8), HOLDOUT)
    short = {"number": 1, "train": fold.train[1:], "validation": fold.validation, "test": fold.test}
    with pytest.raises(UserError, match=fold.train[0]):
        make_folds(donors(12, 8), saved(tmp_path, folds=[short]))


def test_a_saved_fold_with_an_unknown_donor_is_refused(tmp_path: Path) -> None:
    (fold,) = make_folds(donors(12, 8), HOLDOUT)
    odd = {"number": 1, "train": (*fold.train, "D99"), "validation": fold.validation, "test": fold.test}
    with pytest.raises(UserError, match="D99"):
        make_folds(donors(12, 8), saved(tmp_path, folds=[odd]))


@pytest.mark.parametrize("missing", ["folds", "label"])
def test_a_saved_split_without_an_entry_is_refused(tmp_path: Path, missing: str) -> None:
    with pytest.raises(UserError, match=r"is no split\.json"):
        make_folds(donors(12, 8), saved(tmp_path, **{missing: None}))


def test_a_saved_split_of_other_donors_is_refused_by_name(tmp_path: Path) -> None:
    config = saved(tmp_path)
    with pytest.raises(UserError, match="names donor D19"):
        make_folds(donors(12, 7), config)
    with pytest.raises(UserError, match=r"leaves out donors of this cohort: D20"):
        make_folds(pd.concat([donors(12, 8), pd.Series({"D20": 0})]), config)
    with pytest.raises(UserError, match="gives donor D11 label 1, not 0"):
        make_folds(donors(11, 9), config)


@pytest.mark.parametrize("content", ["", "[]", "not json", '{"folds": [3]}'])
def test_a_file_that_is_no_split_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "split.json"
    path.write_text(content)
    with pytest.raises(UserError, match=r"is no split\.json"):
        make_folds(SEA_AD, replace(HOLDOUT, file=str(path)))
    with pytest.raises(UserError, match=r"is no split\.json"):
        make_folds(SEA_AD, replace(HOLDOUT, file=str(tmp_path / "absent.json")))


@pytest.mark.parametrize("n_negative", [0, 1, 2, 3, 4, 5])
@pytest.mark.parametrize("config", [HOLDOUT, CV], ids=["holdout", "cv"])
def test_what_a_refusal_says_to_type_works(config: SplitConfig, n_negative: int) -> None:
    label = donors(9, n_negative)
    try:
        make_folds(label, config)
        return
    except UserError as error:
        message = str(error)
    typed = re.findall(
        r"split(?:\.(\w+))?=([\w.]*\w)(?=[ ,.])", message.partition("Set ")[2].partition("(")[0]
    )
    if not typed:
        assert "Add donors: no split" in message
        assert n_negative < 3
        return
    advised = {name or "kind": value if not name else float(value) for name, value in typed}
    if "folds" in advised:
        advised["folds"] = int(advised["folds"])
    assert make_folds(label, replace(config, **advised))


def test_every_donor_validates_about_as_often_as_any_other() -> None:
    """In 60 folds, of 40 of which it is no test donor; a fifth of those is 8."""
    many = replace(CV, folds=3, repeats=20, validation_fraction=0.2)
    times = Counter(donor for fold in make_folds(SEA_AD, many) for donor in fold.validation)
    assert set(times) == set(SEA_AD.index)
    assert max(times.values()) < 24


# A share of the training donors


@settings(max_examples=30, deadline=None)
@given(st.floats(0.05, 1), st.floats(0.05, 1), st.integers(0, 50))
def test_a_smaller_share_of_training_donors_is_a_part_of_a_larger_one(
    one: float, other: float, seed: int
) -> None:
    label = pd.Series([1] * 20 + [0] * 10, [f"D{n:02d}" for n in range(30)])
    whole = builders.configuration("split=cv", "split.folds=3", f"split.seed={seed}").split
    small, large = (make_folds(label, replace(whole, train_fraction=share)) for share in sorted((one, other)))
    for full, less, more in zip(make_folds(label, whole), small, large, strict=True):
        assert set(less.train) <= set(more.train) <= set(full.train)
        assert (less.validation, less.test) == (full.validation, full.test)
        assert label[list(less.train)].value_counts().min() >= 2
        for value in (0, 1):
            wanted = max(2, max(one, other) * (label[list(full.train)] == value).sum())
            assert abs((label[list(more.train)] == value).sum() - wanted) <= 0.5


def test_a_share_of_donors_is_said_and_repeated_as_it_is_by_the_saved_split(tmp_path: Path) -> None:
    label = pd.Series([1] * 20 + [0] * 10, [f"D{n:02d}" for n in range(30)])
    config = builders.configuration("split=cv", "split.folds=3", "split.train_fraction=0.5").split
    folds = make_folds(label, config)
    assert reduced(folds, label, config).endswith("a fold trains on 5, 6 positive and 2, 3 negative donors")
    path = tmp_path / "split.json"
    write_split(folds, label, config, path)
    assert make_folds(label, replace(config, file=str(path))) == folds
    for other in (1.0, 0.25):
        with pytest.raises(UserError, match=r"holds split\.train_fraction=0\.5 of the training donors"):
            make_folds(label, replace(config, file=str(path), train_fraction=other))


def test_a_share_of_the_donors_of_a_whole_saved_split_may_be_taken(tmp_path: Path) -> None:
    label = pd.Series([1] * 20 + [0] * 10, [f"D{n:02d}" for n in range(30)])
    config = builders.configuration("split=cv", "split.folds=3").split
    path = tmp_path / "split.json"
    write_split(make_folds(label, config), label, config, path)
    half = replace(config, train_fraction=0.5)
    assert make_folds(label, replace(half, file=str(path))) == make_folds(label, half)


def test_the_order_of_donors_does_not_decide_whose_share_is_taken() -> None:
    label = pd.Series([1] * 20 + [0] * 10, [f"D{n:02d}" for n in range(30)])
    config = builders.configuration("split.train_fraction=0.5").split
    assert make_folds(label, config) == make_folds(label.sample(frac=1, random_state=0), config)
