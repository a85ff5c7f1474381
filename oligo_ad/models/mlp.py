"""The MLP: fully connected layers on a dense panel. Legend: see inputs/batch.py."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, distributed, nn

from oligo_ad.inputs.batch import Batch

STEPS = 4  # modules of a hidden layer


class MLP(nn.Module):
    """Linear, batch norm, ReLU and dropout for each hidden layer.

    Args:
        n_ids: genes G of the panel; `Batch.values` is read as a dense vector.
        hidden: width of each layer.
        dropout: share of activations dropped in training.
    """

    can_compile = True

    def __init__(self, n_ids: int, hidden: Sequence[int] = (512, 256, 128), dropout: float = 0.3) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for wide, narrow in zip([n_ids, *hidden], hidden, strict=False):
            layers += [nn.Linear(wide, narrow), BatchNorm(narrow), nn.ReLU(), nn.Dropout(dropout)]
        self.layers = nn.Sequential(*layers)
        # In a list, which registers nothing: `layers` alone names the parameters.
        self.stages = [self.layers[first : first + STEPS] for first in range(0, len(layers), STEPS)]
        self.size = hidden[-1] if hidden else n_ids

    def forward(self, batch: Batch) -> Tensor:
        cell_BD = batch.values
        for stage in self.stages:
            cell_BD = stage(cell_BD)
        return cell_BD


class BatchNorm(nn.BatchNorm1d):
    """Batch norm over the batch of all processes, on any device; PyTorch's own does so on GPUs only."""

    def forward(self, input: Tensor) -> Tensor:
        if not (self.training and distributed.is_initialized() and distributed.get_world_size() > 1):
            return super().forward(input)
        sums = torch.cat([input.sum(0), input.square().sum(0), input.new_tensor([len(input)])]).float()
        total, squares, n = _SumOverProcesses.apply(sums).split([self.num_features] * 2 + [1])
        mean, variance = total / n, squares / n - (total / n).square()
        with torch.no_grad():
            for running, now in ((self.running_mean, mean), (self.running_var, variance * n / (n - 1))):
                assert running is not None
                running.lerp_(now, self.momentum or 0.1)
        normed = (input - mean) * torch.rsqrt(variance + self.eps)
        return (normed * self.weight + self.bias).to(input.dtype)


class _SumOverProcesses(torch.autograd.Function):
    """A sum over processes with a gradient: each process's part gets the gradients of all, summed."""

    @staticmethod
    def forward(ctx: Any, part: Tensor) -> Tensor:
        total = part.clone()
        distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        total = gradients[0].clone()
        distributed.all_reduce(total)
        return total
