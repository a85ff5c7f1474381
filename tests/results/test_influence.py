"""The headline without each donor is what a computation without that donor gives."""

import time

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from oligo_ad.results.influence import influence, influence_table, sentence, shown


def table(seed: int, n_positive: int, n_negative: int, folds: int, repeats: int) -> pd.DataFrame:
    """Scores with ties, donors in another order in each repeat."""
    rng, rows = np.random.default_rng(seed), []
    label = np.r_[np.ones(n_positive, int), np.zeros(n_negative, int)]
    for repeat in range(repeats):
        for place, donor in enumerate(rng.permutation(len(label))):
            score = round(float(rng.normal(label[donor])), 1)
            rows.append((repeat * folds + place % folds, f"D{donor:02d}", label[donor], 10, score))
    return pd.DataFrame(rows, columns=["fold", "donor", "label", "nuclei", "model"])


def mean_auroc(given: pd.DataFrame) -> float:
    folds = [fold for _, fold in given.groupby("fold") if fold["label"].nunique() == 2]
    return (
        float(np.mean([roc_auc_score(fold["label"], fold["model"]) for fold in folds])) if folds else np.nan
    )


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 1000), st.integers(1, 9), st.integers(1, 9), st.integers(1, 3), st.integers(1, 3))
def test_influence_is_a_computation_without_the_donor(
    seed: int, n_positive: int, n_negative: int, folds: int, repeats: int
) -> None:
    given = table(seed, n_positive, n_negative, folds, repeats)
    found = influence(given, "model")
    assert sorted(found.index) == sorted(given["donor"].unique())
    for donor, value in found.items():
        assert value == pytest.approx(mean_auroc(given[given["donor"] != donor]), nan_ok=True)


def test_the_donor_that_decides_comes_first_and_is_named() -> None:
    given = table(0, 9, 5, 1, 1)
    given.loc[given["donor"] == "D13", "model"] = 9.0  # a negative donor above all
    headline = mean_auroc(given)
    found = influence_table(given, "model", headline)
    assert found.index[0] == "D13"
    assert found["change"]["D13"] == pytest.approx(found["without"]["D13"] - headline)
    assert found["change"].abs().is_monotonic_decreasing
    text = sentence(found, headline)
    assert (
        f"Without D13 the donor AUROC would be {found['without']['D13']:.3f} instead of {headline:.3f}"
        in text
    )
    assert f"no other moves it by more than {found['change'].abs().iloc[1]:.3f}" in text


def test_where_every_donor_is_the_last_of_its_class_that_is_said() -> None:
    given = table(0, 1, 1, 1, 1)
    assert "no fold has both classes" in sentence(influence_table(given, "model", 1.0), 1.0)


def test_the_gain_without_a_donor_is_that_of_a_computation_without_it() -> None:
    given, other = table(0, 9, 5, 2, 2), table(1, 9, 5, 2, 2)
    given["rival"] = np.round(given["model"] + other["model"], 1)
    headline, gain = mean_auroc(given), mean_auroc(given) - mean_auroc(given.assign(model=given["rival"]))
    found = influence_table(given, "model", headline, "rival", gain)
    for donor in found.index:
        rest = given[given["donor"] != donor]
        expected = mean_auroc(rest) - mean_auroc(rest.assign(model=rest["rival"]))
        assert found["gain_without"][donor] == pytest.approx(expected)
        assert found["gain_change"][donor] == pytest.approx(expected - gain)
    text = sentence(found, headline, "rival", gain)
    low, high = found["gain_without"].agg(["min", "max"])
    assert f"the gain over rival, {gain:+.3f}, between {low:+.3f} and {high:+.3f}, moved most by " in text
    assert text.endswith(f"{found['gain_change'].abs().idxmax()}.")
    assert "gain without" in shown(found, ("low", "high"))


def test_fifty_folds_of_48_donors_take_no_time() -> None:
    given = table(0, 39, 9, 5, 10)
    started = time.process_time()
    influence(given, "model")
    assert time.process_time() - started < 0.2


def test_text_says_where_no_fold_is_left() -> None:
    found = influence_table(table(0, 5, 1, 1, 1), "model", 0.5)
    text = shown(found, ("Not AD", "High"))
    last = text[text["class"] == "Not AD"].iloc[0]
    assert last["AUROC without"] == "no fold is left"
    assert (text["AUROC without"] == "no fold is left").sum() == 1
