"""A stored table, obs or var, read column by column in every form that anndata has written."""

from typing import Any

import h5py
import numpy as np
import pandas as pd
from anndata.io import read_elem

from oligo_ad.storage.absent import Damaged, require_present
from oligo_ad.storage.rows import by_span
from oligo_ad.storage.stores import Store

WORDS = 1 << 17  # entries that are read at once
MOST_ROWS = 1 << 28  # more than all nuclei ever sequenced


class Frame:
    """A table of the file; `columns` its columns but the index, `n` its rows.

    Args:
        store: the open file.
        path: of the table in it.
    """

    def __init__(self, store: Store, path: str) -> None:
        self._store, self._path = store, path
        self._node = store.file[path]
        self._compound = hasattr(self._node, "shape")
        if self._compound:  # anndata before 0.7
            names = self._node.dtype.names
            if names is None:
                raise Damaged("is no table")
            self.index_name, self.columns = names[0], [str(name) for name in names[1:]]
            self.n = int(self._node.shape[0])
        else:
            self.index_name = str(decoded(self._node.attrs["_index"]))
            self.columns = [str(decoded(name)) for name in self._node.attrs["column-order"]]
            self.n = int(_codes(self._node[self.index_name]).shape[0])
        if self.n > MOST_ROWS:
            raise Damaged(f"declares {self.n:,} rows, more than any atlas")

    def entries(self, name: str, rows: np.ndarray | None = None) -> Any:
        """A column or the index, an entry for every row or for some of them (sorted).

        Raises:
            Damaged: its length is not that of the table, or a part of it is lost.
        """
        if self._compound:
            return self._field(name, rows)
        stored = self._node[name]
        self._require_whole(name, stored)
        if "categories" in getattr(stored, "attrs", {}) and hasattr(stored, "shape"):
            return _rows(self._levels_of_0_7(name, stored), rows)
        return _plain(_entries(stored, rows))

    def length(self, name: str) -> int:
        """Entries of a column as declared."""
        return self.n if self._compound else int(_codes(self._node[name]).shape[0])

    def all(self) -> pd.DataFrame:
        """The whole table."""
        index = pd.Index(_array(self.entries(self.index_name)), name=self.index_name)
        if short := next((name for name in self.columns if self.length(name) != self.n), None):
            raise Damaged(f"has {self.length(short)} entries of '{short}' for {self.n} rows")
        frame = pd.DataFrame({name: self.entries(name) for name in self.columns}, index=index)
        return frame.rename_axis(None) if self.index_name in ("_index", "index") else frame

    def _require_whole(self, name: str, stored: Any) -> None:
        """Refuse a column of which chunks are lost."""
        path = f"{self._path}/{name}"
        if hasattr(stored, "shape"):
            self._require(path, stored, name != self.index_name, True)
            return
        levels = int(_codes(stored["categories"]).shape[0]) if "categories" in stored else 0
        for part in ("categories", "values", "mask", "codes"):
            if part in stored and hasattr(stored[part], "shape"):
                # Levels differ, and codes of several levels are not all the first.
                self._require(
                    f"{path}/{part}",
                    stored[part],
                    part != "categories" or levels <= 1,
                    part != "codes" or levels <= 1,
                )

    def _require(self, path: str, stored: Any, may_be_absent: bool, may_be_constant: bool) -> None:
        if stored.shape and stored.shape[0] > MOST_ROWS:
            raise Damaged(f"declares {stored.shape[0]:,} entries, more than any atlas")
        require_present(stored, *self._store.absent(path), may_be_absent, may_be_constant)

    def _levels_of_0_7(self, name: str, stored: Any) -> pd.Categorical:
        """A categorical of anndata 0.7, whose codes point to their levels in a group beside the columns."""
        levels = self._node["__categories"][name]
        self._require(f"{self._path}/__categories/{name}", levels, levels.shape[0] <= 1, True)
        ordered = bool(levels.attrs.get("ordered", False))
        return pd.Categorical.from_codes(stored[:], _array(_plain(read_elem(levels))), ordered=ordered)

    def _field(self, name: str, rows: np.ndarray | None) -> Any:
        """A column of a table of anndata before 0.7, whose levels are in uns."""
        values = _plain(self._node.fields(name)[:])
        levels = self._store.file.get(f"uns/{name}_categories")
        if levels is not None and values.dtype.kind in "iu" and hasattr(levels, "shape"):
            return _rows(pd.Categorical.from_codes(values, _array(_plain(np.atleast_1d(levels[()])))), rows)
        return _rows(values, rows)


def _codes(stored: Any) -> Any:
    """The array of a stored column that has one entry per row."""
    if hasattr(stored, "shape"):
        return stored
    return stored["codes" if "codes" in stored else "values"]


def _entries(stored: Any, rows: np.ndarray | None) -> Any:
    """A stored column, or some entries of it. Text is read in pieces: a million words take much memory."""
    if rows is None or not hasattr(stored, "shape"):
        values = read_elem(stored)
        if isinstance(values, dict):  # a categorical, say, without what says that it is one
            raise Damaged("has lost the attributes of a column: the copy is not whole. Copy it again")
        return _rows(values, rows)
    is_text = isinstance(stored, h5py.Dataset) and h5py.check_string_dtype(stored.dtype)
    words = stored.asstr() if is_text else stored
    parts = [words[part[0] : part[-1] + 1][part - part[0]] for part in by_span(rows, WORDS)]
    return np.concatenate(parts) if parts else words[:0]


def _rows(values: Any, rows: np.ndarray | None) -> Any:
    return values if rows is None else values[rows]


def _plain(values: Any) -> Any:
    """Text of bytes decoded, in arrays and in levels."""
    if isinstance(values, pd.Categorical):
        levels = values.categories.to_numpy()
        words = _plain(levels)
        return values if words is levels else values.rename_categories(_array(words))
    if not isinstance(values, np.ndarray) or values.dtype.kind not in "SO":
        return values
    if values.dtype.kind == "O" and not any(isinstance(value, bytes) for value in values[:1]):
        return values
    return np.array([decoded(value) for value in values.tolist()], object)


def decoded(value: Any) -> Any:
    """Text of bytes; anything else as it is."""
    return value.decode("utf-8") if isinstance(value, bytes) else value


def _array(values: Any) -> Any:
    return (
        np.asarray(values, object) if isinstance(values, np.ndarray) and values.dtype.kind == "O" else values
    )
