"""scGPT's featurizer: the tokens of a nucleus's expressed genes with their bins, `<cls>` in front.

A bin is the place of a value among the quantiles of its own nucleus. With 51 bins there are 50 edges,
quantiles of the nonzero values at equal steps from least to most. A value between edges has one bin; a value
that equals edges may have any of the bins they bound, and one is drawn (scgpt 0.2.4, `preprocess.binning`).
In the counts of a nucleus nearly all values are ties, so that a 1 may get any of the lower third of bins.
Edges are linear between neighbours in rank, so ranks alone decide: raw counts and their logarithms have the
same bins, and no quantile need be computed.
"""

from typing import Annotated, Literal, Self

import numpy as np
import pandas as pd
import torch
from pydantic import Field
from torch import Tensor

from oligo_ad.config import Seed
from oligo_ad.data.cohort import Cohort
from oligo_ad.draws import draw, nucleus_keys, stream, uniform
from oligo_ad.errors import UserError, listing
from oligo_ad.inputs.batch import Inputs, Tokens
from oligo_ad.inputs.featurizers import Size, State
from oligo_ad.inputs.panel import Flavor, choose_genes, describe_choice
from oligo_ad.inputs.vocabulary import DUPLICATE, UNKNOWN, UNMATCHED, likely_cause, match_genes, routes
from oligo_ad.models.pretrained import Pretrained
from oligo_ad.storage.compiled import compiled
from oligo_ad.threads import CORES, in_order

PAD, CLS = "<pad>", "<cls>"
BLOCK = 256  # nuclei that a thread bins at once
LAST = torch.iinfo(torch.int64).max
BINNING, SUBSET = 0, 1  # purposes of random draws; subsets of epoch e have purpose SUBSET + e


