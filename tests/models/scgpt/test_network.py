"""The backbone without padding: packing changes nothing, and layers learn at rates of their own."""

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from oligo_ad.errors import UserError
from oligo_ad.inputs.batch import Batch, Inputs
from oligo_ad.models import blocks
from oligo_ad.models.adapt import adapt
from oligo_ad.models.blocks import NEVER, Packed, attend_with_mask, has_varlen_kernel
from oligo_ad.models.mlp import MLP
from oligo_ad.models.pretrained import Pretrained
from oligo_ad.models.scgpt.network import ScGPT
from oligo_ad.training.attention import attention_kernels
from oligo_ad.training.optimizer import parameter_groups
from tests.builders import AS_IT_IS

N_IDS = 50
SETTINGS = {"width": 16, "heads": 4, "layers": 3, "feedforward": 24, "dropout": 0.2, "n_bins": 51}


def network(**how: Any) -> ScGPT:
    torch.manual_seed(0)
    return ScGPT(N_IDS, Pretrained(tuple(map(str, range(N_IDS))), SETTINGS), **how)


def cells(lengths: list[int], dtype: torch.dtype = torch.float64) -> Batch:
    generator = torch.Generator().manual_seed(1)
    shape = (len(lengths), max(lengths))
    mask = torch.arange(shape[1]) < torch.tensor(lengths)[:, None]
    ids, values = (torch.randint(N_IDS, shape, generator=generator) for _ in range(2))
    return Batch.of_nuclei(Inputs(ids, values.to(dtype), mask))


def padded(model: ScGPT, batch: Batch) -> Tensor:
    """The same network over padded cells, with a mask."""
    token = model.encoder(batch.gene_ids) + model.value_encoder(batch.values)
    bias = torch.zeros_like(batch.values).masked_fill(~batch.mask, NEVER)
    for block in model.transformer_encoder["layers"]:  # type: ignore[union-attr]
        token = block(token, lambda q, k, v, dropout: attend_with_mask(bias, q, k, v, dropout))
    first: Tensor = token[:, 0]
    return first


def answer_and_gradients(model: nn.Module, compute: Callable[[], Tensor]) -> list[Tensor]:
    model.zero_grad()
    found = compute()
    found.square().sum().backward()
    return [found.detach(), *(p.grad.clone() for p in model.parameters() if p.grad is not None)]


@pytest.mark.parametrize("lengths", [[5, 5, 5], [1, 9, 4, 30], [1], [1, 1]])
def test_packing_cells_changes_neither_output_nor_gradient(lengths: list[int]) -> None:
    model, batch = network(dropout=0.0).double(), cells(lengths)
    wanted = answer_and_gradients(model, lambda: padded(model, batch))
    found = answer_and_gradients(model, lambda: model(batch))
    assert len(found) == 1 + len(list(model.parameters()))
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-10)


def test_what_stands_in_the_padding_does_not_matter() -> None:
    model, batch = network(dropout=0.0).double(), cells([3, 8])
    other = batch._replace(values=batch.values.masked_fill(~batch.mask, torch.nan))
    assert model(batch).equal(model(other))


