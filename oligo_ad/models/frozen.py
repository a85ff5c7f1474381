"""The frozen backbone as an featurizer: a nucleus is its vector, computed once and kept in the cache.

With it a head is trained in seconds. The vectors depend on the checkpoint, the nuclei and how they are
read, not on the fold, so folds, seeds of the head and runs share them.
"""

import hashlib
import logging
from pathlib import Path
from typing import Annotated, Literal, Self

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from oligo_ad.config import Seed
from oligo_ad.data.cache import kept_array
from oligo_ad.data.cohort import Cohort
from oligo_ad.inputs.batch import Batch, Inputs, Tokens
from oligo_ad.inputs.featurizers import Size, State
from oligo_ad.inputs.panel import Flavor
from oligo_ad.models.pretrained import Pretrained
from oligo_ad.models.scgpt.network import ScGPT
from oligo_ad.models.scgpt.tokens import BinnedGenes
from oligo_ad.progress import progress

log = logging.getLogger(__name__)

BACKBONE = "backbone."
CODE = [*sorted((Path(__file__).parent / "scgpt").glob("*.py")), Path(__file__).parent / "blocks.py"]


class CellEmbedding:
    """The vector of `<cls>` from a pretrained scGPT, standardised on training nuclei: dense, [cells, D].

    Args:
        pretrained: vocabulary, architecture and weights.
        genes, n_genes, flavor, max_len, cls_value, min_matched, seed: see `BinnedGenes`.
        cache: folder where the vectors are kept.
        device: `cpu`, or `auto` for a GPU where there is one.
        batch_size: nuclei at a time.
    """

    padded = False

    def __init__(
        self,
        pretrained: Pretrained,
        cache: str,
        device: Literal["auto", "cpu"] = "auto",
        genes: Literal["vocabulary", "hvg", "provided"] = "vocabulary",
        n_genes: Size = 2000,
        flavor: Flavor = "seurat",
        max_len: Annotated[int, Field(ge=2)] = 1200,
        cls_value: float = 0.0,
        min_matched: Annotated[float, Field(ge=0, le=1)] = 0.5,
        seed: Seed = 0,
        batch_size: Size = 32,
    ) -> None:
        self._foundation, self._cache, self._batch_size = pretrained, Path(cache).expanduser(), batch_size
        self._device = torch.device("cuda" if device == "auto" and torch.cuda.is_available() else "cpu")
        self._input = BinnedGenes(pretrained, genes, n_genes, flavor, max_len, cls_value, min_matched, seed)
        self._backbone: ScGPT | None = None
        self._known: tuple[Cohort, np.ndarray] | None = None

    @property
    def gene_names(self) -> list[str]:
        return self._input.gene_names

    @property
    def about(self) -> dict[str, str]:
        return self._input.about

    @property
    def n_ids(self) -> int:
        return int(self._foundation.settings["width"])

    def fit(self, cohort: Cohort, train: tuple[str, ...]) -> Self:
        self._input.fit(cohort, train)
        own = self._vectors(cohort)[cohort.rows_of(train)]
        sd_D = own.std(axis=0)
        self.mean_D = torch.from_numpy(own.mean(axis=0))
        self.sd_D = torch.from_numpy(np.where(sd_D > 0, sd_D, 1.0).astype(np.float32))
        return self

    def tokens(self, cohort: Cohort) -> Tokens:
        values_CD = (torch.from_numpy(self._vectors(cohort)) - self.mean_D) / self.sd_D
        n_cells, width = values_CD.shape
        return Tokens(
            torch.arange(n_cells + 1) * width,
            torch.arange(width, dtype=torch.int16).repeat(n_cells),
            values_CD.flatten(),
        )

    def pack(self, tokens: Tokens, rows_B: Tensor, longest: int, epoch: int) -> Inputs:
        values_BD = tokens.values.view(-1, self.n_ids)[rows_B]
        ids_BD = torch.arange(self.n_ids, device=rows_B.device).expand_as(values_BD)
        return Inputs(ids_BD, values_BD, torch.ones_like(values_BD, dtype=torch.bool))

    def state(self) -> State:
        """The backbone too, so that a checkpoint of ours works without the folder it came from."""
        weights = {BACKBONE + name: tensor for name, tensor in self._network().state_dict().items()}
        return {"mean": self.mean_D, "sd": self.sd_D, **weights}

    def restore(self, gene_names: list[str], state: State) -> Self:
        self._input.restore(gene_names, {})
        self.mean_D, self.sd_D = state["mean"], state["sd"]
        weights = {k.removeprefix(BACKBONE): v for k, v in state.items() if k.startswith(BACKBONE)}
        self._network().load_state_dict(weights)
        return self

    def _network(self) -> ScGPT:
        if self._backbone is None:
            self._backbone = ScGPT(self._input.n_ids, self._foundation).eval()
        return self._backbone

    def _vectors(self, cohort: Cohort) -> np.ndarray:
        """Vectors [cells, D] float32 of all nuclei, from the cache or computed now."""
        if self._known is None or self._known[0] is not cohort:
            tokens = self._input.tokens(cohort)
            name = f"embedding-{self._key(tokens)}"
            self._known = cohort, kept_array(self._cache, name, lambda: self._computed(tokens))
        return self._known[1]

    def _key(self, tokens: Tokens) -> str:
        """Of all that the vectors depend on: the code, how a cell is read, the cells, the weights."""
        digest = hashlib.sha256(b"".join(file.read_bytes() for file in CODE))
        digest.update(repr((self._input.max_len, self._input.cls_value, self._input.seed)).encode())
        for tensor in (*tokens, *self._network().state_dict().values()):
            digest.update(tensor.numpy())
        return digest.hexdigest()[:16]

    @torch.no_grad()
    def _computed(self, tokens: Tokens) -> np.ndarray:
        lengths = tokens.offsets.diff()
        network, tokens = self._network().to(self._device), tokens.to(self._device)
        vectors = np.empty((len(lengths), self.n_ids), np.float32)
        with progress("computing scGPT's vectors", len(lengths), "nuclei") as advance:
            # The longest first: if memory does not suffice, that is known at once.
            for rows in lengths.argsort(descending=True, stable=True).split(self._batch_size):
                rows_B = rows.to(self._device)
                packed = self._input.pack(tokens, rows_B, max(1, int(lengths[rows].max())), epoch=0)
                nothing = rows_B.new_zeros(len(rows_B), 0)
                vectors[rows] = network(Batch(*packed, nothing, rows_B, rows_B)).cpu().numpy()
                advance(len(rows))
        network.cpu()
        return vectors
