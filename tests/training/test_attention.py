"""Looking for the attention kernel leaves the model and the run's random numbers as they were."""

import copy
from collections.abc import Callable

import pytest
import torch
from torch import nn

from oligo_ad.inputs.batch import Batch, Inputs
from oligo_ad.models.mlp import MLP
from oligo_ad.models.transformer import Transformer
from oligo_ad.training.attention import attention_kernels

N_GENES = 8


def nuclei() -> Batch:
    values = torch.rand(6, N_GENES, generator=torch.Generator().manual_seed(0)) + 0.1
    ids = torch.arange(N_GENES).expand(6, -1)
    return Batch.of_nuclei(Inputs(ids, values, torch.ones_like(values, dtype=torch.bool)))


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(
    ("make", "kernels"),
    [
        (lambda: MLP(N_GENES, hidden=(4,), dropout=0.5), []),
        (lambda: Transformer(N_GENES, width=16, heads=2, dropout=0.5), ["flash_attention_for_cpu"]),
        # Dropout of attention, for which no fused kernel is taken on a CPU, is on in training alone.
        (lambda: Transformer(N_GENES, width=16, heads=2, attention_dropout=0.5), ["math"]),
    ],
    ids=["mlp", "transformer", "attention dropout"],
)
def test_a_training_step_is_watched_on_a_copy(
    make: Callable[[], nn.Module], kernels: list[str], training: bool
) -> None:
    model = make().train(training)
    before, state = copy.deepcopy(model.state_dict()), torch.random.get_rng_state()
    assert attention_kernels(model, nuclei()) == kernels
    assert torch.equal(torch.random.get_rng_state(), state)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert {part.training for part in model.modules()} == {training}
    assert all(parameter.grad is None for parameter in model.parameters())