@pytest.mark.parametrize("lengths", [[5, 5, 5], [1, 9, 4, 30], [1], [1, 1]])
def test_the_kernel_of_gpus_is_asked_for_the_same(
    lengths: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    def by_its_documentation(
        q: Tensor, k: Tensor, v: Tensor, cu_q: Tensor, cu_k: Tensor, max_q: int, max_k: int
    ) -> Tensor:
        """Tensors [tokens, H, E]; sequence i has tokens cu[i] to cu[i + 1]."""
        assert cu_q.dtype == cu_k.dtype == torch.int32
        assert max_q == cu_q.diff().max()
        assert max_k == cu_k.diff().max()
        spans = zip(pairwise(cu_q.tolist()), pairwise(cu_k.tolist()), strict=True)
        parts = [
            torch.softmax(torch.einsum("qhe,khe->hqk", q[a:b], k[c:d]) / q.shape[-1] ** 0.5, -1)
            @ v[c:d].transpose(0, 1)
            for (a, b), (c, d) in spans
        ]
        return torch.cat(parts, 1).transpose(0, 1)

    model, batch = network(dropout=0.0).double(), cells(lengths)
    wanted = model(batch)
    monkeypatch.setattr(blocks, "has_varlen_kernel", lambda q: True)
    monkeypatch.setattr(blocks, "varlen_attn", by_its_documentation)
    torch.testing.assert_close(model(batch), wanted, rtol=0, atol=1e-10)


def test_the_kernel_of_gpus_is_not_asked_for_on_a_cpu() -> None:
    assert not has_varlen_kernel(torch.zeros(1, dtype=torch.bfloat16))


def test_a_cell_sees_its_own_tokens_only() -> None:
    model, batch = network(dropout=0.0).double(), cells([3, 8, 5])
    other = batch.values.clone()
    other[1] += 7
    before, after = model(batch), model(batch._replace(values=other))
    assert before[0].equal(after[0])
    assert before[2].equal(after[2])
    assert not before[1].allclose(after[1])


def test_attention_dropout_works_and_costs_the_flash_kernel() -> None:
    batch = cells([3, 8], torch.float32)
    assert attention_kernels(network(), batch) == ["flash_attention_for_cpu"]
    assert attention_kernels(network(attention_dropout=0.5), batch) == ["math"]


def test_dropout_is_that_of_pretraining_unless_given() -> None:
    rates = {m.p for m in network().modules() if isinstance(m, nn.Dropout)}
    assert rates == {SETTINGS["dropout"]}
    assert {m.p for m in network(dropout=0.05).modules() if isinstance(m, nn.Dropout)} == {0.05}


class Classifier(nn.Module):
    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network, self.head = network, nn.Linear(16, 1)


def test_each_layer_learns_more_slowly_than_the_one_above_it() -> None:
    model = Classifier(network())
    groups = parameter_groups(model, lr=1.0, decay=0.5)
    rate = {p: group["lr"] for group in groups for p in group["params"]}
    assert rate.keys() == set(model.parameters())
    rates = {name: rate[p] for name, p in model.named_parameters()}
    assert groups[0]["lr"] == rates["head.weight"] == 1.0
    layers = [rates[f"network.transformer_encoder.layers.{n}.linear1.weight"] for n in (2, 1, 0)]
    assert layers == [0.5, 0.25, 0.125]
    assert rates["network.encoder.embedding.weight"] == rates["network.value_encoder.norm.bias"] == 0.0625


def test_without_a_decay_every_layer_learns_at_the_full_rate_and_frozen_ones_not_at_all() -> None:
    model = Classifier(network())
    adapt(model.network, replace(AS_IT_IS, frozen_stages=2))
    groups = parameter_groups(model, lr=0.1, decay=1.0)
    assert {group["lr"] for group in groups} == {0.1}
    assert {p for group in groups for p in group["params"]} == {
        p for p in model.parameters() if p.requires_grad
    }


def test_a_decay_is_refused_for_a_network_without_layers_of_its_own() -> None:
    with pytest.raises(UserError, match=r"fit\.layer_decay=0\.5"):
        parameter_groups(Classifier(MLP(16, hidden=())), lr=0.1, decay=0.5)


def test_packed_attention_of_one_query_a_cell_is_its_first_of_all() -> None:
    torch.manual_seed(0)
    q, k, v = torch.randn(3, 1, 2, 12, 8, dtype=torch.float64)
    packed = Packed([4, 1, 7], torch.device("cpu"))
    every = packed(q, k, v, 0.0)
    first = packed(q[:, :, packed.starts], k, v, 0.0)
    torch.testing.assert_close(first, every[:, :, packed.starts])
    assert packed.starts.tolist() == [0, 4, 5]


def test_values_count_up_to_512_and_no_further() -> None:
    model, batch = network(dropout=0.0).eval(), cells([5, 3], torch.float32)

    def of(value: float) -> Tensor:
        found: Tensor = model(batch._replace(values=torch.full_like(batch.values, value)))
        return found

    assert torch.equal(of(512), of(1e6))
    assert not torch.allclose(of(511), of(512))
