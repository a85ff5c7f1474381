"""The run directory: written fold by fold, read by everything after training, and checked as it is read."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from oligo_ad import tasks
from oligo_ad.config import Config
from oligo_ad.record import Record, open_run, run_folders
from oligo_ad.results import report
from oligo_ad.scores import probability_of
from oligo_ad.sweeps.comparison import compare, find_runs
from oligo_ad.tasks import train
from oligo_ad.training import fold_model
from tests.builders import CONF, answer, assert_says, atlas, configuration, write

PARTS = {"train", "validation", "test"}


def settings(folder: Path, *overrides: str) -> Config:
    path = folder / "atlas.h5ad"
    if not path.exists():
        write(atlas(effect=0.3), folder)
    small = ("split=cv", "split.folds=3", "model.network.hidden=[8]", "fit.epochs=2")
    return configuration(f"data.path={path}", f"cache.dir={folder / 'cache'}", *small, *overrides)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of three folds, with pictures and baselines."""
    folder = tmp_path_factory.mktemp("finished")
    tasks.run(settings(folder, "metadata=on", "metadata.columns=[age,sex]"), folder / "run")
    return folder / "run"


@pytest.fixture
def copy(finished: Path, tmp_path: Path) -> Path:
    """The same in a folder of its own, far from the data."""
    return Path(shutil.copytree(finished, tmp_path / "copy"))


