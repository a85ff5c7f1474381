"""Checks the files of a zarr store before any is decoded: links, codecs, sizes, and chunks that are absent.

A store names the codecs that decode it, and some of those run code that the store brings.
"""

import json
import math
import os
import re
import zlib
from collections.abc import Iterator
from contextlib import suppress
from io import BufferedReader
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from oligo_ad.errors import UserError
from oligo_ad.storage.absent import LARGEST_CHUNK, Damaged, Grid

# By the names of numcodecs, which zarr 3 may begin with `numcodecs.`. None of them can be told to run code.
COMPRESSORS = frozenset({"blosc", "zstd", "gzip", "zlib", "lz4"})
FILTERS = frozenset(
    {"shuffle", "delta", "fletcher32", "crc32", "crc32c", "adler32", "vlen-utf8", "vlen-bytes"}
)
OF_ZARR_3 = frozenset({"bytes", "transpose", "sharding_indexed"})
CODECS = COMPRESSORS | FILTERS | OF_ZARR_3
METADATA = frozenset({"zarr.json", ".zarray", ".zgroup", ".zattrs", ".zmetadata"})
LARGEST_METADATA = 1 << 26
MOST_ABSENT = 1 << 20
ZSTD, GZIP, ZLIB_RATIO = b"\x28\xb5\x2f\xfd", b"\x1f\x8b", 1032


class Files(NamedTuple):
    """A store: its folder, its arrays by path, and for each the names of its chunk files."""

    root: Path
    grids: dict[str, Grid]
    present: dict[str, list[str]]


def check_store(root: Path) -> Files:
    """Read the metadata of every array of a store, and which chunks are there.

    Raises:
        UserError: a link or a special file, a codec that is not known to be harmless, or an absurd size.
    """
    grids: dict[str, Grid] = {}
    listed: dict[str, Grid] = {}
    files: dict[str, list[str]] = {}
    for file in _files(root):
        path = PurePosixPath(file)
        if path.name not in METADATA:
            files.setdefault(str(path.parent), []).append(path.name)
        elif path.name not in (".zattrs", ".zgroup"):
            for name, node, own in _nodes(path, _json(root, file)):
                grid = _grid(node, name, root)
                (grids if own else listed)[name] = grid
    for name, grid in listed.items():
        if name not in grids or grids[name].shape != grid.shape:
            raise UserError(
                f"{root}: its consolidated metadata describes the array '{name}', which is not there or of "
                "another shape: the store is damaged. Copy it again, or zarr.consolidate_metadata(path)."
            )
    return Files(root, grids, _chunks(files, grids))


def absent_chunks(files: Files, name: str) -> list[tuple[int, ...]]:
    """Places in the grid of chunks of an array that have no file.

    Raises:
        Damaged: there are far too few files, or one inflates to more than any array's chunk.
    """
    grid = files.grids[name]
    for chunk in files.present.get(name, ()):
        _require_bounded(files.root / name / chunk)
    present = set(files.present.get(name, ()))
    if grid.n_chunks > len(present) + MOST_ABSENT:
        raise Damaged(f"declares {grid.n_chunks:,} chunks in '{name}', of which {len(present):,} are there")
    if grid.n_chunks <= len(present) and all(grid.key(place) in present for place in grid.places()):
        return []
    return [place for place in grid.places() if grid.key(place) not in present]


def _require_bounded(chunk: Path) -> None:
    """Refuse a chunk that inflates to more than any array's. The other codecs are bounded themselves."""
    with chunk.open("rb") as file:
        head = file.read(18)
        if head[:4] == ZSTD and (_zstd_size(head) or 0) > LARGEST_CHUNK:
            raise Damaged(f"inflates to {_zstd_size(head):,} bytes in {chunk.name}")
        is_zlib = head[:2] == GZIP or (
            len(head) > 1 and head[0] & 15 == 8 and int.from_bytes(head[:2]) % 31 == 0
        )
        if not is_zlib or chunk.stat().st_size * ZLIB_RATIO <= LARGEST_CHUNK:
            return
        file.seek(0)
        # What begins so by chance is no such stream. A gzip file may hold several, one after the other.
        with suppress(zlib.error):
            _count(file)


def _count(file: BufferedReader) -> None:
    """Inflate a file of zlib or gzip, keeping nothing, until it is more than a chunk may hold."""
    stream, size = zlib.decompressobj(47), 0
    while part := stream.unconsumed_tail or stream.unused_data or file.read(1 << 20):
        if stream.eof:
            stream = zlib.decompressobj(47)
        size += len(stream.decompress(part, 1 << 24))
        if size > LARGEST_CHUNK:
            raise Damaged(f"inflates to more than {LARGEST_CHUNK:,} bytes in {Path(file.name).name}")


def _zstd_size(head: bytes) -> int | None:
    """The size that the header of a zstd frame declares; None where it declares none."""
    flag, single = head[4] >> 6, head[4] >> 5 & 1
    start = 5 + (not single) + (0, 1, 2, 4)[head[4] & 3]
    n = (single, 2, 4, 8)[flag]
    return int.from_bytes(head[start : start + n], "little") + (256 if flag == 1 else 0) if n else None


def _files(root: Path) -> Iterator[str]:
    """Every file of the store, relative to it. The store itself may be a link of the user's."""
    folders = [""]
    while folders:
        folder = folders.pop()
        with os.scandir(root / folder) as entries:
            for entry in entries:
                name = f"{folder}/{entry.name}" if folder else entry.name
                if entry.is_dir(follow_symlinks=False):
                    folders.append(name)
                elif entry.is_file(follow_symlinks=False):
                    yield name
                else:
                    raise UserError(
                        f"{root}: '{name}' is a link or no plain file, which is not followed. Copy the store "
                        "with its content (cp -rL)."
                    )


