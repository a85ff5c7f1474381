"""A classifier: network → pool → fusion of metadata → a one-logit head. Legend: see inputs/batch.py."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from oligo_ad.inputs.batch import Batch
from oligo_ad.models.pool import Pool


class Network(Protocol):
    """The interface of a network, an `nn.Module`: Batch → one vector per nucleus [B, D].

    `size` is D. `stages` are the modules that the forward pass calls one after the other, embeddings
    first, then blocks: the parts that `model.adapt` freezes, adapts and recomputes, and that have their own
    learning rates by `fit.layer_decay`; there may be none. `can_compile`: whether `fit.compile` works.
    """

    size: int
    can_compile: bool
    training: bool

    @property
    def stages(self) -> Sequence[nn.Module]: ...

    def parameters(self) -> Iterator[nn.Parameter]: ...

    def __call__(self, batch: Batch) -> Tensor: ...


class Classifier(nn.Module):
    """Batch → one logit a sample [S]; positive means the positive class.

    Args:
        network: constructor of a Network, given `n_ids`, the number of gene ids.
        pool: constructor of a Pool, given the `size` of the network.
        fusion: constructor of a fusion, given the pool's `size` and `n_metadata`.
        n_ids: number of gene ids.
        n_metadata: number M of metadata columns.
    """

    def __init__(
        self,
        network: Callable[..., Network],
        pool: Callable[..., Pool],
        fusion: Callable[..., Any],
        n_ids: int,
        n_metadata: int,
    ) -> None:
        super().__init__()
        self.network = network(n_ids=n_ids)
        self.pool = pool(size=self.network.size)
        self.fusion = fusion(size=self.pool.size, n_metadata=n_metadata)
        self.head = nn.Linear(self.fusion.size, 1)

    def forward(self, *parts: Batch) -> Tensor:
        """Logits [S] of a batch. One too large for a single pass of the network comes in parts, of the same
        samples but other nuclei."""
        samples = parts[0]
        vectors = [self.network(part) for part in parts]
        nucleus_BD, sample_B = vectors[0], samples.sample
        if len(parts) > 1:
            nucleus_BD, sample_B = torch.cat(vectors), torch.cat([part.sample for part in parts])
        sample_SD = self.pool(nucleus_BD, sample_B, len(samples.label))
        fused_SD = self.fusion(sample_SD, samples.metadata)
        logit_S: Tensor = self.head(fused_SD).squeeze(-1).float()
        return logit_S


class Committee(nn.Module):
    """The mean logit of several classifiers of one kind."""

    def __init__(self, members: Sequence[Classifier]) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)

    @property
    def pool(self) -> Pool:
        first = self.members[0]
        assert isinstance(first, Classifier)
        return first.pool

    def forward(self, *parts: Batch) -> Tensor:
        return torch.stack([member(*parts) for member in self.members]).mean(0)


class Ignore(nn.Module):
    """The fusion of metadata=off: the vector as it is."""

    def __init__(self, size: int, n_metadata: int) -> None:
        super().__init__()
        self.size = size

    def forward(self, sample_SD: Tensor, metadata_SM: Tensor) -> Tensor:
        return sample_SD


class Concatenate(nn.Module):
    """A fusion: the metadata are appended to the vector."""

    def __init__(self, size: int, n_metadata: int) -> None:
        super().__init__()
        self.size = size + n_metadata

    def forward(self, sample_SD: Tensor, metadata_SM: Tensor) -> Tensor:
        return torch.cat([sample_SD, metadata_SM.to(sample_SD.dtype)], dim=-1)


class Add(nn.Module):
    """A fusion: a projection of the metadata is added to the vector."""

    def __init__(self, size: int, n_metadata: int) -> None:
        super().__init__()
        self.size = size
        self.project = nn.Linear(n_metadata, size)

    def forward(self, sample_SD: Tensor, metadata_SM: Tensor) -> Tensor:
        fused_SD: Tensor = sample_SD + self.project(metadata_SM)
        return fused_SD