def contents(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def test_predictions_hold_every_sample_of_every_part_of_every_fold(finished: Path) -> None:
    record, split = Record(finished), json.loads((finished / "split.json").read_text())
    assert [fold.history.fold for fold in record.folds] == [1, 2, 3]
    for fold, own in zip(record.folds, split["folds"], strict=True):
        predictions = fold.predictions
        assert set(predictions["part"]) == PARTS
        for part in PARTS:
            assert set(predictions["donor"][predictions["part"] == part]) == set(own[part])
        assert predictions["barcode"].is_unique
        assert len(predictions) == 180
        assert np.isfinite(predictions["logit"]).all()
        assert set(predictions["seed"]) == {0}


def test_the_tables_of_results_follow_from_the_predictions(finished: Path) -> None:
    record, cells = Record(finished), pd.read_parquet(finished / "cells.parquet")
    test = record.predictions.query("part == 'test'")
    assert cells["barcode"].tolist() == test["barcode"].tolist()
    np.testing.assert_array_equal(cells["model"], probability_of(test["logit"].to_numpy()))
    by_donor = cells.groupby(["fold", "donor"])["model"].mean().to_numpy()
    np.testing.assert_allclose(record.donors["model"], by_donor, rtol=1e-12)


def test_a_report_drawn_anew_is_the_same_to_the_byte(copy: Path) -> None:
    before = contents(copy)
    derived = ("metrics.json", "donors.csv", "cells.parquet", "report.html")
    for name in derived[1:]:
        (copy / name).unlink()
    tasks.run(configuration("task=report", f"run={copy}"), copy / "unused")
    after = contents(copy)
    assert after["metrics.json"] == before["metrics.json"]
    assert after["cells.parquet"] == before["cells.parquet"]
    assert after["donors.csv"] == before["donors.csv"]
    assert after.keys() == before.keys()
    tasks.run(configuration("task=report", f"run={copy}"), copy / "unused")
    assert contents(copy) == after


@pytest.mark.slow
def test_a_report_is_drawn_anew_in_a_process_that_loads_no_torch(finished: Path) -> None:
    code = (
        "import sys; from oligo_ad.record import open_run; from oligo_ad.results.report import conclude; "
        f"conclude(open_run({str(finished)!r})); "
        "print(*(m for m in ('torch', 'accelerate', 'scanpy') if m in sys.modules))"
    )
    ran = subprocess.run([sys.executable, "-c", code], cwd=CONF.parent, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.strip() == ""


@pytest.mark.slow
def test_a_saved_model_gives_the_same_logits_in_a_process_that_has_nothing_else(
    copy: Path, finished: Path, tmp_path: Path
) -> None:
    """Another directory, no configuration, no cache; the file under another name; the model alone."""
    moved = tmp_path / "elsewhere"
    moved.mkdir()
    model = shutil.copy2(copy / "folds/2/model.safetensors", moved / "any.safetensors")
    data = shutil.copy2(finished.parent / "atlas.h5ad", moved / "new.h5ad")
    shutil.rmtree(copy)
    code = f"""
from pathlib import Path
from accelerate import Accelerator
import torch
torch.set_num_threads(1)
from oligo_ad.data.cohort import build
from oligo_ad.storage.atlas import open_atlas
from oligo_ad.training.checkpoint import load_bundle
from oligo_ad.training.predict import predict_cohort
from tests.builders import configuration
folder = Path({str(moved)!r})
(folder / "cohort").mkdir()
with open_atlas(Path({str(data)!r})) as atlas:
    cohort = build(atlas, configuration().data, folder / "cohort")
predict_cohort(load_bundle(Path({str(model)!r})), cohort, Accelerator(cpu=True)).to_parquet(folder / "out")
"""
    subprocess.run(
        [sys.executable, "-c", code], cwd=CONF.parent, check=True, env=os.environ | {"OMP_NUM_THREADS": "1"}
    )
    found = pd.read_parquet(moved / "out").set_index("barcode")["logit"]
    stored = Record(finished).folds[1].predictions.set_index("barcode")["logit"]
    assert found[stored.index].equals(stored)


@pytest.mark.slow
def test_a_run_that_breaks_off_keeps_its_finished_folds_and_no_half_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest, calls = fold_model.predict, []

    def break_off(*given: object) -> np.ndarray:
        calls.append(1)
        if len(calls) == 5:  # in the second fold, between its predictions
            raise KeyboardInterrupt
        return honest(*given)  # type: ignore[arg-type]

    monkeypatch.setattr(fold_model, "predict", break_off)
    with pytest.raises(KeyboardInterrupt):
        tasks.run(settings(tmp_path), tmp_path / "run")
    record = Record(tmp_path / "run")
    assert [fold.history.fold for fold in record.folds] == [1]
    assert {file.name for file in (tmp_path / "run/folds").iterdir()} == {"1"}
    assert not record.finished
    assert record.facts.classes == ("Not AD", "High")
    monkeypatch.setattr(fold_model, "predict", honest)
    tasks.run(settings(tmp_path), tmp_path / "run")
    tasks.run(settings(tmp_path), tmp_path / "again")
    assert (tmp_path / "run/cells.parquet").read_bytes() == (tmp_path / "again/cells.parquet").read_bytes()


def test_a_disk_that_fills_up_while_a_fold_is_written_leaves_no_fold(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_space(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(train, "save_bundle", no_space)
    message = answer(tasks.run, settings(tmp_path), tmp_path / "run")
    assert_says(message, "No space left on device", str(tmp_path / "run"))
    assert not list((tmp_path / "run/folds").iterdir())


# Directories that are no run, or are damaged


@pytest.mark.parametrize("missing", ["config.yaml", "split.json", "facts.json", "metrics.json"])
def test_a_directory_without_a_part_is_no_finished_run(copy: Path, missing: str) -> None:
    (copy / missing).unlink()
    assert_says(answer(open_run, copy), f"run={copy}", "no finished run", missing)


def test_a_folder_that_is_not_there_is_no_finished_run(tmp_path: Path) -> None:
    message = answer(tasks.run, configuration("task=report", f"run={tmp_path / 'none'}"), tmp_path / "x")
    assert_says(message, str(tmp_path / "none"), "there is no such folder", "outputs/")


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-20])


def as_list(file: Path) -> None:
    file.write_text("[1, 2]")


def other_types(file: Path) -> None:
    content = json.loads(file.read_text())
    file.write_text(
        json.dumps(content | {key: {"a": "b"} for key in ("simulated", "best_epoch") if key in content})
    )


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("facts.json", cut),
        ("facts.json", as_list),
        ("facts.json", other_types),
        ("folds/1/history.json", cut),
        ("folds/1/history.json", other_types),
        ("folds/2/predictions.parquet", cut),
        ("folds/2/baselines.parquet", cut),
        ("config.yaml", as_list),
        ("split.json", cut),
    ],
)
def test_a_damaged_record_is_one_message_that_names_the_file(
    copy: Path, name: str, damage: Callable[[Path], None]
) -> None:
    damage(copy / name)
    page = (copy / "report.html").read_bytes()
    assert_says(
        answer(tasks.run, configuration("task=report", f"run={copy}"), copy / "x"), name.split("/")[-1]
    )
    assert (copy / "report.html").read_bytes() == page


