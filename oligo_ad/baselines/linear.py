"""L2 logistic regression of a few dozen donors, many thousand times: for every fold of every permutation.

A fit of scikit-learn's takes a millisecond or more, most of it before the first step; here one takes a tenth
of that, so that 200 permutations of five folds, with a penalty chosen in each, are a matter of seconds. The
result is the same: `LogisticRegression(C=c, class_weight="balanced")` at its minimum. Letters of shapes: D
donors, K known donors, T of these in one fit, R coordinates.
"""

from typing import NamedTuple

import numpy as np
from sklearn.model_selection import StratifiedKFold

from oligo_ad.storage.compiled import compiled

PENALTIES = np.logspace(-5, 1, 7)  # inverse strengths C of the L2 penalty that are tried
SMALLEST = 1e-9  # of the largest eigenvalue; below it is rounding
LEAST_SLOPE = 0.01  # of a standardised score
SURE = 1e-15  # the nearest to 0 or 1 that a probability is taken for


class Regressed(NamedTuple):
    """Probabilities of class 1: `test` of other donors; `inner` of the known ones [K], each held out once.

    `coefficients` [1 + R]: intercept and weights of the coordinates, which give the logit of `test`.
    """

    test: np.ndarray
    inner: np.ndarray
    coefficients: np.ndarray


class Spanned(NamedTuple):
    """Donors in few coordinates, and the way back to features.

    `x` [D, R]. `dual` [K, R], `scale` by block: the weights of a block's features that do what weights w of
    the coordinates do are scale · features of the known donors [K, F]ᵀ · dual · w.
    """

    x: np.ndarray
    dual: np.ndarray
    scale: list[float]


