"""Loaders make batches on the training device: no worker processes, no copy from the host in a step.

What a batch holds is a function of (seed, epoch) alone, and each process takes every n-th sample of each
batch, so that any number of processes sees the same batches.
"""

import logging
from collections.abc import Iterator
from typing import Literal, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from oligo_ad.inputs.batch import Batch, Tokens
from oligo_ad.inputs.featurizers import Featurizer

log = logging.getLogger(__name__)

Sample = Literal["nucleus", "donor"]
Sampling = Literal["nucleus", "donor"]
WINDOW = 128  # batches within which nuclei of like length are brought together


class Process(NamedTuple):
    """The place of this process among all: it takes samples `rank`, `rank + world_size`, … of every batch."""

    rank: int = 0
    world_size: int = 1


class Donors(NamedTuple):
    """The donors of a loader's nuclei.

    `of_nucleus` [nuclei] int: the place of each nucleus's donor; `label` [donors], 0 or 1; `metadata`
    [donors, M], standardised.
    """

    of_nucleus: np.ndarray
    label: np.ndarray
    metadata: np.ndarray


class Loader(Protocol):
    """The interface of a loader, which makes batches of samples.

    `sample`: what is predicted. `donor` [samples]: the place of each one's donor.
    """

    sample: Sample
    donor: np.ndarray

    def samples_of(self, donors: np.ndarray) -> np.ndarray:
        """The samples of some donors, given by their places."""

    def epoch_size(self, samples: np.ndarray) -> int:
        """How many samples one epoch over `samples` draws."""

    def shuffled(self, samples: np.ndarray, batch_size: int, seed: int, epoch: int) -> Iterator[Batch]:
        """The batches of one epoch in random order; an incomplete last batch is dropped."""

    def whole(self, samples: np.ndarray, batch_size: int) -> Iterator[list[Batch]]:
        """Every sample once, over all processes; the last is repeated so that all processes get equally many.

        What does not fit into one forward pass of the network comes in parts. No batch mixes donors: padding
        and rounding of a nucleus, hence its prediction, then depend on its own donor alone, to the last bit.
        """


class Draws(NamedTuple):
    """What an epoch draws.

    `sampling`: `nucleus`: each nucleus once, or `bags` bags of each donor. `donor`: as many of either class,
    donors of a class alike, so that neither a class nor a donor with many nuclei weighs more. `nuclei`: how
    many, where nuclei are drawn by donor; None: as many as there are. `bag_size`: nuclei of a bag, or all of
    a donor that has fewer; `bags`: of each donor on average.
    """

    sampling: Sampling = "nucleus"
    nuclei: int | None = None
    bag_size: int = 64
    bags: int = 1


class NucleusStore:
    """All nuclei of a cohort on one device, as tokens of a featurizer.

    Args:
        featurizer: fitted.
        tokens: of all nuclei.
        donors: theirs.
        device: where batches are made.
        process: which samples of a batch are this process's.
    """

    def __init__(
        self, featurizer: Featurizer, tokens: Tokens, donors: Donors, device: torch.device, process: Process
    ) -> None:
        self.featurizer, self.process = featurizer, process
        self.lengths = tokens.offsets.diff()  # stays on the host: a batch's length costs no sync
        self._stored_on = _storage_device(sum(part.nbytes for part in tokens), device)
        self._tokens = tokens.to(self._stored_on)
        self._metadata = torch.from_numpy(donors.metadata.astype(np.float32)).to(device)
        self._label = torch.from_numpy(donors.label.astype(np.float32)).to(device)
        self._device = device

    def batch(self, rows: Tensor, sample: Tensor, index: Tensor, donor: Tensor, epoch: int) -> Batch:
        """A batch of nuclei.

        Args:
            rows: [B], of the nuclei.
            sample: [B], the place of each one's sample in the batch.
            index: [S], of the samples.
            donor: [S], their donors' places.
            epoch: of draws within a nucleus.
        """
        longest = max(1, int(self.lengths[rows].max()))
        inputs = self.featurizer.pack(self._tokens, rows.to(self._stored_on), longest, epoch)
        sample_B, index_S, donor_S = (part.to(self._device) for part in (sample, index, donor))
        ids_BL, values_BL, mask_BL = (part.to(self._device) for part in inputs)
        metadata_SM, label_S = self._metadata[donor_S], self._label[donor_S]
        return Batch(ids_BL, values_BL, mask_BL, sample_B, metadata_SM, label_S, index_S)


