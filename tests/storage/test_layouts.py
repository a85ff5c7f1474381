"""However a matrix is stored, the cohort is the same to the last bit; a slower way of reading is logged."""

import importlib.util
import logging
import subprocess
import sys
import tempfile
import zlib
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import Any

import anndata as ad
import h5py
import hdf5plugin
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st

from oligo_ad.data.cohort import Cohort
from oligo_ad.storage import chunks, rows
from oligo_ad.storage.chunks import Direct, Spanned, open_vector
from tests import builders
from tests.builders import assert_refused

Writer = Callable[[Path], Path]
GZIP = {"compression": "gzip", "compression_opts": 4}


def atlas() -> ad.AnnData:
    """168 nuclei; every second one is an oligodendrocyte, the fifth and the sixth are empty."""
    adata = builders.atlas(4, 3, nuclei=24, genes=30)
    counts = adata.X.toarray()
    counts[4:6] = 0
    adata.X = sp.csr_matrix(counts)
    return adata


def put(path: Path, matrix: Any, kind: str = "csr_matrix", index: Any = np.int32, **options: Any) -> Path:
    """Store a sparse matrix as X of a file, with options of HDF5."""
    with h5py.File(path, "r+") as file:
        del file["X"]
        group = file.create_group("X")
        group.attrs.update({"encoding-type": kind, "encoding-version": "0.1.0", "shape": matrix.shape})
        group.create_dataset("data", data=matrix.data, **options)
        group.create_dataset("indices", data=matrix.indices.astype(index), **options)
        group.create_dataset("indptr", data=matrix.indptr.astype(index))
    return path


def stored(dtype: Any = np.float32, **options: Any) -> Writer:
    return lambda folder: put(builders.write(atlas(), folder), atlas().X.astype(dtype), **options)


def of(change: Callable[[Any], Any], **options: Any) -> Writer:
    """Written by anndata, the matrix in another form."""

    def write(folder: Path) -> Path:
        adata, path = atlas(), folder / "atlas.h5ad"
        adata.X = change(adata.X)
        adata.write_h5ad(path, **options)
        return path

    return write


def raw(folder: Path) -> Path:
    adata = atlas()
    adata.raw = adata.copy()
    adata.X = adata.X.multiply(0.5).tocsr().log1p()
    return builders.write(adata, folder)


def zarr(version: int, change: Callable[[Any], Any] = sp.csr_matrix) -> Writer:
    def write(folder: Path) -> Path:
        adata = atlas()
        adata.X = change(adata.X)
        with ad.settings.override(zarr_write_format=version):
            adata.write_zarr(folder / "atlas.zarr")
        return folder / "atlas.zarr"

    return write


def with_a_chunk_unfiltered(folder: Path) -> Path:
    path = stored(chunks=(64,), **GZIP)(folder)
    with h5py.File(path, "r+") as file:
        for name in ("X/data", "X/indices"):
            content = file[name][:64].tobytes()
            file[name].id.write_direct_chunk((0,), content, filter_mask=1)
    return path


def behind_a_user_block(folder: Path) -> Path:
    path, plain = folder / "block.h5ad", builders.write(atlas(), folder)
    with h5py.File(plain) as source, h5py.File(path, "w", userblock_size=512) as file:
        file.attrs.update(source.attrs)
        for name in source:
            source.copy(name, file)
    return path


