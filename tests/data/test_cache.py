"""A prepared cohort is made once, read back as it was, and never trusted when it changed."""

import errno
import hashlib
import logging
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, fields, replace
from functools import partial
from multiprocessing.synchronize import Barrier
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from oligo_ad.config import DataConfig
from oligo_ad.data import cache
from oligo_ad.data.cache import load_cohort, simulated_path
from oligo_ad.data.cohort import Cohort
from oligo_ad.data.cohort_files import FRAMES, SUMS
from oligo_ad.errors import UserError
from oligo_ad.storage import rows, shelf
from oligo_ad.storage.matrix import FILES as MATRIX
from oligo_ad.storage.matrix import MatrixWriter
from tests import builders
from tests.commands import FORKS


@pytest.fixture(scope="module")
def atlas_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    adata = builders.atlas(4, 3, nuclei=8, genes=30)
    return builders.write(adata, tmp_path_factory.mktemp("atlas"))


@pytest.fixture
def config(atlas_file: Path) -> DataConfig:
    return replace(builders.configuration().data, path=str(atlas_file))


def assert_same(one: Cohort, other: Cohort) -> None:
    for name in ("data", "indices", "starts", "stops"):
        arrays = getattr(one.matrix, name), getattr(other.matrix, name)
        np.testing.assert_array_equal(*arrays, strict=True)
    np.testing.assert_array_equal(one.sums.values, other.sums.values, strict=True)
    for name in FRAMES:
        pd.testing.assert_frame_equal(getattr(one, name), getattr(other, name))
    assert one.matrix.shape == other.matrix.shape
    for name in ("expression", "simulated", "about", "notes"):
        assert getattr(one, name) == getattr(other, name)


def folders(where: Path) -> list[Path]:
    """Finished cohorts."""
    return [path for path in where.glob("cohort-*") if path.is_dir() and not path.suffix]


def overwrite(path: Path, content: bytes) -> None:
    """Put another file in its place: the one that was there may be mapped."""
    path.unlink()
    path.write_bytes(content)


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


FILES = [*MATRIX, SUMS, *(f"{name}.parquet" for name in FRAMES)]


