"""The transformer's block is PyTorch's, and its merged token is exactly the unexpressed genes."""

from collections.abc import Callable
from functools import partial
from typing import Any, Literal

import pytest
import torch
from torch import Tensor, nn
from torch._dynamo.testing import CompileCounter

from oligo_ad.errors import UserError
from oligo_ad.inputs.batch import Batch, Inputs
from oligo_ad.models import blocks, transformer
from oligo_ad.models.blocks import NEVER, Block, Norm, attend_with_mask, attend_without_mask
from oligo_ad.models.transformer import Transformer
from oligo_ad.training.attention import attention_kernels

WIDTH, HEADS, FEEDFORWARD = 32, 4, 48


@pytest.mark.parametrize("norm", ["pre", "post"])
def test_a_stack_of_blocks_with_the_weights_of_pytorchs_encoder_computes_the_same(norm: Norm) -> None:
    layer = nn.TransformerEncoderLayer(
        WIDTH, HEADS, FEEDFORWARD, 0.0, batch_first=True, norm_first=norm == "pre", dtype=torch.float64
    )
    reference = nn.TransformerEncoder(layer, 3, enable_nested_tensor=False).train()
    for parameter in reference.parameters():
        nn.init.normal_(parameter, std=0.3)
    blocks = nn.ModuleList(Block(WIDTH, HEADS, FEEDFORWARD, norm, 0.0, 0.0) for _ in range(3)).double()
    blocks.load_state_dict(reference.layers.state_dict())
    tokens = torch.randn(5, 11, WIDTH, dtype=torch.float64)
    padded = torch.arange(11) >= torch.tensor([11, 7, 3, 9, 1])[:, None]
    bias = torch.zeros(5, 11, dtype=torch.float64).masked_fill(padded, -torch.inf)
    ours = tokens
    for block in blocks:
        ours = block(ours, partial(attend_with_mask, bias))
    theirs = reference(tokens, src_key_padding_mask=padded)
    torch.testing.assert_close(ours[~padded], theirs[~padded], rtol=0, atol=1e-10)


@pytest.mark.parametrize("norm", ["pre", "post"])
def test_a_block_drops_in_training_what_pytorchs_layer_drops(norm: Norm) -> None:
    reference = nn.TransformerEncoderLayer(
        WIDTH, HEADS, FEEDFORWARD, 0.4, batch_first=True, norm_first=norm == "pre"
    )
    reference.self_attn.dropout = 0.0  # which has a rate of its own here
    block = Block(WIDTH, HEADS, FEEDFORWARD, norm, 0.4, 0.0)
    block.load_state_dict(reference.state_dict())
    tokens, bias = torch.randn(1, 11, WIDTH), torch.zeros(1, 11)
    torch.manual_seed(1)
    theirs = reference.train()(tokens)
    torch.manual_seed(1)
    ours = block.train()(tokens, partial(attend_with_mask, bias))
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)


@pytest.mark.parametrize("rate", ["dropout", "attention_dropout"])
def test_nothing_is_dropped_after_training(rate: str) -> None:
    network, batch = small(**{rate: 0.5}), cells(random_cells(0.3, torch.float32))
    assert not torch.equal(network(batch), network(batch))
    torch.testing.assert_close(network.eval()(batch), small()(batch))


@pytest.mark.parametrize("norm", ["pre", "post"])
def test_vectors_are_normed_at_the_end(norm: Norm) -> None:
    found = small(norm=norm)(cells(random_cells(0.3, torch.float32)))
    torch.testing.assert_close(found.mean(1), torch.zeros(len(found)), rtol=0, atol=1e-5)
    torch.testing.assert_close(found.var(1, unbiased=False), torch.ones(len(found)), rtol=0, atol=1e-2)


def cells(dense_BG: Tensor) -> Batch:
    """A batch of expressed genes from a dense matrix, padded at the end."""
    order = (dense_BG != 0).long().argsort(dim=1, descending=True, stable=True)
    longest = max(1, int((dense_BG != 0).sum(1).max()))
    ids = order[:, :longest]
    values = dense_BG.gather(1, ids)
    return Batch.of_nuclei(Inputs(ids, values, values != 0))


def by_definition(network: Transformer, dense_BG: Tensor) -> Tensor:
    """CLS after every gene of the panel was a token, unexpressed ones too, and every query computed."""
    token = dense_BG[..., None] * network.embedding.genes.weight
    token = torch.cat([network.embedding.cls.expand(len(dense_BG), 1, -1), token], 1)
    bias = torch.zeros(token.shape[:2], dtype=token.dtype)
    for block in network.blocks:
        token = block(token, partial(attend_with_mask, bias))
    return network.norm(token)[:, 0]


def small(values: Literal["multiply", "add"] = "multiply", **options: Any) -> Transformer:
    torch.manual_seed(0)
    shape = {"width": WIDTH, "heads": HEADS, "layers": 3, "feedforward": FEEDFORWARD, "dropout": 0.0}
    return Transformer(40, values, **(shape | options))


def random_cells(density: float, dtype: torch.dtype = torch.float64) -> Tensor:
    """Six cells by 40 genes; beside them a cell without zeros and one of zeros alone."""
    some = torch.rand(6, 40, dtype=dtype) * (torch.rand(6, 40) < density)
    return torch.cat([some, torch.rand(1, 40, dtype=dtype) + 0.1, torch.zeros(1, 40, dtype=dtype)])