def _json(root: Path, file: str) -> dict[str, Any]:
    path = root / file
    try:
        if path.stat().st_size > LARGEST_METADATA:
            raise ValueError(f"{path.stat().st_size:,} bytes of metadata")
        content = json.loads(path.read_bytes())
        if not isinstance(content, dict):
            raise ValueError("no JSON object")
    except (ValueError, RecursionError) as error:
        raise UserError(f"{root} is not a readable zarr store: {file}: {error}.") from None
    return content


def _nodes(path: PurePosixPath, content: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any], bool]]:
    """The arrays that a file of metadata describes: path, description, and whether it is their own file."""
    folder = str(path.parent)
    if path.name == ".zarray" or (path.name == "zarr.json" and content.get("node_type") == "array"):
        yield folder, content, True
        return
    consolidated = content if path.name == ".zmetadata" else content.get("consolidated_metadata")
    nodes = consolidated.get("metadata") if isinstance(consolidated, dict) else None
    for name, node in (nodes if isinstance(nodes, dict) else {}).items():
        inner = PurePosixPath(folder) / name
        if inner.name == ".zarray":
            yield str(inner.parent), node, False
        elif isinstance(node, dict) and node.get("node_type") == "array":
            yield str(inner), node, False
        elif isinstance(node, dict):
            yield from ((one, meta, False) for one, meta, _ in _nodes(inner / "zarr.json", node))


def _grid(node: Any, name: str, root: Path) -> Grid:
    """Shape and chunks of an array, from metadata that names harmless codecs only.

    Raises:
        UserError: another codec, or metadata that makes no sense.
    """
    try:
        _check_codecs(node, name, root)
        grid = _grid_2(node) if node["zarr_format"] == 2 else _grid_3(node)
    except UserError:
        raise
    except Exception as error:  # metadata from anywhere lacks or mistypes anything
        raise UserError(f"{root}: the metadata of '{name}' is damaged: {error!r}.") from None
    if math.prod(grid.chunks) * grid.itemsize > LARGEST_CHUNK or grid.n_chunks > 1 << 26:
        raise UserError(
            f"{root}: '{name}' declares {grid.shape} values in chunks of {grid.chunks}, which is more than "
            "any atlas: the store is damaged."
        )
    return grid


def _check_codecs(node: dict[str, Any], name: str, root: Path) -> None:
    for codec in _codecs(node):
        plain = codec.removeprefix("numcodecs.") if isinstance(codec, str) else codec
        if plain not in CODECS:
            raise UserError(
                f"{root}: '{name}' is stored with the codec {str(codec)[:40]!r}, which is not known to be "
                "harmless and is not run. Write the store out again with anndata."
            )
    if node.get("storage_transformers"):
        raise UserError(f"{root}: '{name}' has storage transformers, which are not supported.")


def _codecs(node: dict[str, Any]) -> Iterator[Any]:
    """The names of all codecs of an array, those inside a shard included."""
    if node["zarr_format"] == 2:
        for codec in [node.get("compressor"), *(node.get("filters") or [])]:
            if codec is not None:
                yield codec["id"]
        return
    stack = list(node["codecs"])
    while stack:
        codec = stack.pop()
        yield codec if isinstance(codec, str) else codec["name"]
        inner = {} if isinstance(codec, str) else codec.get("configuration") or {}
        for key in ("codecs", "index_codecs"):
            stack += inner.get(key) or []


def _grid_2(node: dict[str, Any]) -> Grid:
    dtype = str(node["dtype"])
    digits = re.match(r"[<>|=]?[a-zA-Z](\d+)", dtype)
    size = int(digits[1]) * (4 if "U" in dtype[:2] else 1) if digits else 8
    separator = node.get("dimension_separator") or "."
    has_fill = node.get("fill_value") is not None
    return Grid(_sizes(node["shape"]), _sizes(node["chunks"]), size, "", separator, has_fill)


def _grid_3(node: dict[str, Any]) -> Grid:
    grid, keys = node["chunk_grid"], node["chunk_key_encoding"]
    if grid["name"] != "regular":
        raise ValueError(f"a grid of chunks that is {grid['name']}")
    dtype = node["data_type"]
    bits = "".join(c for c in dtype if c.isdigit()) if isinstance(dtype, str) else ""
    default = keys["name"] == "default"
    separator = (keys.get("configuration") or {}).get("separator", "/" if default else ".")
    return Grid(
        _sizes(node["shape"]),
        _sizes(grid["configuration"]["chunk_shape"]),
        int(bits or 64) // 8,
        "c" if default else "",
        separator,
        True,
    )


def _sizes(sizes: list[int]) -> tuple[int, ...]:
    if not all(isinstance(size, int) and 0 <= size < 1 << 48 for size in sizes):
        raise ValueError(f"sizes {str(sizes)[:80]}")
    return tuple(sizes)


def _chunks(files: dict[str, list[str]], grids: dict[str, Grid]) -> dict[str, list[str]]:
    """The chunk files of each array by their names relative to it, which may be nested in folders."""
    present: dict[str, list[str]] = {}
    for folder, names in files.items():
        parents = (PurePosixPath(folder), *PurePosixPath(folder).parents)
        array = next((str(parent) for parent in parents if str(parent) in grids), None)
        if array is not None:
            inner = str(PurePosixPath(folder).relative_to(array))
            before = "" if inner == "." else f"{inner}/"
            present.setdefault(array, []).extend(before + name for name in names)
    return present
