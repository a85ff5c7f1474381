"""Partial least squares of the label on a few dozen donors (Wold 1975).

Components are the directions of expression that vary most with the label. With few donors and thousands of
genes that move together, two or three of them are hard to beat. Letters of shapes: see linear.py.
"""

import numpy as np

from oligo_ad.baselines.linear import SMALLEST, Regressed, logistic, share_of_positives, sigmoid

# Choosing their number by the ranks of left-out donors gained nothing, and made these ranks look too good.
COMPONENTS = 3
GENES = 1000  # that are read


def partial_least_squares(
    x_DR: np.ndarray, label: np.ndarray, known: np.ndarray, test: np.ndarray, held_out: np.ndarray | None
) -> Regressed:
    """Fit known donors, and predict test donors; arguments as of `linear.regress`.

    Scores become probabilities by a logistic regression on those that known donors got in the inner folds.
    """
    x_KR, y = x_DR[known], label[known].astype(float)
    if held_out is None:
        return share_of_positives(y, len(test), x_KR.shape[1])
    inner_K = np.empty(len(known))
    for number in range(int(held_out.max()) + 1):
        own = held_out == number
        weight, intercept = pls_weights(x_KR[~own], y[~own])
        inner_K[own] = x_KR[own] @ weight + intercept
    weight, intercept = pls_weights(x_KR, y)
    slope, shift = logistic(inner_K, y)
    coefficients = np.concatenate([[slope * intercept + shift], slope * weight])
    return Regressed(
        test=sigmoid(x_DR[test] @ coefficients[1:] + coefficients[0]),
        inner=sigmoid(slope * inner_K + shift),
        coefficients=coefficients,
    )


def best_expressed(log_cpm_KG: np.ndarray) -> np.ndarray:
    """Positions of the genes with the highest mean over known donors."""
    return np.sort(np.argsort(-log_cpm_KG.mean(0), kind="stable")[:GENES])


def pls_weights(x_TR: np.ndarray, y: np.ndarray, components: int = COMPONENTS) -> tuple[np.ndarray, float]:
    """Weights [R] of the coordinates, and the intercept (NIPALS).

    Where no variation is left, a further component changes nothing.
    """
    mean, mean_y = x_TR.mean(0), y.mean()
    x_TR, y = x_TR - mean, y - mean_y
    least = SMALLEST * max(float(np.square(x_TR).sum()), SMALLEST)
    rotated: list[np.ndarray] = []  # directions in the coordinates as they were before any was taken off
    loadings: list[np.ndarray] = []
    weight = np.zeros(x_TR.shape[1])
    for _ in range(components):
        direction = x_TR.T @ y
        score = x_TR @ direction
        size = float(score @ score)
        if size <= least * float(direction @ direction):
            break
        loading = x_TR.T @ score / size
        whole = direction - sum((r * (p @ direction) for r, p in zip(rotated, loadings, strict=True)), 0)
        weight = weight + whole * (score @ y / size)
        x_TR = x_TR - np.outer(score, loading)
        rotated.append(whole)
        loadings.append(loading)
    return weight, float(mean_y - mean @ weight)
