"""Views: linear readers of a whole donor, which a model combines with its network.

Each is fitted on known donors, and gives every one of them a logit too by a fit that left it out. Legend: D
donors, K known ones, F features.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, Self

import numpy as np
import pandas as pd
import torch

from oligo_ad.baselines.linear import Regressed, regress, scaling, spanned
from oligo_ad.baselines.pls import best_expressed, partial_least_squares
from oligo_ad.baselines.views import pseudobulk_of
from oligo_ad.data.cohort import Cohort
from oligo_ad.errors import UserError
from oligo_ad.inputs.axes import Axes
from oligo_ad.inputs.featurizers import Featurizer, State

Fit = Callable[..., Regressed]


@dataclass(frozen=True)
class Known:
    """The donors that a view may learn from, in the order of their ids.

    `label` [K] 0 or 1; `held_out` [K]: the inner fold in which each is left out.
    """

    donors: tuple[str, ...]
    label: np.ndarray
    held_out: np.ndarray

    @property
    def folds(self) -> list[tuple[tuple[str, ...], tuple[str, ...]]]:
        """By inner fold, the donors that learn and those that are left out."""
        names = np.array(self.donors, object)
        left = [self.held_out == number for number in range(int(self.held_out.max()) + 1)]
        return [(tuple(names[~own]), tuple(names[own])) for own in left]


class View(Protocol):
    """The interface of a view. `gene_names`: the genes that it reads beside those of the featurizer."""

    gene_names: list[str]

    def fit(self, cohort: Cohort, featurizer: Featurizer, known: Known) -> np.ndarray:
        """Learn from the known donors; logits [K] by fits that left each of them out."""

    def logits(self, cohort: Cohort, featurizer: Featurizer) -> pd.Series:
        """Logits of every donor of a cohort, by id; each from its own nuclei alone."""

    def state(self) -> State:
        """What was learned, as tensors, beside `gene_names`."""

    def restore(self, gene_names: list[str], state: State) -> Self:
        """Take up what another instance learned."""


class Linear:
    """A logit that is linear in the features of a donor, which come in blocks of equal variance."""

    def __init__(self, fit: Fit) -> None:
        self._fit = fit

    def fit(
        self, blocks_DF: list[np.ndarray], known: np.ndarray, label: np.ndarray, inner: np.ndarray
    ) -> np.ndarray:
        """Fit known donors, given by their positions; their logits by fits that left each of them out."""
        scales = [scaling(block[known]) for block in blocks_DF]
        scaled = [(block - mean) / sd for block, (mean, sd) in zip(blocks_DF, scales, strict=True)]
        span = spanned(scaled, known)
        everyone = np.zeros(len(span.x))
        everyone[known] = label
        found = self._fit(span.x, everyone, known, known, inner)
        dual = span.dual @ found.coefficients[1:]
        weights = [scale * block[known].T @ dual for scale, block in zip(span.scale, scaled, strict=True)]
        mean, sd = (np.concatenate(parts) for parts in zip(*scales, strict=True))
        self.weight = np.concatenate(weights) / sd
        self.intercept = found.coefficients[0] - mean @ self.weight
        return np.log(found.inner / (1 - found.inner))

    def logits(self, blocks_DF: list[np.ndarray]) -> np.ndarray:
        """Logits [D] of any donors, each computed by itself."""
        whole = np.concatenate(blocks_DF, axis=1)
        return np.array([float((row * self.weight).sum()) for row in whole]) + self.intercept

    def state(self) -> State:
        return {"weight": torch.from_numpy(self.weight), "intercept": torch.tensor([self.intercept])}

    def restore(self, state: State) -> None:
        self.weight, self.intercept = state["weight"].numpy(), float(state["intercept"])


class PLS:
    """Partial least squares on log CPM of a donor's summed counts, of the best expressed genes.

    It is best where disease shifts all nuclei alike.
    """

    def __init__(self) -> None:
        self.gene_names: list[str] = []
        self._linear = Linear(partial_least_squares)

    def fit(self, cohort: Cohort, featurizer: Featurizer, known: Known) -> np.ndarray:
        own = cohort.donors.index.get_indexer(list(known.donors))
        values_DG = pseudobulk_of(cohort)
        genes = best_expressed(values_DG[own])
        self.gene_names = cohort.genes["name"].to_numpy()[genes].tolist()
        return self._linear.fit([values_DG[:, genes]], own, known.label, known.held_out)

    def logits(self, cohort: Cohort, featurizer: Featurizer) -> pd.Series:
        values_DG = pseudobulk_of(cohort)[:, cohort.places_of(self.gene_names)]
        return pd.Series(self._linear.logits([values_DG]), cohort.donors.index)

    def state(self) -> State:
        return self._linear.state()

    def restore(self, gene_names: list[str], state: State) -> Self:
        self.gene_names = gene_names
        self._linear.restore(state)
        return self


class AxisMoments:
    """L2 logistic regression on how a donor's nuclei lie along the axes: mean, log variance and skewness.

    It is best where disease changes a state of nuclei that many of them are in.
    """

    def __init__(self) -> None:
        self.gene_names: list[str] = []
        self._linear = Linear(regress)

    def fit(self, cohort: Cohort, featurizer: Featurizer, known: Known) -> np.ndarray:
        own = cohort.donors.index.get_indexer(list(known.donors))
        return self._linear.fit(_moments(cohort, featurizer), own, known.label, known.held_out)

    def logits(self, cohort: Cohort, featurizer: Featurizer) -> pd.Series:
        return pd.Series(self._linear.logits(_moments(cohort, featurizer)), cohort.donors.index)

    def state(self) -> State:
        return self._linear.state()

    def restore(self, gene_names: list[str], state: State) -> Self:
        self._linear.restore(state)
        return self


def _moments(cohort: Cohort, featurizer: Featurizer) -> list[np.ndarray]:
    if not isinstance(featurizer, Axes):
        raise UserError(
            "model.views: AxisMoments reads axes, and model.featurizer finds none. Use "
            "model.featurizer._target_=oligo_ad.inputs.axes.Axes, or leave the view out."
        )
    return list(featurizer.spread(cohort))
