"""scGPT's backbone: the vector of a nucleus. Legend: see inputs/batch.py; N tokens of all nuclei together.

A token is LayerNorm(gene embedding) + Dropout(LayerNorm(two layers on the bin)); the blocks are post-norm
with ReLU, and attention has no positions (Cui et al. 2024, and the package scgpt 0.2.4, with which
tests compare vectors and gradients). Parameters carry the package's names.

Only what classification needs is computed: no decoder of expression, and in the last block the query of
`<cls>` alone. Nuclei are packed one after the other, so that padding costs nothing.
"""

from typing import Annotated

from pydantic import Field
from torch import Tensor, nn

from oligo_ad.inputs.batch import Batch
from oligo_ad.models.blocks import Block, Packed
from oligo_ad.models.pretrained import Pretrained

LARGEST = 512.0  # values are clamped to it before they are embedded
Rate = Annotated[float, Field(ge=0, lt=1)]


class ScGPT(nn.Module):
    """The vector of `<cls>`, the first token of each nucleus [B, D].

    `can_compile` is false: a batch is split by lengths that depend on the data.

    Args:
        n_ids: size of the vocabulary.
        pretrained: architecture and, where pretrained, weights.
        dropout: of residual branches and feed-forward; None: as in pretraining.
        attention_dropout: of attention weights. Pretraining had `dropout` here too; above 0 no flash
            kernel runs, on a CPU a step takes twice as long.
    """

    can_compile = False

    def __init__(
        self,
        n_ids: int,
        pretrained: Pretrained,
        dropout: Rate | None = None,
        attention_dropout: Rate = 0.0,
    ) -> None:
        super().__init__()
        width, heads, layers, feedforward = (
            int(pretrained.settings[name]) for name in ("width", "heads", "layers", "feedforward")
        )
        dropout = pretrained.settings["dropout"] if dropout is None else dropout
        self.size = width
        self.encoder = GeneEncoder(n_ids, width)
        self.value_encoder = ValueEncoder(width, dropout)
        blocks = [Block(width, heads, feedforward, "post", dropout, attention_dropout) for _ in range(layers)]
        self.transformer_encoder = nn.ModuleDict({"layers": nn.ModuleList(blocks)})
        # In a list, which registers nothing: parameters keep the package's names.
        self.stages = [TokenEncoder(self.encoder, self.value_encoder), *blocks]
        if pretrained.weights is not None:
            self.load_state_dict(pretrained.weights)

    def forward(self, batch: Batch) -> Tensor:
        # The lengths are copied to the host, the only wait for a GPU in a step.
        attend = Packed(batch.mask.sum(1).tolist(), batch.mask.device)
        embed, *blocks, last = self.stages
        token_1ND = embed(batch.gene_ids[batch.mask], batch.values[batch.mask])
        for block in blocks:
            token_1ND = block(token_1ND, attend)
        cell_BD: Tensor = last(token_1ND, attend, attend.starts)[0]
        return cell_BD


class TokenEncoder(nn.Module):
    """Gene ids and bins [N] → tokens [1, N, D], the sum of what the two encoders make of them."""

    def __init__(self, gene_encoder: "GeneEncoder", value_encoder: "ValueEncoder") -> None:
        super().__init__()
        self.gene_encoder, self.value_encoder = gene_encoder, value_encoder

    def forward(self, ids_N: Tensor, values_N: Tensor) -> Tensor:
        token_1ND: Tensor = (self.gene_encoder(ids_N) + self.value_encoder(values_N))[None]
        return token_1ND


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
