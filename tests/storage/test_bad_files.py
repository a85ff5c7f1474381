"""A file that is damaged, foreign or hostile is refused with a message; it does not crash or deceive."""

import errno
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anndata as ad
import h5py
import numpy as np
import pandas as pd
import pytest

from oligo_ad import tasks
from oligo_ad.config import SplitConfig
from oligo_ad.data.cache import load_cohort, source
from oligo_ad.data.split import make_folds
from oligo_ad.errors import UserError
from oligo_ad.results import report
from oligo_ad.simulation import simulate as demo
from tests.builders import (
    answer,
    assert_refused,
    assert_says,
    atlas,
    cohort,
    configuration,
    counts,
    load,
    write,
)

Damage = Callable[[h5py.File], object]


def damaged(folder: Path, damage: Damage, adata: ad.AnnData | None = None) -> Path:
    path = write(adata or atlas(), folder)
    with h5py.File(path, "r+") as file:
        damage(file)
    return path


def put(name: str, place: int, value: float) -> Damage:
    return lambda file: file[name].__setitem__(place, value)


def without(name: str) -> Damage:
    return lambda file: file.__delitem__(name)


def without_attribute(name: str, attribute: str) -> Damage:
    return lambda file: file[name].attrs.__delitem__(attribute)


def replaced(name: str, values: object) -> Damage:
    def damage(file: h5py.File) -> None:
        attributes = dict(file[name].attrs)
        del file[name]
        file[name] = values
        file[name].attrs.update(attributes)

    return damage


# Files that are no h5ad


