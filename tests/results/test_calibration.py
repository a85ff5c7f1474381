"""Calibration moves probabilities to a prevalence, changes no order, and sees validation donors only."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression

from oligo_ad import tasks
from oligo_ad.record import PREDICTIONS, Record
from oligo_ad.results import report
from oligo_ad.results.calibration import (
    FLATTEST,
    Line,
    agreement,
    calibrate,
    fold_line,
    log_odds,
    logit_of,
    platt,
    reliability,
)
from oligo_ad.results.evaluation import evaluate_run
from oligo_ad.results.evidence import calibrated_of
from oligo_ad.scores import probability_of
from oligo_ad.training.checkpoint import load_bundle
from tests.builders import atlas, configuration, write

SCORES = st.lists(st.floats(0.01, 0.99), min_size=4, max_size=20)


@settings(max_examples=40, deadline=None)
@given(SCORES, st.integers(0, 1000))
def test_platt_never_changes_the_order_of_donors(scores: list[float], seed: int) -> None:
    score = np.array(scores)
    label = np.random.default_rng(seed).permutation(np.r_[1, 0, np.ones(len(score) - 2, int)])
    line = platt(logit_of(score), label)
    assert line.slope > 0
    assert np.isfinite([line.slope, line.intercept]).all()
    order = np.argsort(score, kind="stable")
    assert (np.diff(line.apply(logit_of(score))[order]) >= -1e-12).all()


def test_donors_told_apart_without_an_error_give_no_certainty() -> None:
    line = platt(np.array([3.0, 2.0, -2.0, -3.0]), np.array([1, 1, 0, 0]))
    calibrated = probability_of(line.apply(np.array([3.0, -3.0])))
    assert 0.6 < calibrated[0] < 0.95
    assert calibrated[1] == pytest.approx(1 - calibrated[0], abs=1e-3)


def test_platt_finds_the_line_that_was_lost() -> None:
    rng = np.random.default_rng(0)
    logit = rng.normal(0, 2, 20_000)
    label = (rng.random(20_000) < probability_of(logit)).astype(int)
    line = platt((logit - 1) / 3, label)
    assert line[:2] == pytest.approx((3, 1), abs=0.1)


@settings(max_examples=40, deadline=None)
@given(st.floats(0.05, 0.95), st.floats(0.05, 0.95), st.floats(0.05, 0.95))
def test_prevalences_compose(first: float, second: float, third: float) -> None:
    line = Line(1.5, -0.2, first)
    assert line.at(second).at(third) == pytest.approx(line.at(third))
    assert line.at(first) == pytest.approx(line)


@pytest.mark.parametrize("weight", ["balanced", 1.0, 3.0])
@pytest.mark.parametrize("prevalence", [0.5, 0.8])
def test_the_prior_alone_is_exact_for_a_model_that_knows_the_evidence(
    weight: float | str, prevalence: float
) -> None:
    """Densities are known, so the probability at any prevalence is, too."""
    rng = np.random.default_rng(1)
    samples = (np.arange(2000) < 1200).astype(int)
    w = (800 / 1200) if weight == "balanced" else float(weight)
    evidence = rng.normal(size=5)
    trained = evidence + np.log(1200 / 800) + np.log(w)
    donors = (np.arange(40) < 40 * prevalence).astype(int)
    line = fold_line("none", w, samples, donors, (np.empty(0), np.empty(0)))
    assert line.prevalence == prevalence
    assert line.apply(trained) == pytest.approx(evidence + log_odds(prevalence))
    assert line.at(0.3).apply(trained) == pytest.approx(evidence + log_odds(0.3))


def test_the_prior_is_right_for_logits_that_a_weighted_loss_was_fitted_to() -> None:
    """Of two normal classes, the positive one weighted: probabilities come out right."""
    rng = np.random.default_rng(0)
    label = (rng.random(60_000) < 0.8).astype(int)
    x = rng.normal(label * 1.2, 1)
    fitted = LogisticRegression(C=1e6, class_weight={0: 1.0, 1: 0.4}).fit(x[:, None], label)
    line = fold_line("none", 0.4, label, label, (np.empty(0), np.empty(0)))
    found = agreement(label, probability_of(line.apply(fitted.decision_function(x[:, None]))))
    assert [found["slope"], found["intercept"]] == pytest.approx([1, 0], abs=0.02)
    rarer = (np.arange(60_000) < 12_000).astype(int)
    x = rng.normal(rarer * 1.2, 1)
    moved = probability_of(line.at(0.2).apply(fitted.decision_function(x[:, None])))
    assert agreement(rarer, moved)["in_the_large"] == pytest.approx(0, abs=0.05)


def test_platt_is_fitted_on_the_validation_donors_of_its_fold_and_on_nothing_else() -> None:
    score, label = np.array([0.9, 0.6, 0.4, 0.2]), np.array([1, 1, 0, 0])
    own = fold_line("platt", 0.3, np.ones(5), np.array([1, 0]), (score, label))
    other = fold_line("platt", 7.0, np.array([0, 1]), np.array([1, 0]), (score, label))
    assert own == other == platt(logit_of(score), label).at(0.5)


@settings(max_examples=40, deadline=None)
@given(SCORES, st.integers(0, 1000))
def test_fitted_probabilities_are_at_the_prevalence_that_platt_says(scores: list[float], seed: int) -> None:
    logit = logit_of(np.array(scores))
    label = np.random.default_rng(seed).permutation(np.r_[1, 0, np.ones(len(scores) - 2, int)])
    line = platt(logit, label)
    assert probability_of(line.apply(logit)).mean() == pytest.approx(line.prevalence, abs=1e-4)
    assert fold_line("platt", 1.0, label, np.array([1, 1, 1, 0]), (np.array(scores), label)) == pytest.approx(
        line.at(0.75)
    )


def test_equal_scores_are_taken_to_the_prevalence_and_keep_their_slope() -> None:
    line = platt(np.full(8, 3.0), np.r_[np.ones(6), np.zeros(2)])
    assert line.slope == pytest.approx(1)
    assert probability_of(line.at(0.8).apply(np.array([3.0]))) == pytest.approx(0.8, abs=1e-4)


def test_one_validation_donor_of_a_class_whose_score_is_the_wrong_way_round_moves_no_order() -> None:
    line = platt(np.array([-2.0, -1.0, 0.0, 4.0]), np.array([1, 1, 1, 0]))
    assert line.slope == FLATTEST
    assert np.isfinite(line.intercept)


def table(n: int = 40, seed: int = 0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    label = (rng.random(n) < 0.7).astype(int)
    model = probability_of(rng.normal(label - 0.5, 1))
    return pd.DataFrame(
        {
            "fold": np.arange(n) % 2 + 1,
            "donor": [f"D{i:02d}" for i in range(n)],
            "label": label,
            "model": model,
        }
    )


def test_each_donor_goes_through_the_line_of_its_fold() -> None:
    given = table()
    lines = {1: Line(1.0, 0.5, 0.8), 2: Line(2.0, -1.0, 0.7)}
    found = calibrate(given, lines, 0.3)
    for fold, line in lines.items():
        own = (given["fold"] == fold).to_numpy()
        expected = line.apply(logit_of(given["model"].to_numpy()))[own]
        assert found.donors["probability"][own].to_numpy() == pytest.approx(probability_of(expected))
        moved = probability_of(expected + log_odds(0.3) - log_odds(line.prevalence))
        assert found.donors["stated"][own].to_numpy() == pytest.approx(moved)
    assert found.donors["raw"].tolist() == given["model"].tolist()
    assert calibrate(given, lines, None).donors["stated"].isna().all()
    named = np.where(given["fold"] == 1, 0.8, 0.7)
    assert found.prevalence == pytest.approx(np.mean((named - given["label"]) ** 2))
    assert found.n_donors == 40
    assert list(found.donor_table().columns)[-1] == "at a prevalence of 0.3"


@pytest.mark.parametrize("how", ["none", "platt"])
def test_scores_of_test_donors_change_nothing_that_is_fitted_and_their_order_stays(how: str) -> None:
    given = table()
    validation = np.array([0.9, 0.3, 0.7, 0.4]), np.array([1, 0, 1, 0])
    lines = {fold: fold_line(how, 0.4, np.r_[1, 1, 0], np.r_[1, 0], validation) for fold in (1, 2)}
    ruined = given.assign(model=given["model"].where(given.index != 5, 0.999))
    before, after = (calibrate(one, lines, 0.5).donors for one in (given, ruined))
    pd.testing.assert_frame_equal(before.drop(5), after.drop(5))
    for _, fold in before.groupby("fold"):
        for name in ("probability", "stated"):
            assert (fold.sort_values("raw")[name].diff().dropna() >= 0).all()


def test_agreement_is_ideal_for_true_probabilities_and_tells_what_is_wrong() -> None:
    rng = np.random.default_rng(0)
    logit = rng.normal(0.5, 1.5, 40_000)
    label = (rng.random(40_000) < probability_of(logit)).astype(int)
    right = agreement(label, probability_of(logit))
    assert right["slope"] == pytest.approx(1, abs=0.05)
    assert right["intercept"] == pytest.approx(0, abs=0.05)
    assert right["in_the_large"] == pytest.approx(0, abs=0.03)
    assert agreement(label, probability_of(3 * logit))["slope"] == pytest.approx(right["slope"] / 3, rel=0.01)
    assert agreement(label, probability_of(logit - 1))["in_the_large"] == pytest.approx(1, abs=0.05)
    assert right["brier"] < agreement(label, probability_of(3 * logit))["brier"]


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(-300, 300), min_size=6, max_size=30), st.sampled_from([1e-4, 0.01, 0.02]))
def test_slope_and_intercept_are_at_the_maximum_of_the_likelihood(steps: list[int], scale: float) -> None:
    """There the label and the fitted probability agree in their mean, and in that weighted by the logit."""
    standard = np.array([-300, 300, *steps, 300, -300]) / 300
    logit = 0.5 + standard * 300 * scale
    label = np.r_[1, 0, np.arange(len(steps)) % 2, 1, 0]
    found = agreement(label, probability_of(logit))
    wrong = probability_of(found["slope"] * logit + found["intercept"]) - label
    assert [wrong.mean(), (wrong * standard).mean()] == pytest.approx([0, 0], abs=1e-5)


def test_where_one_cut_separates_the_classes_no_slope_is_the_best() -> None:
    apart = np.array([0.9, 0.8, 0.3, 0.3])
    for label in (np.array([1, 1, 0, 0]), np.array([0, 0, 1, 1])):
        found = agreement(label, apart)
        assert np.isnan([found["slope"], found["intercept"]]).all()
        assert np.isfinite([found["in_the_large"], found["brier"]]).all()
    assert np.isfinite(agreement(np.array([1, 0, 1, 0]), apart)["slope"])


def test_equal_probabilities_have_no_slope() -> None:
    found = agreement(np.array([1, 0, 1]), np.full(3, 0.5))
    assert np.isnan(found["slope"])
    assert found["in_the_large"] == pytest.approx(log_odds(2 / 3))


def test_reliability_counts_each_donor_once_in_bins_of_equal_numbers() -> None:
    once = calibrate(table(), dict.fromkeys((1, 2), Line(1, 0, 0.5)), None).donors
    found = reliability(pd.concat([once, once.assign(fold=once["fold"] + 2)]), "probability")
    assert found["donors"].tolist() == [8] * 5
    assert (found["observed"] * found["donors"]).sum() == once["label"].sum()
    assert (found["low"] <= found["observed"]).all()
    assert (found["observed"] <= found["high"]).all()
    assert found["predicted"].is_monotonic_increasing


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The same run of two folds, calibrated in each way."""
    folder = tmp_path_factory.mktemp("calibration")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(report, "draw", lambda run: {})
        for how in ("none", "platt"):
            config = configuration(
                f"data.path={write(atlas(12, 10, effect=1.0), folder)}",
                f"cache.dir={folder / 'cache'}",
                "split=cv",
                "split.folds=2",
                "fit.epochs=1",
                "model.network.hidden=[8]",
                "evaluation.baselines=false",
                f"evaluation.calibration={how}",
                "evaluation.prevalence=0.3",
            )
            tasks.run(config, folder / how)
    return {how: folder / how for how in ("none", "platt")}


