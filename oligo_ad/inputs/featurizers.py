"""Featurizers turn nuclei into the input of a network. Each is fitted on training nuclei, then applied."""

from typing import Annotated, Protocol, Self

import numpy as np
import scipy.sparse as sp
import torch
from pydantic import Field
from sklearn.utils.sparsefuncs import mean_variance_axis
from torch import Tensor

from oligo_ad.data.cohort import Cohort
from oligo_ad.inputs.batch import Inputs, Tokens
from oligo_ad.inputs.panel import Choice, Flavor, choose_genes, describe_choice
from oligo_ad.storage.expression import TARGET

State = dict[str, Tensor]
Size = Annotated[int, Field(ge=1)]


class Featurizer(Protocol):
    """The interface of a featurizer; a new one needs these methods and a YAML file, nothing else.

    Once fitted: `gene_names`, the genes that are read; `n_ids`, the number of gene ids. `padded`: whether
    a batch is as long as its longest nucleus.
    """

    padded: bool

    @property
    def gene_names(self) -> list[str]: ...

    @property
    def n_ids(self) -> int: ...

    def names_of_ids(self) -> list[str]:
        """The name of each id, from 0 to `n_ids` - 1."""

    def facts(self) -> dict[str, str]:
        """Facts about the input for the report, once fitted: `values`, what they are; `fitted`, what was
        learned on which donors; and more. Empty for a featurizer that was restored."""

    def fit(self, cohort: Cohort, train: tuple[str, ...]) -> Self:
        """Learn from the training donors alone, given by their ids."""

    def tokens(self, cohort: Cohort) -> Tokens:
        """Every nucleus of the cohort as gene ids and values; each nucleus by itself."""

    def pack(self, tokens: Tokens, rows_B: Tensor, longest: int, epoch: int) -> Inputs:
        """Gene ids, values and mask [B, L] of some nuclei, on the tokens' device.

        `longest`: places of the longest of them. `epoch`: random draws depend on it; 0 outside
        training.
        """

    def state(self) -> State:
        """What was learned, as tensors, beside `gene_names`."""

    def restore(self, gene_names: list[str], state: State) -> Self:
        """Take up what another instance learned."""


class StandardisedPanel:
    """The panel in fixed order, as standardised log expression: one dense vector per nucleus.

    Args:
        genes: how the panel is chosen; see `panel.choose_genes`.
        n_genes: size of the panel.
        flavor: method of `hvg`.
        clip: largest absolute standardised value.
    """

    padded = False

    def __init__(
        self,
        genes: Choice = "hvg",
        n_genes: Size = 2000,
        flavor: Flavor = "seurat",
        clip: Annotated[float, Field(gt=0)] = 10.0,
    ) -> None:
        self.genes, self.n_genes, self.flavor, self.clip = genes, n_genes, flavor, clip
        self._facts: dict[str, str] = {}

    @property
    def n_ids(self) -> int:
        return len(self.gene_names)

    def names_of_ids(self) -> list[str]:
        return self.gene_names

    def facts(self) -> dict[str, str]:
        return self._facts

    def fit(self, cohort: Cohort, train: tuple[str, ...]) -> Self:
        self.gene_names = choose_genes(cohort, train, self.genes, self.n_genes, self.flavor)
        mean, variance = mean_variance_axis(_panel(cohort, self.gene_names)[cohort.rows_of(train)], axis=0)
        sd = np.sqrt(variance)
        # A gene constant in training is centred, not divided by nothing.
        sd = np.where(sd > 0, sd, 1.0)
        panel = describe_choice(self.genes, self.flavor, len(self.gene_names))
        self._facts = {
            "chosen": panel.genes,
            "values": f"{log_expression(cohort)}, standardised with mean and SD of training nuclei, "
            f"clipped at ±{self.clip:g}",
            "fitted": f"{panel.fitted}; mean and SD of each gene: training donors",
        }
        return self._learn(*(torch.from_numpy(part.astype(np.float32)) for part in (mean, sd)))

    def tokens(self, cohort: Cohort) -> Tokens:
        expressed = ragged(_panel(cohort, self.gene_names))
        return expressed._replace(values=self._standardised(expressed.values, expressed.gene_ids.int()))

    def pack(self, tokens: Tokens, rows_B: Tensor, longest: int, epoch: int) -> Inputs:
        values_BG = tokens.dense(rows_B, longest, self._zero_G.to(rows_B.device))
        ids_BG = torch.arange(len(self.gene_names), device=rows_B.device).expand_as(values_BG)
        return Inputs(ids_BG, values_BG, rows_B.new_ones((), dtype=torch.bool).expand_as(values_BG))

    def state(self) -> State:
        return {"mean": self.mean_G, "sd": self.sd_G}

    def restore(self, gene_names: list[str], state: State) -> Self:
        self.gene_names = gene_names
        if not len(gene_names) == len(state["mean"]) == len(state["sd"]):
            raise ValueError(f"{len(gene_names)} genes, {len(state['mean'])} means, {len(state['sd'])} SDs")
        return self._learn(state["mean"], state["sd"])

    def _learn(self, mean_G: Tensor, sd_G: Tensor) -> Self:
        self.mean_G, self.sd_G = mean_G, sd_G
        self._zero_G = self._standardised(torch.zeros_like(mean_G), slice(None))
        return self

    def _standardised(self, values: Tensor, genes: Tensor | slice) -> Tensor:
        return ((values - self.mean_G[genes]) / self.sd_G[genes]).clamp(-self.clip, self.clip)


