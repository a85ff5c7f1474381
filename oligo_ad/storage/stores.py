"""Opens h5ad files and zarr stores of anybody.

Links to other files are not followed, and only codecs that are known to be harmless are run.
"""

import math
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import h5py

from oligo_ad.errors import UserError
from oligo_ad.storage.absent import LARGEST_CHUNK, Grid
from oligo_ad.storage.chunks import filters_of
from oligo_ad.storage.zarr_store import absent_chunks, check_store

# Those that HDF5 includes, and the lossless ones of h5py and hdf5plugin: a plugin of another number would be
# looked for in any directory that the environment names.
HARMLESS = {1, 2, 3, 4, 5, 6, 307, 32000, 32001, 32004, 32008, 32015, 32026}
LONGEST_ENTRY = 1 << 20  # bytes


class Store(NamedTuple):
    """An open file.

    `file`: its root. `descriptor`: to read an HDF5 file by position. `absent`: shape and chunks of an array
    by its path, and the places of the chunks that are not stored.
    """

    file: Any
    descriptor: int | None
    absent: Callable[[str], tuple[Grid, list[tuple[int, ...]]]]


@contextmanager
def open_h5ad(path: Path) -> Iterator[Store]:
    """The HDF5 file, and a descriptor to read it by position."""
    if zipfile.is_zipfile(path):
        raise UserError(f"{path} is a zip archive: unpack it, and name the h5ad file or zarr store inside.")
    try:
        file = h5py.File(path)
    except PermissionError:
        raise UserError(f"{path} may not be read: permission denied.") from None
    except OSError as error:
        raise UserError(
            f"{path} ({path.stat().st_size} bytes) is not a readable h5ad file: {error}. "
            "Is the download complete?"
        ) from None
    with file, path.open("rb", buffering=0) as raw:
        _refuse_foreign(file, path)
        yield Store(file, raw.fileno(), lambda name: _absent(file[name]))


@contextmanager
def open_zarr(path: Path) -> Iterator[Store]:
    """The root of a zarr store, which is used like an open HDF5 file."""
    if not any((path / name).exists() for name in ("zarr.json", ".zgroup")):
        raise UserError(
            f"{path} is a directory, but no zarr store; data.path takes an .h5ad file or a zarr store."
        )
    try:
        import zarr
    except ImportError:
        raise UserError(f"{path} is a zarr store: pip install zarr.") from None
    files = check_store(path)
    try:
        # Not the consolidated metadata: they may describe other arrays than those that were checked.
        root = zarr.open_group(path, mode="r", use_consolidated=False)
    except Exception as error:  # zarr raises all kinds over damaged stores
        raise UserError(f"{path} is not a readable zarr store: {error}.") from None
    yield Store(root, None, lambda name: (files.grids[name], absent_chunks(files, name)))


def _absent(stored: h5py.Dataset) -> tuple[Grid, list[tuple[int, ...]]]:
    """Shape and chunks of a dataset, and the chunks that were never written."""
    grid = Grid(stored.shape, stored.chunks or stored.shape, stored.dtype.itemsize, "", ".", True)
    if not stored.size:
        return grid, []
    if not stored.chunks:
        return grid, [] if stored.id.get_storage_size() else [(0,) * stored.ndim]
    if stored.id.get_num_chunks() >= grid.n_chunks:
        return grid, []
    present = set()
    stored.id.chunk_iter(
        lambda info: present.add(tuple(a // b for a, b in zip(info.chunk_offset, grid.chunks, strict=True)))
    )
    return grid, [place for place in grid.places() if place not in present]


def _refuse_foreign(file: h5py.File, path: Path) -> None:
    """Refuse external links, external storage and virtual datasets: they read other files of this machine."""
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
                _require_filters(item, path)
                _require_sizes(item, path)
            if foreign:
                raise UserError(
                    f"{path}: '{group.name.rstrip('/')}/{name}' is a link to other data, which is "
                    "not followed. Write the file out again with anndata."
                )


def _require_filters(stored: h5py.Dataset, path: Path) -> None:
    """Load the plugin for a compression that HDF5 itself lacks.

    Raises:
        UserError: the plugin is not installed.
    """
    for code, name in filters_of(stored).items():
        if code not in HARMLESS:
            raise UserError(
                f"{path}: '{stored.name}' is compressed with {name} (HDF5 filter {code}), which is not known "
                "to be harmless and is not run. Write the file out again with anndata."
            )
        if not h5py.h5z.filter_avail(code):
            with suppress(ImportError):
                import hdf5plugin  # noqa: F401 importing it registers its filters
            if not h5py.h5z.filter_avail(code):
                raise UserError(
                    f"{path} is compressed with {name}, which HDF5 does not include: pip install hdf5plugin."
                )


def _require_sizes(stored: h5py.Dataset, path: Path) -> None:
    """Refuse chunks and entries that no writer makes: they are held in memory whole."""
    size = math.prod(stored.chunks or ()) * stored.dtype.itemsize
    if size > LARGEST_CHUNK or stored.dtype.itemsize > LONGEST_ENTRY:
        raise UserError(
            f"{path}: '{stored.name}' declares chunks of {size:,} bytes and entries of "
            f"{stored.dtype.itemsize:,}, which is more than any atlas: the file is damaged."
        )