@pytest.mark.parametrize("name", FILES)
def test_a_flipped_byte_is_noticed_set_aside_and_built_anew(
    config: DataConfig, tmp_path: Path, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    first = load_cohort(config, tmp_path)
    (folder,) = folders(tmp_path)
    content = bytearray((folder / name).read_bytes())
    content[len(content) // 2] ^= 1
    overwrite(folder / name, content)
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
        overwrite(folders(tmp_path)[0] / "data.npy", b"")
        assert_same(load_cohort(config, tmp_path), first)


@pytest.mark.parametrize(
    "choice",
    [
        {"min_genes": 5},
        {"min_nuclei": 3},
        {"cell_types": ("Astrocyte",)},
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


@pytest.mark.parametrize(
    "choice", [{"positive": ("Not AD",), "negative": ("High",)}, {"label_key": ("Sex",)}]
)
def test_another_contrast_is_the_same_cohort(
    config: DataConfig, tmp_path: Path, choice: dict[str, object]
) -> None:
    load_cohort(config, tmp_path)
    load_cohort(replace(config, **choice), tmp_path)
    assert len(folders(tmp_path)) == 1


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
    assert (builders.counts(loaded[0]) != builders.counts(loaded[1])).any()
    assert len(folders(tmp_path / "cache")) == 2


def test_a_file_is_known_by_its_size_its_time_and_both_of_its_ends(
    config: DataConfig, tmp_path: Path
) -> None:
    """Each alone tells it from another; its name does not."""
    file, before = tmp_path / "file.h5ad", bytes(3 << 20)
    changes = {0: before, 1: b"x" + before[1:], 2: before[:-1] + b"x", 3: before + b"x"}
    found = set()
    for content in changes.values():
        file.write_bytes(content)
        os.utime(file, ns=(0, 10**18))
        found.add(cache.cohort_folder(file, config, tmp_path))
    file.write_bytes(before)
    os.utime(file, ns=(0, 10**18 + 1))
    found.add(cache.cohort_folder(file, config, tmp_path))
    assert len(found) == len(changes) + 1


# Which code a cohort and a simulated atlas depend on

COHORT = {
    *(
        f"data/{name}.py"
        for name in (
            "cohort",
            "cohort_files",
            "donor_columns",
            "columns",
            "donors",
            "duplicates",
            "genes",
            "numbers",
            "people",
        )
    ),
    *(f"data/{name}.py" for name in ("selection", "sums", "values")),
    *(
        f"storage/{name}.py"
        for name in (
            *("absent", "atlas", "candidates", "chunks", "compiled", "expression", "frames", "kernels"),
            *("matrix", "rows", "stores", "tables", "zarr_store"),
        )
    ),
}
SIMULATION = {
    f"simulation/{name}" for name in ("counts.py", "dream.py", "genes.csv.gz", "simulate.py", "truth.py")
}


@pytest.fixture
def copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the package, whose code is hashed in the place of this one's."""
    package = tmp_path / "code/oligo_ad"
    shutil.copytree(Path(cache.__file__).parents[1], package, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(shelf, "ROOT", package.parent)
    return package


def files_of_the_key(path_of: Callable[[], Path], package: Path, *folders: str) -> set[str]:
    """The files in some folders of the package whose change changes the name of what is kept."""
    before, found = path_of(), set()
    for file in (file for folder in folders for file in (package / folder).glob("*.*")):
        content = file.read_bytes()
        file.write_bytes(content + b"\nCHANGED = 1\n")
        if path_of() != before:
            found.add(str(file.relative_to(package)))
        file.write_bytes(content)
    assert path_of() == before
    return found


def test_the_modules_that_a_cohort_depends_on_are_these() -> None:
    modules = {
        f"{name.removeprefix('oligo_ad.').replace('.', '/')}.py"
        for name in shelf.modules_of(*cache.COHORT_CODE)
    }
    assert modules == COHORT


def test_a_cohort_is_keyed_by_the_code_that_shapes_it_and_no_other(config: DataConfig, copied: Path) -> None:
    def path_of() -> Path:
        return cache.cohort_folder(Path(str(config.path)), config, copied)

    assert files_of_the_key(path_of, copied, "data", "storage", "inputs", "") == COHORT


def test_a_simulated_atlas_is_keyed_by_the_simulation_and_its_table(copied: Path) -> None:
    simulation = builders.configuration("data=demo").data.simulation
    assert simulation is not None
    path_of = partial(cache.simulated_path, simulation, copied)
    assert files_of_the_key(path_of, copied, "simulation", "data", "storage", "") == SIMULATION


def test_another_code_is_another_cohort_and_other_words_are_not(
    config: DataConfig, tmp_path: Path, copied: Path
) -> None:
    load_cohort(config, tmp_path / "cache")
    for added, n_cohorts in (("# in other words", 1), ("CHANGED = 1", 2)):
        with (copied / "storage/matrix.py").open("a") as file:
            file.write(f"\n{added}\n")
        load_cohort(config, tmp_path / "cache")
        assert len(folders(tmp_path / "cache")) == n_cohorts


# Builds that are refused or break off


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
        broken.setattr(np, "save", no_space)
        with pytest.raises(UserError, match=r"cannot be used.*No space left"):
            load_cohort(config, tmp_path)
    assert folders(tmp_path) == []
    first = load_cohort(config, tmp_path)
    forbid_building(monkeypatch)
    assert_same(load_cohort(config, tmp_path), first)


def test_a_cache_that_cannot_be_written_is_the_users_to_mend(config: DataConfig, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no directory")
    with pytest.raises(UserError, match=r"Choose cache\.dir=DIR"):
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
    assert "Choose cache.dir=DIR" not in str(caught.value)


def test_a_wrong_path_is_an_error_although_the_cohort_is_cached(config: DataConfig, tmp_path: Path) -> None:
    load_cohort(config, tmp_path)
    with pytest.raises(UserError, match="there is no file"):
        load_cohort(replace(config, path=f"{config.path}.gone"), tmp_path)
    with pytest.raises(UserError, match=r"add data\.path="):
        load_cohort(replace(config, path=None), tmp_path)


def load_in_a_process(config: dict[str, object], where: Path, start: Barrier) -> None:
    """Load, and leave a line in `builds` for each build and one in `loaded` for what was loaded."""
    build = cache.build

    def slow_build(*args: object) -> Cohort:
        with (where / "builds").open("a") as file:
            file.write("built\n")
        time.sleep(0.5)
        return build(*args)

    cache.build = slow_build
    start.wait()
    cohort = load_cohort(DataConfig(**config), where / "cache")
    content = [
        builders.counts(cohort).tobytes(),
        cohort.sums.values.tobytes(),
        cohort.cells.to_csv().encode(),
    ]
    with (where / "loaded").open("a") as file:
        file.write(f"{hashlib.sha256(b''.join(content)).hexdigest()}\n")


@pytest.mark.slow
def test_six_processes_at_once_build_once_and_load_the_same(config: DataConfig, tmp_path: Path) -> None:
    start = FORKS.Barrier(6)
    processes = [
        FORKS.Process(target=load_in_a_process, args=(asdict(config), tmp_path, start)) for _ in range(6)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
    assert [process.exitcode for process in processes] == [0] * 6
    assert (tmp_path / "builds").read_text() == "built\n"
    loaded = (tmp_path / "loaded").read_text().splitlines()
    assert len(loaded) == 6
    assert len(set(loaded)) == 1
    assert len(folders(tmp_path / "cache")) == 1


# Builds that are killed


def build_for_ever(config: dict[str, object], where: Path, blocks: int) -> None:
    """Load, but stand still after some blocks of rows were written, or (0) before the manifest is."""
    append, close = MatrixWriter.append, MatrixWriter.close
    written = []

    def stand_still() -> None:
        (where / "here").touch()
        time.sleep(300)

    def append_some(self: MatrixWriter, block: object) -> None:
        append(self, block)
        written.append(block)
        if len(written) == blocks:
            stand_still()

    def close_and_stand_still(self: MatrixWriter, keep: np.ndarray) -> None:
        close(self, keep)
        stand_still()

    rows.BLOCK = 100
    MatrixWriter.append, MatrixWriter.close = append_some, close_and_stand_still
    load_cohort(DataConfig(**config), where / "cache")


@pytest.mark.slow
@pytest.mark.parametrize("blocks", [2, 0], ids=["among the blocks", "before the manifest"])
def test_a_build_that_is_killed_leaves_nothing_that_is_trusted(
    config: DataConfig, tmp_path: Path, blocks: int
) -> None:
    arguments = (asdict(config), tmp_path, blocks)
    process = FORKS.Process(target=build_for_ever, args=arguments)
    process.start()
    while not (tmp_path / "here").exists():
        assert process.is_alive()
        time.sleep(0.05)
    process.kill()
    process.join(60)
    (left,) = (path for path in (tmp_path / "cache").iterdir() if path.is_dir())
    assert left.suffix == ".partial"
    assert f"{left.name} " in cache.describe(tmp_path / "cache")
    assert cache.describe(tmp_path / "cache").count("unfinished") == 1
    assert_same(load_cohort(config, tmp_path / "cache"), load_cohort(config, tmp_path / "other"))
    assert [path for path in (tmp_path / "cache").iterdir() if path.is_dir()] == folders(tmp_path / "cache")


@pytest.mark.parametrize("blocks", [0, 3])
def test_a_disk_that_fills_up_while_rows_are_written_leaves_nothing(
    config: DataConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, blocks: int
) -> None:
    append, written = MatrixWriter.append, []

    def append_some(self: MatrixWriter, block: object) -> None:
        if len(written) == blocks:
            raise OSError(errno.ENOSPC, "No space left on device")
        append(self, block)
        written.append(block)

    with monkeypatch.context() as full:
        full.setattr(rows, "BLOCK", 100)
        full.setattr(MatrixWriter, "append", append_some)
        with pytest.raises(UserError, match=r"cannot be used.*No space left.*Choose cache\.dir=DIR"):
            load_cohort(config, tmp_path / "cache")
    assert len(written) == blocks
    assert {path.suffix for path in (tmp_path / "cache").iterdir()} <= {".lock"}
    assert_same(load_cohort(config, tmp_path / "cache"), load_cohort(config, tmp_path / "other"))


def test_donors_with_too_few_nuclei_are_gone_from_everything(tmp_path: Path) -> None:
    adata = builders.atlas(4, 3, nuclei=8, genes=30)
    lost = adata.obs["Donor ID"].isin(["D01", "D05"]).to_numpy()
    counts = adata.X.toarray()
    counts[lost & (np.arange(adata.n_obs) >= 14), 4:] = 0
    counts[2, 4:] = 0
    lost[2] = True  # a poor nucleus of D02, which keeps the others
    adata.X = sp.csr_matrix(counts)
    choices = {"path": str(builders.write(adata, tmp_path)), "min_genes": 5, "min_nuclei": 2}
    config = replace(builders.configuration().data, **choices)
    for _ in ("built", "from the cache"):
        cohort = load_cohort(config, tmp_path / "cache")
        left = builders.arranged(adata[(adata.obs["Subclass"] == "Oligodendrocyte").to_numpy() & ~lost])
        assert cohort.donors.index.tolist() == ["D00", "D02", "D03", "D04", "D06"]
        assert cohort.cells["barcode"].tolist() == left.obs_names.tolist()
        np.testing.assert_array_equal(builders.counts(cohort), left.X.toarray())
        again = builders.exchanged(cohort, left.X.toarray())
        np.testing.assert_array_equal(cohort.sums.values, again.sums.values, strict=True)


# What a cache holds, and clearing it


@pytest.fixture
def filled(config: DataConfig, tmp_path: Path) -> Path:
    """Two cohorts, a simulated atlas, what broken builds leave, and files of the user's own."""
    where = tmp_path / "cache"
    load_cohort(config, where)
    load_cohort(replace(config, cell_types=("Astrocyte",), min_nuclei=4), where)
    (where / "SIMULATED-0123456789ab.h5ad").write_bytes(bytes(3_000_000))
    (where / "SIMULATED-ba9876543210.h5ad.partial").write_bytes(bytes(1_000_000))
    for suffix in ("partial", "damaged"):
        (where / f"cohort-0123456789abcdef.{suffix}").mkdir()
        (where / f"cohort-0123456789abcdef.{suffix}" / "data.npy").write_bytes(bytes(500_000))
    (where / "notes.txt").write_text("mine")
    (where / "folder").mkdir()
    (where / "folder/data.npy").write_text("mine")
    return where


def test_a_cache_is_described_a_line_each_with_size_and_content(filled: Path) -> None:
    first, *lines, total = cache.describe(filled).splitlines()
    by_name = {line.split()[4]: line for line in lines}
    assert first == f"cache.dir={filled}"
    assert len(lines) == len(by_name) == 6
    for folder in folders(filled):
        mega = sum(file.stat().st_size for file in folder.iterdir()) / 1e6
        assert f" {mega:,.1f} MB " in by_name[folder.name]
        assert by_name[folder.name].endswith("28 nuclei x 30 genes of atlas.h5ad")
    for name, size, words in (
        ("SIMULATED-0123456789ab.h5ad", "3.0 MB", "simulated atlas"),
        ("SIMULATED-ba9876543210.h5ad.partial", "1.0 MB", "unfinished"),
        ("cohort-0123456789abcdef.partial", "0.5 MB", "unfinished"),
        ("cohort-0123456789abcdef.damaged", "0.5 MB", "damaged, set aside"),
    ):
        assert f" {size} " in by_name[name]
        assert by_name[name].endswith(words)
    made = sum(cache.size(filled / name) for name in by_name)
    assert f" {made / 1e6:,.1f} MB  in all" in total


def test_an_empty_or_absent_cache_is_described_and_cleared(tmp_path: Path) -> None:
    for where in (tmp_path, tmp_path / "absent"):
        assert "0.0 MB  in all" in cache.describe(where)
        assert cache.clear(where) == f"0.0 MB removed from {where}"


def test_clearing_removes_what_was_made_and_nothing_else(config: DataConfig, filled: Path) -> None:
    made = sum(cache.size(path) for pattern in ("cohort-*", "SIMULATED-*") for path in filled.glob(pattern))
    assert cache.clear(filled) == f"{made / 1e6:,.1f} MB removed from {filled}"
    left = {path.name for path in filled.iterdir() if path.suffix != ".lock"}
    assert left == {"notes.txt", "folder"}
    assert (filled / "folder/data.npy").read_text() == "mine"
    assert "0.0 MB  in all" in cache.describe(filled)
    assert len(load_cohort(config, filled).cells) == 28


def test_a_users_own_file_whose_name_is_alike_is_not_removed(filled: Path) -> None:
    there = [path.name for path in filled.iterdir() if path.suffix != ".lock"]
    mine = [
        "cohort-notes.txt",
        "cohort-2024",
        *(f"{name}-mine" for name in there),
        *(f"my-{name}" for name in there),
    ]
    for name in mine:
        (filled / name).write_text("mine")
    cache.clear(filled)
    left = {path.name for path in filled.iterdir() if path.suffix != ".lock"}
    assert set(mine) < left
    assert {"cohort", "SIMULATED"} <= {name.partition("-")[0] for name in {*there} - left}


def test_an_open_cohort_stays_readable_when_the_cache_is_cleared(config: DataConfig, tmp_path: Path) -> None:
    load_cohort(config, tmp_path)
    opened = load_cohort(config, tmp_path)
    cache.clear(tmp_path)
    assert folders(tmp_path) == []
    assert_same(opened, load_cohort(config, tmp_path))


def test_a_damaged_cohort_is_described_all_the_same(config: DataConfig, tmp_path: Path) -> None:
    load_cohort(config, tmp_path)
    (folder,) = folders(tmp_path)
    overwrite(folder / "manifest.json", b"")
    assert folder.name in cache.describe(tmp_path)


def test_a_build_that_ends_while_clearing_waits_for_it_is_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    staging = tmp_path / "cohort-0123456789abcdef.partial"
    staging.mkdir()

    @contextmanager
    def wait(*_: object) -> Iterator[None]:
        staging.rename(staging.with_suffix(""))
        yield

    monkeypatch.setattr(cache, "_locked", wait)
    assert cache.clear(tmp_path).endswith(f"removed from {tmp_path}")


def test_clearing_waits_for_an_atlas_that_is_being_simulated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    locked, lock = [], shelf.FileLock

    def watch(path: str) -> object:
        locked.append(path)
        return lock(path)

    def write(path: Path, simulation: object) -> None:
        path.touch()
        (tmp_path / "copy").write_text(path.name)

    monkeypatch.setattr(shelf, "FileLock", watch)
    monkeypatch.setattr("oligo_ad.simulation.simulate.write_atlas", write)
    cache.source(builders.configuration("data=demo").data, tmp_path)
    cache.clear(tmp_path)
    (tmp_path / (tmp_path / "copy").read_text()).touch()
    cache.clear(tmp_path)
    assert len(locked) == 3
    assert len(set(locked)) == 1


def test_a_simulated_atlas_is_keyed_by_all_of_its_parameters(tmp_path: Path) -> None:
    simulation = builders.configuration("data=demo").data.simulation
    assert simulation is not None
    values = {field.name: getattr(simulation, field.name) for field in fields(simulation)}
    others = {"scenario": "another", "affected": (0.1, 0.2, 0.3, 0.4), "shifted": "all"} | {
        name: value / 2 + 0.01 if isinstance(value, float) else abs(value - 1)
        for name, value in values.items()
        if isinstance(value, int | float)
    }
    assert others.keys() == values.keys()
    changed = [replace(simulation, **{name: value}) for name, value in others.items()]
    assert len({simulated_path(one, tmp_path) for one in (simulation, *changed)}) == len(changed) + 1
