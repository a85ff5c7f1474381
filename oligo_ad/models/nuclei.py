"""A small network on the few values of a nucleus, such as axes. Legend: see inputs/batch.py."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from oligo_ad.inputs.batch import Batch


class NucleusNet(nn.Module):
    """Linear, GELU and dropout for each hidden layer, with nothing learned over a batch.

    Args:
        n_ids: values V of a nucleus; `Batch.values` is read as a dense vector.
        hidden: width of each layer.
        dropout: share of activations dropped in training.
        own_mean: the second half of the values are those of the nucleus's donor (`Axes.own_mean`): they pass
            by the layers, and stand beside what these make of the nucleus.
    """

    can_compile = True

    def __init__(
        self, n_ids: int, hidden: Sequence[int] = (32, 32), dropout: float = 0.2, own_mean: bool = False
    ) -> None:
        super().__init__()
        self.of_donor = n_ids // 2 if own_mean else 0
        layers: list[nn.Module] = []
        for wide, narrow in zip([n_ids - self.of_donor, *hidden], hidden, strict=False):
            layers.append(nn.Sequential(nn.Linear(wide, narrow), nn.GELU(), nn.Dropout(dropout)))
        self.stages = nn.ModuleList(layers)
        self.size = (hidden[-1] if hidden else n_ids - self.of_donor) + self.of_donor

    def forward(self, batch: Batch) -> Tensor:
        n_own = batch.values.shape[1] - self.of_donor
        nucleus_BD, donor_BD = batch.values.split([n_own, self.of_donor], dim=1)
        for stage in self.stages:
            nucleus_BD = stage(nucleus_BD)
        return torch.cat([nucleus_BD, donor_BD], dim=1)
