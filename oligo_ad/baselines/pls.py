"""Partial least squares of the label on a few dozen donors (Wold 1975).

Components are the directions of expression that vary most with the label. With few donors and thousands of
genes that move together, two or three of them are hard to beat. Letters of shapes: see linear.py.
"""

import numpy as np

from oligo_ad.baselines.linear import SMALLEST, Regressed, logistic, share_of_positives, sigmoid
from oligo_ad.scores import aurocs

COMPONENTS = 4  # at most
GENES = 1000  # that are read


def partial_least_squares(
    x_DR: np.ndarray, label: np.ndarray, known: np.ndarray, test: np.ndarray, held_out: np.ndarray | None
) -> Regressed:
    """Fit known donors with as many components as rank them best in inner folds, and predict test donors.

    Arguments as of `linear.regress`. Scores become probabilities by a logistic regression on those that known
    donors got in the inner folds.
    """
    x_KR, y = x_DR[known], label[known].astype(float)
    if held_out is None:
        return share_of_positives(y, len(test), x_KR.shape[1])
    inner_CK = np.empty((COMPONENTS, len(known)))
    for number in range(int(held_out.max()) + 1):
        own = held_out == number
        weight_CR = component_weights(x_KR[~own], y[~own])
        inner_CK[:, own] = weight_CR @ (x_KR[own] - x_KR[~own].mean(0)).T + y[~own].mean()
    best = int(np.argmax(aurocs(y, inner_CK)))
    slope, intercept = logistic(inner_CK[best], y)
    weight = component_weights(x_KR, y)[best]
    shift = y.mean() - weight @ x_KR.mean(0)
    coefficients = np.concatenate([[slope * shift + intercept], slope * weight])
    return Regressed(
        test=sigmoid(x_DR[test] @ coefficients[1:] + coefficients[0]),
        inner=sigmoid(slope * inner_CK[best] + intercept),
        coefficients=coefficients,
    )


def best_expressed(log_cpm_KG: np.ndarray) -> np.ndarray:
    """Positions of the genes with the highest mean over known donors."""
    return np.sort(np.argsort(-log_cpm_KG.mean(0), kind="stable")[:GENES])


def component_weights(x_TR: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Weights [components, R] of centred coordinates, by fits with 1, 2, … components (NIPALS).

    Where no variation is left, a further component changes nothing.
    """
    x_TR, y = x_TR - x_TR.mean(0), y - y.mean()
    least = SMALLEST * max(float(np.square(x_TR).sum()), SMALLEST)
    rotated: list[np.ndarray] = []  # directions in the coordinates as they were before any was taken off
    loadings: list[np.ndarray] = []
    weight, found = np.zeros(x_TR.shape[1]), []
    for _ in range(COMPONENTS):
        direction = x_TR.T @ y
        score = x_TR @ direction
        if (size := float(score @ score)) > least * float(direction @ direction) > 0:
            loading = x_TR.T @ score / size
            whole = direction - sum((r * (p @ direction) for r, p in zip(rotated, loadings, strict=True)), 0)
            weight = weight + whole * (score @ y / size)
            x_TR = x_TR - np.outer(score, loading)
            rotated.append(whole)
            loadings.append(loading)
        found.append(weight)
    return np.stack(found)