class BinnedGenes:
    """Expressed genes of the vocabulary, each with the bin of its value within the nucleus.

    Binning needs no fit: it looks at one nucleus at a time, and is the same in every epoch. Of a nucleus
    with more genes than fit, a uniform random subset is read: a new one each epoch in training, always
    the same in evaluation.

    Args:
        pretrained: vocabulary, number of bins, value of padding.
        genes: `vocabulary` every gene that has a token; `hvg` or `provided` those of a panel, see
            `panel.choose_genes`.
        n_genes: size of the panel (hvg).
        flavor: method of `hvg`.
        max_len: most tokens of a nucleus, `<cls>` among them.
        cls_value: value at `<cls>`: 0 in the package's fine-tuning, -2 in pretraining.
        min_matched: smallest share of genes with a token.
        seed: of the draws of bins and subsets.
    """

    padded = True

    def __init__(
        self,
        pretrained: Pretrained,
        genes: Literal["vocabulary", "hvg", "provided"] = "vocabulary",
        n_genes: Size = 2000,
        flavor: Flavor = "seurat",
        max_len: Annotated[int, Field(ge=2)] = 1200,
        cls_value: float = 0.0,
        min_matched: Annotated[float, Field(ge=0, le=1)] = 0.5,
        seed: Seed = 0,
    ) -> None:
        self._vocabulary, self._settings = pretrained.vocabulary, pretrained.settings
        self._pad, self._cls = (pretrained.vocabulary.index(token) for token in (PAD, CLS))
        self.genes, self.n_genes, self.flavor = genes, n_genes, flavor
        self.max_len, self.cls_value, self.min_matched, self.seed = max_len, cls_value, min_matched, seed
        self._facts: dict[str, str] = {}

    @property
    def n_ids(self) -> int:
        return len(self._vocabulary)

    def names_of_ids(self) -> list[str]:
        return list(self._vocabulary)

    def facts(self) -> dict[str, str]:
        return self._facts

    def fit(self, cohort: Cohort, train: tuple[str, ...]) -> Self:
        """Choose the genes. With `vocabulary` nothing is learned: the training donors are counted only."""
        matched = match_genes(cohort.genes, self._vocabulary)
        has_token = (matched["id"] != UNKNOWN).to_numpy()
        if self.genes == "vocabulary":
            wanted = np.ones_like(has_token)
            # A gene without a count is no evidence of how well the annotations agree.
            counted = cohort.sums.of(cohort.donors.index.isin(train)).raw.sum(axis=0) > 0
            fitted = "nothing: every gene with a token is read, and a nucleus by itself"
        else:
            panel = choose_genes(cohort, train, self.genes, self.n_genes, self.flavor)
            wanted = counted = cohort.genes["name"].isin(panel).to_numpy()
            fitted = describe_choice(self.genes, self.flavor, len(panel)).fitted
        self._facts = self._describe(cohort.genes["name"][counted], matched[counted]) | {
            "values": f"bin among the quantiles of its own nucleus ({self._settings['n_bins']} bins)",
            "length": f"at most {self.max_len:,} tokens a nucleus; of one with more genes a random subset",
            "fitted": fitted,
        }
        self._require(cohort.genes, has_token[counted].mean())
        self.gene_names = [self._vocabulary[place] for place in matched["id"][wanted & has_token]]
        return self

    def tokens(self, cohort: Cohort) -> Tokens:
        id_of = match_genes(cohort.genes, self._vocabulary)["id"].to_numpy()
        place = {token: i for i, token in enumerate(self._vocabulary)}
        genes = np.flatnonzero(np.isin(id_of, [place[token] for token in self.gene_names]))
        values = cohort.matrix.columns(genes)
        ids = id_of[genes].astype(np.int32)[values.indices]
        keys, offsets = nucleus_keys(cohort.cells["barcode"]), values.indptr.astype(np.int64)
        n_bins = int(self._settings["n_bins"])
        bins = bin_values(offsets, values.data, ids, keys, stream(self.seed, BINNING), n_bins)
        return Tokens(*(torch.from_numpy(part) for part in (offsets, ids, bins, keys)))

    def pack(self, tokens: Tokens, rows_B: Tensor, longest: int, epoch: int) -> Inputs:
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
        return Inputs(
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
        """How the wanted genes were matched to tokens, for the report."""
        found, without = matched["route"].value_counts(), matched["id"] == UNKNOWN
        which = "expressed in training donors" if self.genes == "vocabulary" else f"the panel ({self.genes})"
        by_route = {
            f"by {route}": f"{found.get(route, 0):,}: {means}"
            for route, means in routes(self._vocabulary).items()
        }
        return {
            "genes": f"{len(names):,}, {which}",
            "with a token": f"{(~without).sum():,} ({(~without).mean():.1%})",
            **by_route,
            "without a token": f"{found.get(UNMATCHED, 0):,}, and {found.get(DUPLICATE, 0):,} whose token "
            f"another gene has: {listing(names[without], most=20) or 'none'}",
        }

    def _require(self, genes: pd.DataFrame, share: float) -> None:
        if share < self.min_matched or share == 0:
            raise UserError(
                f"only {share:.1%} of the genes have a token in the vocabulary, which has such as "
                f"{listing(self._vocabulary[-20:-16] or self._vocabulary[:4])}; the file has such as "
                f"{listing(genes['name'][:4])}. {likely_cause(genes)}. "
                f"model.featurizer.min_matched={self.min_matched} is the smallest share that is taken."
            )


def bin_values(
    offsets: np.ndarray, values: np.ndarray, ids: np.ndarray, keys: np.ndarray, stream: int, n_bins: int
) -> np.ndarray:
    """Bins 1 to n_bins - 1 of positive values [values] uint8.

    Args:
        offsets: [nuclei + 1], where each nucleus's values start.
        values: of all nuclei.
        ids: the gene of each value; with the nucleus's key it decides the draw.
        keys: [nuclei].
        stream: of the draws.
        n_bins: 256 at most; bin 0 is for zeros.
    """
    bins = np.empty(len(values), np.uint8)
    quantiles = np.linspace(0, 1, n_bins - 1)

    def work(first: int) -> None:
        own = offsets[first : first + BLOCK + 1]
        places = slice(own[0], own[-1])
        key = np.repeat(keys[first : first + BLOCK], np.diff(own))
        drawn = uniform(draw(key, stream, ids[places].astype(np.int64)))
        _bin(own - own[0], values[places], drawn, quantiles, bins[places])

    for _ in in_order(work, range(0, len(keys), BLOCK), CORES):
        pass
    return bins


@compiled
def _bin(
    offsets: np.ndarray,
    values: np.ndarray,
    drawn: np.ndarray,
    quantiles: np.ndarray,
    bins: np.ndarray,
) -> None:
    for nucleus in range(len(offsets) - 1):
        start, stop = offsets[nucleus], offsets[nucleus + 1]
        if start == stop:
            continue
        ordered = np.sort(values[start:stop])
        edges = quantiles * (stop - start - 1)  # in ranks
        # Distinct values, and how many edges lie at or below each, and below each.
        distinct = np.empty_like(ordered)
        at_most, below = np.empty(len(ordered), np.int64), np.empty(len(ordered), np.int64)
        n, first = 0, 0
        for place in range(len(ordered)):
            if place + 1 == len(ordered) or ordered[place + 1] != ordered[place]:
                distinct[n] = ordered[place]
                at_most[n] = np.searchsorted(edges, place, side="right")
                below[n] = np.searchsorted(edges, first, side="left")
                n, first = n + 1, place + 1
        for place in range(start, stop):
            which = np.searchsorted(distinct[:n], values[place])
            bins[place] = at_most[which] - int(drawn[place] * (at_most[which] - below[which]))
