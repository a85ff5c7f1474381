"""Batches, the one contract between data and networks: a nucleus is a set of (gene id, value) pairs.

Legend of tensor names, here and wherever batches are used: B nuclei of a batch, S samples of it (what is
predicted: a nucleus or a donor), L places in the longest nucleus, G genes of a panel, M metadata columns,
D width of a vector.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from oligo_ad.inputs.kernels import write_rows


class Batch(NamedTuple):
    """The nuclei of one step, and the samples that they belong to.

    A NamedTuple, which Accelerate moves and gathers; a dataclass it would not.

    `gene_ids` [B, L] int64; `values` [B, L] float32; `mask` [B, L] bool, False where padded; `sample` [B]
    int64, the place of each nucleus's sample among the S of the batch; `metadata` [S, M] float32 (M may be
    0); `label` [S] float32; `index` [S] int64, which sample of the loader it is.
    """

    gene_ids: Tensor
    values: Tensor
    mask: Tensor
    sample: Tensor
    metadata: Tensor
    label: Tensor
    index: Tensor  # type: ignore[assignment]  # hides tuple.index, which nobody calls

    @classmethod
    def of_nuclei(cls, inputs: "Inputs") -> "Batch":
        """Nuclei by themselves, for a network: each a sample, without metadata and label."""
        own_B = torch.arange(len(inputs.values), device=inputs.values.device)
        nothing_B = inputs.values.new_zeros(len(own_B))
        return cls(*inputs, own_B, nothing_B.new_zeros(len(own_B), 0), nothing_B, own_B)


class Inputs(NamedTuple):
    """The input of a network: `gene_ids` [B, L] int64, `values` [B, L] float32, and `mask` [B, L] bool, False
    where padded."""

    gene_ids: Tensor
    values: Tensor
    mask: Tensor


class Tokens(NamedTuple):
    """All nuclei of a cohort as a featurizer reads them, ragged.

    Nucleus i has places `offsets[i]` to `offsets[i + 1]` of `gene_ids`, int16 where they fit, else int32,
    and of `values`, float32, or uint8 where they are bins. `keys` [nuclei] int64: a nucleus's random
    draws follow from its key; empty where a featurizer draws nothing.
    """

    offsets: Tensor
    gene_ids: Tensor
    values: Tensor
    keys: Tensor = torch.empty(0, dtype=torch.int64)

    @classmethod
    def of_dense(cls, values_NV: Tensor) -> "Tokens":
        """Nuclei that all have the same values; see `whole`."""
        n_nuclei, width = values_NV.shape
        ids = torch.arange(width, dtype=torch.int16).repeat(n_nuclei)
        return cls(torch.arange(n_nuclei + 1) * width, ids, values_NV.flatten())

    def whole(self, rows_B: Tensor, width: int) -> Inputs:
        """Some nuclei of which each has `width` values, ids from 0."""
        values_BV = self.values.view(-1, width)[rows_B]
        ids_BV = torch.arange(width, device=rows_B.device).expand_as(values_BV)
        return Inputs(ids_BV, values_BV, torch.ones_like(values_BV, dtype=torch.bool))

    def to(self, device: torch.device) -> "Tokens":
        return Tokens(*(part.to(device) for part in self))

    def of(self, rows: Tensor) -> "Tokens":
        """Some nuclei, as if there were no others."""
        starts, lengths = self.offsets[rows], self.offsets.diff()[rows]
        offsets = torch.cat([lengths.new_zeros(1), lengths.cumsum(0)])
        places = torch.arange(int(offsets[-1])) + (starts - offsets[:-1]).repeat_interleave(lengths)
        keys = self.keys[rows] if len(self.keys) else self.keys
        return Tokens(offsets, self.gene_ids[places], self.values[places], keys)

    def gather(self, rows_B: Tensor, longest: int) -> Inputs:
        """Some nuclei, in `longest` places each; padding is id 0 and value 0."""
        start_B = self.offsets[rows_B]
        length_B = self.offsets[rows_B + 1] - start_B
        place_L = torch.arange(longest, device=rows_B.device)
        mask_BL = place_L < length_B[:, None]
        flat_BL = torch.where(mask_BL, start_B[:, None] + place_L, 0)
        ids_BL = self.gene_ids[flat_BL].long().masked_fill(~mask_BL, 0)
        return Inputs(ids_BL, self.values[flat_BL].float().masked_fill(~mask_BL, 0.0), mask_BL)

    def dense(self, rows_B: Tensor, longest: int, background_G: Tensor) -> Tensor:
        """Values [B, G] of some nuclei, with `background_G` wherever a nucleus has no entry."""
        if rows_B.device.type == "cpu":
            # On a CPU the tensor operations below take ten times as long as one compiled loop.
            dense_BG = background_G.new_empty(len(rows_B), len(background_G))
            stored = (self.offsets, self.gene_ids, self.values)
            write_rows(*(part.numpy() for part in (rows_B, *stored, background_G, dense_BG)))
            return dense_BG
        return self._scattered(rows_B, longest, background_G)

    def _scattered(self, rows_B: Tensor, longest: int, background_G: Tensor) -> Tensor:
        """`dense` on any device."""
        ids_BL, values_BL, mask_BL = self.gather(rows_B, longest)
        # Padding is written to a last column that is dropped again.
        wider_BG = torch.nn.functional.pad(background_G, (0, 1)).repeat(len(rows_B), 1)
        return wider_BG.scatter(1, ids_BL.masked_fill(~mask_BL, len(background_G)), values_BL)[:, :-1]