FAST: dict[str, Writer] = {
    "by anndata": of(lambda matrix: matrix),
    "by anndata, gzip": of(lambda matrix: matrix, compression="gzip"),
    "gzip 1": stored(compression="gzip", compression_opts=1),
    "gzip 4": stored(**GZIP),
    "gzip and shuffle": stored(shuffle=True, **GZIP),
    "gzip and shuffle, small chunks": stored(shuffle=True, chunks=(64,), **GZIP),
    "gzip, small chunks": stored(chunks=(64,), **GZIP),
    "gzip, chunks of one entry": stored(chunks=(1,), **GZIP),
    "gzip, one chunk larger than all": stored(chunks=(10_000,), maxshape=(None,), **GZIP),
    "contiguous": stored(),
    "uncompressed chunks": stored(chunks=(1000,)),
    "uncompressed small chunks": stored(chunks=(64,)),
    "int64 indices": stored(index=np.int64, chunks=(64,), **GZIP),
    "uint16 indices": stored(index=np.uint16, chunks=(64,), **GZIP),
    "float64": stored(np.float64, shuffle=True, chunks=(64,), **GZIP),
    "int32": stored(np.int32, chunks=(64,), **GZIP),
    "int64": stored(np.int64),
    "uint16": stored(np.uint16, shuffle=True, chunks=(64,), **GZIP),
    "uint8": stored(np.uint8, shuffle=True, chunks=(64,), **GZIP),
    "raw": raw,
}
SLOW: dict[str, tuple[Writer, str]] = {
    "lzf": (stored(compression="lzf", chunks=(64,)), "stored with lzf"),
    "zstd": (of(lambda x: x, compression=hdf5plugin.Zstd()), "stored with HDF5 zstd filter"),
    "shuffle alone": (stored(shuffle=True, chunks=(64,)), "stored with shuffle"),
    "fletcher32": (stored(fletcher32=True, chunks=(64,), **GZIP), "stored with deflate and fletcher32"),
    "a chunk unfiltered": (with_a_chunk_unfiltered, "stored without its filters"),
    "user block": (behind_a_user_block, "begins with a user block"),
    "zarr 2": (zarr(2), "read through zarr"),
    "zarr 3": (zarr(3), "read through zarr"),
    "zarr, csc": (zarr(2, sp.csc_matrix), "stored by gene (CSC)"),
    "zarr, dense": (zarr(2, lambda matrix: matrix.toarray()), "stored dense"),
    "csc": (of(sp.csc_matrix), "stored by gene (CSC)"),
    "csc, gzip": (of(sp.csc_matrix, compression="gzip"), "stored by gene (CSC)"),
    "dense": (of(lambda matrix: matrix.toarray()), "stored dense"),
    "dense, gzip": (of(lambda matrix: matrix.toarray(), compression="gzip"), "stored dense"),
}


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Cohort:
    """What every layout is compared with."""
    return builders.cohort(atlas(), tmp_path_factory.mktemp("plain"))


def assert_same(made: Cohort, plain: Cohort) -> None:
    for name in ("data", "indices", "starts", "stops", "stored_as"):
        np.testing.assert_array_equal(getattr(made.matrix, name), getattr(plain.matrix, name), strict=True)
    np.testing.assert_array_equal(made.sums.values, plain.sums.values, strict=True)
    for name in ("cells", "genes", "donors", "steps"):
        pd.testing.assert_frame_equal(getattr(made, name), getattr(plain, name), check_exact=True)


def as_anndata_reads(path: Path) -> np.ndarray:
    """Counts of the oligodendrocytes with any, as the library that defines the format gives them."""
    adata = ad.read_zarr(path) if path.is_dir() else ad.read_h5ad(path)
    adata = builders.arranged(adata.raw.to_adata() if adata.raw is not None else adata)
    values = adata[adata.obs["Subclass"] == "Oligodendrocyte"].X
    dense = np.asarray(values.toarray() if sp.issparse(values) else values)
    return dense[dense.any(axis=1)].astype(np.float32)


def logged(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == "oligo_ad.storage.atlas"]


# Warnings of anndata and zarr about the formats they will write some day.
pytestmark = pytest.mark.filterwarnings("ignore:.*zarr:UserWarning")
SIZES = pytest.mark.parametrize("block", [None, 150], ids=["one block", "many blocks"])


def cut(monkeypatch: pytest.MonkeyPatch, block: int | None) -> None:
    if block:
        monkeypatch.setattr(rows, "BLOCK", block)
        monkeypatch.setattr(rows, "SPAN", block)


def read_alike(path: Path, plain: Cohort, caplog: pytest.LogCaptureFixture) -> list[str]:
    """Check that the cohort is the plain one and what anndata reads; returns what was logged meanwhile."""
    with caplog.at_level(logging.INFO):
        made = builders.read(path)
    assert_same(made, plain)
    np.testing.assert_array_equal(builders.counts(made), as_anndata_reads(path), strict=True)
    return logged(caplog)


@SIZES
@pytest.mark.parametrize("name", FAST)
def test_a_layout_that_is_read_by_position_gives_the_same_cohort_and_logs_nothing(
    tmp_path: Path,
    plain: Cohort,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    block: int | None,
) -> None:
    cut(monkeypatch, block)
    assert read_alike(FAST[name](tmp_path), plain, caplog) == []


@SIZES
@pytest.mark.parametrize("name", SLOW)
def test_a_slower_layout_gives_the_same_cohort_and_logs_why_it_is_slow(
    tmp_path: Path,
    plain: Cohort,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    block: int | None,
) -> None:
    cut(monkeypatch, block)
    write, reason = SLOW[name]
    path = write(tmp_path)
    lines = read_alike(path, plain, caplog)
    assert lines
    assert all(reason in line and line.startswith(f"X of {path.name} is ") for line in lines)


READ = """
import sys
from pathlib import Path
sys.modules.update({missing})
from oligo_ad.storage.atlas import open_atlas
with open_atlas(Path(sys.argv[1])) as atlas:
    print(sum(block.sum() for block in atlas.rows("X", range(atlas.n_obs))))
"""