def calibrated(folder: Path) -> pd.DataFrame:
    record = Record(folder)
    return calibrated_of(record, evaluate_run(record)).donors


def test_calibration_changes_no_call_no_ranking_and_no_score(runs: dict[str, Path]) -> None:
    without, with_platt = (Record(runs[how]) for how in ("none", "platt"))
    tables = [run.donors.drop(columns=run.donors.filter(like="probability")) for run in (without, with_platt)]
    pd.testing.assert_frame_equal(*tables, check_exact=True)
    assert {"model", "threshold"} <= set(tables[0])
    for part in ("headline", "donors", "calibration_of_cells"):
        assert without.metrics[part] == with_platt.metrics[part]


def test_the_saved_model_holds_the_line_that_the_report_used(runs: dict[str, Path]) -> None:
    used = calibrated(runs["platt"])
    for fold, own in used.groupby("fold"):
        saved = load_bundle(runs["platt"] / f"folds/{fold}/model.safetensors").usage.calibration
        assert saved is not None
        line = Line(**saved)
        raw = logit_of(own["raw"].to_numpy())
        assert probability_of(line.apply(raw)) == pytest.approx(own["probability"].to_numpy())
        assert probability_of(line.at(0.3).apply(raw)) == pytest.approx(own["stated"].to_numpy())
        assert load_bundle(runs["none"] / f"folds/{fold}/model.safetensors").usage.calibration is None


@pytest.mark.parametrize("how", ["none", "platt"])
def test_other_test_donors_and_other_folds_do_not_move_the_line_of_a_fold(
    runs: dict[str, Path], how: str
) -> None:
    file = runs[how] / "folds/1" / PREDICTIONS
    before, stored = calibrated(runs[how]), pd.read_parquet(file)
    victim = stored.loc[stored["part"] == "test", "donor"].iloc[0]
    try:
        stored.assign(logit=stored["logit"].where(stored["donor"] != victim, 5.0)).to_parquet(file)
        after = calibrated(runs[how])
    finally:
        stored.to_parquet(file, index=False)
    ruined = (before["fold"] == 1) & (before["donor"] == victim)
    assert ruined.sum() == 1
    pd.testing.assert_frame_equal(before[~ruined], after[~ruined], check_exact=True)


def test_the_report_shows_probabilities_with_the_number_of_donors(runs: dict[str, Path]) -> None:
    for how, words in (("none", "by the prior alone"), ("platt", "method, on validation donors of the fold")):
        page = (runs[how] / "report.html").read_text()
        assert words in page
        assert "Over 22 test donors" in page
        assert "at a prevalence of 0.3" in page
