"""What a cohort can show: more with more donors, and by the spread of permuted AUROCs where it is known."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm, rankdata

from benchmarks.coverage import Trained
from benchmarks.power import design_of, outcome
from oligo_ad.results import power
from oligo_ad.results.power import Design

UNTRAINED = np.inf  # donors: a score that needs none varies no more than its test donors do


def cross_validated(n_positive: int, n_negative: int, null_sd: float | None = None) -> Design:
    return Design(n_positive, n_negative, 0.8 * (n_positive + n_negative), 5, null_sd)


def aurocs(label: np.ndarray, score_RN: np.ndarray) -> np.ndarray:
    """Of each row of scores (Mann & Whitney 1947)."""
    n = label.sum()
    ranks: np.ndarray = rankdata(score_RN, axis=1)[:, label == 1].sum(1)
    return (ranks - n * (n + 1) / 2) / (n * (len(label) - n))


@settings(max_examples=40, deadline=None)
@given(st.integers(2, 60), st.integers(2, 60), st.integers(1, 40), st.integers(0, 40))
def test_more_donors_show_smaller_effects(n_positive: int, n_negative: int, more: int, other: int) -> None:
    small = power.smallest_auroc(cross_validated(n_positive, n_negative))
    large = power.smallest_auroc(cross_validated(n_positive + more, n_negative + other))
    assert large <= small + 1e-9


@settings(max_examples=40, deadline=None)
@given(st.floats(0.001, 0.4), st.floats(1.01, 3))
def test_a_stricter_test_finds_larger_effects_only(level: float, times: float) -> None:
    design = cross_validated(39, 9)
    assert power.smallest_auroc(design, level) >= power.smallest_auroc(design, min(level * times, 0.5)) - 1e-9


@settings(max_examples=40, deadline=None)
@given(st.floats(0.55, 0.95))
def test_the_smallest_auroc_is_found_in_four_of_five_cohorts(auroc: float) -> None:
    design = cross_validated(39, 9)
    assert (power.power_of(auroc, design) >= 0.8) == (auroc >= power.smallest_auroc(design))


@pytest.mark.parametrize("design", [cross_validated(39, 9), cross_validated(39, 9, 0.2), Design(8, 2, 38, 1)])
def test_at_one_half_only_luck_is_found(design: Design) -> None:
    assert power.power_of(0.5, design) == pytest.approx(0.05)
    assert power.power_of(0.5, design, 0.01) == pytest.approx(0.01)


def test_a_larger_spread_without_a_signal_hides_more() -> None:
    found = [power.smallest_auroc(cross_validated(39, 9, sd)) for sd in (0.05, 0.1, 0.15, 0.2)]
    assert found == sorted(found)
    assert power.smallest_auroc(cross_validated(39, 9, 0.6)) == 1.0
    assert "there are too few" in power.sentence(cross_validated(39, 9, 0.6))


def test_without_training_the_power_is_as_said() -> None:
    """Normal scores whose true AUROC is the smallest that is promised: four of five tests find it."""
    design = Design(60, 40, UNTRAINED, 1)
    auroc = power.smallest_auroc(design)
    shift, rng = np.sqrt(2) * norm.ppf(auroc), np.random.default_rng(0)
    label = np.r_[np.ones(60), np.zeros(40)]
    found = aurocs(label, rng.normal(size=(4000, 100)) + shift * label)
    cut = 0.5 + norm.ppf(0.95) * np.sqrt(power.variance(0.5, 60, 40))
    assert (found > cut).mean() == pytest.approx(0.8, abs=0.03)


def test_the_variance_is_that_of_a_score_without_signal() -> None:
    rng, label = np.random.default_rng(0), np.r_[np.ones(39), np.zeros(9)]
    assert aurocs(label, rng.normal(size=(4000, 48))).var() == pytest.approx(
        power.variance(0.5, 39, 9), rel=0.06
    )


@pytest.mark.slow
@pytest.mark.parametrize(("how", "auroc"), [("5 folds", 0.8), ("holdout", 0.8)])
def test_power_is_as_predicted_where_every_fold_trains(how: str, auroc: float) -> None:
    """Three Monte-Carlo standard errors, and .08 for what the formula leaves out; the table is longer."""
    world, n = Trained(auroc, 4, 1.0), 150
    found = np.mean([outcome(world, how, 5, number).p <= power.LEVEL for number in range(n)])
    predicted = power.power_of(world.truths[0].auroc, design_of(how))
    assert found == pytest.approx(predicted, abs=0.08 + 3 * np.sqrt(0.25 / n))


def test_the_sentence_names_donors_and_the_smallest_auroc() -> None:
    design = cross_validated(39, 9)
    text = power.sentence(design)
    assert "With 9 and 39 tested donors" in text
    assert f"an AUROC of {power.smallest_auroc(design):.2f} or more" in text