def test_a_compression_that_hdf5_does_not_bring_is_learned_or_asked_for(tmp_path: Path) -> None:
    path = SLOW["zstd"][0](tmp_path)

    def read(missing: str) -> subprocess.CompletedProcess[str]:
        # A fresh process: this one knows the compression since it wrote the file.
        words = [sys.executable, "-c", READ.format(missing=missing), str(path)]
        return subprocess.run(words, capture_output=True, text=True, cwd=builders.CONF.parent, check=False)

    assert float(read("{}").stdout) == atlas().X.sum()
    refused = read("{'hdf5plugin': None}")
    assert refused.returncode != 0
    builders.assert_says(refused.stderr, path.name, "HDF5 zstd filter", "pip install hdf5plugin")


def test_chunks_too_large_to_hold_in_every_thread_are_left_to_hdf5(
    tmp_path: Path, plain: Cohort, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chunks, "LARGEST_CHUNK", 64 * 4 - 1)
    with caplog.at_level(logging.INFO):
        assert_same(builders.read(stored(chunks=(64,), **GZIP)(tmp_path)), plain)
    assert [line.split(": ")[-1] for line in logged(caplog)] == ["its chunks hold 64 entries"]


def test_a_slower_way_is_logged_once_and_not_for_samples(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        builders.read(of(sp.csc_matrix)(tmp_path))
    assert len(logged(caplog)) == 1


# Rows that are not canonical


def untidy(matrix: sp.csr_matrix) -> sp.csr_matrix:
    """The same values: genes fall, each value is two that add up to it, and a zero is beside them."""
    order = np.concatenate([np.arange(b - 1, a - 1, -1) for a, b in pairwise(matrix.indptr)])
    values, genes = matrix.data[order], matrix.indices[order]
    parts = np.stack([values - 1, np.ones_like(values), np.zeros_like(values)], axis=1)
    return sp.csr_matrix((parts.ravel(), np.repeat(genes, 3), matrix.indptr * 3), shape=matrix.shape)


@pytest.mark.parametrize("by_gene", [False, True], ids=["csr", "csc"])
def test_unsorted_repeated_and_zero_entries_become_canonical(
    tmp_path: Path, plain: Cohort, by_gene: bool
) -> None:
    path = builders.write(atlas(), tmp_path)
    if by_gene:
        put(path, untidy(atlas().X.T.tocsr()).T, "csc_matrix", **GZIP)
    else:
        put(path, untidy(atlas().X), chunks=(64,), **GZIP)
    assert_same(builders.read(path), plain)


def test_repeated_entries_that_cancel_are_no_stored_zero(tmp_path: Path) -> None:
    matrix = atlas().X
    silent = np.flatnonzero(matrix[0].toarray()[0] == 0)[0]
    values = np.concatenate([np.float32([3, -3]), matrix.data])
    genes = np.concatenate([[silent, silent], matrix.indices])
    indptr = np.concatenate([[0], matrix.indptr[1:] + 2])
    path = builders.write(atlas(), tmp_path)
    put(path, sp.csr_matrix((values, genes, indptr), shape=matrix.shape))
    assert (builders.read(path).matrix.data != 0).all()


# Any stretch of any vector


@st.composite
def vectors(draw: st.DrawFn) -> tuple[np.ndarray, dict[str, Any], np.ndarray]:
    """Values, how HDF5 is to store them, and rising places of which each pair is a stretch."""
    length = draw(st.integers(0, 300))
    kind = draw(st.sampled_from(["u1", "u2", "i4", "i8", "f4", "f8"]))
    values = np.random.default_rng(draw(st.integers(0, 9))).integers(0, 200, length).astype(kind)
    options: dict[str, Any] = {}
    if size := draw(st.integers(0, 90)):
        options = {"chunks": (size,), "maxshape": (None,), "shuffle": draw(st.booleans())}
        if draw(st.booleans()):
            options |= {"compression": "gzip", "compression_opts": draw(st.integers(0, 9))}
    places = sorted(draw(st.lists(st.integers(0, length), max_size=24)))
    return values, options, np.array(places[: len(places) // 2 * 2], int).reshape(-1, 2)


@settings(max_examples=200, deadline=None)
@given(vectors())
def test_stretches_read_by_position_or_through_hdf5_equal_slices(
    vector: tuple[np.ndarray, dict[str, Any], np.ndarray],
) -> None:
    values, options, stretches = vector
    starts, stops = stretches.T
    expected = np.concatenate([values[:0], *(values[a:b] for a, b in stretches)])
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "vector.h5"
        with h5py.File(path, "w") as file:
            file.create_dataset("vector", data=values, **options)
        with h5py.File(path) as file, path.open("rb", buffering=0) as descriptor:
            fastest = open_vector(file["vector"], descriptor.fileno())
            through_hdf5 = Spanned(file["vector"], "")
            for reader in (fastest, through_hdf5):
                found = reader.read(starts, stops)
                np.testing.assert_array_equal(found, expected, strict=True)
    shuffled_alone = options.get("shuffle") and "compression" not in options
    empty = not options and not len(values)
    assert isinstance(fastest, Spanned if shuffled_alone or empty else Direct)
    assert bool(fastest.slower) == isinstance(fastest, Spanned)


# Without the package `deflate`, and damage


@pytest.fixture(params=["deflate", "zlib"])
def library(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """`chunks` as it is, or as it is where the package `deflate` cannot be imported."""
    if request.param == "deflate":
        return chunks
    monkeypatch.setitem(sys.modules, "deflate", None)
    spec = importlib.util.spec_from_file_location("without_deflate", chunks.__file__)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(rows, "open_vector", module.open_vector)
    return module


def test_either_library_inflates_to_the_same_cohort(
    tmp_path: Path, plain: Cohort, library: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    inflated, inflate = [], library.zlib_decompress
    assert (inflate.__module__ == "without_deflate") == (library is not chunks)

    def watched(data: bytes, size: int) -> Any:
        inflated.append(size)
        return inflate(data, size)

    monkeypatch.setattr(library, "zlib_decompress", watched)
    assert_same(builders.read(stored(shuffle=True, chunks=(64,), **GZIP)(tmp_path)), plain)
    assert set(inflated) == {256}


def flipped(content: bytes) -> bytes:
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 16]) + content[middle + 1 :]


DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "truncated": lambda content: content[: len(content) // 2],
    "zeroed": lambda content: bytes(len(content)),
    "flipped": flipped,
    "flipped checksum": lambda content: content[:-1] + bytes([content[-1] ^ 1]),
    "too short inside": lambda content: zlib.compress(zlib.decompress(content)[:-4]),
    "too long inside": lambda content: zlib.compress(zlib.decompress(content) + bytes(4)),
    "nothing inside": lambda content: zlib.compress(b""),
}


@pytest.mark.parametrize("vector", ["data", "indices"])
@pytest.mark.parametrize("name", DAMAGE)
def test_a_damaged_chunk_is_refused(tmp_path: Path, library: ModuleType, name: str, vector: str) -> None:
    path = stored(chunks=(64,), **GZIP)(tmp_path)
    with h5py.File(path, "r+") as file:
        dataset = file["X"][vector].id
        for place in range(0, len(file["X"][vector]), 64):
            dataset.write_direct_chunk((place,), DAMAGE[name](dataset.read_direct_chunk((place,))[1]))
    assert_refused(path, "X of ", "damaged")


@pytest.mark.parametrize("options", [{}, {"chunks": (64,)}], ids=["contiguous", "chunks"])
def test_a_file_cut_short_while_it_is_open_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any]
) -> None:
    path = stored(**options)(tmp_path)
    monkeypatch.setattr(chunks.os, "preadv", lambda descriptor, buffers, place: 3)
    assert_refused(path, "X of ", "ends beyond the file")


def pointers(change: Callable[[np.ndarray], np.ndarray]) -> Callable[[h5py.File], None]:
    def damage(file: h5py.File) -> None:
        values = change(file["X/indptr"][:])
        del file["X/indptr"]
        file["X/indptr"] = values

    return damage


COLUMNS: dict[str, tuple[Callable[[h5py.File], Any], list[str]]] = {
    "nucleus beyond the last": (
        lambda file: file["X/indices"].__setitem__(5, 168),
        ["nucleus beyond its 168", "row indices are damaged"],
    ),
    "negative nucleus": (
        lambda file: file["X/indices"].__setitem__(5, -1),
        ["nucleus beyond its 168", "row indices are damaged"],
    ),
    "too few columns": (pointers(lambda values: values[:-1]), ["damaged column pointers"]),
    "falling": (pointers(lambda values: values[[0, 2, 1, *range(3, 31)]]), ["damaged column pointers"]),
    "not from the start": (pointers(lambda values: np.maximum(values, 2)), ["damaged column pointers"]),
    "beyond the values": (pointers(lambda values: values + np.eye(31, dtype=int)[-1]), ["damaged column"]),
    "none": (pointers(lambda values: values[:0]), ["damaged column pointers"]),
    "fewer nuclei than values": (
        lambda file: (
            (file.__setitem__("new", file["X/indices"][:-3]), file.__delitem__("X/indices"))
            and file.move("new", "X/indices")
        ),
        ["damaged"],
    ),
}


@pytest.mark.parametrize("name", COLUMNS)
def test_a_damaged_matrix_stored_by_gene_is_refused(tmp_path: Path, name: str) -> None:
    damage, words = COLUMNS[name]
    path = of(sp.csc_matrix)(tmp_path)
    with h5py.File(path, "r+") as file:
        damage(file)
    assert_refused(path, "X of ", *words)
