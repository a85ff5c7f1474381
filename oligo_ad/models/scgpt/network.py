"""scGPT's backbone, for the vector of a cell. Legend: see inputs/batch.py; N tokens of all cells together.

A token is LayerNorm(gene embedding) + Dropout(LayerNorm(two layers on the bin)); the blocks are post-norm
with ReLU, and attention knows no positions (Cui et al. 2024, and the package scgpt 0.2.4, with which
tests compare vectors and gradients). Parameters carry the package's names.

Only what classification needs is computed: no decoder of expression, of the last block the queries of
`<cls>` alone, and cells are packed one after the other, so that padding costs nothing.
"""

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.utils.checkpoint import checkpoint

from oligo_ad.errors import UserError
from oligo_ad.inputs.batch import Batch
from oligo_ad.models.blocks import Attention, Block, Packed
from oligo_ad.models.pretrained import Pretrained

LARGEST = 512.0  # values are clamped to it before they are embedded
Share = Annotated[float, Field(ge=0, lt=1)]


class ScGPT(nn.Module):
    """The vector of `<cls>`, the first token of each cell [B, D].

    `can_compile` is false: cells are split by lengths that only the data know.

    Args:
        n_ids: size of the vocabulary.
        pretrained: architecture and, where pretrained, weights.
        dropout: of residual branches and feed-forward; None: as in pretraining.
        attention_dropout: of attention weights. Pretraining had `dropout` here too; above 0 no flash
            kernel runs, on a CPU a step takes twice as long.
        frozen_layers: embeddings and so many blocks keep their weights; None: everything is trained.
        lora_rank: all weights are kept, and the attention's get a product of two thin trained matrices
            of this rank added (Hu 2021); None: no such.
        lora_alpha: the product is scaled by `lora_alpha / lora_rank`.
        gradient_checkpointing: blocks are computed again in the backward pass: a third slower, and the
            memory of one block instead of all.

    Raises:
        UserError: options that contradict each other or the checkpoint.
    """

    can_compile = False

    def __init__(
        self,
        n_ids: int,
        pretrained: Pretrained,
        dropout: Share | None = None,
        attention_dropout: Share = 0.0,
        frozen_layers: Annotated[int, Field(ge=0)] | None = None,
        lora_rank: Annotated[int, Field(ge=1)] | None = None,
        lora_alpha: Annotated[float, Field(gt=0)] = 16.0,
        gradient_checkpointing: bool = False,
    ) -> None:
        super().__init__()
        width, heads, layers, feedforward = (
            int(pretrained.settings[name]) for name in ("width", "heads", "layers", "feedforward")
        )
        dropout = pretrained.settings["dropout"] if dropout is None else dropout
        self.size, self.gradient_checkpointing = width, gradient_checkpointing
        self.encoder = GeneEncoder(n_ids, width)
        self.value_encoder = ValueEncoder(width, dropout)
        blocks = (Block(width, heads, feedforward, "post", dropout, attention_dropout) for _ in range(layers))
        self.transformer_encoder = nn.ModuleDict({"layers": nn.ModuleList(blocks)})
        if pretrained.weights is not None:
            self.load_state_dict(pretrained.weights)
        self._choose_trained(frozen_layers, lora_rank, lora_alpha)

    @property
    def stages(self) -> list[nn.Module]:
        """Embeddings, then each block: what learns at rates of its own with `fit.layer_decay`."""
        return [nn.ModuleList([self.encoder, self.value_encoder]), *self._blocks]

    def forward(self, batch: Batch) -> Tensor:
        # The lengths come to the host: for a GPU the one wait of a step.
        attend = Packed(batch.mask.sum(1).tolist(), batch.mask.device)
        gene_ND = self.encoder(batch.gene_ids[batch.mask])
        value_ND = self.value_encoder(batch.values[batch.mask])
        token_1ND = (gene_ND + value_ND)[None]
        for block in self._blocks[:-1]:
            if self.gradient_checkpointing and self.training:
                token_1ND = checkpoint(block, token_1ND, attend, use_reentrant=False)
            else:
                token_1ND = block(token_1ND, attend)
        cell_BD: Tensor = self._blocks[-1](token_1ND, attend, attend.starts)[0]
        return cell_BD

    @property
    def _blocks(self) -> nn.ModuleList:
        blocks = self.transformer_encoder["layers"]
        assert isinstance(blocks, nn.ModuleList)
        return blocks

    def _choose_trained(self, frozen_layers: int | None, lora_rank: int | None, lora_alpha: float) -> None:
        if frozen_layers is not None and lora_rank is not None:
            raise UserError(
                "model.network.lora_rank keeps all pretrained weights, so model.network.frozen_layers has no "
                "use: leave one of them out."
            )
        if frozen_layers is not None and frozen_layers > len(self._blocks):
            raise UserError(
                f"model.network.frozen_layers={frozen_layers}, and the model has {len(self._blocks)} layers."
            )
        if frozen_layers is not None:
            for stage in self.stages[: frozen_layers + 1]:
                stage.requires_grad_(False)
        if lora_rank is not None:
            self.requires_grad_(False)
            for attention in (module for module in self.modules() if isinstance(module, Attention)):
                add_low_rank(attention, "in_proj_weight", lora_rank, lora_alpha)
                add_low_rank(attention.out_proj, "weight", lora_rank, lora_alpha)


class GeneEncoder(nn.Module):
    """Gene ids [N] → LayerNorm of their embeddings [N, D]."""

    def __init__(self, n_ids: int, width: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(n_ids, width)
        self.enc_norm = nn.LayerNorm(width)
        nn.init.uniform_(self.embedding.weight, -0.1, 0.1)

    def forward(self, ids_N: Tensor) -> Tensor:
        gene_ND: Tensor = self.enc_norm(self.embedding(ids_N))
        return gene_ND


class ValueEncoder(nn.Module):
    """Bins [N], taken as numbers → vectors [N, D]."""

    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        self.linear1, self.linear2 = nn.Linear(1, width), nn.Linear(width, width)
        self.norm, self.dropout = nn.LayerNorm(width), nn.Dropout(dropout)

    def forward(self, values_N: Tensor) -> Tensor:
        hidden_ND = self.linear1(values_N.clamp(max=LARGEST).unsqueeze(-1)).relu()
        value_ND: Tensor = self.dropout(self.norm(self.linear2(hidden_ND)))
        return value_ND


class LowRank(nn.Module):
    """A weight [out, in] → the weight + scale x up [out, rank] x down [rank, in]; at first up is 0."""

    def __init__(self, weight: Tensor, rank: int, scale: float) -> None:
        super().__init__()
        self.up = nn.Parameter(weight.new_zeros(weight.shape[0], rank))
        self.down = nn.Parameter(torch.randn_like(weight[:rank]) * weight.shape[1] ** -0.5)
        self.scale = scale

    def forward(self, weight: Tensor) -> Tensor:
        return weight + self.scale * (self.up @ self.down)


def add_low_rank(module: nn.Module, name: str, rank: int, alpha: float) -> None:
    """Let a weight of a module be itself plus a trained product of low rank."""
    weight = getattr(module, name)
    if rank > min(weight.shape):
        raise UserError(f"model.network.lora_rank={rank} is more than the width {min(weight.shape)}.")
    parametrize.register_parametrization(module, name, LowRank(weight, rank, alpha / rank))
