"""What scGPT reads of a nucleus: the tokens of its expressed genes with their bins, `<cls>` in front."""

from typing import Annotated, Literal, Self

import numpy as np
import pandas as pd
import torch
from pydantic import Field
from torch import Tensor

from oligo_ad.config import Seed
from oligo_ad.data.cohort import Cohort
from oligo_ad.errors import UserError, listing
from oligo_ad.inputs.batch import Tokens
from oligo_ad.inputs.draws import cell_keys, draw, stream
from oligo_ad.inputs.encoders import Size, State
from oligo_ad.inputs.panel import Flavor, choose_genes
from oligo_ad.models.foundation import Foundation
from oligo_ad.models.scgpt.bins import bin_values
from oligo_ad.models.scgpt.genes import (
    CLS,
    DUPLICATE,
    PAD,
    ROUTES,
    UNKNOWN,
    UNMATCHED,
    likely_cause,
    match_genes,
)

LAST = torch.iinfo(torch.int64).max
BINNING, SUBSET = 0, 1  # purposes of random draws; subsets of epoch e have purpose SUBSET + e


class BinnedGenes:
    """Expressed genes of the vocabulary, each with the bin of its value within the nucleus.

    Binning needs no fit: it looks at one nucleus at a time, and is the same in every epoch. Of a nucleus
    with more genes than fit, a uniform random subset is read: a new one each epoch in training, one and
    the same in evaluation.

    Args:
        foundation: vocabulary, number of bins, value of padding.
        genes: `vocabulary` every gene that has a token; `hvg` or `provided` those of a panel, see
            `panel.choose_genes`.
        n_genes: size of the panel (hvg).
        flavor: method of `hvg`.
        max_len: most tokens of a cell, `<cls>` among them.
        cls_value: value at `<cls>`: 0 in the package's fine-tuning, -2 in pretraining.
        min_matched: smallest share of genes with a token.
        seed: of the draws of bins and subsets.
    """

    padded = True

    def __init__(
        self,
        foundation: Foundation,
        genes: Literal["vocabulary", "hvg", "provided"] = "vocabulary",
        n_genes: Size = 2000,
        flavor: Flavor = "seurat",
        max_len: Annotated[int, Field(ge=2)] = 1200,
        cls_value: float = 0.0,
        min_matched: Annotated[float, Field(ge=0, le=1)] = 0.5,
        seed: Seed = 0,
    ) -> None:
        self._vocabulary, self._settings = foundation.vocabulary, foundation.settings
        self._pad, self._cls = (foundation.vocabulary.index(token) for token in (PAD, CLS))
        self.genes, self.n_genes, self.flavor = genes, n_genes, flavor
        self.max_len, self.cls_value, self.min_matched, self.seed = max_len, cls_value, min_matched, seed
        self.about: dict[str, str] = {}

    @property
    def n_ids(self) -> int:
        return len(self._vocabulary)

    def fit(self, cohort: Cohort, train: tuple[str, ...]) -> Self:
        """Choose the genes. With `vocabulary` nothing is learned: the training donors are counted only."""
        matched = match_genes(cohort.genes, self._vocabulary)
        has_token = (matched["id"] != UNKNOWN).to_numpy()
        if self.genes == "vocabulary":
            wanted = np.ones_like(has_token)
            # A gene without a count says nothing about how well the annotations agree.
            counted = cohort.sums.of(cohort.donors.index.isin(train)).raw.sum(axis=0) > 0
        else:
            panel = choose_genes(cohort, train, self.genes, self.n_genes, self.flavor)
            wanted = counted = cohort.genes["name"].isin(panel).to_numpy()
        self.about = self._describe(cohort.genes["name"][counted], matched[counted])
        self._require(cohort.genes, has_token[counted].mean())
        self.gene_names = [self._vocabulary[place] for place in matched["id"][wanted & has_token]]
        return self

    def tokens(self, cohort: Cohort) -> Tokens:
        id_of = match_genes(cohort.genes, self._vocabulary)["id"].to_numpy()
        place = {token: i for i, token in enumerate(self._vocabulary)}
        genes = np.flatnonzero(np.isin(id_of, [place[token] for token in self.gene_names]))
        values = cohort.matrix.columns(genes)
        ids = id_of[genes].astype(np.int32)[values.indices]
        keys, offsets = cell_keys(cohort.cells["barcode"]), values.indptr.astype(np.int64)
        n_bins = int(self._settings["n_bins"])
        bins = bin_values(offsets, values.data, ids, keys, stream(self.seed, BINNING), n_bins)
        return Tokens(*(torch.from_numpy(part) for part in (offsets, ids, bins, keys)))

    def pack(self, tokens: Tokens, rows_B: Tensor, longest: int, epoch: int) -> tuple[Tensor, Tensor, Tensor]:
        ids_BL, values_BL, mask_BL = tokens.gather(rows_B, longest)
        if longest >= self.max_len:
            bits_BL = draw(tokens.keys[rows_B][:, None], stream(self.seed, SUBSET + epoch), ids_BL)
            # Padding comes last, and what is kept stays in its order, so that no padding moves forward.
            drawn = bits_BL.masked_fill(~mask_BL, LAST).topk(self.max_len - 1, largest=False).indices
            kept = drawn.sort().values
            ids_BL, values_BL, mask_BL = (part.gather(1, kept) for part in (ids_BL, values_BL, mask_BL))
        ids_BL, values_BL = (
            part.masked_fill(~mask_BL, padding)
            for part, padding in ((ids_BL, self._pad), (values_BL, self._settings["pad_value"]))
        )
        return (
            torch.cat([torch.full_like(ids_BL[:, :1], self._cls), ids_BL], 1),
            torch.cat([torch.full_like(values_BL[:, :1], self.cls_value), values_BL], 1),
            torch.cat([torch.ones_like(mask_BL[:, :1]), mask_BL], 1),
        )

    def state(self) -> State:
        return {}

    def restore(self, gene_names: list[str], state: State) -> Self:
        self.gene_names = gene_names
        return self

    def _describe(self, names: pd.Series, matched: pd.DataFrame) -> dict[str, str]:
        """How the genes that count got their tokens, for the report."""
        routes, without = matched["route"].value_counts(), matched["id"] == UNKNOWN
        which = "expressed in training donors" if self.genes == "vocabulary" else f"the panel ({self.genes})"
        by_route = {f"by {route}": f"{routes.get(route, 0):,}: {means}" for route, means in ROUTES.items()}
        return {
            "genes": f"{len(names):,}, {which}",
            "with a token": f"{(~without).sum():,} ({(~without).mean():.1%})",
            **by_route,
            "without a token": f"{routes.get(UNMATCHED, 0):,}, and {routes.get(DUPLICATE, 0):,} whose token "
            f"another gene has: {listing(names[without], most=20) or 'none'}",
        }

    def _require(self, genes: pd.DataFrame, share: float) -> None:
        if share < self.min_matched or share == 0:
            raise UserError(
                f"only {share:.1%} of the genes have a token in the vocabulary, which has such as "
                f"{listing(self._vocabulary[-20:-16] or self._vocabulary[:4])}; the file has such as "
                f"{listing(genes['name'][:4])}. {likely_cause(genes)}. "
                f"model.encoder.min_matched={self.min_matched} is the smallest share that is taken."
            )
