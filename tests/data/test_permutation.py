"""Permutations move a label together with its place in the folds, within strata, by seed and number alone."""

import math
from itertools import combinations, permutations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from oligo_ad.data.permutation import exchanged, labellings, movable, moved, relabelled, strata_of
from oligo_ad.data.split import make_folds
from oligo_ad.errors import UserError
from oligo_ad.results.permutation import permutation_tests
from tests.builders import configuration

LABEL = pd.Series([1] * 12 + [0] * 8, [f"D{n:02d}" for n in range(20)])
ALL = pd.Series("", LABEL.index)
FOLDS = make_folds(LABEL, configuration("split=cv", "split.folds=4").split)


@given(st.integers(0, 10**6), st.integers(1, 10**6))
def test_a_label_keeps_its_place_in_every_fold(seed: int, number: int) -> None:
    source = exchanged(ALL, seed, number)
    label, other = relabelled(LABEL, source), moved(FOLDS, source)
    assert sorted(source.values()) == list(LABEL.index)
    for before, after in zip(FOLDS, other, strict=True):
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
    assert strata_of(donors, LABEL, []).nunique() == 1


def test_donors_and_labellings_of_one_sided_strata_do_not_count() -> None:
    strata = pd.Series(["a"] * 10 + ["b"] * 10, LABEL.index)  # all positive; two of ten
    assert movable(strata, LABEL) == 10
    assert labellings(strata, LABEL) == math.comb(10, 2)
    given = {tuple(relabelled(LABEL, exchanged(strata, 0, number))) for number in range(600)}
    assert len(given) == math.comb(10, 2)
    assert movable(ALL, LABEL) == 20


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


@given(st.lists(st.integers(0, 4), min_size=5, max_size=5))
def test_p_is_valid_at_every_level_where_labels_mean_nothing(score: list[int]) -> None:
    """Of all ten labellings of five donors, tested by the others, at most a tenth has p of 0.1, and so on.

    Scores may be tied, as a predictor's of donors that it cannot tell apart.
    """
    statistic = np.array([score[i] + score[j] for i, j in combinations(range(5), 2)], dtype=float)
    p = []
    for n, one in enumerate(statistic):
        others = pd.DataFrame({"model": np.delete(statistic, n)})
        p.append(permutation_tests(others, {"model": one})["model"].p)
    for level in np.arange(1, 11) / 10:
        assert np.mean(np.array(p) <= level + 1e-12) <= level + 1e-12


def rejected(confounded: float, within_sex: bool, cohorts: int = 150) -> float:
    """How often p is at most 0.05, of 19 permutations, where nothing but sex goes with the label."""
    found = 0
    for seed in range(cohorts):
        rng = np.random.default_rng([1, seed])
        sex = pd.Series(rng.integers(0, 2, 24), [f"D{n:02d}" for n in range(24)])
        label = (rng.random(24) < np.where(sex == 1, 0.5 + confounded, 0.5 - confounded)).astype(int)
        label = pd.Series(label, sex.index)
        score = sex + rng.normal(size=24)

        def reached(label: pd.Series, score: pd.Series = score) -> float:
            return float(score[label == 1].mean() - score[label == 0].mean())

        strata = sex.astype(str) if within_sex else pd.Series("", sex.index)
        null = [reached(relabelled(label, exchanged(strata, seed, number))) for number in range(1, 20)]
        tests = permutation_tests(pd.DataFrame({"model": null}), {"model": reached(label)})
        found += tests["model"].p <= 0.05
    return found / cohorts


def test_a_test_rejects_by_luck_alone_one_time_in_twenty_and_strata_keep_a_confounder_out() -> None:
    most = 0.05 + 3 * np.sqrt(0.05 * 0.95 / 150)
    assert rejected(confounded=0.0, within_sex=False) < most
    assert rejected(confounded=0.35, within_sex=True) < most
    assert rejected(confounded=0.35, within_sex=False, cohorts=30) > 3 * most


def test_a_predictor_that_was_not_refitted_is_not_tested() -> None:
    permuted = pd.DataFrame({"pseudobulk": [0.4, 0.6, 0.9], "model": [np.nan, 0.5, np.nan]})
    tests = permutation_tests(permuted, {"model": 0.7, "pseudobulk": 0.7, "oracle": 1.0})
    assert {name: test.n for name, test in tests.items()} == {"model": 1, "pseudobulk": 3}
    assert tests["pseudobulk"].p == 0.5
    assert permutation_tests(pd.DataFrame(), {"model": 0.7}) == {}
