"""From logits to probabilities, from nuclei to the score of their donor, from donors to an AUROC."""

from typing import Literal

import numpy as np
import pandas as pd
from scipy.stats import rankdata

DonorScore = Literal["mean", "mean_logit", "fraction"]


def probability_of(logit: np.ndarray) -> np.ndarray:
    """The probability of the positive class that a logit stands for."""
    probability: np.ndarray = 1 / (1 + np.exp(-logit))
    return probability


def donor_scores(probability: np.ndarray, donor: np.ndarray, how: DonorScore) -> pd.Series:
    """One score per donor from its nuclei: mean probability, mean logit (as a probability), or the
    fraction of nuclei above one half."""
    if how == "mean_logit":
        bounded = probability.clip(1e-7, 1 - 1e-7)
        logit = pd.Series(np.log(bounded / (1 - bounded))).groupby(donor).mean()
        return pd.Series(probability_of(logit.to_numpy()), logit.index)
    values = (probability >= 0.5).astype(float) if how == "fraction" else probability
    return pd.Series(values).groupby(donor).mean()


def aurocs(label: np.ndarray, score_PD: np.ndarray) -> np.ndarray:
    """AUROC [P] of several predictors at once, from ranks; a tie counts one half (Hanley & McNeil 1982).

    Args:
        label: [D] 0 or 1, both of them.
        score_PD: of each predictor for each donor.
    """
    n_positive = int(label.sum())
    ranks = rankdata(score_PD, axis=1)[:, label == 1].sum(axis=1)
    found: np.ndarray = (ranks - n_positive * (n_positive + 1) / 2) / (n_positive * (len(label) - n_positive))
    return found
