"""Stretches of a stored vector, read from the file by position and decompressed by several threads.

HDF5 itself reads under one lock and decompresses with zlib, which is slower. Here it only locates the
chunks, once; each is then read by position and decompressed by libdeflate, both of which release Python's
lock.
"""

import os
import re
import zlib
from typing import Any, NamedTuple, Protocol

import h5py
import numpy as np

try:
    from deflate import zlib_decompress
except ImportError:  # no wheel for this platform: the standard library takes three times as long

    def zlib_decompress(data: Any, originalsize: int) -> bytearray:
        # A byte more than expected, however much there is: a small chunk may inflate to any size.
        stream = zlib.decompressobj()
        content = stream.decompress(data, originalsize + 1)
        if not stream.eof and len(content) <= originalsize:
            raise ValueError("incomplete or truncated stream")
        return bytearray(content)


# Chunks of more bytes than this are left to HDF5, or each thread would hold one.
LARGEST_CHUNK = 1 << 26


class Vector(Protocol):
    """A stored vector that several threads may read. `slower`: why reading is slow, empty where it is not."""

    slower: str

    def read(self, starts: np.ndarray, stops: np.ndarray) -> np.ndarray:
        """The stretches [start, stop) of rising, disjoint places, one after the other."""


class Spanned:
    """A vector that is read through HDF5 or zarr: the whole span first, then the stretches cut from it."""

    def __init__(self, stored: h5py.Dataset, slower: str) -> None:
        self._stored, self.slower = stored, slower

    def read(self, starts: np.ndarray, stops: np.ndarray) -> np.ndarray:
        if not len(starts):
            return np.empty(0, self._stored.dtype)
        first = int(starts[0])
        span = self._stored[first : int(stops[-1])]
        return np.concatenate([span[a - first : b - first] for a, b in _runs(starts, stops)])


class Chunks(NamedTuple):
    """Where the pieces of a vector lie: `size` entries each, `place` and `length` in bytes of the file."""

    size: int
    place: np.ndarray
    length: np.ndarray
    compressed: bool
    shuffled: bool


class Direct:
    """A vector whose chunks are read from the file by position.

    Args:
        file: open file descriptor of the HDF5 file.
        dtype: of the stored entries.
        chunks: where they lie.
    """

    slower = ""

    def __init__(self, file: int, dtype: np.dtype, chunks: Chunks) -> None:
        self._file, self._dtype, self._chunks = file, dtype, chunks

    def read(self, starts: np.ndarray, stops: np.ndarray) -> np.ndarray:
        out = np.empty(int((stops - starts).sum()), self._dtype)
        filled, current, chunk = 0, -1, out[:0]
        for start, stop in _runs(starts, stops):
            while start < stop:
                number, offset = divmod(start, self._chunks.size)
                n = min(stop - start, self._chunks.size - offset)
                piece = out[filled : filled + n]
                if not self._chunks.compressed:
                    self._read_into(piece, number, offset)
                else:
                    if number != current:
                        chunk, current = self.decompressed(number), number
                    piece[:] = chunk[offset : offset + n]
                filled, start = filled + n, start + n
        return out

    def decompressed(self, number: int) -> np.ndarray:
        """The entries of one compressed chunk."""
        size = self._chunks.size * self._dtype.itemsize
        stored = os.pread(self._file, int(self._chunks.length[number]), int(self._chunks.place[number]))
        content = zlib_decompress(stored, size)
        if len(content) != size:
            raise ValueError(f"chunk {number} holds {len(content)} bytes instead of {size}")
        if not self._chunks.shuffled:
            return np.frombuffer(content, self._dtype)
        # The filter stores the first byte of all entries, then the second, and so on.
        by_byte = np.frombuffer(content, np.uint8).reshape(self._dtype.itemsize, -1)
        return np.ascontiguousarray(by_byte.T).view(self._dtype).ravel()

    def _read_into(self, piece: np.ndarray, number: int, offset: int) -> None:
        place = int(self._chunks.place[number]) + offset * self._dtype.itemsize
        if os.preadv(self._file, [piece.data.cast("B")], place) != piece.nbytes:
            raise ValueError(f"chunk {number} ends beyond the file")


def open_vector(stored: h5py.Dataset, file: int | None) -> Vector:
    """The fastest reader that a stored vector allows.

    Args:
        stored: one-dimensional, of HDF5 or zarr.
        file: open descriptor of the HDF5 file; None where there is none.
    """
    if file is None:
        return Spanned(stored, "read through zarr, which is slower than HDF5 with gzip")
    chunks = _locate(stored)
    if isinstance(chunks, str):
        return Spanned(stored, f"read through HDF5, which is slower: {chunks}")
    return Direct(file, stored.dtype, chunks)


def filters_of(stored: h5py.Dataset) -> dict[int, str]:
    """Codes and names of the filters that a dataset passed through, in order."""
    plist = stored.id.get_create_plist()
    filters = [plist.get_filter(i) for i in range(plist.get_nfilters())]
    # Some names end with a reference to the filter's description.
    return {code: re.split("[:;]", name.decode())[0] or f"filter {code}" for code, _, _, name in filters}


def _locate(stored: h5py.Dataset) -> Chunks | str:
    """Where the chunks of a dataset lie, or why they cannot be read by position."""
    if not (hasattr(os, "preadv") and hasattr(stored.id, "chunk_iter")):
        return "this system has no positional reads"
    if stored.ndim != 1 or stored.dtype.kind not in "iuf":
        return f"it holds {stored.dtype} in {stored.ndim} dimensions"
    if stored.file.userblock_size:
        return "the file begins with a user block"
    if not stored.chunks:
        place = stored.id.get_offset()
        if place is None:
            return "it is stored inside its header" if len(stored) else "it is empty"
        return Chunks(len(stored), np.array([place]), np.array([stored.nbytes]), False, False)
    named = filters_of(stored)
    filters = list(named)
    if filters not in ([], [h5py.h5z.FILTER_DEFLATE], [h5py.h5z.FILTER_SHUFFLE, h5py.h5z.FILTER_DEFLATE]):
        return f"it is stored with {' and '.join(named.values())}"
    if stored.chunks[0] * stored.dtype.itemsize > LARGEST_CHUNK:
        return f"its chunks hold {stored.chunks[0]:,} entries"
    return _chunk_table(stored, filters)


def _chunk_table(stored: h5py.Dataset, filters: list[int]) -> Chunks | str:
    size = stored.chunks[0]
    n_chunks = -(-len(stored) // size)
    place, length = np.zeros(n_chunks, np.int64), np.zeros(n_chunks, np.int64)
    unfiltered = []

    def note(info: h5py.h5d.StoreInfo) -> None:
        number = info.chunk_offset[0] // size
        if number < n_chunks:
            place[number], length[number] = info.byte_offset, info.size
        if info.filter_mask:
            unfiltered.append(number)

    stored.id.chunk_iter(note)
    if unfiltered or not (length > 0).all():
        return "some of its chunks are absent or stored without its filters"
    return Chunks(size, place, length, bool(filters), h5py.h5z.FILTER_SHUFFLE in filters)


def _runs(starts: np.ndarray, stops: np.ndarray) -> list[tuple[int, int]]:
    """The stretches, with those joined that follow one another."""
    if not len(starts):
        return []
    new = np.ones(len(starts), bool)
    new[1:] = starts[1:] != stops[:-1]
    last = np.append(np.flatnonzero(new)[1:] - 1, len(starts) - 1)
    return list(zip(starts[new].tolist(), stops[last].tolist(), strict=True))
