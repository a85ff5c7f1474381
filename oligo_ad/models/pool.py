"""Pools: from vectors of nuclei to vectors of samples, which are single nuclei or bags of a donor's nuclei.

Legend: see inputs/batch.py.
"""

from typing import Annotated, Protocol

import torch
from pydantic import Field
from torch import Tensor, nn

from oligo_ad.inputs.loader import Sample

SMALLEST_VARIANCE = 1e-6


class Pool(Protocol):
    """The interface of a pool: vectors of nuclei [B, D] → vectors of samples [S, size].

    `sample`: what a sample is. The constructor gets `size`, the D of the network.
    """

    sample: Sample
    size: int

    def __call__(self, nucleus_BD: Tensor, sample_B: Tensor, n_samples: int) -> Tensor: ...


class Each(nn.Module):
    """A nucleus is a sample: its vector as it is."""

    sample: Sample = "nucleus"

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size

    def forward(self, nucleus_BD: Tensor, sample_B: Tensor, n_samples: int) -> Tensor:
        return nucleus_BD


class Mean(nn.Module):
    """A donor is a sample: the mean over the nuclei of its bag."""

    sample: Sample = "donor"

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size

    def forward(self, nucleus_BD: Tensor, sample_B: Tensor, n_samples: int) -> Tensor:
        ones_B = torch.ones_like(sample_B, dtype=torch.float32)
        total_SD = sum_by_sample(nucleus_BD.float(), sample_B, n_samples)
        return total_SD / sum_by_sample(ones_B, sample_B, n_samples)[:, None]


class Moments(nn.Module):
    """A donor is a sample: mean and standard deviation over the nuclei of its bag."""

    sample: Sample = "donor"

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = 2 * size

    def forward(self, nucleus_BD: Tensor, sample_B: Tensor, n_samples: int) -> Tensor:
        values_BD = nucleus_BD.float()
        number_S = sum_by_sample(torch.ones_like(sample_B, dtype=torch.float32), sample_B, n_samples)
        mean_SD = sum_by_sample(values_BD, sample_B, n_samples) / number_S[:, None]
        squares_SD = sum_by_sample((values_BD - mean_SD[sample_B]).square(), sample_B, n_samples)
        # The root has no slope at 0, where all nuclei are alike.
        sd_SD = (squares_SD / number_S[:, None] + SMALLEST_VARIANCE).sqrt()
        return torch.cat([mean_SD, sd_SD], dim=-1)


class Attention(nn.Module):
    """A donor is a sample: a weighted mean over its bag, the weights learned (Ilse 2018, gated attention).

    Args:
        size: D of the vectors of nuclei.
        hidden: width of the layer that gives the weights.
    """

    sample: Sample = "donor"

    def __init__(self, size: int, hidden: Annotated[int, Field(ge=1)] = 32) -> None:
        super().__init__()
        self.size = size
        self.value, self.gate = nn.Linear(size, hidden), nn.Linear(size, hidden)
        self.score = nn.Linear(hidden, 1)

    def forward(self, nucleus_BD: Tensor, sample_B: Tensor, n_samples: int) -> Tensor:
        weight_B = self.weights(nucleus_BD, sample_B, n_samples)
        return sum_by_sample(weight_B[:, None] * nucleus_BD.float(), sample_B, n_samples)

    def weights(self, nucleus_BD: Tensor, sample_B: Tensor, n_samples: int) -> Tensor:
        """The weight of each nucleus [B]; those of a sample sum to 1."""
        hidden_BH = self.value(nucleus_BD).tanh() * self.gate(nucleus_BD).sigmoid()
        score_B = self.score(hidden_BH).squeeze(-1).float()
        # The largest of a sample is taken off, so that no exponential overflows.
        lowest_S = score_B.new_full((n_samples,), -torch.inf)
        largest_S = lowest_S.scatter_reduce(0, sample_B, score_B.detach(), "amax")
        weight_B = (score_B - largest_S[sample_B]).exp()
        return weight_B / sum_by_sample(weight_B, sample_B, n_samples)[sample_B]


def sum_by_sample(values: Tensor, sample_B: Tensor, n_samples: int) -> Tensor:
    """Sums of values [B, …] over the nuclei of each sample [S, …]."""
    return values.new_zeros(n_samples, *values.shape[1:]).index_add(0, sample_B, values)
