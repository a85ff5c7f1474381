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

FILES = ("data.npy", "indices.npy", "indptr.npy")
BLOCK = 1 << 22  # nonzeros that are moved at once


@dataclass(frozen=True)
class NucleusMatrix:
    """Values of nuclei by genes, stored by nucleus (CSR).

    `data` [nonzeros] float32; `indices` [nonzeros] the genes, uint16 where they fit; `starts`, `stops`
    [nuclei] int64: where each nucleus's values begin and end. Within a nucleus genes rise, and no zero is
    stored.
    """

    data: np.ndarray
    indices: np.ndarray
    starts: np.ndarray
    stops: np.ndarray
    n_genes: int

    @property
    def shape(self) -> tuple[int, int]:
        """Nuclei and genes."""
        return len(self.starts), self.n_genes

    def of(self, rows: np.ndarray) -> "NucleusMatrix":
        """Some nuclei: a view, no value is copied."""
        return replace(self, starts=self.starts[rows], stops=self.stops[rows])

    def columns(self, genes: np.ndarray) -> sp.csr_matrix:
        """The values of some genes [nuclei, len(genes)], columns in the order given: a copy."""
        place_of = np.full(self.n_genes, -1, np.int32)
        place_of[genes] = np.arange(len(genes), dtype=np.int32)
        indptr = count_wanted(self.starts, self.stops, self.indices, place_of)
        values, places = np.empty(indptr[-1], np.float32), np.empty(indptr[-1], np.int32)
        copy_wanted(self.starts, self.stops, self.indices, self.data, place_of, places, values)
        return sp.csr_matrix((values, places, indptr), shape=(self.shape[0], len(genes)))


def open_matrix(folder: Path, n_genes: int) -> NucleusMatrix:
    """The matrix that was written to a folder, mapped."""
    data, indices = (np.load(folder / name, mmap_mode="r") for name in FILES[:2])
    indptr = np.load(folder / FILES[2])
    return NucleusMatrix(data, indices, indptr[:-1], indptr[1:], n_genes)


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
            for name, dtype in zip(FILES, (np.float32, np.uint16 if small else np.int32), strict=False)
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
        np.save(self._folder / FILES[2], np.concatenate([[0], np.cumsum(lengths[keep])]))
        return open_matrix(self._folder, self._n_genes)


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
