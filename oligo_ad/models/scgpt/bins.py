"""scGPT's values: the bin of each expressed gene among the quantiles of its own cell.

For n nonzero values and 51 bins there are 50 edges, quantiles at equal steps from least to most. A value
between edges has one bin; a value that equals edges may have any of the bins they bound, and one is drawn
(scgpt 0.2.4, `preprocess.binning`). In counts of a nucleus nearly all values are ties, so that a 1 may get
any of the lower third of bins. Edges are linear between neighbours in rank, so ranks alone decide: raw
counts and their logarithms have the same bins, and no quantile need be computed.
"""

import numpy as np
from numba import njit

from oligo_ad.inputs.draws import draw, uniform
from oligo_ad.threads import CORES, in_order

BLOCK = 256  # cells a thread takes at once


def bin_values(
    offsets: np.ndarray, values: np.ndarray, ids: np.ndarray, keys: np.ndarray, stream: int, n_bins: int
) -> np.ndarray:
    """Bins 1 to n_bins - 1 of positive values [values] uint8.

    Args:
        offsets: [cells + 1], where each cell's values start.
        values: of all cells.
        ids: what each value belongs to; with its cell's key it decides its draw.
        keys: [cells].
        stream: of the draws.
        n_bins: 256 at most; bin 0 is for zeros.
    """
    bins = np.empty(len(values), np.uint8)
    quantiles = np.linspace(0, 1, n_bins - 1)

    def work(first: int) -> None:
        own = offsets[first : first + BLOCK + 1]
        places = slice(own[0], own[-1])
        cell = np.repeat(keys[first : first + BLOCK], np.diff(own))
        drawn = uniform(draw(cell, stream, ids[places].astype(np.int64)))
        _bin(own - own[0], values[places], drawn, quantiles, bins[places])

    for _ in in_order(work, range(0, len(keys), BLOCK), CORES):
        pass
    return bins


@njit(cache=True, nogil=True)
def _bin(
    offsets: np.ndarray,
    values: np.ndarray,
    drawn: np.ndarray,
    quantiles: np.ndarray,
    bins: np.ndarray,
) -> None:
    for cell in range(len(offsets) - 1):
        start, stop = offsets[cell], offsets[cell + 1]
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
