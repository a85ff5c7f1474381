"""A prepared cohort is made once, read back as it was, and never trusted when it changed."""

import logging
import multiprocessing
import shutil
import time
from dataclasses import asdict, replace
from multiprocessing.synchronize import Barrier
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest

from oligo_ad.config import DataConfig
from oligo_ad.data import cache
from oligo_ad.data.cache import ARRAYS, FRAMES, load_cohort
from oligo_ad.data.cohort import Cohort
from oligo_ad.errors import UserError
from tests import builders


@pytest.fixture(scope="module")
def atlas_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    adata = builders.atlas(4, 3, nuclei=8, genes=30)
    return builders.write(adata, tmp_path_factory.mktemp("atlas"))


@pytest.fixture
def config(atlas_file: Path) -> DataConfig:
    return replace(builders.configuration().data, path=str(atlas_file))


def assert_same(one: Cohort, other: Cohort) -> None:
    for name in ARRAYS:
        np.testing.assert_array_equal(getattr(one.matrix, name), getattr(other.matrix, name))
    for name in FRAMES:
        pd.testing.assert_frame_equal(getattr(one, name), getattr(other, name))
    assert one.matrix.shape == other.matrix.shape
    assert one.matrix.dtype == other.matrix.dtype
    for name in ("expression", "simulated", "about", "notes"):
        assert getattr(one, name) == getattr(other, name)


def folders(where: Path) -> list[Path]:
    """Finished cohorts."""
    return [path for path in where.glob("cohort-*") if path.is_dir() and not path.suffix]


