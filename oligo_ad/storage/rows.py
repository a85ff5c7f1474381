"""Chosen rows of a stored matrix of any layout, in blocks that several threads read at once."""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import h5py
import numpy as np
import scipy.sparse as sp

from oligo_ad.storage.absent import Damaged
from oligo_ad.storage.chunks import open_vector
from oligo_ad.threads import CORES, in_order

# A block holds at most BLOCK nonzeros of the chosen rows. What cannot be read by position is read in
# whole spans, of at most SPAN nonzeros (or entries of a dense matrix).
BLOCK, SPAN = 1 << 21, 1 << 22
THREADS = min(8, CORES)
# A row may name a gene more than once, but one of more values than this times the genes is damaged.
REPEATED = 100


class Reader(NamedTuple):
    """A matrix ready to be read: `read` turns each of `parts`, rows of it, into a block.

    `slower` names the slower ways of reading that its storage requires, if any.
    """

    parts: list[np.ndarray]
    read: Callable[[np.ndarray], sp.csr_matrix]
    slower: list[str]


def read_rows(reader: Reader) -> Iterator[sp.csr_matrix]:
    """Blocks in order, canonical and without stored zeros.

    Raises:
        Damaged: a gene beyond the last, or a value that is no number.
    """

    def read(part: np.ndarray) -> sp.csr_matrix:
        block = reader.read(part)
        if not np.isfinite(block.data).all():
            raise Damaged("holds NaN or infinite values")
        block.sum_duplicates()
        block.eliminate_zeros()
        return block

    return in_order(read, reader.parts, THREADS)


def csr_reader(group: h5py.Group, shape: tuple[int, int], rows: np.ndarray, file: int | None) -> Reader:
    """Rows of a CSR matrix; where its storage allows, nothing else is read.

    Raises:
        Damaged: the row pointers fit neither the shape nor what is stored.
    """
    n_genes = shape[1]
    indptr = _pointers(group, *shape, "row")
    data, indices = (open_vector(group[name], file) for name in ("data", "indices"))
    slower = list(dict.fromkeys(vector.slower for vector in (data, indices) if vector.slower))

    def read(part: np.ndarray) -> sp.csr_matrix:
        starts, stops = indptr[part], indptr[part + 1]
        genes = indices.read(starts, stops)
        if not _within(genes, n_genes):
            raise Damaged(f"names a gene beyond its {n_genes}: its column indices are damaged")
        parts = (
            _usable(data.read(starts, stops)),
            genes.astype(np.int32, copy=False),
            _offsets(stops - starts),
        )
        return sp.csr_matrix(parts, shape=(len(part), n_genes))

    own = _offsets(indptr[rows + 1] - indptr[rows])
    parts = _cut(rows, own[:-1], own[1:], BLOCK)
    if slower:
        parts = [piece for part in parts for piece in _cut(part, indptr[part], indptr[part + 1], SPAN)]
    return Reader(parts, read, slower)


def csc_reader(group: h5py.Group, shape: tuple[int, int], rows: np.ndarray) -> Reader:
    """Rows of a CSC matrix. The whole matrix is read, and what the rows hold is kept in memory.

    Raises:
        Damaged: the column pointers or row indices do not fit the shape.
    """
    indptr = _pointers(group, shape[1], shape[0], "column")
    place = np.full(shape[0], -1, np.int32)
    place[rows] = np.arange(len(rows), dtype=np.int32)
    kept, values = [], []
    length = np.zeros(shape[1], np.int64)
    for part in _cut(np.arange(shape[1]), indptr[:-1], indptr[1:], SPAN):
        first, last = indptr[part[0]], indptr[part[-1] + 1]
        nuclei = group["indices"][first:last]
        if not _within(nuclei, shape[0]):
            raise Damaged(f"names a nucleus beyond its {shape[0]}: its row indices are damaged")
        wanted = place[nuclei] >= 0
        kept.append(place[nuclei[wanted]])
        values.append(_usable(group["data"][first:last][wanted]))
        length[part] = np.diff(_offsets(wanted)[indptr[part[0] : part[-1] + 2] - first])
    parts = (np.concatenate(values), np.concatenate(kept), _offsets(length))
    whole = sp.csc_matrix(parts, shape=(len(rows), shape[1])).tocsr()
    own = whole.indptr.astype(np.int64)
    return Reader(
        parts=_cut(np.arange(len(rows)), own[:-1], own[1:], BLOCK),
        read=lambda part: whole[part[0] : part[-1] + 1],
        slower=["stored by gene (CSC), which is read whole"],
    )


def dense_reader(stored: h5py.Dataset, rows: np.ndarray) -> Reader:
    """Rows of a dense matrix, read in whole spans."""
    parts = by_span(rows, max(1, SPAN // stored.shape[1]))

    def read(part: np.ndarray) -> sp.csr_matrix:
        return sp.csr_matrix(_usable(stored[part[0] : part[-1] + 1][part - part[0]]))

    return Reader(parts, read, ["stored dense, with all its zeros"])


def by_span(rows: np.ndarray, span: int) -> list[np.ndarray]:
    """Sorted rows, cut where another `span` rows of the file begin."""
    return np.split(rows, np.flatnonzero(np.diff(rows // span)) + 1) if len(rows) else []


def _pointers(group: h5py.Group, n: int, most: int, of: str) -> np.ndarray:
    """The pointers of `n` rows or columns, which rise from 0 to the number of values stored.

    Args:
        most: values that a row or column has room for.
    """
    if group["indptr"].shape != (n + 1,):
        raise Damaged(f"has damaged {of} pointers")
    indptr: np.ndarray = group["indptr"][:].astype(np.int64)
    sound = indptr[0] == 0 and (np.diff(indptr) >= 0).all()
    if not (sound and indptr[-1] == group["data"].shape[0] == group["indices"].shape[0]):
        raise Damaged(f"has damaged {of} pointers")
    if np.diff(indptr).max(initial=0) > REPEATED * max(most, 100):
        raise Damaged(f"declares a {of} of {np.diff(indptr).max():,} values, where {most:,} fit")
    return indptr


def _within(indices: np.ndarray, n: int) -> bool:
    return not len(indices) or bool(indices.min() >= 0 and indices.max() < n)


def _offsets(lengths: np.ndarray) -> np.ndarray:
    """Where each of some stretches begins, and the end of the last."""
    return np.concatenate([[0], np.cumsum(lengths)])


def _usable(values: np.ndarray) -> np.ndarray:
    """Values of a type that scipy and compiled loops take: of this machine's byte order, at least float32."""
    native = values.dtype.newbyteorder("=")
    return values.astype(np.float32 if native in (np.float16, bool) else native, copy=False)


def _cut(rows: np.ndarray, starts: np.ndarray, stops: np.ndarray, most: int) -> list[np.ndarray]:
    """Cut rows, which hold [start, stop), into runs that span at most `most` (or one row)."""
    parts, first = [], 0
    while first < len(rows):
        end = max(first + 1, int(np.searchsorted(stops, starts[first] + most, side="right")))
        parts.append(rows[first:end])
        first = end
    return parts
