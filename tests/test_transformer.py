"""The transformer's block is PyTorch's, and its merged token is exactly the unexpressed genes."""

import pytest
import torch
from torch import Tensor, nn

from oligo_ad.errors import UserError
from oligo_ad.inputs.batch import Batch
from oligo_ad.models.transformer import Block, Norm, Transformer

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
        ours = block(ours, bias)
    theirs = reference(tokens, src_key_padding_mask=padded)
    torch.testing.assert_close(ours[~padded], theirs[~padded], rtol=0, atol=1e-10)


def cells(dense_BG: Tensor) -> Batch:
    """A batch of expressed genes from a dense matrix, padded at the end."""
    order = (dense_BG != 0).long().argsort(dim=1, descending=True, stable=True)
    longest = max(1, int((dense_BG != 0).sum(1).max()))
    ids = order[:, :longest]
    values = dense_BG.gather(1, ids)
    empty = torch.zeros(len(dense_BG))
    return Batch(ids, values, values != 0, torch.zeros(len(dense_BG), 0), empty, empty.long())


def by_definition(network: Transformer, dense_BG: Tensor) -> Tensor:
    """CLS after every gene of the panel was a token, unexpressed ones too, and every query computed."""
    token = dense_BG[..., None] * network.genes.weight
    token = torch.cat([network.cls.expand(len(dense_BG), 1, -1), token], 1)
    bias = torch.zeros(token.shape[:2], dtype=token.dtype)
    for block in network.blocks:
        token = block(token, bias)
    return network.norm(token)[:, 0]


@pytest.mark.parametrize("norm", ["pre", "post"])
@pytest.mark.parametrize("density", [0.0, 0.1, 0.5, 1.0])
def test_merging_unexpressed_genes_changes_neither_output_nor_gradient(norm: Norm, density: float) -> None:
    torch.manual_seed(0)
    network = Transformer(40, "multiply", WIDTH, HEADS, 3, FEEDFORWARD, norm, 0.0, 0.0).double()
    dense = torch.rand(6, 40, dtype=torch.float64) * (torch.rand(6, 40) < density)
    answers, gradients = [], []
    for compute in (lambda: network(cells(dense)), lambda: by_definition(network, dense)):
        network.zero_grad()
        answers.append(compute())
        (answers[-1] ** 2).sum().backward()
        gradients.append([p.grad.clone() for p in network.parameters() if p.grad is not None])
    torch.testing.assert_close(*answers, rtol=0, atol=1e-9)
    torch.testing.assert_close(*gradients, rtol=0, atol=1e-9)


def test_with_added_values_padding_changes_nothing() -> None:
    torch.manual_seed(0)
    network = Transformer(40, "add", WIDTH, HEADS, 2, FEEDFORWARD, "pre", 0.0, 0.0).double()
    dense = torch.rand(6, 40, dtype=torch.float64) * (torch.rand(6, 40) < 0.3)
    alone = torch.cat([network(cells(row[None])) for row in dense])
    torch.testing.assert_close(network(cells(dense)), alone, rtol=0, atol=1e-10)


def test_a_width_that_heads_do_not_divide_is_refused() -> None:
    with pytest.raises(UserError, match="width=30 is not a multiple of heads=4"):
        Transformer(10, width=30, heads=4)
