"""The transformer: genes are tokens, and a nucleus is the set of them. Legend: see inputs/batch.py.

T is the number of tokens: CLS, the expressed genes, and one token for all unexpressed ones. With
token = value x embedding every unexpressed gene is the same zero vector, and stays the same in every
layer, since attention has no positions. One of them, with log(their number) added to its attention
scores, is equivalent to all of them. So the cost of a nucleus is that of its expressed genes, and the
result is that of the whole panel. (Dropout in training draws once for the merged token.)
"""

from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn

from oligo_ad.errors import UserError
from oligo_ad.inputs.batch import Batch
from oligo_ad.models.blocks import NEVER, Block, Norm, attend_with_mask, attend_without_mask


class Transformer(nn.Module):
    """Attention blocks on gene tokens; the vector of the CLS token stands for the nucleus.

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
        attention_dropout: of attention weights; above 0 a CPU does not use the flash kernel.

    Raises:
        UserError: `heads` does not divide `width`, or zeros cannot be merged.
    """

    can_compile = True

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
        self.size = width
        merge = values == "multiply" and merge_zeros is not False
        self.embedding = Embedding(n_ids, width, values, merge)
        options = (width, heads, feedforward, norm, dropout, attention_dropout)
        self.blocks = nn.ModuleList(Block(*options) for _ in range(layers))
        self.norm = nn.LayerNorm(width) if norm == "pre" else nn.Identity()
        self.embedding.draw_weights()

    @property
    def stages(self) -> list[nn.Module]:
        """The embeddings, then each block."""
        return [self.embedding, *self.blocks]

    def forward(self, batch: Batch) -> Tensor:
        token_BTD, bias_BT = self.embedding(batch)
        attend = partial(attend_with_mask if bias_BT.device.type == "cpu" else attend_without_mask, bias_BT)
        for block in self.blocks[:-1]:
            token_BTD = block(token_BTD, attend)
        # Of the last block only CLS is read, so only CLS is computed.
        cell_BD: Tensor = self.norm(self.blocks[-1](token_BTD, attend, slice(1))[:, 0])
        return cell_BD


class Embedding(nn.Module):
    """Batch → tokens [B, T, D], and a bias [B, T] that is added to the attention scores of each.

    Args:
        n_ids, width, values: see `Transformer`.
        merge_zeros: one token stands for all unexpressed genes.
    """

    def __init__(self, n_ids: int, width: int, values: Literal["multiply", "add"], merge_zeros: bool) -> None:
        super().__init__()
        self.n_ids, self.merge_zeros = n_ids, merge_zeros
        self.genes = nn.Embedding(n_ids, width)
        self.cls = nn.Parameter(torch.empty(width))
        self.value = nn.Linear(1, width) if values == "add" else None

    def draw_weights(self) -> None:
        """Random vectors of length about 1 for the genes and CLS."""
        for weight in (self.genes.weight, self.cls):
            nn.init.normal_(weight, std=weight.shape[-1] ** -0.5)

    def forward(self, batch: Batch) -> tuple[Tensor, Tensor]:
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
