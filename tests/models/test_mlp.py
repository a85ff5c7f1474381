"""The MLP by its definition, and its batch norm over several processes."""

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier, local
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import batch_norm, linear

from oligo_ad.inputs.batch import Batch, Inputs
from oligo_ad.models import mlp
from oligo_ad.models.mlp import MLP, BatchNorm

GENES = 7


def nuclei(n: int = 12) -> Batch:
    values = torch.randn(n, GENES, generator=torch.Generator().manual_seed(0))
    ids = torch.arange(GENES).expand(n, -1)
    return Batch.of_nuclei(Inputs(ids, values, torch.ones_like(values, dtype=torch.bool)))


@pytest.mark.parametrize("training", [True, False])
def test_a_hidden_layer_is_linear_then_normed_then_cut_at_zero(training: bool) -> None:
    torch.manual_seed(0)
    network, batch = MLP(GENES, hidden=(5, 4), dropout=0.0), nuclei()
    network(batch)  # so that running means are not those of the start
    network.train(training)
    expected = batch.values
    for first, norm, *_ in network.stages:
        own = () if training else (norm.running_mean, norm.running_var)
        normed = batch_norm(
            linear(expected, first.weight, first.bias),
            *(own or (None, None)),
            norm.weight,
            norm.bias,
            training,
        )
        expected = normed.clamp(min=0)
    assert torch.allclose(network(batch), expected, atol=1e-6)
    assert (expected == 0).any()


@pytest.mark.parametrize("share", [0.0, 0.3])
def test_that_share_of_activations_is_dropped_in_training_and_none_after_it(share: float) -> None:
    torch.manual_seed(0)
    network = MLP(GENES, hidden=(2000,), dropout=share)
    norm = network.layers[1]
    nn.init.zeros_(norm.weight)
    nn.init.ones_(norm.bias)  # so that every activation is 1
    found = network(nuclei())
    assert (found == 0).float().mean().item() == pytest.approx(share, abs=0.02)
    assert torch.allclose(found[found != 0], torch.tensor(1 / (1 - share)))
    assert (network.eval()(nuclei()) == 1).all()


class Processes:
    """Two threads that act as the processes of `torch.distributed`."""

    def __init__(self) -> None:
        self._barrier, self._own, self._parts = Barrier(2), local(), [Tensor(), Tensor()]

    def join(self, rank: int) -> None:
        self._own.rank = rank

    def all_reduce(self, part: Tensor) -> None:
        self._parts[self._own.rank] = part.clone()
        self._barrier.wait(timeout=30)
        total = self._parts[0] + self._parts[1]
        self._barrier.wait(timeout=30)
        part.copy_(total)


def test_two_processes_norm_as_one_with_the_whole_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(10, 3, generator=generator) * torch.tensor([1.0, 5.0, 0.2]) + 2
    target = torch.randn(10, 3, generator=generator)

    def normed(values: Tensor, wanted: Tensor) -> tuple[Tensor, ...]:
        """Output, gradients of input, weight and bias, and running statistics."""
        norm, own = BatchNorm(3), values.clone().requires_grad_()
        found = norm(own)
        (found * wanted).square().sum().backward()
        gradients = [own.grad, norm.weight.grad, norm.bias.grad]
        assert own.grad is not None
        return (found.detach(), *gradients, norm.running_mean, norm.running_var)  # type: ignore[return-value]

    alone = normed(inputs, target)
    processes = Processes()
    several = SimpleNamespace(
        is_initialized=lambda: True, get_world_size=lambda: 2, all_reduce=processes.all_reduce
    )
    monkeypatch.setattr(mlp, "distributed", several)

    def half(rank: int) -> tuple[Tensor, ...]:
        processes.join(rank)
        return normed(inputs[rank::2], target[rank::2])

    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(half, (0, 1))
    for place in (0, 1):
        together = torch.stack([first[place], second[place]], 1).flatten(0, 1)
        assert torch.allclose(together, alone[place], atol=1e-4)
    for place in (2, 3):
        assert torch.allclose(first[place] + second[place], alone[place], rtol=1e-4)
    for place in (4, 5):
        assert torch.allclose(first[place], alone[place], rtol=1e-5)
        assert torch.equal(first[place], second[place])
