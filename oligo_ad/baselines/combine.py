"""Convex combinations of predictors, with weights learned inside a fold's known donors."""

import numpy as np
from scipy.optimize import minimize

from oligo_ad.baselines.linear import SURE

PRIOR = 10.0  # donors of the rarer class that weigh as much as the equal weights, where two are combined


def stacked(probability_PK: np.ndarray, label: np.ndarray) -> np.ndarray:
    """Weights on the simplex [P] that minimise the class-balanced log loss of the mixed probabilities.

    Args:
        probability_PK: of each predictor for known donors that it was not fitted on (Breiman 1996).
        label: [K] 0 or 1.
    """
    n = len(probability_PK)
    bounded_PK = np.clip(probability_PK, SURE, 1 - SURE)
    found = minimize(
        lambda weight: _loss(weight, bounded_PK, label),
        np.full(n, 1 / n),
        jac=True,
        bounds=[(0, 1)] * n,
        constraints={
            "type": "eq",
            "fun": lambda weight: weight.sum() - 1,
            "jac": lambda weight: np.ones((1, n)),
        },
        method="SLSQP",
    )
    weight = np.clip(found.x, 0, None)
    return np.full(n, 1 / n) if not np.isfinite(weight).all() else weight / weight.sum()


def _loss(weight: np.ndarray, probability_PK: np.ndarray, label: np.ndarray) -> tuple[float, np.ndarray]:
    """Log loss of the mixed probabilities, both classes weighing the same, and its gradient [P]."""
    right_PK = np.where(label == 1, probability_PK, 1 - probability_PK)
    share = np.where(label == 1, 0.5 / label.sum(), 0.5 / (len(label) - label.sum()))
    right = np.maximum(weight @ right_PK, SURE)
    return float(-(share @ np.log(right))), -(right_PK @ (share / right))


def mixed(first: np.ndarray, second: np.ndarray, label: np.ndarray) -> float:
    """The weight of the first of two predictors, from their probabilities for a few donors [K].

    It is drawn towards 1/2, as if `PRIOR` donors of each class had said that: a fold has two validation
    donors of the rarer class, and what two donors prefer is luck.
    """
    weight = float(stacked(np.stack([first, second]), label)[0])
    few = float(min(label.sum(), len(label) - label.sum()))
    return (few * weight + PRIOR / 2) / (few + PRIOR)