class NucleusLoader:
    """The loader where a nucleus is a sample.

    Args:
        store: the nuclei.
        donors: theirs.
        draws: of an epoch.
    """

    sample: Sample = "nucleus"

    def __init__(self, store: NucleusStore, donors: Donors, draws: Draws) -> None:
        self._store, self._draws, self._label = store, draws, donors.label
        self.donor = donors.of_nucleus
        self._donor = torch.from_numpy(donors.of_nucleus)

    def samples_of(self, donors: np.ndarray) -> np.ndarray:
        return np.flatnonzero(np.isin(self.donor, donors))

    def epoch_size(self, samples: np.ndarray) -> int:
        by_donor = self._draws.sampling == "donor"
        return self._draws.nuclei or len(samples) if by_donor else len(samples)

    def shuffled(self, samples: np.ndarray, batch_size: int, seed: int, epoch: int) -> Iterator[Batch]:
        """Where batches are padded, nuclei of like length share one: those of each `WINDOW` batches are
        sorted by length, cut into batches, and these are shuffled."""
        generator = torch.Generator().manual_seed(seed * 1_000_003 + epoch)
        order = torch.from_numpy(self._drawn(samples, np.random.default_rng([seed, epoch])))
        order = order[torch.randperm(len(order), generator=generator)]
        order = order[: len(order) // batch_size * batch_size]
        for window in order.split(WINDOW * batch_size):
            if self._store.featurizer.padded:
                window = window[self._store.lengths[window].argsort(stable=True)]
            batches = window.split(batch_size)
            for place in torch.randperm(len(batches), generator=generator).tolist():
                yield self._own(batches[place], epoch)

    def _drawn(self, samples: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """The nuclei of an epoch: all of them, or drawn with replacement by class, donor and nucleus."""
        if self._draws.sampling == "nucleus":
            return samples
        donors, start, n_nuclei = np.unique(self.donor[samples], return_index=True, return_counts=True)
        drawn = np.empty(self.epoch_size(samples), np.int64)
        for value in (0, 1):
            own = np.flatnonzero(self._label[donors] == value)
            picked = rng.choice(own, len(drawn[value::2]))
            drawn[value::2] = samples[start[picked] + rng.integers(n_nuclei[picked])]
        return drawn

    def whole(self, samples: np.ndarray, batch_size: int) -> Iterator[list[Batch]]:
        for donor in np.unique(self.donor[samples]):
            own = torch.from_numpy(samples[self.donor[samples] == donor])
            for rows in own[self._store.lengths[own].argsort(stable=True)].split(batch_size):
                yield [self._own(_filled(rows, self._store.process.world_size), epoch=0)]

    def _own(self, rows: Tensor, epoch: int) -> Batch:
        """This process's nuclei of a batch."""
        process = self._store.process
        own = rows[process.rank :: process.world_size]
        return self._store.batch(own, torch.arange(len(own)), own, self._donor[own], epoch)


class BagLoader:
    """The loader where a donor is a sample: a bag of its nuclei, new in each epoch, or all of them.

    Args:
        store: the nuclei.
        donors: theirs.
        draws: of an epoch.
    """

    sample: Sample = "donor"

    def __init__(self, store: NucleusStore, donors: Donors, draws: Draws) -> None:
        self._store, self._draws, self._label = store, draws, donors.label
        self._bag_size = draws.bag_size
        self.donor = np.arange(int(donors.of_nucleus.max()) + 1)
        self._rows = [np.flatnonzero(donors.of_nucleus == one) for one in self.donor]

    def samples_of(self, donors: np.ndarray) -> np.ndarray:
        return np.sort(donors)

    def epoch_size(self, samples: np.ndarray) -> int:
        return len(samples) * self._draws.bags

    def shuffled(self, samples: np.ndarray, batch_size: int, seed: int, epoch: int) -> Iterator[Batch]:
        """A bag follows from (seed, epoch, donor) and its number among that donor's bags alone."""
        order = self._order(samples, np.random.default_rng([seed, epoch]))
        process = self._store.process
        for first in range(0, len(order) - batch_size + 1, batch_size):
            own = order[first : first + batch_size][process.rank :: process.world_size]
            drawn = [self._drawn(donor, np.random.default_rng([seed, epoch, donor, n])) for donor, n in own]
            yield self._batch(drawn, [donor for donor, _ in own], epoch)

    def whole(self, samples: np.ndarray, batch_size: int) -> Iterator[list[Batch]]:
        process = self._store.process
        own = _filled(torch.from_numpy(samples), process.world_size)[process.rank :: process.world_size]
        for donor in own.tolist():
            rows = self._rows[donor]
            rows = rows[self._store.lengths[rows].argsort(stable=True).numpy()]
            step = batch_size * self._bag_size
            yield [
                self._batch([rows[first : first + step]], [donor], epoch=0)
                for first in range(0, len(rows), step)
            ]

    def _order(self, samples: np.ndarray, rng: np.random.Generator) -> list[tuple[int, int]]:
        """Donor and number of each bag of an epoch; drawn by donor, classes take turns."""
        if self._draws.sampling == "nucleus":
            bags = range(self._draws.bags)
            return [(donor, number) for number in bags for donor in rng.permutation(samples)]
        each = len(samples) * self._draws.bags // 2
        of_classes = [samples[self._label[samples] == value] for value in (0, 1)]
        turns = (_rounds(own, each, rng) for own in of_classes)
        return [bag for pair in zip(*turns, strict=True) for bag in pair]

    def _drawn(self, donor: int, rng: np.random.Generator) -> np.ndarray:
        rows = self._rows[donor]
        return rng.choice(rows, self._bag_size, replace=False) if len(rows) > self._bag_size else rows

    def _batch(self, bags: list[np.ndarray], donors: list[int], epoch: int) -> Batch:
        sample = torch.from_numpy(np.repeat(np.arange(len(bags)), [len(bag) for bag in bags]))
        index = torch.tensor(donors)
        return self._store.batch(torch.from_numpy(np.concatenate(bags)), sample, index, index, epoch)


def _rounds(donors: np.ndarray, n: int, rng: np.random.Generator) -> list[tuple[int, int]]:
    """`n` times a donor, and how often it came before: all of them, shuffled, again and again."""
    rounds = range(-(-n // len(donors)))
    return [(donor, number) for number in rounds for donor in rng.permutation(donors)][:n]


def _filled(samples: Tensor, world_size: int) -> Tensor:
    """The samples, the last repeated until every process has as many."""
    return torch.cat([samples, samples[-1:].expand(-len(samples) % world_size)])


def _storage_device(n_bytes: int, device: torch.device) -> torch.device:
    """Where the nuclei stay: on the device, unless they would take more than half of what is free there."""
    fits = device.type != "cuda" or n_bytes <= torch.cuda.mem_get_info(device)[0] // 2
    stored_on = device if fits else torch.device("cpu")
    why = "" if fits else f", too large for {device}: batches are copied"
    log.info("nuclei: %.0f MB on %s%s", n_bytes / 1e6, stored_on, why)
    return stored_on
