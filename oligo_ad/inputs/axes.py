"""A featurizer: where nuclei lie on the axes along which nuclei of one donor differ; see `data/axes.py`.

Legend: N nuclei, V values, G genes, K axes.
"""

from typing import Self

import numpy as np
import torch
from torch import Tensor

from oligo_ad.data.axes import GENES, NUCLEI, Spread, bounds_by_donor, find_axes, positions, spread_on_axes
from oligo_ad.data.cohort import Cohort
from oligo_ad.facts import ABOVE_CHANCE
from oligo_ad.inputs.batch import Inputs, Tokens
from oligo_ad.inputs.featurizers import Size, State, log_expression


class Axes:
    """Featurizer: where a nucleus lies on the axes of the training donors, its own donor's mean taken off.

    A value is in SDs of nuclei around their donors. So a nucleus's input depends on the other nuclei of its
    donor, and on no other donor.

    Args:
        n_genes: the best expressed ones are read.
        nuclei: of a donor from which axes are learned; all are placed on them.
        n_axes: how many; None: as many as explain more than chance, from 2 to 30.
        own_mean: give the donor's own mean too, as K further values of each nucleus, standardised over
            training donors.
    """

    padded = False

    def __init__(
        self, n_genes: Size = GENES, nuclei: Size = NUCLEI, n_axes: Size | None = None, own_mean: bool = False
    ) -> None:
        self.n_genes, self.nuclei, self.n_axes, self.own_mean = n_genes, nuclei, n_axes, own_mean
        self._facts: dict[str, str] = {}

    @property
    def n_ids(self) -> int:
        return self.loading_GK.shape[1] * (1 + self.own_mean)

    def names_of_ids(self) -> list[str]:
        axes = [f"axis {number}" for number in range(1, 1 + self.loading_GK.shape[1])]
        return axes + [f"donor's mean on {axis}" for axis in axes] * self.own_mean

    def facts(self) -> dict[str, str]:
        return self._facts

    def fit(self, cohort: Cohort, train: tuple[str, ...]) -> Self:
        found = find_axes(cohort, train, self.n_genes, self.nuclei, self.n_axes)
        own = cohort.of(train)
        spread = spread_on_axes(own, found.genes, found.loading)
        within_K = np.exp(spread.log_variance).mean(0) ** 0.5
        mean_K, sd_K = spread.mean.mean(0), spread.mean.std(0)
        learned = (found.loading, within_K, mean_K, np.where(sd_K > 0, sd_K, 1.0))
        self._facts = {
            "chosen": f"{len(found.genes):,} genes: the best expressed ones of training donors",
            "values": f"position on {len(within_K)} axes, in SDs of nuclei around the mean of their donor, "
            f"which is taken off; of {log_expression(cohort)}",
            "fitted": "choice of genes, axes and SDs: training donors",
            ABOVE_CHANCE: str(found.above),
        }
        return self._learn(found.genes, *(torch.from_numpy(part.astype(np.float32)) for part in learned))

    def tokens(self, cohort: Cohort) -> Tokens:
        found = positions(cohort, self.gene_names, self.loading_GK.numpy())
        values_NV = np.empty((len(found), self.n_ids), np.float32)
        n_axes = found.shape[1]
        for first, last in bounds_by_donor(cohort):
            own_NK = found[first:last]
            mean_K = own_NK.mean(0)
            values_NV[first:last, :n_axes] = (own_NK - mean_K) / self.within_K.numpy()
            if self.own_mean:
                values_NV[first:last, n_axes:] = (mean_K - self.mean_K.numpy()) / self.sd_K.numpy()
        return Tokens.of_dense(torch.from_numpy(values_NV))

    def pack(self, tokens: Tokens, rows_B: Tensor, longest: int, epoch: int) -> Inputs:
        return tokens.whole(rows_B, self.n_ids)

    def spread(self, cohort: Cohort) -> Spread:
        """How the nuclei of each donor of a cohort lie on the axes."""
        return spread_on_axes(cohort, self.gene_names, self.loading_GK.numpy())

    def state(self) -> State:
        return {"loading": self.loading_GK, "within": self.within_K, "mean": self.mean_K, "sd": self.sd_K}

    def restore(self, gene_names: list[str], state: State) -> Self:
        return self._learn(gene_names, *(state[name] for name in ("loading", "within", "mean", "sd")))

    def _learn(
        self, gene_names: list[str], loading_GK: Tensor, within_K: Tensor, mean_K: Tensor, sd_K: Tensor
    ) -> Self:
        if loading_GK.shape != (len(gene_names), len(within_K)) or not len(within_K) == len(mean_K) == len(
            sd_K
        ):
            raise ValueError(
                f"{len(gene_names)} genes and {len(within_K)} axes do not fit {loading_GK.shape}"
            )
        self.gene_names, self.loading_GK = gene_names, loading_GK
        self.within_K, self.mean_K, self.sd_K = within_K, mean_K, sd_K
        return self
