"""An h5ad file or zarr store, checked as it is read; a matrix is read in pieces, never as a whole.

Files come from anywhere: shapes, row pointers and column indices are checked before they are used, since
a wrong index crashes the libraries that rely on it.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
import scipy.sparse as sp
from anndata.io import read_elem

from oligo_ad.errors import UserError, listing, nearest
from oligo_ad.storage.rows import Damaged, by_span, csc_reader, csr_reader, dense_reader, read_rows
from oligo_ad.storage.stores import open_h5ad, open_zarr

log = logging.getLogger(__name__)

WORDS = 1 << 17  # entries of obs that are read at once


class Atlas:
    """An open h5ad or zarr store. Rows are nuclei (obs), columns genes (var).

    `path` the file; `n_obs` its number of nuclei; `columns` its obs columns, those with a '/' in their name
    (stored as nested groups) included; `simulated` whether `data=demo` wrote it; `matrices` the names
    of its matrices: X, raw/X, layers/….
    """

    def __init__(self, path: Path, file: h5py.File, descriptor: int | None) -> None:
        self.path = path
        self._file, self._descriptor = file, descriptor
        with self._reading("obs"):
            self.columns: list[str] = [str(name) for name in file["obs"].attrs["column-order"]]
            self._barcodes = file["obs"][file["obs"].attrs["_index"]]
            self.n_obs = int(_codes(self._barcodes).shape[0])
        self.simulated = "SIMULATED" in file.get("uns", ())
        present = [name for name in ("X", "raw/X") if name in file]
        self.matrices = present + [f"layers/{name}" for name in file.get("layers", ())]
        if self.n_obs == 0:
            raise UserError(f"{path} holds no nuclei (obs is empty).")

    def column(self, name: str, rows: np.ndarray | None = None) -> pd.Series:
        """One obs column, an entry for every nucleus or for those in `rows` (sorted).

        Raises:
            UserError: there is no such column, or its length is not the number of nuclei.
        """
        if name not in self.columns:
            raise UserError(
                f"{self.path.name} has no obs column '{name}'.{nearest(name, self.columns)} "
                f"Its columns: {listing(self.columns, 40)}."
            )
        with self._reading(f"obs column '{name}'"):
            stored = self._file["obs"][name]
            if (n_stored := _codes(stored).shape[0]) != self.n_obs:
                raise UserError(
                    f"obs column '{name}' of {self.path.name} has {n_stored} entries for "
                    f"{self.n_obs} nuclei: the file is damaged."
                )
            return pd.Series(_entries(stored, rows), name=name)

    def first_column(self, names: tuple[str, ...]) -> str | None:
        """The first of `names` that is an obs column."""
        return next((name for name in names if name in self.columns), None)

    def barcodes(self, rows: np.ndarray) -> np.ndarray:
        """The names of some nuclei, by their rows (sorted)."""
        with self._reading("obs"):
            return np.asarray(_entries(self._barcodes, rows), object).astype(str)

    def var(self, matrix: str) -> pd.DataFrame:
        """The genes of a matrix: its var, with the gene names as index."""
        self._n_genes(matrix)
        name = _var(matrix)
        with self._reading(name):
            frame: pd.DataFrame = read_elem(self._file[name])
        return frame

    def _n_genes(self, matrix: str) -> int:
        with self._reading(_var(matrix)):
            frame = self._file[_var(matrix)]
            n_genes = int(_codes(frame[frame.attrs["_index"]]).shape[0])
        if n_genes == 0:
            raise UserError(f"{self.path} holds no genes (var is empty).")
        return n_genes

    def layout(self, matrix: str) -> str:
        """`csr_matrix`, `csc_matrix` or `array`."""
        return str(self._file[matrix].attrs.get("encoding-type", "array"))

    def shape(self, matrix: str) -> tuple[int, int]:
        """Nuclei and genes as the file declares them, checked against obs and var."""
        node = self._file[matrix]
        with self._reading(matrix):
            declared = node.shape if hasattr(node, "shape") else node.attrs["shape"]
            shape = (int(declared[0]), int(declared[1]))
        expected = (self.n_obs, self._n_genes(matrix))
        if shape != expected:
            raise UserError(
                f"{matrix} of {self.path.name} declares {shape[0]} x {shape[1]} values, but obs and "
                f"var have {expected[0]} and {expected[1]} rows: the file is damaged."
            )
        return shape

    def sample(self, matrix: str, n: int = 300) -> sp.csr_matrix:
        """At most `n` whole rows from three places of the file."""
        starts = np.linspace(0, max(0, self.n_obs - n // 3), 3).astype(int)
        rows = np.unique(np.concatenate([np.arange(s, min(s + n // 3, self.n_obs)) for s in starts]))
        return sp.vstack(list(self.rows(matrix, rows)), format="csr")

    def rows(self, matrix: str, rows: np.ndarray, log_slower: bool = False) -> Iterator[sp.csr_matrix]:
        """The given rows (sorted) in blocks of bounded size: finite, canonical, without stored zeros.

        With `log_slower`, log the slower ways of reading that the storage of the matrix requires, if any.
        """
        shape = self.shape(matrix)
        node, rows = self._file[matrix], np.asarray(rows)
        with self._reading(matrix):
            match self.layout(matrix):
                case "csr_matrix":
                    reader = csr_reader(node, shape, rows, self._descriptor)
                case "csc_matrix":
                    reader = csc_reader(node, shape, rows)
                case _:
                    reader = dense_reader(node, rows)
        if log_slower:
            for way in reader.slower:
                log.info("%s of %s is %s", matrix, self.path.name, way)
        blocks = read_rows(reader)
        while True:
            with self._reading(matrix):
                block = next(blocks, None)
            if block is None:
                return
            yield block

    @contextmanager
    def _reading(self, what: str) -> Iterator[None]:
        """Turn any error of a library that reads `what` into one that names this file."""
        try:
            yield
        except UserError:
            raise
        except Damaged as error:
            raise UserError(f"{what} of {self.path.name} {error}.") from None
        except Exception as error:  # h5py and anndata raise all kinds over damaged files
            message = str(error.args[0] if error.args else error).splitlines()[0]
            raise UserError(f"{what} of {self.path.name} cannot be read, it is damaged: {message}") from None


@contextmanager
def open_atlas(path: str | Path) -> Iterator[Atlas]:
    """Open an h5ad file or a zarr store for reading.

    Raises:
        UserError: it is missing, unreadable, no AnnData, or reaches outside itself.
    """
    path = Path(path).expanduser()
    if not path.exists():
        near = nearest(path.name, (p.name for p in path.parent.glob("*.h5ad")))
        raise UserError(f"there is no file {path}.{near} Give it as data.path=/path/to/file.h5ad.")
    with open_zarr(path) if path.is_dir() else open_h5ad(path) as (file, descriptor):
        if missing := [part for part in ("obs", "var", "X") if part not in file]:
            raise UserError(f"{path} holds no AnnData: it has no {' and no '.join(missing)}.")
        yield Atlas(path, file, descriptor)


def _var(matrix: str) -> str:
    return "raw/var" if matrix == "raw/X" else "var"


def _codes(stored: Any) -> Any:
    """The array of a stored column that has one entry per nucleus."""
    if hasattr(stored, "shape"):
        return stored
    return stored["codes" if "codes" in stored else "values"]


def _entries(stored: Any, rows: np.ndarray | None) -> Any:
    """A stored column, or some entries of it. Text is read in pieces: a million words take much memory."""
    if rows is None or not hasattr(stored, "shape"):
        values = read_elem(stored)
        return values if rows is None else values[rows]
    is_text = isinstance(stored, h5py.Dataset) and h5py.check_string_dtype(stored.dtype)
    words = stored.asstr() if is_text else stored
    return np.concatenate([words[part[0] : part[-1] + 1][part - part[0]] for part in by_span(rows, WORDS)])