def scaling(values_KF: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and SD [F] of known donors' features; of a constant one, the SD is 1, and its scale stays."""
    mean, sd = values_KF.mean(0), values_KF.std(0)
    # What remains of equal values is rounding.
    constant = sd <= 1e-12 * np.maximum(np.abs(mean), 1)
    return mean, np.where(constant, 1.0, sd)


def standardised(values_DF: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Columns with mean 0 and SD 1 over the known donors; a constant one keeps its scale."""
    mean, sd = scaling(values_DF[known])
    scaled: np.ndarray = (values_DF - mean) / sd
    return scaled


def coordinates(blocks: list[np.ndarray], known: np.ndarray) -> np.ndarray:
    """Donors [D, R] in as few coordinates as the known donors span; see `spanned`."""
    return spanned(blocks, known).x


def spanned(blocks: list[np.ndarray], known: np.ndarray) -> Spanned:
    """Donors in as few coordinates as the known donors span; a ridge penalty sees no difference.

    Args:
        blocks: standardised features [D, F]. Of several, each varies as much over the known donors as the
            first, so that a few covariates are not drowned by thousands of genes.
        known: positions of the known donors.
    """
    kernels = [block @ block[known].T for block in blocks]
    traces = [max(np.trace(kernel[known]), SMALLEST) for kernel in kernels]
    scale = [float(traces[0] / trace) for trace in traces]
    kernel_DK = sum(kernel * own for kernel, own in zip(kernels, scale, strict=True))
    value, vector = np.linalg.eigh(kernel_DK[known])
    kept = value > SMALLEST * max(value[-1], SMALLEST)
    dual = vector[:, kept] / np.sqrt(value[kept])
    return Spanned(kernel_DK @ dual, dual, scale)


def inner_folds(y: np.ndarray, seed: int, most: int = 5) -> np.ndarray | None:
    """The number [K] of the inner fold that holds each known donor out; None where a class has one donor."""
    n_inner = min(most, int(min(y.sum(), (1 - y).sum())))
    if n_inner < 2:
        return None
    held_out = np.empty(len(y), np.int64)
    folds = StratifiedKFold(n_inner, shuffle=True, random_state=seed)
    for number, (_, own) in enumerate(folds.split(y, y)):
        held_out[own] = number
    return held_out


def regress(
    x_DR: np.ndarray, label: np.ndarray, known: np.ndarray, test: np.ndarray, held_out: np.ndarray | None
) -> Regressed:
    """Fit known donors with the penalty that is best in inner folds of them, and predict the test donors.

    Args:
        x_DR: coordinates of all donors.
        label: [D] 0 or 1; only those of known donors are read.
        known, test: positions of donors.
        held_out: of `inner_folds`; where None, all are given the share of class 1.
    """
    x_KR, y = np.ascontiguousarray(x_DR[known]), label[known].astype(float)
    if held_out is None:
        return share_of_positives(y, len(test), x_KR.shape[1])
    logit_PK = _held_out_logits(x_KR, y, held_out, int(held_out.max()) + 1, PENALTIES)
    best = int(np.argmin([balanced_loss(sigmoid(logit), y) for logit in logit_PK]))
    coefficients = _fit(x_KR, y, PENALTIES[best], np.zeros(x_KR.shape[1] + 1))
    return Regressed(
        sigmoid(x_DR[test] @ coefficients[1:] + coefficients[0]), sigmoid(logit_PK[best]), coefficients
    )


def share_of_positives(y: np.ndarray, n_test: int, n_coordinates: int) -> Regressed:
    """What can be said where a class has one donor."""
    share = float(np.clip(y.mean(), SURE, 1 - SURE))
    coefficients = np.concatenate([[np.log(share / (1 - share))], np.zeros(n_coordinates)])
    return Regressed(np.full(n_test, share), np.full(len(y), share), coefficients)


def logistic(score: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    """Slope and intercept that make a score the logit of class 1, both classes weighing the same.

    The slope is that of a ridge regression on the standardised score with C = 1, so that a score which
    separates a few donors does not become certainty. A score that ranks donors the wrong way round is not
    turned round: without a signal, left-out donors are ranked so as often as not.
    """
    mean, sd = float(score.mean()), max(float(score.std()), SMALLEST)
    intercept, slope = _fit(((score - mean) / sd)[:, None], y, 1.0, np.zeros(2))
    slope = max(float(slope), LEAST_SLOPE) / sd
    return slope, float(intercept - slope * mean)


def balanced_loss(probability: np.ndarray, y: np.ndarray) -> float:
    """Log loss of probabilities of class 1, both classes weighing the same."""
    bounded = np.clip(probability, SURE, 1 - SURE)
    loss = -np.where(y == 1, np.log(bounded), np.log1p(-bounded))
    return float((loss[y == 1].mean() + loss[y == 0].mean()) / 2)


def sigmoid(logit: np.ndarray) -> np.ndarray:
    """The probability that a logit stands for."""
    probability: np.ndarray = 0.5 * (1 + np.tanh(logit / 2))
    return probability


@compiled
def _held_out_logits(
    x_KR: np.ndarray, y: np.ndarray, held_out: np.ndarray, n_inner: int, penalties: np.ndarray
) -> np.ndarray:
    """Logits [penalties, K] of each donor by the fit of the other inner folds."""
    found = np.zeros((len(penalties), len(y)))
    for number in range(n_inner):
        rows = np.flatnonzero(held_out != number)
        x_TR, own = x_KR[rows], y[rows]
        coefficients = np.zeros(x_KR.shape[1] + 1)
        for place in range(len(penalties)):
            # From the last penalty's solution it is a short way.
            coefficients = _fit(x_TR, own, penalties[place], coefficients)
            for row in np.flatnonzero(held_out == number):
                logit = coefficients[0]
                for r in range(x_KR.shape[1]):
                    logit += x_KR[row, r] * coefficients[1 + r]
                found[place, row] = logit
    return found


@compiled
def _fit(x_TR: np.ndarray, y: np.ndarray, c: float, start: np.ndarray) -> np.ndarray:
    """Intercept and coefficients [1 + R] at the minimum of |w|²/2 + c · balanced loss, by Newton's method."""
    n, size = len(y), x_TR.shape[1] + 1
    positive = y.sum()
    weight = np.empty(n)
    for i in range(n):
        weight[i] = c * n / (2 * (positive if y[i] == 1 else n - positive))
    w = start.copy()
    loss = _loss(x_TR, y, weight, w)
    for _ in range(100):
        gradient, hessian = _derivatives(x_TR, y, weight, w)
        if np.abs(gradient).max() < 1e-9 * c * n:
            break
        step = _solve(hessian, gradient)
        size_of_step, decrease = 1.0, 0.0
        for k in range(size):
            decrease += gradient[k] * step[k]
        while size_of_step > 1e-10:
            tried = w - size_of_step * step
            new = _loss(x_TR, y, weight, tried)
            if new <= loss - 1e-4 * size_of_step * decrease:
                break
            size_of_step /= 2
        if size_of_step <= 1e-10:  # rounding is all that is left
            break
        w, loss = tried, new
    return w


@compiled
def _loss(x_TR: np.ndarray, y: np.ndarray, weight: np.ndarray, w: np.ndarray) -> float:
    total = 0.0
    for r in range(1, len(w)):
        total += w[r] * w[r] / 2
    for i in range(len(y)):
        logit = w[0]
        for r in range(x_TR.shape[1]):
            logit += x_TR[i, r] * w[1 + r]
        away = -logit if y[i] == 1 else logit  # log(1 + exp(away)), without overflow
        total += weight[i] * (max(away, 0.0) + np.log1p(np.exp(-abs(away))))
    return total


@compiled
def _derivatives(
    x_TR: np.ndarray, y: np.ndarray, weight: np.ndarray, w: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Gradient, and the lower half of the Hessian."""
    size = len(w)
    gradient, hessian = np.zeros(size), np.zeros((size, size))
    row = np.ones(size)
    for r in range(1, size):
        gradient[r] = w[r]
        hessian[r, r] = 1.0
    for i in range(len(y)):
        logit = w[0]
        for r in range(1, size):
            row[r] = x_TR[i, r - 1]
            logit += row[r] * w[r]
        p = 0.5 * (1 + np.tanh(logit / 2))
        slope, curve = weight[i] * (p - y[i]), weight[i] * p * (1 - p)
        for r in range(size):
            gradient[r] += slope * row[r]
            scaled = curve * row[r]
            for s in range(r + 1):
                hessian[r, s] += scaled * row[s]
    return gradient, hessian


@compiled
def _solve(hessian: np.ndarray, gradient: np.ndarray) -> np.ndarray:
    """Newton's step, by Cholesky's factors in the place of the Hessian's lower half."""
    size = len(gradient)
    for j in range(size):
        for k in range(j):
            for i in range(j, size):
                hessian[i, j] -= hessian[i, k] * hessian[j, k]
        # Where no donor is uncertain, the intercept has no curvature left.
        pivot = np.sqrt(max(hessian[j, j], 1e-12))
        for i in range(j, size):
            hessian[i, j] /= pivot
    step = gradient.copy()
    for i in range(size):
        for k in range(i):
            step[i] -= hessian[i, k] * step[k]
        step[i] /= hessian[i, i]
    for i in range(size - 1, -1, -1):
        for k in range(i + 1, size):
            step[i] -= hessian[k, i] * step[k]
        step[i] /= hessian[i, i]
    return step
