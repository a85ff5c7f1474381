"""Several readers of donors, combined by how well each ranks known donors that it was not fitted on."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch

from oligo_ad.baselines.linear import SMALLEST, logistic
from oligo_ad.baselines.predictors import NETWORK
from oligo_ad.data.cohort import Cohort
from oligo_ad.inputs.featurizers import Featurizer, State
from oligo_ad.models.views import Known, View
from oligo_ad.scores import aurocs

POWER = 4  # of the AUROC above chance: the better reader soon counts for nearly all
LEAST = 0.02  # AUROC above chance that a reader counts for at least


class Combination(NamedTuple):
    """A weighted mean of standardised logits, made a logit again.

    `mean`, `sd`, `weight`, `auroc` [readers]: of the logits of known donors that were held out. `slope`,
    `intercept`: of the logistic regression of their labels on the weighted mean.
    """

    mean: np.ndarray
    sd: np.ndarray
    weight: np.ndarray
    auroc: np.ndarray
    slope: float
    intercept: float

    def logits(self, logit_RD: np.ndarray) -> np.ndarray:
        """The combined logit of each donor."""
        scaled_RD = (logit_RD - self.mean[:, None]) / self.sd[:, None]
        combined: np.ndarray = (self.weight[:, None] * scaled_RD).sum(0) * self.slope + self.intercept
        return combined

    def state(self) -> State:
        return {name: torch.from_numpy(np.atleast_1d(value)) for name, value in self._asdict().items()}


def combine(logit_RK: np.ndarray, label: np.ndarray) -> Combination:
    """The combination of readers, from their logits for known donors that each had left out.

    Args:
        logit_RK: of each reader for each known donor.
        label: [K] 0 or 1.
    """
    auroc = aurocs(label, logit_RK)
    weight = np.maximum(auroc - 0.5, LEAST) ** POWER
    weight /= weight.sum()
    mean, sd = logit_RK.mean(1), np.maximum(logit_RK.std(1), SMALLEST)
    standardised = (logit_RK - mean[:, None]) / sd[:, None]
    return Combination(mean, sd, weight, auroc, *logistic(weight @ standardised, label.astype(float)))


def restored(state: State) -> Combination:
    """A combination from its `state`."""
    mean, sd, weight, auroc, slope, intercept = (state[name].numpy() for name in Combination._fields)
    return Combination(mean, sd, weight, auroc, float(slope[0]), float(intercept[0]))


@dataclass(frozen=True)
class Readers:
    """The fitted views of a model, and how they are combined with its network, which is the first reader."""

    views: dict[str, View]
    combination: Combination

    @property
    def names(self) -> tuple[str, ...]:
        return NETWORK, *self.views

    def logits(self, network: pd.Series, cohort: Cohort, featurizer: Featurizer) -> pd.Series:
        """Logits of donors of a cohort, from those of the network by donor id."""
        of_views = [view.logits(cohort, featurizer)[network.index] for view in self.views.values()]
        combined = self.combination.logits(np.stack([network.to_numpy(), *of_views]))
        return pd.Series(combined, network.index)


def fit_readers(
    views: dict[str, View], network: np.ndarray, cohort: Cohort, featurizer: Featurizer, known: Known
) -> tuple[Readers, np.ndarray]:
    """Fit the views, and their combination with a network.

    Args:
        network: [K] logits of the known donors by networks that had left them out.

    Returns:
        The readers, and the combined logits [K] of the known donors, each left out by every reader.
    """
    held_out = np.stack([network, *(view.fit(cohort, featurizer, known) for view in views.values())])
    combination = combine(held_out, known.label)
    return Readers(views, combination), combination.logits(held_out)
