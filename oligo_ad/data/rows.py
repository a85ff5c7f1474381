"""Chosen rows of a stored matrix, whatever its layout, in blocks that threads read side by side."""

import os
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple

import h5py
import numpy as np
import scipy.sparse as sp

from oligo_ad.data.chunks import Spanned, open_vector

# A block holds at most BLOCK nonzeros of the chosen rows. What cannot be read by position is read in
# whole spans, of at most SPAN nonzeros (or entries of a dense matrix).
BLOCK, SPAN = 1 << 21, 1 << 22
CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
THREADS = min(8, CORES)


class Damaged(ValueError):
    """What is stored contradicts itself; the message ends a sentence about the matrix."""


class Reader(NamedTuple):
    """A matrix ready to be read: `read` turns each of `parts`, rows of it, into a block.

    `says` names the slower ways that its storage asks for, if any.
    """

    parts: list[np.ndarray]
    read: Callable[[np.ndarray], sp.csr_matrix]
    says: list[str]


def read_rows(reader: Reader) -> Iterator[sp.csr_matrix]:
    """Blocks in order, canonical and without stored zeros.

    Raises:
        Damaged: a gene beyond the last, or a value that is no number.
    """
    with ThreadPoolExecutor(THREADS) as pool:
        ahead: deque[Future[sp.csr_matrix]] = deque()
        try:
            for part in reader.parts:
                ahead.append(pool.submit(_read_block, reader, part))
                if len(ahead) > THREADS:
                    yield ahead.popleft().result()
            while ahead:
                yield ahead.popleft().result()
        finally:
            for block in ahead:
                block.cancel()


def _read_block(reader: Reader, part: np.ndarray) -> sp.csr_matrix:
    block = reader.read(part)
    if not np.isfinite(block.data).all():
        raise Damaged("holds NaN or infinite values")
    block.sum_duplicates()
    block.eliminate_zeros()
    return block


def csr_reader(group: h5py.Group, shape: tuple[int, int], rows: np.ndarray, file: int | None) -> Reader:
    """Rows of a CSR matrix: only what they hold is read, where the storage allows it.

    Raises:
        Damaged: the row pointers fit neither the shape nor what is stored.
    """
    n_genes = shape[1]
    indptr = group["indptr"][:].astype(np.int64)
    stored = group["data"].shape[0]
    sound = len(indptr) == shape[0] + 1 and indptr[0] == 0 and (np.diff(indptr) >= 0).all()
    if not (sound and indptr[-1] == stored == group["indices"].shape[0]):
        raise Damaged("has damaged row pointers")
    data, indices = (open_vector(group[name], file) for name in ("data", "indices"))
    says = list(dict.fromkeys(vector.says for vector in (data, indices) if vector.says))

    def read(part: np.ndarray) -> sp.csr_matrix:
        starts, stops = indptr[part], indptr[part + 1]
        genes = indices.read(starts, stops)
        if len(genes) and (genes.min() < 0 or genes.max() >= n_genes):
            raise Damaged(f"names a gene beyond its {n_genes}: its column indices are damaged")
        places = np.concatenate([[0], np.cumsum(stops - starts)])
        parts = (_usable(data.read(starts, stops)), genes.astype(np.int32, copy=False), places)
        return sp.csr_matrix(parts, shape=(len(part), n_genes))

    own = np.concatenate([[0], np.cumsum(indptr[rows + 1] - indptr[rows])])
    parts = _cut(rows, own[:-1], own[1:], BLOCK)
    if isinstance(data, Spanned) or isinstance(indices, Spanned):
        parts = [piece for part in parts for piece in _cut(part, indptr[part], indptr[part + 1], SPAN)]
    return Reader(parts, read, says)


def csc_reader(group: h5py.Group, shape: tuple[int, int], rows: np.ndarray) -> Reader:
    """Rows of a CSC matrix. It has none to seek: all is read, and what the rows hold is kept in memory.

    Raises:
        Damaged: the column pointers or row indices do not fit the shape.
    """
    indptr = group["indptr"][:].astype(np.int64)
    stored = group["data"].shape[0]
    if len(indptr) != shape[1] + 1 or indptr[0] or (np.diff(indptr) < 0).any() or indptr[-1] != stored:
        raise Damaged("has damaged column pointers")
    place = np.full(shape[0], -1, np.int32)
    place[rows] = np.arange(len(rows), dtype=np.int32)
    kept, values = [], []
    length = np.zeros(shape[1], np.int64)
    for part in _cut(np.arange(shape[1]), indptr[:-1], indptr[1:], SPAN):
        first, last = indptr[part[0]], indptr[part[-1] + 1]
        nuclei = group["indices"][first:last]
        if len(nuclei) and (nuclei.min() < 0 or nuclei.max() >= shape[0]):
            raise Damaged(f"names a nucleus beyond its {shape[0]}: its row indices are damaged")
        wanted = place[nuclei] >= 0
        kept.append(place[nuclei[wanted]])
        values.append(_usable(group["data"][first:last][wanted]))
        before = np.concatenate([[0], np.cumsum(wanted)])
        length[part] = np.diff(before[indptr[part[0] : part[-1] + 2] - first])
    pointers = np.concatenate([[0], np.cumsum(length)])
    parts = (np.concatenate(values), np.concatenate(kept), pointers)
    whole = sp.csc_matrix(parts, shape=(len(rows), shape[1])).tocsr()
    own = whole.indptr.astype(np.int64)
    return Reader(
        parts=_cut(np.arange(len(rows)), own[:-1], own[1:], BLOCK),
        read=lambda part: whole[part[0] : part[-1] + 1],
        says=["stored by gene (CSC), which is read whole"],
    )


def dense_reader(stored: h5py.Dataset, rows: np.ndarray) -> Reader:
    """Rows of a dense matrix, read in whole spans."""
    step = max(1, SPAN // stored.shape[1])
    parts = np.split(rows, np.flatnonzero(np.diff(rows // step)) + 1) if len(rows) else []

    def read(part: np.ndarray) -> sp.csr_matrix:
        return sp.csr_matrix(_usable(stored[part[0] : part[-1] + 1][part - part[0]]))

    return Reader(parts, read, ["stored dense, zeros and all"])


def _usable(values: np.ndarray) -> np.ndarray:
    """Values of a type that scipy and compiled loops take: of this machine's byte order, at least float32."""
    native = values.dtype.newbyteorder("=")
    return values.astype(np.float32 if native == np.float16 else native, copy=False)


def _cut(rows: np.ndarray, starts: np.ndarray, stops: np.ndarray, most: int) -> list[np.ndarray]:
    """Cut rows, which hold [start, stop), into runs that span at most `most` (or one row)."""
    parts, first = [], 0
    while first < len(rows):
        end = max(first + 1, int(np.searchsorted(stops, starts[first] + most, side="right")))
        parts.append(rows[first:end])
        first = end
    return parts
