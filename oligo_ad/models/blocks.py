"""Attention blocks on `scaled_dot_product_attention`. Legend: see inputs/batch.py.

T is the number of tokens, Q of queries; H attention heads of width E. The function
`attend`, of queries, keys, values and dropout, decides which keys a query sees; it is chosen once a forward
pass.
"""

from collections.abc import Callable
from itertools import accumulate
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import pad, relu, scaled_dot_product_attention

try:
    from torch.nn.attention.varlen import varlen_attn
except ImportError:  # of an older PyTorch
    varlen_attn = None  # type: ignore[assignment]

Norm = Literal["pre", "post"]
Attend = Callable[[Tensor, Tensor, Tensor, float], Tensor]
# Added to the score of a key that does not count: its weight underflows to 0, in every precision.
NEVER = -1e3
ALL = slice(None)


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

    def forward(self, token_BTD: Tensor, attend: Attend, query: slice | Tensor = ALL) -> Tensor:
        """The tokens at places `query` (all by default) after the block [B, Q, D]."""
        x_BQD = token_BTD[:, query]
        if self.pre:
            x_BQD = x_BQD + self._attend(self.norm1(token_BTD), attend, query)
            return x_BQD + self._feed(self.norm2(x_BQD))
        x_BQD = self.norm1(x_BQD + self._attend(token_BTD, attend, query))
        normed_BQD: Tensor = self.norm2(x_BQD + self._feed(x_BQD))
        return normed_BQD

    def _attend(self, token_BTD: Tensor, attend: Attend, query: slice | Tensor) -> Tensor:
        attended_BQD: Tensor = self.dropout(self.self_attn(token_BTD, attend, query))
        return attended_BQD

    def _feed(self, x_BQD: Tensor) -> Tensor:
        fed_BQD: Tensor = self.dropout(self.linear2(self.dropout(relu(self.linear1(x_BQD)))))
        return fed_BQD


class Attention(nn.Module):
    """Multi-head self-attention; parameters named as in `nn.MultiheadAttention`."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.in_proj_weight = nn.Parameter(torch.empty(3 * width, width))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * width))
        self.out_proj = nn.Linear(width, width)
        nn.init.xavier_uniform_(self.in_proj_weight)
        nn.init.zeros_(self.out_proj.bias)
        self.heads, self.dropout = heads, dropout

    def forward(self, token_BTD: Tensor, attend: Attend, query: slice | Tensor) -> Tensor:
        width = token_BTD.shape[-1]
        weights, biases = self.in_proj_weight.split(width), self.in_proj_bias.split(width)
        inputs = (token_BTD[:, query], token_BTD, token_BTD)
        q_BHQE, k_BHTE, v_BHTE = (
            nn.functional.linear(x, w, b).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for x, w, b in zip(inputs, weights, biases, strict=True)
        )
        dropout = self.dropout if self.training else 0.0
        out_BHQE = attend(q_BHQE, k_BHTE, v_BHTE, dropout)
        out_BQD: Tensor = self.out_proj(out_BHQE.transpose(1, 2).flatten(-2))
        return out_BQD


def attend_with_mask(
    bias_BT: Tensor, q_BHQE: Tensor, k_BHTE: Tensor, v_BHTE: Tensor, dropout: float
) -> Tensor:
    """Attention with a bias on keys, given as a mask: the flash kernel of CPUs takes one."""
    mask = bias_BT[:, None, None, :].to(q_BHQE.dtype).expand(-1, -1, q_BHQE.shape[2], -1)
    return scaled_dot_product_attention(q_BHQE, k_BHTE, v_BHTE, mask, dropout)


def attend_without_mask(
    bias_BT: Tensor, q_BHQE: Tensor, k_BHTE: Tensor, v_BHTE: Tensor, dropout: float
) -> Tensor:
    """The same for GPUs, whose flash kernel takes no mask: the bias travels in two more dimensions.

    Queries hold 1 there, keys the bias in two parts, since one bf16 number keeps only 3 digits of it.
    The kernel needs a multiple of 8 dimensions, and as many for values.
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


class Packed:
    """Attention within nuclei whose tokens stand one after the other, without padding and without a mask.

    A nucleus's queries see its own keys only. GPUs have a kernel for that (half precision, no dropout of
    attention); elsewhere there is one call per nucleus, which costs a CPU nothing at these lengths.

    Args:
        lengths: tokens of each nucleus.
        device: of the tokens.
    """

    def __init__(self, lengths: list[int], device: torch.device) -> None:
        self.lengths = lengths
        self._ends = torch.tensor([0, *accumulate(lengths)], dtype=torch.int32).to(device)
        self.starts = self._ends[:-1].long()

    def __call__(self, q_1HQE: Tensor, k_1HTE: Tensor, v_1HTE: Tensor, dropout: float) -> Tensor:
        """[1, H, Q, E], of all tokens as queries, or of one query per nucleus."""
        one_each = q_1HQE.shape[2] < k_1HTE.shape[2]
        if dropout == 0 and has_varlen_kernel(q_1HQE):
            ends = torch.arange(len(self._ends), dtype=torch.int32, device=q_1HQE.device)
            longest = max(self.lengths)
            q, k, v = (x[0].transpose(0, 1) for x in (q_1HQE, k_1HTE, v_1HTE))
            how = (ends, self._ends, 1, longest) if one_each else (self._ends, self._ends, longest, longest)
            out_QHE = varlen_attn(q, k, v, *how)
            assert isinstance(out_QHE, Tensor)
            return out_QHE.transpose(0, 1)[None]
        q_lengths = [1] * len(self.lengths) if one_each else self.lengths
        parts = (q_1HQE.split(q_lengths, 2), k_1HTE.split(self.lengths, 2), v_1HTE.split(self.lengths, 2))
        out = [scaled_dot_product_attention(q, k, v, None, dropout) for q, k, v in zip(*parts, strict=True)]
        return torch.cat(out, 2)


def has_varlen_kernel(q: Tensor) -> bool:
    """Whether `varlen_attn` takes such queries: flash attention needs Ampere or later, and 16 bits."""
    if varlen_attn is None or q.device.type != "cuda" or q.dtype not in (torch.bfloat16, torch.float16):
        return False
    return torch.cuda.get_device_capability(q.device) >= (8, 0)
