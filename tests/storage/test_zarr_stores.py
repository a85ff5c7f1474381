"""A zarr store runs no code, reaches no other file, and gives no other numbers for a chunk that is lost."""

import json
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anndata as ad
import numcodecs
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from oligo_ad.errors import UserError
from oligo_ad.storage import zarr_store
from oligo_ad.storage.atlas import open_atlas
from tests import builders
from tests.builders import answer, assert_refused, assert_says

# Warnings of anndata and zarr about the formats they will write some day.
pytestmark = pytest.mark.filterwarnings("ignore:.*zarr:UserWarning", "ignore:.*:FutureWarning")
VERSIONS = pytest.mark.parametrize("version", [2, 3])


def store(folder: Path, version: int = 2, adata: ad.AnnData | None = None, name: str = "atlas.zarr") -> Path:
    path = folder / name
    with ad.settings.override(zarr_write_format=version):
        (adata or builders.atlas()).write_zarr(path)
    return path


def metadata(path: Path, array: str) -> Path:
    """The file that describes an array."""
    return next(file for file in (path / array / ".zarray", path / array / "zarr.json") if file.exists())


def described(path: Path, array: str, **changed: Any) -> None:
    """Change what the metadata of an array say."""
    file = metadata(path, array)
    file.write_text(json.dumps(json.loads(file.read_text()) | changed))


def cut(path: Path, array: str, *size: int) -> None:
    """Write an array again in chunks of a size, as zarr does: without chunks of zeros."""
    group = zarr.open_group(path, mode="r+", use_consolidated=False)
    values, attributes = group[array][:], dict(group[array].attrs)
    del group[array]
    group.create_array(array, shape=values.shape, dtype=values.dtype, chunks=size)[...] = values
    group[array].attrs.update(attributes)


def chunks(path: Path, array: str) -> list[Path]:
    files = (file for file in (path / array).rglob("*") if file.is_file())
    return sorted(file for file in files if file.name != "zarr.json" and not file.name.startswith("."))