class ExpressedPanel:
    """The panel's expressed genes with their log expression; 0 stays 0, so nothing is standardised.

    Args:
        genes: how the panel is chosen; see `panel.choose_genes`.
        n_genes: size of the panel.
        flavor: method of `hvg`.
    """

    padded = True

    def __init__(self, genes: Choice = "hvg", n_genes: Size = 2000, flavor: Flavor = "seurat") -> None:
        self.genes, self.n_genes, self.flavor = genes, n_genes, flavor
        self._facts: dict[str, str] = {}

    @property
    def n_ids(self) -> int:
        return len(self.gene_names)

    def names_of_ids(self) -> list[str]:
        return self.gene_names

    def facts(self) -> dict[str, str]:
        return self._facts

    def fit(self, cohort: Cohort, train: tuple[str, ...]) -> Self:
        self.gene_names = choose_genes(cohort, train, self.genes, self.n_genes, self.flavor)
        panel = describe_choice(self.genes, self.flavor, len(self.gene_names))
        self._facts = {
            "chosen": panel.genes,
            "values": f"{log_expression(cohort)}, of expressed genes only",
            "fitted": panel.fitted,
        }
        return self

    def tokens(self, cohort: Cohort) -> Tokens:
        return ragged(_panel(cohort, self.gene_names))

    def pack(self, tokens: Tokens, rows_B: Tensor, longest: int, epoch: int) -> Inputs:
        return tokens.gather(rows_B, longest)

    def state(self) -> State:
        return {}

    def restore(self, gene_names: list[str], state: State) -> Self:
        self.gene_names = gene_names
        return self


def log_expression(cohort: Cohort) -> str:
    """How the log values of a cohort are defined, in words."""
    counts = cohort.expression.content == "counts"
    return f"ln(1 + counts per {TARGET:,})" if counts else "log expression as it is in the file"


def _panel(cohort: Cohort, gene_names: list[str]) -> sp.csr_matrix:
    """Log values [nuclei, genes] of the named genes, in their order."""
    return cohort.log_values(cohort.places_of(gene_names))


def ragged(values: sp.csr_matrix) -> Tokens:
    """The nonzeros of a matrix, nuclei by genes, as tokens."""
    small = values.shape[1] <= 1 + np.iinfo(np.int16).max
    return Tokens(
        torch.from_numpy(values.indptr.astype(np.int64)),
        torch.from_numpy(values.indices.astype(np.int16 if small else np.int32)),
        torch.from_numpy(values.data.astype(np.float32)),
    )
