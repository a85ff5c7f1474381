"""A run knows which files it was made of, is repeated on them, and is compared with other runs on them."""

import json
import os
import shutil
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest

from oligo_ad import command, tasks
from oligo_ad.config import Config
from oligo_ad.data.cache import fingerprint
from oligo_ad.facts import Source
from oligo_ad.record import Record
from oligo_ad.sweeps.comparison import compare, find_runs
from tests.builders import answer, assert_says, atlas, configuration, write


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run on a file that was named from there."""
    folder = tmp_path_factory.mktemp("made")
    write(atlas(effect=0.3), folder)
    before = Path.cwd()
    os.chdir(folder)
    try:
        small = ("data.path=atlas.h5ad", "model.network.hidden=[8]", "fit.epochs=1")
        tasks.run(configuration(*small, "cache.dir=cache"), folder / "run", ["data.path=atlas.h5ad", "a=b c"])
    finally:
        os.chdir(before)
    return folder


@pytest.fixture
def copy(made: Path, tmp_path: Path) -> Path:
    """The same run on a file of its own."""
    shutil.copytree(made, tmp_path / "copy")
    for name in ("facts.json", "config.yaml"):
        file = tmp_path / "copy/run" / name
        file.write_text(file.read_text().replace(str(made), str(tmp_path / "copy")))
    return tmp_path / "copy"


def again(run: Path, data_path: str | None = None) -> Config:
    return command._saved(str(run), [f"rerun={run}"], data_path)


def test_a_run_records_where_its_data_were_and_a_hash_of_them(made: Path) -> None:
    wanted = {"path": str(made / "atlas.h5ad"), "fingerprint": fingerprint(made / "atlas.h5ad")}
    for name in ("facts.json", "metrics.json"):
        assert json.loads((made / "run" / name).read_text())["sources"] == {"data": wanted}


def test_a_run_is_repeated_from_any_directory_on_its_own_file(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(atlas(seed=1), tmp_path)
    monkeypatch.chdir(tmp_path)
    settings = again(made / "run")
    assert settings.data.path == str(made / "atlas.h5ad")
    tasks.run(settings, tmp_path / "again")
    first, second = (Record(folder).metrics for folder in (made / "run", tmp_path / "again"))
    for part in ("headline", "donors", "cells", "sources"):
        assert first[part] == second[part]


def test_another_file_under_the_same_path_is_refused_with_what_to_type(copy: Path) -> None:
    write(atlas(effect=0.3, seed=1), copy)
    said = answer(again, copy / "run")
    assert_says(said, str(copy / "atlas.h5ad"), "content differs")
    assert_says(said, f"python run.py 'a=b c' data.path={copy / 'atlas.h5ad'}")


def test_a_copied_or_touched_file_is_the_same_and_may_have_moved(copy: Path) -> None:
    os.utime(copy / "atlas.h5ad", (0, 0))
    assert again(copy / "run").data.path == str(copy / "atlas.h5ad")
    (copy / "atlas.h5ad").rename(copy / "moved.h5ad")
    assert_says(answer(again, copy / "run"), str(copy / "atlas.h5ad"), "not there", "data.path=FILE")
    assert again(copy / "run", str(copy / "moved.h5ad")).data.path == str(copy / "moved.h5ad")
    write(atlas(seed=1), copy, "other.h5ad")
    assert_says(answer(again, copy / "run", str(copy / "other.h5ad")), "content differs")


def test_a_simulated_atlas_of_other_code_is_another(copy: Path) -> None:
    config = configuration("data=demo", "data.simulation.nuclei=500", "data.simulation.genes=200")
    record = Record(copy / "run")
    record.write_config(record.plain_config | {"data": asdict(config.data)})
    record.write_facts(replace(record.facts, sources={"data": Source("x", "SIMULATED-0123456789ab")}))
    assert_says(answer(again, copy / "run"), "the simulated atlas is another")


def test_folds_from_a_file_are_repeated_from_the_run_itself(copy: Path) -> None:
    record = Record(copy / "run")
    split = record.plain_config["split"] | {"file": "/gone/split.json"}
    record.write_config(record.plain_config | {"split": split})
    assert again(copy / "run").split.file == str(copy / "run/split.json")


@pytest.mark.parametrize("place", [0, 1 << 20, -1, (70 << 20) - 5])
def test_a_changed_byte_is_another_content_at_any_place_of_a_file_up_to_64_mb(
    place: int, tmp_path: Path
) -> None:
    size = (3 << 20) if place <= 1 << 20 else (70 << 20)
    values = np.zeros(size, np.uint8)
    (tmp_path / "a").write_bytes(values.tobytes())
    values[place] = 1
    (tmp_path / "b").write_bytes(values.tobytes())
    first, second = (fingerprint(tmp_path / name) for name in "ab")
    assert first != second
    (tmp_path / "b").write_bytes((tmp_path / "a").read_bytes())
    assert fingerprint(tmp_path / "b") == first


def test_a_folder_is_known_by_names_and_content(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name / "obs").mkdir(parents=True)
        (tmp_path / name / "obs/0").write_text("chunk")
    first, second = tmp_path / "one", tmp_path / "two"
    assert fingerprint(first) == fingerprint(second)
    (second / "obs/0").write_text("Chunk")
    assert fingerprint(first) != fingerprint(second)
    (second / "obs/0").write_text("chunk")
    (second / "obs/0").rename(second / "obs/1")
    assert fingerprint(first) != fingerprint(second)


def test_runs_on_other_data_are_not_paired_and_the_leaderboard_says_so(copy: Path, made: Path) -> None:
    shutil.copytree(made / "run", copy / "runs/same")
    shutil.copytree(made / "run", copy / "runs/other")
    shutil.copytree(made / "run", copy / "runs/third")
    for name in ("facts.json", "metrics.json"):
        content = json.loads((copy / "runs/other" / name).read_text())
        content["sources"]["data"]["fingerprint"] = "another"
        (copy / "runs/other" / name).write_text(json.dumps(content))
    board = compare(find_runs([copy / "runs"]))
    table = board.table.set_index("run")
    assert np.isnan(table.loc["other", "to the best run"])  # it is the best on its data
    assert sorted(table.loc[["same", "third"], "to the best run"].isna()) == [False, True]
    assert any("2 different data files" in warning for warning in board.warnings)
