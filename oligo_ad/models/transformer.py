"""The transformer: a gene is a token, the cell is their set. Legend: see inputs/batch.py.

T is the number of tokens: CLS, the expressed genes, and one token for all unexpressed ones. With
token = value x embedding every unexpressed gene is the same zero vector, and stays the same in every
layer, since attention does not know positions. One of them, with log(their number) added to its
attention scores, is exactly all of them. So a cell costs what it expresses, and the result is that of
the whole panel. (Dropout in training draws once for the merged token.) H attention heads of width E,
Q queries.
"""

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import pad, relu, scaled_dot_product_attention

from oligo_ad.errors import UserError
from oligo_ad.inputs.batch import Batch

Norm = Literal["pre", "post"]
# Added to the score of a key that does not count: its weight underflows to 0, in every precision.
NEVER = -1e3


class Transformer(nn.Module):
    """Gene tokens through attention blocks; the vector of CLS is the cell.

    Args:
        n_ids: genes G of the panel.
        values: `multiply`: token = value x gene embedding; `add`: gene embedding + a projection of the
            value, over expressed genes only.
        merge_zeros: one token for all unexpressed genes. By default wherever it is exact, that is with
            `multiply`; false makes each a token, at the cost of the whole panel.
        width: D of every token.
        heads: attention heads; divides `width`.
        layers: number of blocks.
        feedforward: hidden width of a block's feed-forward part.
        norm: layer norm before (`pre`) or after (`post`) each part of a block.
        dropout: of residual branches and feed-forward.
        attention_dropout: of attention weights; above 0 a CPU leaves the flash kernel.

    Raises:
        UserError: `heads` does not divide `width`, or zeros cannot be merged.
    """

    def __init__(
        self,
        n_ids: int,
        values: Literal["multiply", "add"] = "multiply",
        merge_zeros: bool | None = None,
        width: int = 128,
        heads: int = 4,
        layers: int = 2,
        feedforward: int = 256,
        norm: Norm = "pre",
        dropout: float = 0.1,
        attention_dropout: float = 0.0,
    ) -> None:
        super().__init__()
        if width % heads:
            raise UserError(f"model.network.width={width} is not a multiple of heads={heads}.")
        if merge_zeros and values != "multiply":
            raise UserError(
                "model.network.merge_zeros=true needs model.network.values=multiply: with an embedding "
                "added, unexpressed genes differ from each other. Leave merge_zeros out."
            )
        self.size, self.n_ids = width, n_ids
        self.merge_zeros = values == "multiply" and merge_zeros is not False
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
        ids_BL, values_BL, mask_BL = batch.gene_ids, batch.values, batch.mask
        if self.value is None and not self.merge_zeros:
            ids_BL, values_BL, mask_BL = self._whole_panel(batch)
        gene_BLD = self.genes(ids_BL)
        value_BL1 = values_BL.unsqueeze(-1)
        gene_BLD = gene_BLD * value_BL1 if self.value is None else gene_BLD + self.value(value_BL1)
        cls_B1D = self.cls.to(gene_BLD.dtype).expand(len(values_BL), 1, -1)
        bias_BL = torch.zeros_like(values_BL).masked_fill(~mask_BL, NEVER)
        tokens, biases = [cls_B1D, gene_BLD], [torch.zeros_like(bias_BL[:, :1]), bias_BL]
        if self.merge_zeros:
            n_zero_B1 = (self.n_ids - mask_BL.sum(1, keepdim=True)).to(bias_BL.dtype)
            tokens.append(torch.zeros_like(cls_B1D))
            biases.append(n_zero_B1.log().clamp(min=NEVER))
        return torch.cat(tokens, 1), torch.cat(biases, 1)

    def _whole_panel(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """Ids, values and mask [B, G] with the unexpressed genes among them."""
        # Padding has value 0, so that adding it to gene 0 changes nothing.
        values_BG = batch.values.new_zeros(len(batch.values), self.n_ids)
        values_BG = values_BG.scatter_add(1, batch.gene_ids, batch.values)
        ids_BG = torch.arange(self.n_ids, device=values_BG.device).expand_as(values_BG)
        return ids_BG, values_BG, torch.ones_like(values_BG, dtype=torch.bool)


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
        dropout = self.dropout if self.training else 0.0
        attend = attend_with_mask if q_BHQE.device.type == "cpu" else attend_without_mask
        out_BHQE = attend(q_BHQE, k_BHTE, v_BHTE, bias_BT, dropout)
        out_BQD: Tensor = self.out_proj(out_BHQE.transpose(1, 2).flatten(-2))
        return out_BQD


def attend_with_mask(
    q_BHQE: Tensor, k_BHTE: Tensor, v_BHTE: Tensor, bias_BT: Tensor, dropout: float
) -> Tensor:
    """Attention with a bias on keys, given as a mask: the flash kernel of CPUs takes one."""
    mask = bias_BT[:, None, None, :].to(q_BHQE.dtype).expand(-1, -1, q_BHQE.shape[2], -1)
    return scaled_dot_product_attention(q_BHQE, k_BHTE, v_BHTE, mask, dropout)


def attend_without_mask(
    q_BHQE: Tensor, k_BHTE: Tensor, v_BHTE: Tensor, bias_BT: Tensor, dropout: float
) -> Tensor:
    """The same for GPUs, whose flash kernel takes no mask: the bias travels in two more dimensions.

    Queries hold 1 there, keys the bias in two parts, since one bf16 number keeps 3 digits of it only.
    The kernel wants multiples of 8 dimensions, as many for values.
    """
    width = q_BHQE.shape[-1]
    wider = -(-(width + 2) // 8) * 8
    scaled_BT = bias_BT * width**0.5
    high_BT = scaled_BT.to(k_BHTE.dtype)
    low_BT = (scaled_BT - high_BT).to(k_BHTE.dtype)
    bias_B1T2 = torch.stack([high_BT, low_BT], -1)[:, None].expand(-1, k_BHTE.shape[1], -1, -1)
    one_BHQ2 = q_BHQE.new_ones(()).expand(*q_BHQE.shape[:3], 2)
    q, k = torch.cat([q_BHQE, one_BHQ2], -1), torch.cat([k_BHTE, bias_B1T2], -1)
    q, k, v = (pad(x, (0, wider - x.shape[-1])) for x in (q, k, v_BHTE))
    return scaled_dot_product_attention(q, k, v, None, dropout, scale=width**-0.5)[..., :width]
