"""Permutations move a label together with its place in the folds, within strata, by seed and number alone."""

from itertools import permutations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from oligo_ad.data.permutation import exchanged, movable, moved, relabelled, strata_of
from oligo_ad.data.split import make_folds
from oligo_ad.errors import UserError
from oligo_ad.results.permutation import permutation_tests
from tests.builders import configuration

LABEL = pd.Series([1] * 12 + [0] * 8, [f"D{n:02d}" for n in range(20)])
ALL = pd.Series("", LABEL.index)
SPLIT = configuration("split=cv", "split.folds=4").split


@given(st.integers(0, 10**6), st.integers(1, 10**6))
def test_a_label_keeps_its_place_in_every_fold(seed: int, number: int) -> None:
    folds = make_folds(LABEL, SPLIT)
    source = exchanged(ALL, seed, number)
    label, other = relabelled(LABEL, source), moved(folds, source)
    assert sorted(source.values()) == list(LABEL.index)
    for before, after in zip(folds, other, strict=True):
        for part, donors in after.parts.items():
            assert {source[donor] for donor in donors} == set(before.parts[part])
            assert sorted(label[list(donors)]) == sorted(LABEL[list(before.parts[part])])


def test_a_permutation_depends_on_seed_and_number_and_on_nothing_else() -> None:
    drawn = [exchanged(ALL, 3, number) for number in range(1, 30)]
    assert drawn[4] == exchanged(ALL.sample(frac=1, random_state=0), 3, 5)
    assert len({tuple(source.values()) for source in drawn}) == 29
    assert exchanged(ALL, 4, 5) != drawn[4]


def test_every_donor_gets_every_place_equally_often() -> None:
    few = ALL.iloc[:4]
    orders = [tuple(exchanged(few, 0, number).values()) for number in range(2400)]
    counts = pd.Series(orders).value_counts()
    assert len(counts) == len(list(permutations(few.index)))
    assert counts.between(60, 140).all()


def test_labels_move_within_strata_only() -> None:
    donors = pd.DataFrame({"obs:sex": ["F", "M"] * 10, "obs:age": np.arange(20.0)}, LABEL.index)
    strata = strata_of(donors, LABEL, ["sex", "age"])
    assert strata.nunique() == 6  # two sexes, three thirds
    source = exchanged(strata, 0, 1)
    assert all(strata[donor] == strata[given] for donor, given in source.items())
    # Of the oldest third, and of none of the youngest, labels differ.
    assert movable(strata, LABEL) == int((LABEL.groupby(strata).transform("nunique") == 2).sum()) < 20
    assert strata_of(donors, LABEL, []).nunique() == 1


def test_unknown_values_are_a_stratum_of_their_own() -> None:
    donors = pd.DataFrame({"obs:pmi": [1.0] * 9 + [2.0] * 9 + [None] * 2}, LABEL.index)
    strata = strata_of(donors, LABEL, ["pmi"])
    assert strata.iloc[-2:].nunique() == 1
    assert strata.nunique() == 3


def test_strata_that_let_nothing_move_or_are_not_there_are_refused() -> None:
    donors = pd.DataFrame({"obs:sex": ["F"] * 12 + ["M"] * 8}, LABEL.index)
    with pytest.raises(UserError, match="every stratum has donors of one class only"):
        strata_of(donors, LABEL, ["sex"])
    with pytest.raises(UserError, match="no 'pmi' that can be used"):
        strata_of(donors, LABEL, ["pmi"])


@given(st.lists(st.floats(0, 1), min_size=1, max_size=60), st.floats(0, 1))
def test_p_counts_the_observed_one_and_ties(null: list[float], observed: float) -> None:
    (test,) = permutation_tests(pd.DataFrame({"model": null}), {"model": observed}).values()
    assert test.n == len(null)
    as_large = sum(one >= observed - 1e-9 for one in null)
    assert test.p == pytest.approx((as_large + 1) / (len(null) + 1))
    assert test.null_mean == pytest.approx(np.mean(null))


def test_p_is_valid_at_every_level_where_labels_mean_nothing() -> None:
    """Of all orders of six donors, tested by all others: a share of at most a has p of at most a."""
    rng = np.random.default_rng(0)
    score, places = rng.normal(size=6), list(permutations(range(6)))
    statistic = np.array([score[list(order)][:2].sum() for order in places])
    p = np.array(
        [(1 + np.sum(np.delete(statistic, n) >= one)) / len(places) for n, one in enumerate(statistic)]
    )
    for level in (0.01, 0.05, 0.1, 0.5):
        assert np.mean(p <= level) <= level + 1e-12


def test_a_predictor_that_was_not_refitted_is_not_tested() -> None:
    permuted = pd.DataFrame({"pseudobulk": [0.4, 0.6, 0.9], "model": [np.nan, 0.5, np.nan]})
    tests = permutation_tests(permuted, {"model": 0.7, "pseudobulk": 0.7, "oracle": 1.0})
    assert {name: test.n for name, test in tests.items()} == {"model": 1, "pseudobulk": 3}
    assert tests["pseudobulk"].p == 0.5
    assert permutation_tests(pd.DataFrame(), {"model": 0.7}) == {}
