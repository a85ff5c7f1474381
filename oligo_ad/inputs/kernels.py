"""The compiled loop that fills a batch; not in `storage/`, whose code cached cohorts depend on."""

import numpy as np

from oligo_ad.storage.compiled import compiled


@compiled
def write_rows(
    rows: np.ndarray,
    offsets: np.ndarray,
    genes: np.ndarray,
    values: np.ndarray,
    background: np.ndarray,
    dense: np.ndarray,
) -> None:
    """Write nuclei into `dense` [len(rows), genes]: the background, then their stored values over it."""
    for i in range(len(rows)):
        # A loop: assigning the whole row takes half as long again.
        for gene in range(len(background)):
            dense[i, gene] = background[gene]
        for place in range(offsets[rows[i]], offsets[rows[i] + 1]):
            # An unsigned index needs no check for negative values.
            dense[i, np.uint64(genes[place])] = values[place]
