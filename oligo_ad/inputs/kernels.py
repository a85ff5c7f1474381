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


@compiled
def write_dense(pointers: np.ndarray, columns: np.ndarray, values: np.ndarray, dense: np.ndarray) -> None:
    """Write the values of a CSR matrix, whose columns may be in any order, into `dense`, which is 0."""
    for row in range(len(pointers) - 1):
        for at in range(pointers[row], pointers[row + 1]):
            dense[row, columns[at]] = values[at]


@compiled
def project_rows(
    pointers: np.ndarray, columns: np.ndarray, values: np.ndarray, loading: np.ndarray, projected: np.ndarray
) -> None:
    """A CSR matrix times `loading`, added in the order of columns, whatever the one of the stored values."""
    whole = np.zeros(len(loading), np.float32)
    for row in range(len(pointers) - 1):
        for at in range(pointers[row], pointers[row + 1]):
            whole[columns[at]] = values[at]
        for column in range(len(loading)):
            if whole[column] != 0:
                for axis in range(loading.shape[1]):
                    projected[row, axis] += whole[column] * loading[column, axis]
                whole[column] = 0
