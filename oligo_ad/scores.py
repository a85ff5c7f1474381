"""From logits to probabilities, and from the nuclei of a donor to its score."""

from typing import Literal

import numpy as np
import pandas as pd

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
