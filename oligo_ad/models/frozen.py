"""A frozen network as a featurizer: its vectors of the nuclei are computed once and kept in the cache.

On these vectors a small network is trained in seconds. Those of a donor's nuclei depend on the network, on
its featurizer, and on that donor alone, to the last bit: folds, seeds, runs and other choices of
donors share them.
"""

import hashlib
import logging
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Self

import numpy as np
import torch
from torch import Tensor, nn

from oligo_ad.components import Constructor
from oligo_ad.config import Seed
from oligo_ad.data.cache import kept_array
from oligo_ad.data.cohort import Cohort
from oligo_ad.errors import UserError
from oligo_ad.inputs.batch import Batch, Inputs, Tokens
from oligo_ad.inputs.featurizers import Featurizer, Size, State
from oligo_ad.models.pretrained import Pretrained
from oligo_ad.progress import progress
from oligo_ad.storage.shelf import code_of

log = logging.getLogger(__name__)

NETWORK, FEATURIZER = "network.", "featurizer."  # prefixes of what is saved


class Frozen:
    """A featurizer whose values are vectors [nuclei, D] of a network, standardised on training nuclei.

    Args:
        featurizer: what the network reads.
        network: any network; with random weights where nothing is pretrained.
        cache: folder where the vectors are kept; None keeps none.
        device: where they are computed.
        pretrained: the pretrained model of featurizer and network, if there is one.
        batch_size: nuclei at a time.
        seed: of random weights.
    """

    padded = False

    def __init__(
        self,
        featurizer: Constructor,
        network: Constructor,
        cache: Path | None,
        device: torch.device,
        pretrained: Pretrained | None = None,
        batch_size: Size = 32,
        seed: Seed = 0,
    ) -> None:
        self._input: Featurizer = featurizer()
        self._make_network = network
        # Settings that shape the vectors but show in neither tokens nor weights.
        self._settings = [featurizer.described(), network.described()]
        if pretrained:
            self._settings.append(repr((sorted(pretrained.settings.items()), pretrained.vocabulary)))
        self._random = pretrained is None or pretrained.weights is None
        self._cache, self._device = cache, device
        self._batch_size, self._seed = batch_size, seed
        self._network: nn.Module | None = None
        self._known: tuple[Cohort, np.ndarray] | None = None
        self._n_computed = 0

    @property
    def gene_names(self) -> list[str]:
        return self._input.gene_names

    @property
    def n_ids(self) -> int:
        size = self._made_network().size
        assert isinstance(size, int)
        return size

    def names_of_ids(self) -> list[str]:
        return [f"dimension {place}" for place in range(1, self.n_ids + 1)]

    def facts(self) -> dict[str, str]:
        inner = self._input.facts()
        if not inner:
            return {}
        network = self._make_network.target.rpartition(".")[2]
        weights = f"random weights (seed {self._seed})" if self._random else "pretrained weights"
        return inner | {
            "values": f"vector of {self.n_ids} dimensions from {network} with {weights}, not trained "
            f"further, standardised with mean and SD of training nuclei; {network} reads: {inner['values']}",
            "fitted": f"{inner['fitted']}; mean and SD of each dimension: training donors",
        }

    def fit(self, cohort: Cohort, train: tuple[str, ...]) -> Self:
        with _named_inside("featurizer"):
            self._input.fit(cohort, train)
        own = self._vectors(cohort)[cohort.rows_of(train)]
        sd_D = own.std(axis=0)
        self.mean_D = torch.from_numpy(own.mean(axis=0))
        self.sd_D = torch.from_numpy(np.where(sd_D > 0, sd_D, 1.0).astype(np.float32))
        return self

    def tokens(self, cohort: Cohort) -> Tokens:
        return Tokens.of_dense((torch.from_numpy(self._vectors(cohort)) - self.mean_D) / self.sd_D)

    def pack(self, tokens: Tokens, rows_B: Tensor, longest: int, epoch: int) -> Inputs:
        return tokens.whole(rows_B, self.n_ids)

    def state(self) -> State:
        """Featurizer and network too, so that a saved model works without what they came from."""
        learned = {FEATURIZER + name: tensor for name, tensor in self._input.state().items()}
        weights = {NETWORK + name: tensor for name, tensor in self._made_network().state_dict().items()}
        return {"mean": self.mean_D, "sd": self.sd_D, **learned, **weights}

    def restore(self, gene_names: list[str], state: State) -> Self:
        self._input.restore(gene_names, _part(state, FEATURIZER))
        self.mean_D, self.sd_D = state["mean"], state["sd"]
        self._made_network().load_state_dict(_part(state, NETWORK))
        return self

    def _made_network(self) -> nn.Module:
        """The network, made as soon as the number of gene ids is known."""
        if self._network is None:
            # Random weights have a seed of their own, so that all folds and runs share their vectors.
            with _seeded(self._seed) if self._random else nullcontext(), _named_inside("network"):
                made: nn.Module = self._make_network(n_ids=self._input.n_ids)
            self._network = made.eval()
        return self._network

    def _vectors(self, cohort: Cohort) -> np.ndarray:
        """Vectors [nuclei, D] float32, each donor's from the cache or computed now."""
        if self._known is None or self._known[0] is not cohort:
            tokens, digest = self._input.tokens(cohort), self._digest()
            vectors = np.empty((len(cohort.cells), self.n_ids), np.float32)
            self._n_computed = 0
            with progress("taking the vectors of a frozen network", len(vectors), "nuclei") as advance:
                for rows in cohort.cells.groupby("donor", observed=True).indices.values():
                    vectors[rows] = self._of_donor(tokens.of(torch.from_numpy(rows)), digest)
                    advance(len(rows))
            log.info("vectors of %d nuclei, %d of them computed now", len(vectors), self._n_computed)
            self._made_network().cpu()
            self._known = cohort, vectors
        return self._known[1]

    def _of_donor(self, tokens: Tokens, shared_digest: bytes) -> np.ndarray:
        """The vectors [nuclei, D] of one donor's nuclei. `shared_digest`: of what all donors share."""
        if self._cache is None:
            return self._computed(tokens)
        digest = hashlib.sha256(shared_digest)
        for part in tokens:
            digest.update(part.numpy().tobytes())
        return kept_array(self._cache, f"embedding-{digest.hexdigest()[:16]}", lambda: self._computed(tokens))

    def _digest(self) -> bytes:
        """A digest of what the vectors depend on besides the nuclei: code, settings, and what was learned."""
        network = self._made_network()
        modules = (__name__, type(network).__module__, type(self._input).__module__)
        # Code that reads and prepares files only shapes the tokens, which are hashed themselves.
        code = code_of(*modules, apart_from=("oligo_ad.data", "oligo_ad.storage"))
        digest = hashlib.sha256(code.encode() + repr(self._settings).encode())
        for name, tensor in (*network.state_dict().items(), *self._input.state().items()):
            digest.update(name.encode() + tensor.numpy().tobytes())
        return digest.digest()

    @torch.no_grad()
    def _computed(self, tokens: Tokens) -> np.ndarray:
        lengths = tokens.offsets.diff()
        network, tokens = self._made_network().to(self._device), tokens.to(self._device)
        vectors = np.empty((len(lengths), self.n_ids), np.float32)
        self._n_computed += len(vectors)
        # The longest first: if memory does not suffice, that is known at once.
        for rows in lengths.argsort(descending=True, stable=True).split(self._batch_size):
            rows_B = rows.to(self._device)
            inputs = self._input.pack(tokens, rows_B, max(1, int(lengths[rows].max())), epoch=0)
            vectors[rows] = network(Batch.of_nuclei(inputs)).cpu().numpy()
        return vectors


def _part(state: State, prefix: str) -> State:
    return {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Draw random numbers from a seed, without changing those of the run."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield


@contextmanager
def _named_inside(section: str) -> Iterator[None]:
    """Name a wrong field by its full path: nested parts name it as if they were not nested."""
    try:
        yield
    except UserError as error:
        raise UserError(str(error).replace(f"model.{section}.", f"model.featurizer.{section}.")) from error