@pytest.mark.parametrize("content", [b"", b"<!DOCTYPE html><title>404</title>"], ids=["empty", "html"])
def test_a_file_that_is_no_hdf5_is_refused_with_its_size(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "atlas.h5ad"
    path.write_bytes(content)
    assert_refused(path, f"({len(content)} bytes)", "not a readable h5ad file", "download complete?")


@pytest.mark.parametrize("share", [0.1, 0.5, 0.999])
def test_a_truncated_file_is_refused_with_its_size(tmp_path: Path, share: float) -> None:
    path = write(atlas(), tmp_path)
    size = int(share * path.stat().st_size)
    path.write_bytes(path.read_bytes()[:size])
    assert_refused(path, f"({size} bytes)", "not a readable h5ad file", "truncated", "download complete?")


def test_a_directory_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "atlas.h5ad"
    path.mkdir()
    assert_refused(path, "is a directory, but no zarr store", "data.path takes an .h5ad file")


@pytest.mark.parametrize(
    ("content", "words"),
    [('{"zarr_format": 2}', "holds no AnnData: it has no obs and no var and no X"), ("{", "zarr store")],
    ids=["empty", "damaged"],
)
def test_a_zarr_store_that_holds_no_anndata_is_refused(tmp_path: Path, content: str, words: str) -> None:
    path = tmp_path / "atlas.zarr"
    path.mkdir()
    (path / ".zgroup").write_text(content)
    assert_refused(path, words)


def test_a_missing_file_is_answered_with_the_nearest_name(tmp_path: Path) -> None:
    write(atlas(), tmp_path, "seaad_a9.h5ad")
    assert_refused(tmp_path / "seaad_A9.h5ad", "there is no file", "Did you mean 'seaad_a9.h5ad'?")


def test_a_file_that_was_not_given_is_asked_for(tmp_path: Path) -> None:
    config = configuration("data.path=null")
    assert_says(answer(load_cohort, config.data, tmp_path), "data=sea_ad", "data.path=/path/to/file.h5ad")


@pytest.mark.parametrize(("part", "what"), [(np.s_[:0], "no nuclei (obs"), (np.s_[:, :0], "no genes (var")])
def test_a_file_without_nuclei_or_genes_is_refused(tmp_path: Path, part: Any, what: str) -> None:
    assert_refused(write(atlas()[part].copy(), tmp_path), what)


# Damage

DAMAGE: dict[str, tuple[Damage, list[str]]] = {
    "gene beyond the last": (put("X/indices", 5, 60_000), ["X", "beyond its 60", "damaged"]),
    "negative gene": (put("X/indices", 5, -3), ["X", "beyond its 60", "damaged"]),
    "row beyond the values": (put("X/indptr", 5, 10**6), ["X of", "damaged row pointers"]),
    "row that ends before it starts": (put("X/indptr", 5, 0), ["X of", "damaged row pointers"]),
    "too few rows": (replaced("X/indptr", np.zeros(9, int)), ["X of", "damaged row pointers"]),
    "absurd shape": (
        lambda file: file["X"].attrs.update({"shape": [10**12, 10**9]}),
        ["X", "1000000000000 x 1000000000", "360 and 60", "damaged"],
    ),
    "short obs column": (
        replaced("obs/Age at Death", np.arange(7.0)),
        ["'Age at Death'", "7 entries for 360 nuclei", "damaged"],
    ),
    "short donor column": (
        replaced("obs/Donor ID/codes", np.zeros(7, np.int8)),
        ["'Donor ID'", "7 entries for 360 nuclei", "damaged"],
    ),
    "level that is not there": (put("obs/Donor ID/codes", 3, 99), ["'Donor ID'"]),
    "column that is not there": (without("obs/Sex"), ["'Sex'"]),
    "no order of columns": (without_attribute("obs", "column-order"), ["obs"]),
    "no names of nuclei": (without_attribute("obs", "_index"), ["obs"]),
    "no matrix": (without("X"), ["it has no X"]),
    "no row pointers": (without("X/indptr"), ["X"]),
    "no values": (without("X/data"), ["X"]),
    "no shape": (without_attribute("X", "shape"), ["X"]),
    "NaN": (put("X/data", 7, np.nan), ["X", "NaN or infinite values"]),
    "infinity": (put("X/data", 7, np.inf), ["X", "NaN or infinite values"]),
    "negative value": (put("X/data", 7, -2), ["X", "negative values", "raw counts"]),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_a_damaged_file_is_refused_with_the_place(tmp_path: Path, name: str) -> None:
    damage, words = DAMAGE[name]
    assert_refused(damaged(tmp_path, damage), *words)


@pytest.mark.parametrize(
    "damage", [put("X/indices", 5, 60_000), put("X/indptr", 5, 10**6)], ids=["indices", "indptr"]
)
def test_a_damaged_matrix_stored_by_columns_is_refused(tmp_path: Path, damage: Damage) -> None:
    adata = atlas()
    adata.X = adata.X.tocsc()
    assert_refused(damaged(tmp_path, damage, adata), "X", "damaged")


@pytest.mark.parametrize(("value", "word"), [(np.nan, "NaN"), (-2.0, "counts"), (2.5, "counts")])
def test_a_wrong_value_is_found_where_no_sample_is_taken(tmp_path: Path, value: float, word: str) -> None:
    adata = atlas(nuclei=60)
    oligodendrocyte = 185
    assert adata.obs["Subclass"].iloc[oligodendrocyte] == "Oligodendrocyte"
    adata.X.data[adata.X.indptr[oligodendrocyte]] = value
    assert_refused(write(adata, tmp_path), "X", word)


@pytest.mark.parametrize("name", ["X/data", "obs/Donor ID/codes"])
def test_damage_inside_compressed_data_is_not_blamed_on_the_cache(tmp_path: Path, name: str) -> None:
    path = tmp_path / "atlas.h5ad"
    atlas().write_h5ad(path, compression="gzip")
    with h5py.File(path) as file:
        chunk = file[name].id.get_chunk_info(0)
    content = bytearray(path.read_bytes())
    middle = chunk.byte_offset + chunk.size // 2
    content[middle : middle + 8] = bytes(8)
    path.write_bytes(content)
    assert_refused(path)


# Files that reach outside themselves


def link(file: h5py.File) -> None:
    file["X/elsewhere"] = h5py.ExternalLink(str(Path(file.filename).with_name("other.h5ad")), "X")


def soft_link(file: h5py.File) -> None:
    """Of its own data; but anndata writes none, and one may lead anywhere."""
    file["X/elsewhere"] = h5py.SoftLink("/X/data")


def storage(file: h5py.File) -> None:
    outside = [(str(Path(file.filename).with_name("secret")), 0, 400)]
    file.create_dataset("X/elsewhere", shape=(100,), dtype="f4", external=outside)


def virtual(file: h5py.File) -> None:
    layout = h5py.VirtualLayout(shape=(10,), dtype="f4")
    layout[:] = h5py.VirtualSource(str(Path(file.filename).with_name("other.h5ad")), "X/data", shape=(10,))
    file.create_virtual_dataset("X/elsewhere", layout)


@pytest.mark.parametrize("foreign", [link, soft_link, storage, virtual])
def test_a_file_that_reads_other_files_is_refused(tmp_path: Path, foreign: Damage) -> None:
    write(atlas(), tmp_path, "other.h5ad")
    (tmp_path / "secret").write_bytes(bytes(400))
    path = damaged(tmp_path, foreign)
    assert_refused(path, "'/X/elsewhere' is a link to other data", "Write the file out again with anndata")


def test_a_group_that_contains_itself_does_not_hang(tmp_path: Path) -> None:
    def too_long(*_: object) -> None:
        pytest.fail("still walking in a circle")

    def loop(file: h5py.File) -> None:
        file["X/self"] = file["X"]

    path = damaged(tmp_path, loop)
    signal.signal(signal.SIGALRM, too_long)
    # HDF5 swallows what is raised while it calls back, so the alarm rings on.
    signal.setitimer(signal.ITIMER_REAL, 30, 0.1)
    try:
        load(path)
    except UserError as error:
        assert_says(str(error), path.name, "X/self")
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, signal.SIG_DFL)


# Saved splits; the rest of what may be wrong with one is in test_split.py


@pytest.mark.parametrize(
    "content",
    [bytes(range(256)) * 100, b'{"label": {"D0": 1, "D1": 0}, "folds": []}'],
    ids=["binary", "no folds"],
)
def test_a_file_that_holds_no_folds_is_refused_in_few_words(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "split.json"
    path.write_bytes(content)
    config: SplitConfig = configuration(f"split.file={path}").split
    message = answer(make_folds, pd.Series({"D0": 1, "D1": 0}), config)
    assert_says(message, f"split.file={path}", "is no split.json of a run")
    assert len(message) < 1_000


# Places that cannot be written


def no_space(*_: object, **__: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_cache_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file, where a directory should be")
    message = answer(load, write(atlas(), tmp_path))
    assert_says(message, f"the cache {tmp_path / 'cache'} cannot be used", "Choose cache.dir=DIR")


def test_a_disk_that_fills_up_leaves_no_cohort_to_trust(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, save = write(atlas(), tmp_path), np.save

    def save_half(file: Path, array: np.ndarray) -> None:
        save(file, array[: len(array) // 2])
        no_space()

    with monkeypatch.context() as full:
        full.setattr(np, "save", save_half)
        message = answer(load, path)
    assert_says(message, "No space left on device", str(tmp_path / "cache"), "cache.dir=DIR")
    assert not [left for left in tmp_path.glob("cache/*") if not left.suffix]
    np.testing.assert_array_equal(counts(load(path)), counts(cohort(atlas(), tmp_path)))


def test_a_disk_that_fills_up_leaves_no_simulated_atlas_to_trust(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    simulation = ("data.simulation.nuclei=500", "data.simulation.genes=200")
    config = configuration("data=demo", *simulation).data
    with monkeypatch.context() as full:
        full.setattr(demo, "write_frame", no_space)
        message = answer(source, config, tmp_path)
    assert_says(message, "No space left on device", str(tmp_path), "cache.dir=DIR")
    assert not list(tmp_path.glob("*.h5ad"))
    with h5py.File(source(config, tmp_path)) as file:
        assert "obs" in file


def test_a_disk_that_fills_up_leaves_no_result_to_trust(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, folder = write(atlas(), tmp_path), tmp_path / "run"
    load(path)
    small = ("model.network.hidden=[8]", "fit.epochs=1", "evaluation.baselines=false")
    small = (*small, "evaluation.depth_matched=false")  # which would write into the cache
    config = configuration(f"data.path={path}", f"cache.dir={tmp_path / 'cache'}", *small)
    monkeypatch.setattr(report, "draw", lambda run: {})
    monkeypatch.setattr(pd.DataFrame, "to_parquet", no_space)
    message = answer(tasks.run, config, folder)
    assert_says(message, "No space left on device", str(folder))
    assert not (folder / "metrics.json").exists()
