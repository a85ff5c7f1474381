"""Batches gathered on the training device: no worker processes, no copy from the host in a step.

The order of the nuclei is a function of (seed, epoch) alone, and each process takes every n-th
nucleus of each batch, so that any number of processes sees the same batches.
"""

import logging
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from oligo_ad.inputs.batch import Batch, Tokens
from oligo_ad.inputs.featurizers import Featurizer

log = logging.getLogger(__name__)

WINDOW = 128  # batches within which cells of like length are brought together


class Share(NamedTuple):
    """This process among all: it takes cells `rank`, `rank + of`, … of every batch."""

    rank: int = 0
    of: int = 1


class Loader:
    """The whole cohort on one device, as an featurizer sees it.

    Args:
        featurizer: fitted.
        tokens: of all cells.
        metadata: [cells, M], standardised.
        label: [cells], 0 or 1.
        donor: [cells], donor ids.
        device: where batches are made.
        share: which cells of a batch are this process's.
    """

    def __init__(
        self,
        featurizer: Featurizer,
        tokens: Tokens,
        metadata: np.ndarray,
        label: np.ndarray,
        donor: np.ndarray,
        device: torch.device,
        share: Share,
    ) -> None:
        self._featurizer = featurizer
        self._lengths = tokens.offsets.diff()  # stays on the host: a batch's length costs no sync
        self._home = _home(sum(part.nbytes for part in tokens), device)
        self._tokens = tokens.to(self._home)
        self._metadata = torch.from_numpy(metadata.astype(np.float32)).to(device)
        self._label = torch.from_numpy(label.astype(np.float32)).to(device)
        self._donor = donor
        self._device, self._share = device, share

    def shuffled(self, rows: np.ndarray, batch_size: int, seed: int, epoch: int) -> Iterator[Batch]:
        """One epoch in random order; the incomplete last batch is left to another epoch's order.

        Where batches are padded, cells of like length share one: the cells of each `WINDOW` batches are
        sorted by length, cut into batches, and these are shuffled.
        """
        generator = torch.Generator().manual_seed(seed * 1_000_003 + epoch)
        order = torch.from_numpy(rows)[torch.randperm(len(rows), generator=generator)]
        order = order[: self.n_batches(rows, batch_size) * batch_size]
        for window in order.split(WINDOW * batch_size):
            if self._featurizer.padded:
                window = window[self._lengths[window].argsort(stable=True)]
            batches = window.split(batch_size)
            for place in torch.randperm(len(batches), generator=generator).tolist():
                yield self._take(batches[place][self._share.rank :: self._share.of], epoch)

    def by_donor(self, rows: np.ndarray, batch_size: int) -> Iterator[Batch]:
        """Each of the rows over all processes, the last of a batch repeated so that all get as many.

        No batch mixes donors: padding and rounding of a cell, hence its prediction, then depend on
        its own donor alone, to the last bit.
        """
        for donor in np.unique(self._donor[rows]):
            own = torch.from_numpy(rows[self._donor[rows] == donor])
            for cells in own[self._lengths[own].argsort(stable=True)].split(batch_size):
                fill = -len(cells) % self._share.of
                cells = torch.cat([cells, cells[-1:].expand(fill)])
                yield self._take(cells[self._share.rank :: self._share.of], epoch=0)

    @staticmethod
    def n_batches(rows: np.ndarray, batch_size: int) -> int:
        """Whole batches in an epoch."""
        return len(rows) // batch_size

    def _take(self, rows: Tensor, epoch: int) -> Batch:
        longest = max(1, int(self._lengths[rows].max()))
        packed = self._featurizer.pack(self._tokens, rows.to(self._home), longest, epoch)
        ids_BL, values_BL, mask_BL = (part.to(self._device) for part in packed)
        rows_B = rows.to(self._device)
        metadata_BM, label_B = self._metadata[rows_B], self._label[rows_B]
        return Batch(ids_BL, values_BL, mask_BL, metadata_BM, label_B, rows_B)


def _home(n_bytes: int, device: torch.device) -> torch.device:
    """Where the cells stay: on the device, unless they would take more than half of what is free there."""
    fits = device.type != "cuda" or n_bytes <= torch.cuda.mem_get_info(device)[0] // 2
    home = device if fits else torch.device("cpu")
    why = "" if fits else f", too large for {device}: batches are copied"
    log.info("cells: %.0f MB on %s%s", n_bytes / 1e6, home, why)
    return home