def answer_and_gradients(network: nn.Module, compute: Callable[[], Tensor]) -> tuple[Tensor, list[Tensor]]:
    network.zero_grad()
    answer = compute()
    (answer**2).mean().backward()
    return answer, [p.grad.clone() for p in network.parameters() if p.grad is not None]


TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-5}


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("norm", ["pre", "post"])
@pytest.mark.parametrize("density", [0.0, 0.1, 0.5, 1.0])
@pytest.mark.parametrize("attend", ["attend_with_mask", "attend_without_mask"])
def test_merging_unexpressed_genes_changes_neither_output_nor_gradient(
    monkeypatch: pytest.MonkeyPatch, norm: Norm, density: float, dtype: torch.dtype, attend: str
) -> None:
    network = small(norm=norm).to(dtype)
    dense = random_cells(density, dtype)
    wanted = answer_and_gradients(network, lambda: by_definition(network, dense))
    monkeypatch.setattr(transformer, "attend_with_mask", getattr(transformer, attend))
    found = answer_and_gradients(network, lambda: network(cells(dense)))
    torch.testing.assert_close(found, wanted, rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype])


@pytest.mark.parametrize("density", [0.0, 0.3, 1.0])
def test_without_merging_every_gene_of_the_panel_is_a_token(density: float) -> None:
    network = small(merge_zeros=False).double()
    dense = random_cells(density)
    assert network.embedding(cells(dense))[0].shape[1] == 1 + 40
    wanted = answer_and_gradients(network, lambda: by_definition(network, dense))
    found = answer_and_gradients(network, lambda: network(cells(dense)))
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-9)


def test_dropping_unexpressed_genes_instead_would_change_the_output() -> None:
    network, dense = small().double(), random_cells(0.3)[:6]
    with_zeros = network(cells(dense))
    network.embedding.merge_zeros = False
    network.embedding._whole_panel = lambda batch: (batch.gene_ids, batch.values, batch.mask)  # type: ignore
    assert (network(cells(dense)) - with_zeros).abs().max() > 0.01


@pytest.mark.parametrize("width", [8, 12, 16, 32])
def test_a_bias_in_further_dimensions_is_a_bias_of_scores(width: int) -> None:
    torch.manual_seed(1)
    query, key, value = (torch.randn(2, 3, n, width) for n in (5, 9, 9))
    bias = torch.tensor([[0.0, 7.4, -0.3, 0, 0, 0, 0, NEVER, NEVER], [0.0] * 9])
    wanted = attend_with_mask(bias, query, key, value, 0.0)
    torch.testing.assert_close(attend_without_mask(bias, query, key, value, 0.0), wanted)


def test_in_half_precision_the_bias_keeps_more_digits_than_one_number_has() -> None:
    torch.manual_seed(1)
    query, key, value = (0.1 * torch.randn(2, 3, 9, 16) for _ in range(3))
    bias = torch.tensor([[0.0] * 8 + [7.37], [0.0] * 8 + [5.91]])
    exact = attend_with_mask(bias, query, key, value, 0.0)
    half = attend_without_mask(bias, query.bfloat16(), key.bfloat16(), value.bfloat16(), 0.0).float()
    rounded = attend_with_mask(bias.bfloat16().float(), query, key, value, 0.0)
    assert (half - exact).abs().max() < 0.5 * (rounded - exact).abs().max() + 1e-3


def test_attention_gets_no_mask_off_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    given = []

    def watch(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, *_: Any, **__: Any) -> Tensor:
        given.append(mask)
        return q

    monkeypatch.setattr(blocks, "scaled_dot_product_attention", watch)
    small().to("meta")(Batch(*(part.to("meta") for part in cells(random_cells(0.3, torch.float32)))))
    assert given == [None] * 3


@pytest.mark.parametrize("values", ["multiply", "add"])
def test_the_network_compiles_into_one_graph_for_all_lengths(values: Literal["multiply", "add"]) -> None:
    network = small(values).double()
    batches = [cells(random_cells(density)[:6]) for density in (0.2, 0.5, 0.9)]
    wanted = [network(batch) for batch in batches]
    torch._dynamo.reset()
    graphs = CompileCounter()
    network.compile(backend=graphs, fullgraph=True, dynamic=True)
    torch.testing.assert_close([network(batch) for batch in batches], wanted)
    assert graphs.frame_count == 1


@pytest.mark.parametrize(("dropout", "kernels"), [(0.0, ["flash_attention_for_cpu"]), (0.1, ["math"])])
def test_the_kernel_that_ran_is_named_even_if_it_is_none(dropout: float, kernels: list[str]) -> None:
    batch = cells(random_cells(0.3, torch.float32))
    assert attention_kernels(small(attention_dropout=dropout), batch) == kernels
    assert attention_kernels(nn.Linear(40, 2), batch.values) == []  # type: ignore[arg-type]


def test_with_added_values_padding_changes_nothing() -> None:
    network = small("add", layers=2).double()
    dense = random_cells(0.3)[:6]
    alone = torch.cat([network(cells(row[None])) for row in dense])
    torch.testing.assert_close(network(cells(dense)), alone, rtol=0, atol=1e-10)


def test_a_width_that_heads_do_not_divide_is_refused() -> None:
    with pytest.raises(UserError, match="width=30 is not a multiple of heads=4"):
        Transformer(10, width=30, heads=4)


def test_zeros_that_are_not_alike_are_not_merged() -> None:
    with pytest.raises(UserError, match=r"merge_zeros=true needs model\.network\.values=multiply"):
        small("add", merge_zeros=True)
    assert not small("add").embedding.merge_zeros
    assert small().embedding.merge_zeros
