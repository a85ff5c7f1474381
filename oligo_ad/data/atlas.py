"""An h5ad file, opened with suspicion and read in pieces: never the whole matrix.

The file is somebody else's: links out of it are not followed, and shapes, row pointers and column
indices are checked before they are used, since a wrong index crashes the libraries that trust it.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import scipy.sparse as sp
from anndata.io import read_elem

from oligo_ad.errors import UserError, listing, nearest

# Nonzeros read at once; with values and indices about 64 MB.
WINDOW = 8_000_000


class Atlas:
    """An open h5ad. Rows are nuclei (obs), columns genes (var).

    `path` the file; `n_obs` its nuclei; `columns` its obs columns, those with a '/' in their name
    (stored as nested groups) included; `simulated` whether `data=demo` wrote it; `matrices` the names
    of its matrices: X, raw/X, layers/….
    """

    def __init__(self, path: Path, file: h5py.File) -> None:
        self.path = path
        self._file = file
        with self._reading("obs"):
            self.columns: list[str] = [str(name) for name in file["obs"].attrs["column-order"]]
        self.n_obs = len(self._index("obs"))
        self.simulated = "SIMULATED" in file.get("uns", ())
        present = [name for name in ("X", "raw/X") if name in file]
        self.matrices = present + [f"layers/{name}" for name in file.get("layers", ())]
        if self.n_obs == 0:
            raise UserError(f"{path} holds no nuclei (obs is empty).")

    def column(self, name: str) -> pd.Series:
        """One obs column, one entry a nucleus.

        Raises:
            UserError: there is no such column, or its length is not the number of nuclei.
        """
        if name not in self.columns:
            raise UserError(
                f"{self.path.name} has no obs column '{name}'.{nearest(name, self.columns)} "
                f"Its columns: {listing(self.columns, 40)}."
            )
        with self._reading(f"obs column '{name}'"):
            values = pd.Series(read_elem(self._file["obs"][name]), name=name)
        if len(values) != self.n_obs:
            raise UserError(
                f"obs column '{name}' of {self.path.name} has {len(values)} entries for "
                f"{self.n_obs} nuclei: the file is damaged."
            )
        return values

    def first_column(self, names: tuple[str, ...]) -> str | None:
        """The first of `names` that is an obs column."""
        return next((name for name in names if name in self.columns), None)

    def barcodes(self) -> np.ndarray:
        """The names of the nuclei [n_obs]."""
        return self._index("obs").astype(str)

    def var(self, matrix: str) -> pd.DataFrame:
        """The genes of a matrix: its var, with the gene names as index."""
        name = "raw/var" if matrix == "raw/X" else "var"
        with self._reading(name):
            frame: pd.DataFrame = read_elem(self._file[name])
        if len(frame) == 0:
            raise UserError(f"{self.path} holds no genes (var is empty).")
        return frame

    def layout(self, matrix: str) -> str:
        """`csr_matrix`, `csc_matrix` or `array`."""
        return str(self._file[matrix].attrs.get("encoding-type", "array"))

    def shape(self, matrix: str) -> tuple[int, int]:
        """Nuclei and genes as the file declares them, checked against obs and var."""
        node = self._file[matrix]
        with self._reading(matrix):
            declared = node.shape if isinstance(node, h5py.Dataset) else node.attrs["shape"]
            shape = (int(declared[0]), int(declared[1]))
        expected = (self.n_obs, len(self.var(matrix)))
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

    def rows(self, matrix: str, rows: np.ndarray) -> Iterator[sp.csr_matrix]:
        """The given rows (sorted), in blocks of bounded size; values are checked to be finite.

        A CSC matrix has no rows to seek, and is held whole.
        """
        n_genes = self.shape(matrix)[1]
        readers = {"csr_matrix": self._csr_rows, "csc_matrix": self._csc_rows}
        read = readers.get(self.layout(matrix), self._dense_rows)
        blocks = read(matrix, np.asarray(rows), n_genes)
        while True:
            with self._reading(matrix):
                block = next(blocks, None)
            if block is None:
                return
            if not np.isfinite(block.data).all():
                raise UserError(f"{matrix} of {self.path.name} holds NaN or infinite values.")
            yield block

    def _csr_rows(self, matrix: str, rows: np.ndarray, n_genes: int) -> Iterator[sp.csr_matrix]:
        group = self._file[matrix]
        indptr = group["indptr"][:].astype(np.int64)
        self._check_indptr(matrix, indptr, group)
        for chosen in _windows(indptr, rows):
            first, last = indptr[chosen[0]], indptr[chosen[-1] + 1]
            indices = group["indices"][first:last]
            if len(indices) and (indices.min() < 0 or indices.max() >= n_genes):
                raise UserError(
                    f"{matrix} of {self.path.name} names a gene beyond its {n_genes}: "
                    "its column indices are damaged."
                )
            span = indptr[chosen[0] : chosen[-1] + 2] - first
            parts = (group["data"][first:last], indices, span)
            yield sp.csr_matrix(parts, shape=(len(span) - 1, n_genes))[chosen - chosen[0]]

    def _csc_rows(self, matrix: str, rows: np.ndarray, n_genes: int) -> Iterator[sp.csr_matrix]:
        whole = read_elem(self._file[matrix])
        whole.check_format(full_check=True)
        yield whole.tocsr()[rows]

    def _dense_rows(self, matrix: str, rows: np.ndarray, n_genes: int) -> Iterator[sp.csr_matrix]:
        step = max(1, WINDOW // n_genes)
        for start in range(0, len(rows), step):
            yield sp.csr_matrix(self._file[matrix][rows[start : start + step]])

    def _check_indptr(self, matrix: str, indptr: np.ndarray, group: h5py.Group) -> None:
        stored = len(group["data"])
        sound = len(indptr) == self.n_obs + 1 and indptr[0] == 0 and (np.diff(indptr) >= 0).all()
        if not (sound and indptr[-1] == stored == len(group["indices"])):
            raise UserError(f"the row pointers of {matrix} in {self.path.name} are damaged.")

    def _index(self, frame: str) -> np.ndarray:
        with self._reading(frame):
            group = self._file[frame]
            return read_elem(group[group.attrs["_index"]])

    @contextmanager
    def _reading(self, what: str) -> Iterator[None]:
        """What a library says of a part that it cannot make sense of is said of this file."""
        try:
            yield
        except UserError:
            raise
        except Exception as error:  # h5py and anndata raise all kinds over damaged files
            said = str(error.args[0] if error.args else error).splitlines()[0]
            raise UserError(f"{what} of {self.path.name} cannot be read, it is damaged: {said}") from None


@contextmanager
def open_atlas(path: str | Path) -> Iterator[Atlas]:
    """Open an h5ad for reading.

    Raises:
        UserError: it is missing, unreadable, no AnnData file, or reaches outside itself.
    """
    path = Path(path).expanduser()
    if path.is_dir():
        raise UserError(f"{path} is a directory; data.path takes an .h5ad file.")
    if not path.exists():
        near = nearest(path.name, (p.name for p in path.parent.glob("*.h5ad")))
        raise UserError(f"there is no file {path}.{near} Give it as data.path=/path/to/file.h5ad.")
    try:
        file = h5py.File(path)
    except PermissionError:
        raise UserError(f"{path} may not be read: permission denied.") from None
    except OSError as error:
        raise UserError(
            f"{path} ({path.stat().st_size} bytes) is not a readable h5ad file: {error}. "
            "Is the download complete?"
        ) from None
    with file:
        _refuse_foreign(file, path)
        if missing := [part for part in ("obs", "var", "X") if part not in file]:
            raise UserError(f"{path} is HDF5 but no AnnData file: it has no {' and no '.join(missing)}.")
        yield Atlas(path, file)


def _refuse_foreign(file: h5py.File, path: Path) -> None:
    """External links, external storage and virtual datasets read other files of this machine."""
    groups, seen = [file], set()
    while groups:
        group = groups.pop()
        # A group may be its own descendant.
        if (address := h5py.h5o.get_info(group.id).addr) in seen:
            continue
        seen.add(address)
        for name in group:
            kind = group.get(name, getlink=True)
            foreign = not isinstance(kind, h5py.HardLink)
            item = None if foreign else group[name]
            if isinstance(item, h5py.Group):
                groups.append(item)
            elif isinstance(item, h5py.Dataset):
                foreign = item.is_virtual or bool(item.external)
            if foreign:
                raise UserError(
                    f"{path}: '{group.name.rstrip('/')}/{name}' is a link to other data, which is "
                    "not followed. Write the file out again with anndata."
                )


def _windows(indptr: np.ndarray, rows: np.ndarray) -> Iterator[np.ndarray]:
    """Cut sorted rows into runs that span at most `WINDOW` nonzeros of the file (or one row)."""
    start = 0
    while start < len(rows):
        limit = indptr[rows[start]] + WINDOW
        stop = max(start + 1, int(np.searchsorted(indptr[rows + 1], limit, side="right")))
        yield rows[start:stop]
        start = stop