@pytest.mark.parametrize("lost", ["folds", "folds/2"])
def test_a_run_without_all_of_its_folds_is_no_finished_run(copy: Path, lost: str) -> None:
    shutil.rmtree(copy / lost)
    assert_says(answer(open_run, copy), "no finished run", "folds/2")


# One reader for everybody


def test_runs_are_found_whatever_became_of_them(finished: Path, tmp_path: Path) -> None:
    for name, mark in (
        ("failed", "failure.json"),
        ("pruned", "pruned.json"),
        ("killed", ".hydra/overrides.yaml"),
    ):
        file = tmp_path / "runs" / name / mark
        file.parent.mkdir(parents=True)
        file.write_text("[]" if name == "killed" else '{"message": "it broke", "value": 1}')
    shutil.copytree(finished, tmp_path / "runs/finished")
    assert {folder.name for folder in run_folders([tmp_path])} == {"failed", "pruned", "killed", "finished"}
    board = compare(find_runs([tmp_path / "runs"])).table.set_index("run")
    assert board["status"].to_dict() == {
        "finished": "finished",
        "failed": "failed",
        "pruned": "pruned",
        "killed": "did not end",
    }
    assert board.loc["failed", "failure"] == "it broke"
    assert board.loc["finished", "donor AUROC"] == Record(finished).metrics["headline"]["value"]


# Samples that are donors


@pytest.mark.slow
@pytest.mark.parametrize("pool", ["mean", "attention"])
def test_bags_train_through_the_same_loop_and_predict_donors(pool: str, tmp_path: Path) -> None:
    bags = (f"pool={pool}", "fit.bag_size=6", "fit.bags=4", "fit.batch_size=8", "tracker=tensorboard")
    headline = tasks.run(settings(tmp_path, *bags), tmp_path / "run")
    record = Record(tmp_path / "run")
    metrics, predictions = record.metrics, record.predictions
    assert metrics["sample"] == "donor"
    assert metrics["headline"]["value"] == headline
    assert metrics["cells"] == {}
    assert predictions["barcode"].isna().all()
    assert len(predictions) == 3 * 15
    assert not (tmp_path / "run/cells.parquet").exists()
    stored = predictions.query("part == 'test'").sort_values(["fold", "donor"])
    np.testing.assert_allclose(record.donors["model"], probability_of(stored["logit"].to_numpy()))
    page = (tmp_path / "run/report.html").read_text()
    assert "The model predicts donors" in page
    assert "<h3>Nuclei</h3>" not in page
    assert len(compare(find_runs([tmp_path / "run"])).table) == 1


def test_a_ruined_test_donor_changes_no_bag_of_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(report, "draw", lambda run: {})
    healthy = atlas(seed=1)
    bags = (
        "pool=attention",
        "split=holdout",
        "fit.bag_size=6",
        "fit.batch_size=8",
        "evaluation.baselines=false",
    )
    tables = []
    victim = ""
    for name in ("healthy", "ruined"):
        folder = tmp_path / name
        folder.mkdir()
        adata = healthy.copy()
        if victim:
            own = (adata.obs["Donor ID"] == victim).to_numpy()
            adata.X = adata.X.multiply(np.where(own, 50, 1)[:, None]).tocsr()
        write(adata, folder)
        tasks.run(settings(folder, *bags), folder / "run")
        predictions = Record(folder / "run").predictions
        victim = victim or predictions.query("part == 'test'")["donor"].iloc[0]
        tables.append(predictions[predictions["donor"] != victim].reset_index(drop=True))
    pd.testing.assert_frame_equal(*tables, check_exact=True)


def test_folds_stand_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    for name in ("10", "9", "1", "2.partial", "x", "²"):
        (tmp_path / "folds" / name).mkdir(parents=True)
    assert [fold.folder.name for fold in Record(tmp_path).folds] == ["1", "9", "10"]


@pytest.mark.parametrize("broken", ["_write_tables", "render", "alarms", "metrics_of"])
def test_a_run_whose_results_break_off_anywhere_is_not_finished(
    broken: str, copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def breaks(*given: object) -> None:
        raise KeyboardInterrupt

    (copy / "metrics.json").unlink()
    monkeypatch.setattr(report, "draw", lambda run: {})
    monkeypatch.setattr(report, broken, breaks)
    with pytest.raises(KeyboardInterrupt):
        report.conclude(Record(copy))
    assert not Record(copy).finished
    assert not Record(copy).ended
