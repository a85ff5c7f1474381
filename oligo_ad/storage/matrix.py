"""The expression matrix of a cohort on disk: CSR, written block by block, memory-mapped when read.

The operating system reclaims mapped memory when it needs it, and processes share it: a cohort larger than
the free memory can still be used, and six runs at once hold it in memory once.
"""

from dataclasses import dataclass, replace
from io import BufferedRandom
from pathlib import Path

import numpy as np
import scipy.sparse as sp

from oligo_ad.storage.kernels import copy_wanted, count_wanted

FILES = ("data.npy", "indices.npy")
PLACES, GENES = "places.npy", "stored_as.npy"
BLOCK = 1 << 22  # nonzeros that are moved at once


@dataclass(frozen=True)
class NucleusMatrix:
    """Values of nuclei by genes, stored by nucleus (CSR).

    Nuclei and genes may have another order than the one in which they are stored.

    `data` [nonzeros] float32; `indices` [nonzeros] the genes as stored, uint16 where they fit; within a
    nucleus they rise, and no zero is stored. `starts`, `stops` [nuclei] int64: where the values of each
    nucleus begin and end. `stored_as` [genes]: the number by which each gene is stored.
    """

    data: np.ndarray
    indices: np.ndarray
    starts: np.ndarray
    stops: np.ndarray
    stored_as: np.ndarray

    @property
    def shape(self) -> tuple[int, int]:
        """Nuclei and genes."""
        return len(self.starts), len(self.stored_as)

    def of(self, rows: np.ndarray) -> "NucleusMatrix":
        """Some nuclei, in the order given: a view, no value is copied."""
        return replace(self, starts=self.starts[rows], stops=self.stops[rows])

    def reordered(self, genes: np.ndarray) -> "NucleusMatrix":
        """The same with its genes in another order: a view, no value is copied."""
        return replace(self, stored_as=self.stored_as[genes])

    def columns(self, genes: np.ndarray) -> sp.csr_matrix:
        """The values of some genes [nuclei, len(genes)], columns in the order given: a canonical copy."""
        found = self.unsorted_columns(genes)
        found.sort_indices()
        return found

    def unsorted_columns(self, genes: np.ndarray) -> sp.csr_matrix:
        """The same with the values of a nucleus in any order, in a fraction of the time."""
        place_of = np.full(len(self.stored_as), -1, np.int32)
        place_of[self.stored_as[genes]] = np.arange(len(genes), dtype=np.int32)
        indptr = count_wanted(self.starts, self.stops, self.indices, place_of)
        values, places = np.empty(indptr[-1], np.float32), np.empty(indptr[-1], np.int32)
        copy_wanted(self.starts, self.stops, self.indices, self.data, place_of, places, values)
        return sp.csr_matrix((values, places, indptr), shape=(self.shape[0], len(genes)))

    def save(self, folder: Path) -> None:
        """Write the order of nuclei and genes beside the values, which are in the folder already."""
        np.save(folder / PLACES, np.stack([self.starts, self.stops]))
        np.save(folder / GENES, self.stored_as)


def open_matrix(folder: Path) -> NucleusMatrix:
    """The matrix that was written to a folder, its values mapped."""
    data, indices = (np.load(folder / name, mmap_mode="r") for name in FILES)
    starts, stops = np.load(folder / PLACES)
    return NucleusMatrix(data, indices, starts, stops, np.load(folder / GENES))


class MatrixWriter:
    """Appends blocks of rows to the files of a matrix; memory does not grow with them.

    Args:
        folder: where the files go.
        n_genes: columns of every block.
    """

    def __init__(self, folder: Path, n_genes: int) -> None:
        self._folder, self._n_genes = folder, n_genes
        self._lengths: list[np.ndarray] = []
        small = n_genes <= 1 + np.iinfo(np.uint16).max
        self._files = [
            _GrowingArray(folder / name, np.dtype(dtype))
            for name, dtype in zip(FILES, (np.float32, np.uint16 if small else np.int32), strict=True)
        ]

    def append(self, block: sp.csr_matrix) -> None:
        """Write the rows of a canonical block."""
        for file, values in zip(self._files, (block.data, block.indices), strict=True):
            file.append(values)
        self._lengths.append(np.diff(block.indptr).astype(np.int64))

    def close(self, keep: np.ndarray) -> NucleusMatrix:
        """End the files, leaving out the rows that are not to be kept [rows written] bool."""
        lengths = np.concatenate(self._lengths)
        for file in self._files:
            file.close(lengths, keep)
        data, indices = (np.load(self._folder / name, mmap_mode="r") for name in FILES)
        stops = np.cumsum(lengths[keep])
        return NucleusMatrix(data, indices, stops - lengths[keep], stops, np.arange(self._n_genes))


class _GrowingArray:
    """A one-dimensional .npy file that is written before its length is known.

    numpy pads the header so that it can be written again with any length.
    """

    def __init__(self, path: Path, dtype: np.dtype) -> None:
        self._file: BufferedRandom = path.open("w+b")
        self._dtype = dtype
        self._write_header(0)
        self._start = self._file.tell()

    def append(self, values: np.ndarray) -> None:
        self._file.write(values.astype(self._dtype, copy=False).data)

    def close(self, lengths: np.ndarray, keep: np.ndarray) -> None:
        """Keep some of the stretches, whose lengths are given in order, and end the file after them."""
        n = int(lengths[keep].sum())
        if not keep.all():
            self._compact(lengths, keep)
        self._file.truncate(self._start + n * self._dtype.itemsize)
        self._file.seek(0)
        self._write_header(n)
        self._file.close()

    def _compact(self, lengths: np.ndarray, keep: np.ndarray) -> None:
        """Move what is kept to the front, block by block, never past what was read."""
        read = filled = 0
        step = max(1, BLOCK // max(1, int(lengths.max())))
        for first in range(0, len(lengths), step):
            length, wanted = lengths[first : first + step], keep[first : first + step]
            self._file.seek(self._start + read * self._dtype.itemsize)
            content = self._file.read(int(length.sum()) * self._dtype.itemsize)
            values = np.frombuffer(content, self._dtype)[np.repeat(wanted, length)]
            self._file.seek(self._start + filled * self._dtype.itemsize)
            self._file.write(values.data)
            read, filled = read + int(length.sum()), filled + len(values)

    def _write_header(self, length: int) -> None:
        description = np.lib.format.dtype_to_descr(self._dtype)
        header = {"descr": description, "fortran_order": False, "shape": (length,)}
        np.lib.format.write_array_header_1_0(self._file, header)
