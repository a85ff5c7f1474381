"""An h5ad file or zarr store, checked as it is read; a matrix is read in pieces, never as a whole.

Files come from anywhere: shapes, row pointers and column indices are checked before they are used, since
a wrong index crashes the libraries that rely on it.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import scipy.sparse as sp

from oligo_ad.errors import UserError, listing, nearest
from oligo_ad.storage.absent import Damaged, require_present
from oligo_ad.storage.frames import Frame, decoded
from oligo_ad.storage.rows import csc_reader, csr_reader, dense_reader, read_rows
from oligo_ad.storage.stores import Store, open_h5ad, open_zarr

log = logging.getLogger(__name__)

PLACES = ("X", "raw/X")


class Atlas:
    """An open h5ad or zarr store. Rows are nuclei (obs), columns genes (var).

    `path` the file; `n_obs` its number of nuclei; `columns` its obs columns, those with a '/' in their name
    (stored as nested groups) included; `simulated` whether `data=demo` wrote it; `matrices` the names
    of its matrices: X, raw/X, layers/….
    """

    def __init__(self, path: Path, store: Store) -> None:
        self.path = path
        self._store = store
        file = store.file
        self._frames: dict[str, Frame] = {}
        self._whole: set[str] = set()  # matrices of which no chunk is lost
        obs = self._frame("obs")
        self.columns, self.n_obs = obs.columns, obs.n
        self.simulated = "SIMULATED" in file.get("uns", ())
        self._paths = _matrices(file)
        self.matrices = list(self._paths)
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
            obs = self._frame("obs")
            if (n_stored := obs.length(name)) != self.n_obs:
                raise UserError(
                    f"obs column '{name}' of {self.path.name} has {n_stored} entries for "
                    f"{self.n_obs} nuclei: the file is damaged."
                )
            return pd.Series(obs.entries(name, rows), name=name)

    def first_column(self, names: tuple[str, ...]) -> str | None:
        """The first of `names` that is an obs column."""
        return next((name for name in names if name in self.columns), None)

    def barcodes(self, rows: np.ndarray) -> np.ndarray:
        """The names of some nuclei, by their rows (sorted)."""
        with self._reading("obs"):
            obs = self._frame("obs")
            return np.asarray(obs.entries(obs.index_name, rows), object).astype(str)

    def var(self, matrix: str) -> pd.DataFrame:
        """The genes of a matrix: its var, with the gene names as index."""
        self._n_genes(matrix)
        name = self._var(matrix)
        with self._reading(name):
            return self._frame(name).all()

    def _var(self, matrix: str) -> str:
        return "var" if matrix != "raw/X" else self._paths[matrix].replace("X", "var")

    def _frame(self, name: str) -> Frame:
        if name not in self._frames:
            with self._reading(name):
                self._frames[name] = Frame(self._store, name)
        return self._frames[name]

    def _n_genes(self, matrix: str) -> int:
        n_genes = self._frame(self._var(matrix)).n
        if n_genes == 0:
            raise UserError(f"{self.path} holds no genes (var is empty).")
        return n_genes

    def layout(self, matrix: str) -> str:
        """`csr_matrix`, `csc_matrix` or `array`."""
        attributes = self._store.file[self._paths[matrix]].attrs
        if "h5sparse_format" in attributes:  # anndata before 0.7
            return f"{decoded(attributes['h5sparse_format'])}_matrix"
        return str(decoded(attributes.get("encoding-type", "array")))

    def dtype(self, matrix: str) -> np.dtype:
        """The type in which values are stored."""
        node = self._store.file[self._paths[matrix]]
        return np.dtype(node.dtype if hasattr(node, "dtype") else node["data"].dtype)

    def shape(self, matrix: str) -> tuple[int, int]:
        """Nuclei and genes as the file declares them, checked against obs and var."""
        node = self._store.file[self._paths[matrix]]
        with self._reading(matrix):
            kind = "h5sparse_shape" if "h5sparse_shape" in node.attrs else "shape"
            declared = node.shape if hasattr(node, "shape") else node.attrs[kind]
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
        node, rows = self._store.file[self._paths[matrix]], np.asarray(rows)
        with self._reading(matrix):
            if self.dtype(matrix).kind not in "biuf":
                raise Damaged(f"holds {self.dtype(matrix)}, no numbers")
            self._require_whole(matrix, node)
            match self.layout(matrix):
                case "csr_matrix":
                    reader = csr_reader(node, shape, rows, self._store.descriptor)
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

    def _require_whole(self, matrix: str, node: Any) -> None:
        """Refuse a matrix of which chunks are lost."""
        if matrix in self._whole:
            return
        path = self._paths[matrix]
        if hasattr(node, "shape"):
            require_present(node, *self._store.absent(path), True, True)
        else:
            for part in ("indptr", "indices", "data"):
                require_present(node[part], *self._store.absent(f"{path}/{part}"), False, False)
        self._whole.add(matrix)

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
    with open_zarr(path) if path.is_dir() else open_h5ad(path) as store:
        missing = [part for part in ("obs", "var") if part not in store.file]
        if missing := missing + ([] if _matrices(store.file) else ["X"]):
            raise UserError(f"{path} holds no AnnData: it has no {' and no '.join(missing)}.")
        yield Atlas(path, store)


def _matrices(file: Any) -> dict[str, str]:
    """The matrices of a file and where they are. A layer may hold anything, X and .raw may not."""
    raw = "raw/X" if "raw/X" in file else "raw.X"  # the latter by anndata before 0.7
    places = {"X": "X", "raw/X": raw} | {
        f"layers/{name}": f"layers/{name}" for name in file.get("layers", ())
    }
    return {name: place for name, place in places.items() if _is_matrix(file.get(place), name)}


def _is_matrix(node: Any, name: str) -> bool:
    """Whether there are values. A layer may hold anything; X and .raw that make no sense are damaged."""
    if node is None or node.attrs.get("encoding-type") == "null":
        return False
    if hasattr(node, "shape"):
        return node.shape is not None and (name in PLACES or (node.ndim == 2 and node.dtype.kind in "biuf"))
    return name in PLACES or all(part in node for part in ("data", "indices", "indptr"))
