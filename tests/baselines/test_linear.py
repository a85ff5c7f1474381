"""The regression is scikit-learn's, and stays finite where donors are few or easily told apart."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from sklearn.preprocessing import StandardScaler
from sklearn.utils.class_weight import compute_sample_weight

from oligo_ad.baselines import linear
from oligo_ad.baselines.linear import PENALTIES, coordinates, inner_folds, regress, standardised


def donors(seed: int, n_positive: int, n_negative: int, n_features: int, shift: float):
    """Values [D, F], labels, and positions of known and test donors."""
    rng = np.random.default_rng(seed)
    label = rng.permutation(np.r_[np.ones(n_positive, int), np.zeros(n_negative, int)])
    values = rng.normal(size=(len(label), n_features)) * rng.uniform(0.1, 10, n_features)
    values[:, 0] += shift * label * values[:, 0].std()
    known = np.sort(np.concatenate([rng.permutation(np.flatnonzero(label == c))[:-2] for c in (0, 1)]))
    return values, label, known, np.setdiff1d(np.arange(len(label)), known)


def folds(label, known):
    return inner_folds(label[known].astype(float), seed=0)


def chosen_by_sklearn(values, label, known, seed):
    """The penalty of least held-out loss, both classes weighing the same, and the fit with it."""
    x, y = StandardScaler().fit_transform(values[known]), label[known]
    inner = StratifiedKFold(min(5, int(min(y.sum(), (1 - y).sum()))), shuffle=True, random_state=seed)

    def model(c):
        return LogisticRegression(C=c, class_weight="balanced", max_iter=100_000, tol=1e-10)

    def loss(c):
        p = cross_val_predict(model(c), x, y, cv=inner, method="predict_proba")[:, 1]
        return log_loss(y, p, sample_weight=compute_sample_weight("balanced", y))

    return model(min(PENALTIES, key=loss)).fit(x, y)


@pytest.mark.parametrize("n_features", [1, 3, 60])
@pytest.mark.parametrize("shift", [0.0, 3.0])
def test_probabilities_are_those_of_scikit_learn(n_features: int, shift: float) -> None:
    values, label, known, test = donors(n_features, 14, 8, n_features, shift)
    x = coordinates([standardised(values, known)], known)
    found = regress(x, label, known, test, folds(label, known))
    other = chosen_by_sklearn(values, label, known, 0)
    expected = other.predict_proba(StandardScaler().fit(values[known]).transform(values[test]))[:, 1]
    assert found.test == pytest.approx(expected, abs=1e-6)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.integers(3, 12), st.integers(3, 12), st.integers(1, 30), st.floats(0, 50))
def test_the_fit_is_at_its_minimum_however_far_apart_the_classes_are(
    seed: int, n_positive: int, n_negative: int, n_features: int, shift: float
) -> None:
    values, label, known, _ = donors(seed, n_positive, n_negative, n_features, shift)
    x = np.ascontiguousarray(coordinates([standardised(values, known)], known)[known])
    y = label[known].astype(float)
    for c in PENALTIES:
        w = linear._fit(x, y, c, np.zeros(x.shape[1] + 1))
        p = linear.sigmoid(x @ w[1:] + w[0])
        weight = c * len(y) / (2 * np.where(y == 1, y.sum(), (1 - y).sum()))
        assert np.abs(x.T @ (weight * (p - y)) + w[1:]).max() < 1e-6
        assert abs((weight * (p - y)).sum()) < 1e-6


def test_a_block_of_few_features_weighs_as_much_as_one_of_many() -> None:
    rng = np.random.default_rng(0)
    genes, few = rng.normal(size=(20, 500)), rng.normal(size=(20, 2))
    known = np.arange(14)
    blocks = [standardised(genes, known), standardised(few, known)]
    x = coordinates(blocks, known)
    expected = sum(b @ b.T / np.trace(b[known] @ b[known].T) for b in blocks)
    inner = x @ x.T
    assert inner[:, known] / np.trace(inner[np.ix_(known, known)]) == pytest.approx(expected[:, known] / 2)


def test_nothing_of_other_donors_moves_what_is_fitted() -> None:
    values, label, known, test = donors(0, 12, 8, 40, 1.0)
    other, flipped = values.copy(), label.copy()
    other[test[0]], flipped[test] = 1e6, 1 - label[test]
    first, second = (
        regress(coordinates([standardised(v, known)], known), own, known, test, folds(own, known))
        for v, own in ((values, label), (other, flipped))
    )
    assert first.test[1:].tolist() == second.test[1:].tolist()
    assert first.inner.tolist() == second.inner.tolist()


def test_the_inner_probabilities_of_a_donor_do_not_follow_its_own_label() -> None:
    """Without a signal they tell nothing: a donor's own label would be told by many genes."""
    auroc = []
    for seed in range(20):
        values, label, known, test = donors(seed, 14, 14, 200, 0.0)
        x = coordinates([standardised(values, known)], known)
        found = regress(x, label, known, test, folds(label, known))
        own = label[known]
        auroc.append((found.inner[own == 1][:, None] > found.inner[own == 0]).mean())
    assert np.mean(auroc) < 0.6


@pytest.mark.parametrize(("n_positive", "n_negative"), [(3, 12), (12, 3)])
def test_a_single_known_donor_of_a_class_leaves_its_share(n_positive: int, n_negative: int) -> None:
    values, label, known, test = donors(0, n_positive, n_negative, 5, 1.0)
    x = coordinates([standardised(values, known)], known)
    found = regress(x, label, known, test, folds(label, known))
    assert set(found.test) == {label[known].mean()}


def test_features_that_are_constant_among_known_donors_tell_nothing() -> None:
    values, label, known, test = donors(0, 12, 8, 3, 1.0)
    values[known] = 7.1
    x = coordinates([standardised(values, known)], known)
    found = regress(x, label, known, test, folds(label, known))
    assert found.test == pytest.approx(np.full(len(test), 0.5))


def test_a_score_becomes_a_logit_and_is_never_turned_round() -> None:
    rng = np.random.default_rng(0)
    y = (np.arange(40) % 3 > 0).astype(float)
    good = 3 * y + rng.normal(size=40)
    slope, intercept = linear.logistic(good, y)
    other = LogisticRegression(C=1.0, class_weight="balanced", tol=1e-10)
    fitted = other.fit(((good - good.mean()) / good.std())[:, None], y)
    expected = fitted.decision_function(((good - good.mean()) / good.std())[:, None])
    assert slope * good + intercept == pytest.approx(expected, abs=1e-6)
    turned, _ = linear.logistic(-good, y)
    assert 0 < turned < 0.05 * slope