def forbid_building(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("built again")

    monkeypatch.setattr(cache, "build", refuse)


def test_the_second_load_equals_the_first_and_does_not_build(
    config: DataConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = load_cohort(config, tmp_path)
    forbid_building(monkeypatch)
    assert_same(load_cohort(config, tmp_path), first)


def test_a_log_only_cohort_is_read_back_with_its_unknown_totals(tmp_path: Path) -> None:
    adata = builders.atlas(4, 3, nuclei=8, genes=30)
    adata.X = adata.X.multiply(0.5).tocsr().log1p()
    config = replace(builders.configuration().data, path=str(builders.write(adata, tmp_path)))
    first = load_cohort(config, tmp_path / "cache")
    assert first.cells["total"].isna().all()
    assert_same(load_cohort(config, tmp_path / "cache"), first)


FILES = [*(f"{name}.npy" for name in ARRAYS), *(f"{name}.parquet" for name in FRAMES)]


@pytest.mark.parametrize("name", FILES)
def test_a_flipped_byte_is_noticed_set_aside_and_built_anew(
    config: DataConfig, tmp_path: Path, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    first = load_cohort(config, tmp_path)
    (folder,) = folders(tmp_path)
    content = bytearray((folder / name).read_bytes())
    content[len(content) // 2] ^= 1
    (folder / name).write_bytes(content)
    with caplog.at_level(logging.WARNING):
        assert_same(load_cohort(config, tmp_path), first)
    assert f"{name} changed since it was written" in caplog.text
    assert folder.with_suffix(".damaged").is_dir()
    assert folders(tmp_path) == [folder]


@pytest.mark.parametrize(
    ("original", "damaged"),
    [('"simulated": false', '"simulated": true'), ('"content": "counts"', '"content": "log"'), ("{", "")],
)
def test_a_changed_manifest_is_noticed(
    config: DataConfig, tmp_path: Path, original: str, damaged: str
) -> None:
    first = load_cohort(config, tmp_path)
    manifest = folders(tmp_path)[0] / "manifest.json"
    assert original in manifest.read_text()
    manifest.write_text(manifest.read_text().replace(original, damaged, 1))
    assert_same(load_cohort(config, tmp_path), first)


@pytest.mark.parametrize("name", [*FILES, "manifest.json"])
def test_a_missing_file_is_noticed(config: DataConfig, tmp_path: Path, name: str) -> None:
    first = load_cohort(config, tmp_path)
    (folders(tmp_path)[0] / name).unlink()
    assert_same(load_cohort(config, tmp_path), first)


def test_damage_twice_is_mended_twice(config: DataConfig, tmp_path: Path) -> None:
    first = load_cohort(config, tmp_path)
    for _ in range(2):
        (folders(tmp_path)[0] / "data.npy").write_bytes(b"")
        assert_same(load_cohort(config, tmp_path), first)


@pytest.mark.parametrize(
    "choice",
    [
        {"min_genes": 5},
        {"min_nuclei": 3},
        {"cell_types": ("Astrocyte",)},
        {"positive": ("Not AD",), "negative": ("High",)},
        {"counts": "X"},
    ],
    ids=lambda choice: next(iter(choice)),
)
def test_another_choice_is_another_cohort(
    config: DataConfig, tmp_path: Path, choice: dict[str, object]
) -> None:
    load_cohort(config, tmp_path)
    load_cohort(replace(config, **choice), tmp_path)
    assert len(folders(tmp_path)) == 2


def test_the_name_and_place_of_a_file_are_no_choice(config: DataConfig, tmp_path: Path) -> None:
    load_cohort(config, tmp_path / "cache")
    elsewhere = shutil.copy2(str(config.path), tmp_path / "copy.h5ad")
    load_cohort(replace(config, name="other", path=str(elsewhere)), tmp_path / "cache")
    assert len(folders(tmp_path / "cache")) == 1


def test_another_file_at_the_same_place_is_another_cohort(tmp_path: Path) -> None:
    loaded = []
    for seed in (0, 1):
        path = builders.write(builders.atlas(4, 3, nuclei=8, genes=30, seed=seed), tmp_path)
        loaded.append(load_cohort(replace(builders.configuration().data, path=str(path)), tmp_path / "cache"))
    assert (loaded[0].matrix != loaded[1].matrix).nnz > 0
    assert len(folders(tmp_path / "cache")) == 2


def test_a_build_that_is_refused_leaves_no_folder(config: DataConfig, tmp_path: Path) -> None:
    with pytest.raises(UserError):
        load_cohort(replace(config, min_genes=10_000), tmp_path)
    assert {path.suffix for path in tmp_path.iterdir()} <= {".lock"}


def test_a_build_that_breaks_off_while_it_is_saved_leaves_no_finished_folder(
    config: DataConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_space(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as broken:
        broken.setattr(cache.np, "save", no_space)
        with pytest.raises(UserError, match=r"cannot be used.*No space left"):
            load_cohort(config, tmp_path)
    assert folders(tmp_path) == []
    first = load_cohort(config, tmp_path)
    forbid_building(monkeypatch)
    assert_same(load_cohort(config, tmp_path), first)


def test_a_cache_that_cannot_be_written_is_the_users_to_mend(config: DataConfig, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no directory")
    with pytest.raises(UserError, match="Choose cache=DIR"):
        load_cohort(config, tmp_path / "file")


def test_a_damaged_file_is_not_blamed_on_the_cache(tmp_path: Path) -> None:
    path = tmp_path / "atlas.h5ad"
    builders.atlas(4, 3, nuclei=8, genes=30).write_h5ad(path, compression="gzip")
    with h5py.File(path) as file:
        chunk = file["X/data"].id.get_chunk_info(0)
    with path.open("r+b") as raw:
        raw.seek(chunk.byte_offset)
        raw.write(bytes(chunk.size))
    with pytest.raises(UserError) as caught:
        load_cohort(replace(builders.configuration().data, path=str(path)), tmp_path / "cache")
    assert "atlas.h5ad" in str(caught.value)
    assert "Choose cache=DIR" not in str(caught.value)


def test_a_wrong_path_is_told_although_the_cohort_is_cached(config: DataConfig, tmp_path: Path) -> None:
    load_cohort(config, tmp_path)
    with pytest.raises(UserError, match="there is no file"):
        load_cohort(replace(config, path=f"{config.path}.gone"), tmp_path)
    with pytest.raises(UserError, match=r"add data\.path="):
        load_cohort(replace(config, path=None), tmp_path)


def load_in_a_process(config: dict[str, object], where: Path, start: Barrier) -> None:
    """Load, and leave a line in `builds` for each build and one in `sums` for what was loaded."""
    build = cache.build

    def slow_build(*args: object) -> Cohort:
        with (where / "builds").open("a") as file:
            file.write("built\n")
        time.sleep(0.5)
        return build(*args)

    cache.build = slow_build
    start.wait()
    cohort = load_cohort(DataConfig(**config), where / "cache")
    with (where / "sums").open("a") as file:
        file.write(f"{cohort.matrix.sum()} {len(cohort.cells)}\n")


def test_two_processes_at_once_build_once(config: DataConfig, tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    start = context.Barrier(2)
    processes = [
        context.Process(target=load_in_a_process, args=(asdict(config), tmp_path, start)) for _ in range(2)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0, 0]
    assert (tmp_path / "builds").read_text() == "built\n"
    first, second = (tmp_path / "sums").read_text().splitlines()
    assert first == second
    assert len(folders(tmp_path / "cache")) == 1
