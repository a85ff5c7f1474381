"""The transformer: a gene is a token, the cell is their set. Legend: see inputs/batch.py.

T is the number of tokens: CLS, the expressed genes, and one token for all unexpressed ones. With
token = value x embedding every unexpressed gene is the same zero vector, and stays the same in every
layer, since attention does not know positions. One of them, with log(their number) added to its
attention scores, is exactly all of them. So a cell costs what it expresses, and the result is that of
the whole panel. (Dropout in training draws once for the merged token.) H attention heads.
"""

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import relu, scaled_dot_product_attention

from oligo_ad.errors import UserError
from oligo_ad.inputs.batch import Batch

Norm = Literal["pre", "post"]


class Transformer(nn.Module):
    """Gene tokens through attention blocks; the vector of CLS is the cell.

    Args:
        n_ids: genes G of the panel.
        values: `multiply`: token = value x gene embedding; `add`: gene embedding + a projection of the
            value, over expressed genes only.
        width: D of every token.
        heads: attention heads; divides `width`.
        layers: number of blocks.
        feedforward: hidden width of a block's feed-forward part.
        norm: layer norm before (`pre`) or after (`post`) each part of a block.
        dropout: of residual branches and feed-forward.
        attention_dropout: of attention weights; above 0 it may leave the flash kernel.
    """

    def __init__(
        self,
        n_ids: int,
        values: Literal["multiply", "add"] = "multiply",
        width: int = 128,
        heads: int = 8,
        layers: int = 3,
        feedforward: int = 256,
        norm: Norm = "pre",
        dropout: float = 0.1,
        attention_dropout: float = 0.0,
    ) -> None:
        super().__init__()
        if width % heads:
            raise UserError(f"model.network.width={width} is not a multiple of heads={heads}.")
        self.size, self.n_ids, self.merges_zeros = width, n_ids, values == "multiply"
        self.genes = nn.Embedding(n_ids, width)
        self.cls = nn.Parameter(torch.empty(width))
        self.value = nn.Linear(1, width) if values == "add" else None
        options = (width, heads, feedforward, norm, dropout, attention_dropout)
        self.blocks = nn.ModuleList(Block(*options) for _ in range(layers))
        self.norm = nn.LayerNorm(width) if norm == "pre" else nn.Identity()
        for weight in (self.genes.weight, self.cls):
            nn.init.normal_(weight, std=width**-0.5)

    def forward(self, batch: Batch) -> Tensor:
        token_BTD, bias_BT = self.embed(batch)
        for block in self.blocks[:-1]:
            token_BTD = block(token_BTD, bias_BT)
        # Of the last block only CLS is read, so only CLS is computed.
        cell_BD: Tensor = self.norm(self.blocks[-1](token_BTD, bias_BT, n_queries=1)[:, 0])
        return cell_BD

    def embed(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Tokens [B, T, D], and what is added to the attention scores of each [B, T]."""
        gene_BLD = self.genes(batch.gene_ids)
        value_BL1 = batch.values.unsqueeze(-1)
        gene_BLD = gene_BLD * value_BL1 if self.value is None else gene_BLD + self.value(value_BL1)
        n_cells = len(batch.values)
        cls_B1D = self.cls.to(gene_BLD.dtype).expand(n_cells, 1, -1)
        bias_BL = torch.zeros_like(batch.values).masked_fill(~batch.mask, -torch.inf)
        cls_bias_B1 = bias_BL.new_zeros(n_cells, 1)
        if not self.merges_zeros:
            return torch.cat([cls_B1D, gene_BLD], 1), torch.cat([cls_bias_B1, bias_BL], 1)
        n_zero_B1 = (self.n_ids - batch.mask.sum(1, keepdim=True)).to(bias_BL.dtype)
        tokens = torch.cat([cls_B1D, gene_BLD, torch.zeros_like(cls_B1D)], 1)
        return tokens, torch.cat([cls_bias_B1, bias_BL, n_zero_B1.log()], 1)


class Block(nn.Module):
    """Self-attention and feed-forward on `scaled_dot_product_attention`.

    Parameters carry the names of `nn.TransformerEncoderLayer` and load its state dict; the function
    is the same (Vaswani 2017; `pre`: Xiong 2020).
    """

    def __init__(
        self,
        width: int,
        heads: int,
        feedforward: int,
        norm: Norm,
        dropout: float,
        attention_dropout: float,
    ) -> None:
        super().__init__()
        self.self_attn = Attention(width, heads, attention_dropout)
        self.linear1, self.linear2 = nn.Linear(width, feedforward), nn.Linear(feedforward, width)
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.dropout = nn.Dropout(dropout)
        self.pre = norm == "pre"

    def forward(self, token_BTD: Tensor, bias_BT: Tensor, n_queries: int | None = None) -> Tensor:
        """The first `n_queries` tokens (all by default) after the block [B, n_queries, D]."""
        x_BQD = token_BTD[:, :n_queries]
        if self.pre:
            x_BQD = x_BQD + self._attend(self.norm1(token_BTD), bias_BT, n_queries)
            return x_BQD + self._feed(self.norm2(x_BQD))
        x_BQD = self.norm1(x_BQD + self._attend(token_BTD, bias_BT, n_queries))
        normed_BQD: Tensor = self.norm2(x_BQD + self._feed(x_BQD))
        return normed_BQD

    def _attend(self, token_BTD: Tensor, bias_BT: Tensor, n_queries: int | None) -> Tensor:
        attended_BQD: Tensor = self.dropout(self.self_attn(token_BTD, bias_BT, n_queries))
        return attended_BQD

    def _feed(self, x_BQD: Tensor) -> Tensor:
        fed_BQD: Tensor = self.dropout(self.linear2(self.dropout(relu(self.linear1(x_BQD)))))
        return fed_BQD


class Attention(nn.Module):
    """Multi-head self-attention with a bias on keys; parameters named as in `nn.MultiheadAttention`."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.in_proj_weight = nn.Parameter(torch.empty(3 * width, width))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * width))
        self.out_proj = nn.Linear(width, width)
        nn.init.xavier_uniform_(self.in_proj_weight)
        nn.init.zeros_(self.out_proj.bias)
        self.heads, self.dropout = heads, dropout

    def forward(self, token_BTD: Tensor, bias_BT: Tensor, n_queries: int | None) -> Tensor:
        width = token_BTD.shape[-1]
        weights, biases = self.in_proj_weight.split(width), self.in_proj_bias.split(width)
        inputs = (token_BTD[:, :n_queries], token_BTD, token_BTD)
        q_BHQE, k_BHTE, v_BHTE = (
            nn.functional.linear(x, w, b).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for x, w, b in zip(inputs, weights, biases, strict=True)
        )
        # Every query meets the same keys: one row of biases, whatever the number of queries.
        mask = bias_BT[:, None, None, :].to(q_BHQE.dtype).expand(-1, -1, q_BHQE.shape[2], -1)
        dropout = self.dropout if self.training else 0.0
        out_BHQE = scaled_dot_product_attention(q_BHQE, k_BHTE, v_BHTE, mask, dropout)
        out_BQD: Tensor = self.out_proj(out_BHQE.transpose(1, 2).flatten(-2))
        return out_BQD
