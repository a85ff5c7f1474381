"""A classifier is a network, a fusion of metadata, and a one-logit head. Legend: see inputs/batch.py."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from oligo_ad.inputs.batch import Batch


class Network(Protocol):
    """What a network must offer, as an `nn.Module`: Batch → one vector a nucleus [B, D].

    `size` is D. `stages` are the modules that the forward pass calls one after the other, embeddings
    first, then blocks: what is frozen, adapted, recomputed and trained at rates of its own (`model.adapt`,
    `fit.layer_decay`); they may be none. `can_compile`: whether `fit.compile` has any use.
    """

    size: int
    can_compile: bool
    training: bool

    @property
    def stages(self) -> Sequence[nn.Module]: ...

    def parameters(self) -> Iterator[nn.Parameter]: ...

    def __call__(self, batch: Batch) -> Tensor: ...


class Classifier(nn.Module):
    """Batch → one logit a cell [B]; positive means the positive class.

    Args:
        network: constructor of a Network, given `n_ids`, the number of gene ids.
        fusion: constructor of a fusion, given the network's `size` and `n_metadata`.
        n_ids: number of gene ids.
        n_metadata: number M of metadata columns.
    """

    def __init__(
        self,
        network: Callable[..., Any],
        fusion: Callable[..., Any],
        n_ids: int,
        n_metadata: int,
    ) -> None:
        super().__init__()
        made = network(n_ids=n_ids)
        fused = fusion(size=made.size, n_metadata=n_metadata)
        self.network, self.fusion, self.head = made, fused, nn.Linear(fused.size, 1)

    def forward(self, batch: Batch) -> Tensor:
        cell_BD = self.network(batch)
        fused_BD = self.fusion(cell_BD, batch.metadata)
        logit_B: Tensor = self.head(fused_BD).squeeze(-1).float()
        return logit_B


class Ignore(nn.Module):
    """metadata=off: the cell vector as it is."""

    def __init__(self, size: int, n_metadata: int) -> None:
        super().__init__()
        self.size = size

    def forward(self, cell_BD: Tensor, metadata_BM: Tensor) -> Tensor:
        return cell_BD


class Concatenate(nn.Module):
    """The head sees the cell vector and the metadata side by side."""

    def __init__(self, size: int, n_metadata: int) -> None:
        super().__init__()
        self.size = size + n_metadata

    def forward(self, cell_BD: Tensor, metadata_BM: Tensor) -> Tensor:
        return torch.cat([cell_BD, metadata_BM.to(cell_BD.dtype)], dim=-1)


class Add(nn.Module):
    """A projection of the metadata is added to the cell vector."""

    def __init__(self, size: int, n_metadata: int) -> None:
        super().__init__()
        self.size = size
        self.project = nn.Linear(n_metadata, size)

    def forward(self, cell_BD: Tensor, metadata_BM: Tensor) -> Tensor:
        fused_BD: Tensor = cell_BD + self.project(metadata_BM)
        return fused_BD
