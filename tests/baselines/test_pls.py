"""Partial least squares is scikit-learn's; how many components there are is chosen on donors left out."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.cross_decomposition import PLSRegression

from oligo_ad.baselines.linear import coordinates, inner_folds, standardised
from oligo_ad.baselines.pls import COMPONENTS, best_expressed, partial_least_squares, pls_weights
from oligo_ad.scores import aurocs


def donors(seed: int, shift: float = 1.0, n: int = 30, features: int = 60):
    """Values [D, F] along a few programs, labels, and positions of known and test donors."""
    rng = np.random.default_rng(seed)
    label = (np.arange(n) % 3 > 0).astype(int)
    values = rng.normal(size=(n, 5)) @ rng.normal(size=(5, features)) + rng.normal(size=(n, features))
    values[:, :10] += shift * label[:, None]
    return values, label, np.arange(n)[6:], np.arange(n)[:6]


def fitted(values, label, known, test):
    x = coordinates([standardised(values, known)], known)
    return partial_least_squares(x, label, known, test, inner_folds(label[known].astype(float), 0)), x


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.integers(6, 30), st.integers(5, 40), st.integers(1, 4))
def test_weights_are_those_of_scikit_learn(seed: int, n: int, features: int, components: int) -> None:
    rng = np.random.default_rng(seed)
    x, y = rng.normal(size=(n, features)), (np.arange(n) % 2).astype(float)
    weight, intercept = pls_weights(x, y, components)
    expected = PLSRegression(components, scale=False).fit(x, y).predict(x).ravel()
    assert x @ weight + intercept == pytest.approx(expected, abs=1e-6)


def test_left_out_and_test_donors_are_scored_by_fits_that_have_not_seen_them() -> None:
    values, label, known, test = donors(0)
    found, x = fitted(values, label, known, test)
    held_out = inner_folds(label[known].astype(float), 0)
    score = np.empty(len(known))
    for fold in range(5):
        own = held_out == fold
        model = PLSRegression(COMPONENTS, scale=False).fit(x[known][~own], label[known][~own])
        score[own] = model.predict(x[known][own]).ravel()
    whole = PLSRegression(COMPONENTS, scale=False).fit(x[known], label[known]).predict(x[test]).ravel()
    for probability, expected in ((found.inner, score), (found.test, whole)):
        assert np.corrcoef(np.log(probability / (1 - probability)), expected)[0, 1] == pytest.approx(1)


def test_coefficients_give_the_logit_of_test_donors() -> None:
    found, x = fitted(*donors(0))
    logit = x[:6] @ found.coefficients[1:] + found.coefficients[0]
    assert logit == pytest.approx(np.log(found.test / (1 - found.test)))


def test_without_a_signal_the_left_out_scores_tell_nothing() -> None:
    auroc = []
    for seed in range(30):
        values, label, known, test = donors(seed, shift=0.0)
        auroc.append(aurocs(label[known], fitted(values, label, known, test)[0].inner[None])[0])
    assert abs(np.mean(auroc) - 0.5) < 3 * np.std(auroc) / 30**0.5


def test_nothing_of_a_test_donor_moves_what_is_fitted() -> None:
    values, label, known, test = donors(0)
    other, flipped = values.copy(), label.copy()
    other[test[0]], flipped[test] = 1e6, 1 - label[test]
    first, second = fitted(values, label, known, test)[0], fitted(other, flipped, known, test)[0]
    assert first.test[1:].tolist() == second.test[1:].tolist()
    assert first.inner.tolist() == second.inner.tolist()


def test_where_nothing_varies_all_donors_get_one_half() -> None:
    values, label, known, test = donors(0)
    found, _ = fitted(np.full_like(values, 7.1), label, known, test)
    assert found.test == pytest.approx(np.full(len(test), 0.5), abs=0.05)
    assert np.isfinite(found.inner).all()


def test_the_best_expressed_genes_are_read() -> None:
    rng = np.random.default_rng(0)
    values = rng.random((7, 1500)) * np.arange(1500)
    assert best_expressed(values).tolist() == sorted(np.argsort(-values.mean(0))[:1000].tolist())
