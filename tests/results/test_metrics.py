"""Scores against hand-computed numbers and scikit-learn."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk

from oligo_ad.results.calibration import agreement
from oligo_ad.results.metrics import (
    auroc_gain,
    best_threshold,
    score,
    summarise,
)
from oligo_ad.scores import donor_scores

LABEL = np.array([1, 1, 1, 1, 0, 0])
PROBABILITY = np.array([0.9, 0.8, 0.6, 0.3, 0.7, 0.2])


@st.composite
def samples(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    """Labels of both classes, and probabilities with ties, 0 and 1 among them."""
    n = draw(st.integers(2, 25))
    label = np.array([0, 1, *draw(st.lists(st.integers(0, 1), min_size=n - 2, max_size=n - 2))])
    probability = draw(st.lists(st.integers(0, 20), min_size=n, max_size=n))
    return label, np.array(probability) / 20


def table(
    seed: int, folds: int = 3, n_positive: int = 8, n_negative: int = 5, cells: int = 6
) -> pd.DataFrame:
    """Random scores with ties: 1 to `cells` rows for each donor and fold."""
    rng = np.random.default_rng(seed)
    label = np.repeat([1, 0], [n_positive, n_negative])
    frames = []
    for fold in range(1, folds + 1):
        donor = np.repeat(np.arange(len(label)), rng.integers(1, cells + 1, len(label)))
        value = (rng.normal(0.4 * label[donor], 1).round(1) + 4).clip(0, 8) / 8
        frames.append(pd.DataFrame({"fold": fold, "donor": donor, "label": label[donor], "model": value}))
    return pd.concat(frames, ignore_index=True).assign(
        donor=lambda t: t["donor"].map("D{:02d}".format), threshold=0.5
    )


def test_scores_are_those_computed_by_hand() -> None:
    found = score(LABEL, PROBABILITY, 0.5)
    assert {name: found[name] for name in ("true_positive", "false_negative")} == {
        "true_positive": 3,
        "false_negative": 1,
    }
    assert (found["false_positive"], found["true_negative"]) == (1, 1)
    assert found["auroc"] == pytest.approx(6 / 8)  # of eight pairs, (.3, .7) and (.6, .7) are wrong
    assert found["accuracy"] == pytest.approx(4 / 6)
    assert found["balanced_accuracy"] == pytest.approx((3 / 4 + 1 / 2) / 2)
    assert found["mcc"] == pytest.approx((3 * 1 - 1 * 1) / np.sqrt(4 * 4 * 2 * 2))
    assert found["f1_positive"] == pytest.approx(6 / 8)
    assert found["f1_negative"] == pytest.approx(2 / 4)
    assert found["brier"] == pytest.approx((0.01 + 0.04 + 0.16 + 0.49 + 0.49 + 0.04) / 6)
    # The two negatives, the rarer class, are met first and fourth when scores rise.
    assert found["auprc_minority"] == pytest.approx((1 / 1 + 2 / 4) / 2)
    assert found["prevalence"] == pytest.approx(4 / 6)


@settings(max_examples=30, deadline=None)
@given(samples())
def test_scores_equal_those_of_scikit_learn(sample: tuple[np.ndarray, np.ndarray]) -> None:
    label, probability = sample
    found, called = score(label, probability, 0.5), probability >= 0.5
    assert found["auroc"] == pytest.approx(sk.roc_auc_score(label, probability))
    assert found["accuracy"] == pytest.approx(sk.accuracy_score(label, called))
    assert found["mcc"] == pytest.approx(sk.matthews_corrcoef(label, called))
    assert found["f1_positive"] == pytest.approx(sk.f1_score(label, called, zero_division=0))
    rare = label if label.mean() < 0.5 else 1 - label
    risen = probability if label.mean() < 0.5 else 1 - probability
    assert found["auprc_minority"] == pytest.approx(sk.average_precision_score(rare, risen))
    assert score(label, probability, np.full(len(label), 0.5)) == found


def test_always_positive_on_the_sea_ad_donors_scores_high_by_f1_alone() -> None:
    found = score(np.repeat([1, 0], [39, 9]), np.ones(48), 0.5)
    assert found["f1_positive"] == pytest.approx(0.897, abs=1e-3)
    assert found["accuracy"] == pytest.approx(39 / 48)
    assert (found["balanced_accuracy"], found["mcc"], found["f1_negative"]) == (0.5, 0, 0)
    assert found["auroc"] == 0.5


def test_a_sample_at_the_threshold_is_called_positive() -> None:
    assert score(np.array([0, 1]), np.array([0.2, 0.5]), 0.5)["true_positive"] == 1


def test_the_interval_of_a_predictor_that_knows_nothing_includes_one_half() -> None:
    included = []
    for seed in range(60):
        rows = table(seed, folds=1, n_positive=39, n_negative=9, cells=1)
        rows["model"] = np.random.default_rng(seed).random(len(rows))
        found = summarise(rows, "model", trained=192).auroc
        included.append(found.low <= 0.5 <= found.high)
    assert np.mean(included) >= 0.9


def test_the_interval_of_a_good_predictor_excludes_one_half_and_includes_its_score() -> None:
    rows = table(3, folds=2, n_positive=39, n_negative=9)
    rows["model"] = np.random.default_rng(0).normal(0.4 + 0.2 * rows["label"], 0.2).clip(0, 1)
    donors = rows.groupby(["fold", "donor"], as_index=False).mean()
    scores = summarise(donors, "model", trained=38)
    assert 0.5 < scores.auroc.low < scores.mean_over_folds["auroc"] < scores.auroc.high <= 1
    balanced = scores.balanced_accuracy
    assert balanced.low < scores.mean_over_folds["balanced_accuracy"] < balanced.high
    assert scores.brier.low < scores.mean_over_folds["brier"] < scores.brier.high


def test_scores_are_means_over_folds_and_pooled() -> None:
    rows = table(1)
    scores = summarise(rows, "model", trained=10)
    by_fold = [score(part["label"], part["model"], 0.5) for _, part in rows.groupby("fold")]
    assert scores.pooled == score(rows["label"].to_numpy(), rows["model"].to_numpy(), 0.5)
    for name, value in scores.mean_over_folds.items():
        assert value == pytest.approx(np.mean([fold[name] for fold in by_fold]))


def test_a_difference_of_two_predictors_is_paired() -> None:
    rng = np.random.default_rng(0)
    rows = table(2, folds=1, n_positive=30, n_negative=20, cells=1)
    rows["model"] = rng.normal(rows["label"], 1)
    rows["near"] = rows["model"] + rng.normal(0, 0.05, len(rows))
    rows["other"] = rng.normal(rows["label"], 1)
    near, other = (auroc_gain(rows, "model", name, trained=40) for name in ("near", "other"))
    assert near.high - near.low < (other.high - other.low) / 2


@settings(max_examples=100, deadline=None)
@given(samples())
def test_the_best_threshold_reaches_the_best_balanced_accuracy(
    sample: tuple[np.ndarray, np.ndarray],
) -> None:
    label, probability = sample
    cuts = np.unique(probability)
    best = max(sk.balanced_accuracy_score(label, probability >= cut) for cut in cuts)
    found = best_threshold(label, probability)
    assert 0 <= found <= 1
    assert sk.balanced_accuracy_score(label, probability >= found) == pytest.approx(best)


def test_the_best_threshold_lies_halfway_between_the_two_samples_it_parts() -> None:
    assert best_threshold(np.array([0, 0, 1, 1]), np.array([0.1, 0.3, 0.7, 0.8])) == pytest.approx(0.5)


def test_a_donor_is_scored_in_three_ways() -> None:
    probability, donor = np.array([0.9, 0.5, 0.1, 0.2, 0.8]), np.array(["b", "b", "b", "a", "a"])
    scores = {how: donor_scores(probability, donor, how) for how in ("mean", "mean_logit", "fraction")}
    assert scores["mean"].to_dict() == pytest.approx({"a": 0.5, "b": 0.5})
    assert scores["mean_logit"].to_dict() == pytest.approx({"a": 0.5, "b": 0.5})
    assert scores["fraction"].to_dict() == pytest.approx({"a": 1 / 2, "b": 2 / 3})


def test_the_mean_logit_is_the_geometric_mean_of_odds() -> None:
    found = donor_scores(np.array([0.9, 0.6]), np.array(["a", "a"]), "mean_logit")
    odds = np.sqrt(0.9 / 0.1 * 0.6 / 0.4)
    assert found["a"] == pytest.approx(odds / (1 + odds))


@pytest.mark.parametrize("how", ["mean", "mean_logit", "fraction"])
def test_certain_cells_give_a_finite_donor_score(how: str) -> None:
    scores = donor_scores(np.array([0.0, 1.0, 1.0, 0.0]), np.array(["a", "a", "b", "c"]), how)
    assert scores.to_numpy() == pytest.approx([0.5, 1, 0], abs=1e-6)


@pytest.mark.parametrize(("stretch", "shift"), [(1, 0), (2, 0), (0.5, 0), (1, 1)])
def test_calibration_recovers_how_predictions_were_distorted(stretch: float, shift: float) -> None:
    rng = np.random.default_rng(0)
    logit = rng.normal(0.3, 1, 20_000)
    label = (rng.random(len(logit)) < 1 / (1 + np.exp(-logit))).astype(int)
    found = agreement(label, 1 / (1 + np.exp(-(stretch * logit + shift))))
    assert found["slope"] == pytest.approx(1 / stretch, rel=0.06)
    assert found["intercept"] == pytest.approx(-shift / stretch, abs=0.06)