class Marks:
    """What a pickle of it does: make a file."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.mark),)


EVIL: dict[str, dict[str, Any]] = {
    "compressor": {"compressor": {"id": "pickle", "protocol": 5}, "filters": [{"id": "vlen-utf8"}]},
    "filter": {"compressor": None, "filters": [{"id": "pickle", "protocol": 5}]},
    "unknown": {"compressor": {"id": "made_up"}},
    "no name": {"compressor": {"level": 3}},
    "other type": {"filters": "pickle"},
}


@pytest.mark.parametrize("array", ["obs/_index", "var/_index", "obs/Donor ID/categories", "X/data"])
@pytest.mark.parametrize("evil", EVIL)
def test_a_codec_that_may_run_code_is_never_called(tmp_path: Path, array: str, evil: str) -> None:
    path, mark = store(tmp_path), tmp_path / "mark"
    described(path, array, **EVIL[evil])
    for file in chunks(path, array):
        file.write_bytes(pickle.dumps(Marks(mark)))
    assert_refused(path, array)
    assert not mark.exists()


V3: dict[str, list[Any]] = {
    "plain": [{"name": "numcodecs.pickle"}],
    "a word": ["pickle"],
    "in a shard": [
        {
            "name": "sharding_indexed",
            "configuration": {
                "chunk_shape": [2],
                "codecs": [{"name": "numcodecs.pickle"}],
                "index_codecs": [{"name": "bytes"}],
            },
        }
    ],
    "in the index of a shard": [
        {
            "name": "sharding_indexed",
            "configuration": {"chunk_shape": [2], "codecs": [], "index_codecs": [{"name": "cast_value"}]},
        }
    ],
}


@pytest.mark.parametrize("codecs", V3)
def test_a_codec_of_zarr_3_is_looked_for_inside_shards_too(tmp_path: Path, codecs: str) -> None:
    path = store(tmp_path, 3)
    described(path, "obs/_index", codecs=V3[codecs])
    assert_refused(path, "obs/_index", "is not run")


def test_consolidated_metadata_cannot_name_another_codec_than_the_arrays(tmp_path: Path) -> None:
    path = store(tmp_path, 3)
    root = json.loads((path / "zarr.json").read_text())
    root["consolidated_metadata"]["metadata"]["obs/_index"]["codecs"] = [{"name": "numcodecs.pickle"}]
    (path / "zarr.json").write_text(json.dumps(root))
    assert_refused(path, "obs/_index", "is not run")


@pytest.mark.parametrize("what", ["file", "folder", "pipe"])
def test_a_link_in_a_store_is_not_followed(tmp_path: Path, what: str) -> None:
    path, secret = store(tmp_path), store(tmp_path, name="secret.zarr")
    part = chunks(path, "obs/_index")[0] if what != "folder" else path / "obs/Sex"
    shutil.rmtree(part) if part.is_dir() else part.unlink()
    if what == "pipe":
        os.mkfifo(part)
    else:
        part.symlink_to(secret / part.relative_to(path))
    assert_refused(path, str(part.relative_to(path)), "is not followed")


def test_the_store_itself_may_be_a_link(tmp_path: Path) -> None:
    path = store(tmp_path)
    (tmp_path / "link.zarr").symlink_to(path)
    assert len(builders.read(tmp_path / "link.zarr").cells) == len(builders.read(path).cells)


ABSURD: dict[str, Callable[[Path], Any]] = {
    "shape": lambda path: described(path, "obs/_index", shape=[1 << 40]),
    "chunks": lambda path: described(path, "X/data", chunks=[1 << 40]),
    "shape and chunks": lambda path: described(path, "obs/_index", shape=[1 << 40], chunks=[1 << 40]),
    "values": lambda path: described(path, "X/data", shape=[1 << 40]),
    "levels": lambda path: described(path, "obs/Donor ID/categories", shape=[1 << 40]),
    "genes": lambda path: described(path, "var/_index", shape=[1 << 40]),
    "negative": lambda path: described(path, "obs/_index", shape=[-5]),
    "float": lambda path: described(path, "obs/_index", chunks=[2.5]),
    "no shape": lambda path: metadata(path, "obs/_index").write_text('{"zarr_format": 2}'),
    "no object": lambda path: metadata(path, "obs/_index").write_text("[]"),
    "deep": lambda path: metadata(path, "obs/_index").write_text('{"a":' * 100_000),
}


@pytest.mark.parametrize("absurd", ABSURD)
def test_absurd_sizes_are_refused_before_memory_is_taken(tmp_path: Path, absurd: str) -> None:
    path = store(tmp_path)
    (path / ".zmetadata").unlink(missing_ok=True)
    ABSURD[absurd](path)
    assert len(answer(builders.read, path)) < 600


@pytest.mark.parametrize("codec", ["gzip", "zlib", "zstd"])
def test_a_chunk_that_inflates_without_end_is_refused_before_it_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, codec: str
) -> None:
    path = store(tmp_path)
    described(path, "obs/_index", compressor={"id": codec, "level": 1})
    (path / ".zmetadata").unlink(missing_ok=True)
    monkeypatch.setattr(zarr_store, "LARGEST_CHUNK", 1 << 20)
    bomb = numcodecs.get_codec({"id": codec, "level": 1}).encode(bytes(1 << 22))
    chunks(path, "obs/_index")[0].write_bytes(bomb)
    assert len(bomb) < 1 << 15
    assert_says(answer(builders.read, path), "obs", "inflates to")
    if codec == "gzip":
        chunks(path, "obs/_index")[0].write_bytes(numcodecs.GZip().encode(b"") + bomb)
        assert_says(answer(builders.read, path), "obs", "inflates to")


def test_an_uncompressed_chunk_that_begins_like_gzip_is_no_bomb(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(zarr_store, "ZLIB_RATIO", 1 << 40)
    chunk = tmp_path / "0"
    for head in (b"\x1f\x8b", b"\x78\x9c", b""):
        chunk.write_bytes(head + bytes(100))
        zarr_store._require_bounded(chunk)


def test_a_zip_is_answered_with_what_to_do(tmp_path: Path) -> None:
    archive = shutil.make_archive(str(tmp_path / "store"), "zip", store(tmp_path))
    assert_says(answer(builders.read, Path(archive)), "is a zip archive: unpack it")


# Chunks that are lost


def sorted_atlas() -> ad.AnnData:
    """Nuclei in the order of donors, as many files have them."""
    adata = builders.atlas(4, 3, nuclei=24, genes=30)
    adata.obs["zeros"] = np.zeros(len(adata))
    adata.obs["flag"] = np.arange(len(adata)) % 2 == 0
    adata.obs["Age at Death"] += 0.5
    return adata[np.argsort(adata.obs["Donor ID"].cat.codes, kind="stable")].copy()


ARRAYS = [
    *((f"X/{part}", 40) for part in ("data", "indices", "indptr")),
    *(("obs/Donor ID/codes", size) for size in (10, 20, 1000)),
    *((f"obs/{name}", 24) for name in ("_index", "flag", "Age at Death")),
    *((name, 10) for name in ("obs/Donor ID/categories", "var/_index")),
]


def contents(path: Path) -> tuple[Any, ...]:
    with open_atlas(path) as atlas:
        blocks = sp.vstack(list(atlas.rows("X", np.arange(atlas.n_obs)))).toarray().tolist()
        columns = [atlas.column(name).tolist() for name in atlas.columns]
        return blocks, columns, atlas.barcodes(np.arange(atlas.n_obs)).tolist(), list(atlas.var("X").index)


@VERSIONS
@pytest.mark.parametrize(("array", "size"), ARRAYS)
def test_a_lost_chunk_is_refused_or_changes_nothing(
    tmp_path: Path, version: int, array: str, size: int
) -> None:
    path = store(tmp_path, version, sorted_atlas())
    cut(path, array, size)
    zarr.consolidate_metadata(path)
    whole = contents(path)
    files = chunks(path, array)
    for file in (files[0], files[len(files) // 2], files[-1]):
        kept = file.read_bytes()
        file.unlink()
        try:
            assert contents(path) == whole
        except UserError as error:
            assert_says(str(error), "lacks", "chunk", "Copy it again")
        else:
            pytest.fail(f"{file} was not missed")
        file.write_bytes(kept)


@VERSIONS
def test_a_lost_chunk_of_a_dense_matrix_is_missed(tmp_path: Path, version: int) -> None:
    adata = sorted_atlas()
    adata.X = adata.X.toarray()
    path = store(tmp_path, version, adata)
    cut(path, "X", 20, 7)
    for file in chunks(path, "X")[::9]:
        kept = file.read_bytes()
        file.unlink()
        assert_says(answer(contents, path), "X of atlas.zarr lacks 1 of its 45 chunks")
        file.write_bytes(kept)


@VERSIONS
def test_an_array_that_is_lost_whole_is_missed(tmp_path: Path, version: int) -> None:
    path = store(tmp_path, version)
    zarr.consolidate_metadata(path)
    metadata(path, "obs/Sex/codes").unlink()
    assert_says(answer(contents, path), "consolidated metadata", "obs/Sex/codes")


@VERSIONS
def test_chunks_of_zeros_that_zarr_left_out_are_zeros(tmp_path: Path, version: int) -> None:
    adata = sorted_atlas()
    adata.obs["Subclass"] = pd.Categorical(["Oligodendrocyte"] * len(adata))
    adata.obs["none"] = np.zeros(len(adata), bool)
    values = adata.X.toarray()
    values[:, 14:21] = 0
    values[:40] *= np.arange(30) < 7
    adata.X = values
    path = store(tmp_path, version, adata)
    cut(path, "obs/Donor ID/codes", 7)
    cut(path, "X", 168, 7)
    assert len(chunks(path, "obs/Donor ID/codes")) == 168 // 7 - 3
    assert not chunks(path, "obs/none")
    blocks, columns, *_ = contents(path)
    np.testing.assert_array_equal(blocks, values)
    assert columns[0] == adata.obs["Donor ID"].tolist()


@VERSIONS
def test_a_chunk_of_zeros_may_be_left_out_where_its_genes_are_nearly_silent(
    tmp_path: Path, version: int
) -> None:
    adata = sorted_atlas()
    values = adata.X.toarray()
    values[:, 14:21] = 0
    values[100:110, 15] = 1
    adata.X = values
    path = store(tmp_path, version, adata)
    cut(path, "X", 84, 7)
    np.testing.assert_array_equal(contents(path)[0], values)


@VERSIONS
def test_a_column_that_has_lost_its_attributes_is_missed(tmp_path: Path, version: int) -> None:
    path = store(tmp_path, version)
    lost = path / "obs/Sex" / (".zattrs" if version == 2 else "zarr.json")
    if version == 2:
        lost.unlink()
    else:
        lost.write_text(json.dumps({"zarr_format": 3, "node_type": "group", "attributes": {}}))
    zarr.consolidate_metadata(path)
    assert_says(answer(contents, path), "the copy is not whole")


@settings(max_examples=8, deadline=None)
@given(st.data())
def test_a_store_without_any_one_of_its_files_never_gives_other_values(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("store")
    path = store(folder, data.draw(st.sampled_from([2, 3])), sorted_atlas())
    for array, size in ARRAYS:
        if data.draw(st.booleans()):
            cut(path, array, size)
    zarr.consolidate_metadata(path)
    whole = contents(path)
    files = sorted(
        file for part in ("obs", "var", "X") for file in (path / part).rglob("*") if file.is_file()
    )
    lost = data.draw(st.sampled_from(files))
    lost.unlink()
    try:
        found = contents(path)
    except UserError:
        return
    # Zeros throughout are stored as nothing.
    assert (found[0], *found[2:]) == (whole[0], *whole[2:])
    assert all(now == before or len(set(now)) == 1 for now, before in zip(found[1], whole[1], strict=True))
