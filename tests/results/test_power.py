"""What a cohort can show: more with more donors, and by the spread of permuted AUROCs where it is known."""

import numpy as np
import pytest
from scipy.stats import norm
from sklearn.metrics import roc_auc_score

from oligo_ad.results import power


def test_more_donors_show_smaller_effects() -> None:
    sizes = [(8, 2), (20, 5), (39, 9), (80, 40), (400, 200)]
    smallest = [power.smallest_auroc(*size) for size in sizes]
    assert smallest == sorted(smallest, reverse=True)
    assert smallest[-1] < 0.6


def test_a_larger_spread_without_a_signal_hides_more() -> None:
    found = [power.smallest_auroc(39, 9, sd) for sd in (0.05, 0.1, 0.15, 0.2)]
    assert found == sorted(found)
    assert power.smallest_auroc(39, 9, 0.6) == 1.0
    assert "there are too few" in power.sentence(39, 9, 0.6)


def test_without_training_the_power_is_as_said() -> None:
    """Normal scores whose true AUROC is the smallest that is promised: four of five tests find it."""
    n_positive, n_negative = 60, 40
    null_sd = np.sqrt(power.variance(0.5, n_positive, n_negative))
    auroc = power.smallest_auroc(n_positive, n_negative, float(null_sd))
    shift, rng = np.sqrt(2) * norm.ppf(auroc), np.random.default_rng(0)
    label = np.r_[np.ones(n_positive), np.zeros(n_negative)]
    found = [roc_auc_score(label, rng.normal(size=100) + shift * label) for _ in range(2000)]
    cut = 0.5 + norm.ppf(0.95) * null_sd
    assert np.mean(np.array(found) > cut) == pytest.approx(0.8, abs=0.03)


def test_the_variance_is_that_of_a_score_without_signal() -> None:
    rng, label = np.random.default_rng(0), np.r_[np.ones(39), np.zeros(9)]
    found = [roc_auc_score(label, rng.normal(size=48)) for _ in range(4000)]
    assert np.var(found) == pytest.approx(power.variance(0.5, 39, 9), rel=0.06)


def test_the_sentence_names_donors_and_the_smallest_auroc() -> None:
    text = power.sentence(39, 9)
    assert "With 9 and 39 tested donors" in text
    assert f"an AUROC of {power.smallest_auroc(39, 9):.2f} or more" in text
