"""Opens h5ad files and zarr stores from any source: links to other files are not followed."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import h5py

from oligo_ad.errors import UserError
from oligo_ad.storage.chunks import filters_of


@contextmanager
def open_h5ad(path: Path) -> Iterator[tuple[h5py.File, int]]:
    """The HDF5 file, and a descriptor to read it by position."""
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
        yield file, raw.fileno()


@contextmanager
def open_zarr(path: Path) -> Iterator[tuple[Any, None]]:
    """The root of a zarr store, which is used like an open HDF5 file."""
    if not any((path / name).exists() for name in ("zarr.json", ".zgroup")):
        raise UserError(
            f"{path} is a directory, but no zarr store; data.path takes an .h5ad file or a zarr store."
        )
    try:
        import zarr

        store = zarr.open_group(path, mode="r")
    except ImportError:
        raise UserError(f"{path} is a zarr store: pip install zarr.") from None
    except Exception as error:  # zarr raises all kinds over damaged stores
        raise UserError(f"{path} is not a readable zarr store: {error}.") from None
    yield store, None


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
        if not h5py.h5z.filter_avail(code):
            with suppress(ImportError):
                import hdf5plugin  # noqa: F401 importing it registers its filters
            if not h5py.h5z.filter_avail(code):
                raise UserError(
                    f"{path} is compressed with {name}, which HDF5 does not include: pip install hdf5plugin."
                )
