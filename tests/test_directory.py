"""The directory of a run: claimed before it is written, whole whatever the disk does, open to the group."""

import errno
import logging
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors import SafetensorError

from oligo_ad import directory, tasks
from oligo_ad.config import Config
from oligo_ad.directory import begun
from oligo_ad.faults import is_disk_fault
from oligo_ad.record import Record
from oligo_ad.results import plots, report
from oligo_ad.tasks import train
from oligo_ad.training import fold_model
from tests.builders import CONF, answer, assert_says, atlas, configuration, write

FULL = OSError(errno.ENOSPC, "No space left on device")
SMALL = ("model.network.hidden=[8]", "fit.epochs=1")


@pytest.fixture
def config(tmp_path: Path) -> Config:
    path = write(atlas(effect=0.3), tmp_path)
    return configuration(f"data.path={path}", f"cache.dir={tmp_path / 'cache'}", *SMALL)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def refused(folder: Path, words: list[str]) -> str:
    def enter() -> None:
        with begun(folder, words):
            pytest.fail("it began")

    return answer(enter)


def test_a_refused_run_leaves_nothing_where_another_has_finished(tmp_path: Path) -> None:
    with begun(tmp_path / "run", ["seed=1"]):
        (tmp_path / "run/metrics.json").write_text("{}")
    before = contents(tmp_path / "run")
    assert_says(refused(tmp_path / "run", ["seed=7"]), "finished run", "hydra.run.dir")
    assert contents(tmp_path / "run") == before
    assert Record(tmp_path / "run").words == ["seed=1"]


def test_nor_where_another_is_at_work(tmp_path: Path) -> None:
    with begun(tmp_path / "run", ["seed=1"]):
        before = contents(tmp_path / "run")
        assert_says(refused(tmp_path / "run", ["seed=7"]), "at work")
        assert contents(tmp_path / "run") == before


@pytest.mark.parametrize("name", ["config.yaml", "split.json", "folds", "report.html"])
def test_nor_where_a_file_of_something_else_has_one_of_our_names(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("mine")
    assert_says(refused(tmp_path, []), name, "something else")
    assert contents(tmp_path) == {name: b"mine"}


def test_a_run_that_was_killed_begins_anew_in_its_directory(tmp_path: Path, config: Config) -> None:
    def killed() -> None:
        with begun(tmp_path / "run", ["seed=1"]):
            (tmp_path / "run/config.yaml").write_text("cut o")
            (tmp_path / "run/folds/2").mkdir(parents=True)
            (tmp_path / "run/folds/2/history.json").write_text("{}")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        killed()
    tasks.run(config, tmp_path / "run", ["seed=2"])
    assert Record(tmp_path / "run").words == ["seed=2"]
    assert [fold.folder.name for fold in Record(tmp_path / "run").folds] == ["1"]


def test_words_are_kept_as_text_whatever_they_hold(tmp_path: Path) -> None:
    words = [
        "split.seed=${seed}",
        "data.positive='a: b'",
        "x=1e-3",
        "- y",
        "",
        "é\n ",
        "[1, 2]",
        "null",
        "1e5",
    ]
    with begun(tmp_path / "run", words):
        assert Record(tmp_path / "run").words == words


def test_the_log_holds_why_a_run_ended(tmp_path: Path) -> None:
    def broken() -> None:
        with begun(tmp_path / "run", []):
            logging.getLogger("oligo_ad").warning("seen é")
            _ = 1 / 0

    with pytest.raises(ZeroDivisionError):
        broken()
    log = (tmp_path / "run/run.log").read_text(encoding="utf-8")
    assert_says(log, "seen é", "ZeroDivisionError", "Traceback")


# Faults of the disk


@pytest.mark.parametrize(
    "error",
    [
        FULL,
        OSError(errno.EROFS, "Read-only file system"),
        SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)"),
        RuntimeError(
            "Can't decrement id ref count (file write failed: error message = 'No space left on device')"
        ),
    ],
    ids=lambda error: type(error).__name__,
)
@pytest.mark.parametrize("place", ["write_split", "save_bundle", "conclude", "track"])
def test_a_disk_that_takes_no_more_is_one_message_and_no_half_result(
    place: str, error: Exception, tmp_path: Path, config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise error

    monkeypatch.setattr(train, place, broken)
    monkeypatch.setattr(report, "draw", lambda run: {})
    said = answer(tasks.run, config, tmp_path / "run")
    assert_says(said, "cannot be written", str(tmp_path / "run"), str(error.args[-1]))
    assert (tmp_path / "run/metrics.json").exists() == (place == "track")
    assert not list((tmp_path / "run").rglob("*.partial"))


def test_what_is_no_fault_of_the_disk_stays_a_bug() -> None:
    assert not is_disk_fault(FileNotFoundError(errno.ENOENT, "No such file"))
    assert not is_disk_fault(ValueError("x"))
    caused = RuntimeError("while logging")
    caused.__cause__ = FULL
    assert is_disk_fault(caused)


def test_a_log_that_cannot_be_written_ends_no_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with begun(tmp_path / "run", []):
        (handler,) = [own for own in logging.getLogger().handlers if isinstance(own, directory._RunLog)]
        monkeypatch.setattr(handler, "_open", lambda: (_ for _ in ()).throw(FULL))
        logging.getLogger("oligo_ad").warning("something")
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.parametrize("umask", [0o002, 0o022, 0o077])
def test_every_file_of_a_run_has_the_mode_that_the_umask_gives(
    umask: int, tmp_path: Path, config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(report, "draw", lambda run: {})
    before = os.umask(umask)
    try:
        tasks.run(config, tmp_path / "run")
    finally:
        os.umask(before)
    modes = {
        file.name: file.stat().st_mode & 0o777 for file in (tmp_path / "run").rglob("*") if file.is_file()
    }
    assert "model.safetensors" in modes
    assert set(modes.values()) == {0o666 & ~umask}


# Results that were computed are kept


def test_a_picture_that_cannot_be_drawn_loses_no_number(
    tmp_path: Path, config: Config, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("no such glyph")

    monkeypatch.setattr(plots, "curves", broken)
    tasks.run(config, tmp_path / "run")
    assert_says(caplog.text, "'curves' cannot be drawn", "no such glyph")
    page = (tmp_path / "run/report.html").read_text()
    assert_says(page, "Not drawn: curves", 'alt="reliability"')
    monkeypatch.undo()
    tasks.run(configuration("task=report", f"run={tmp_path / 'run'}"), tmp_path / "x")
    assert_says((tmp_path / "run/report.html").read_text(), 'alt="curves"')


@pytest.mark.parametrize(
    "name", [r"High $\frac{1$ x", "_x {} <b>& %s {0} a\\", "${seed}", "other or missing"]
)
def test_class_names_are_text_in_pictures_and_pages(name: str, tmp_path: Path) -> None:
    adata = atlas(effect=0.3)
    adata.obs["ADNC"] = adata.obs["ADNC"].astype(str).replace("High", name)
    path = write(adata, tmp_path)
    base = configuration(f"data.path={path}", f"cache.dir={tmp_path / 'cache'}", *SMALL)
    tasks.run(replace(base, data=replace(base.data, positive=(name,))), tmp_path / "run")
    record = Record(tmp_path / "run")
    assert record.config.data.positive == (name,)
    assert "Not drawn" not in (tmp_path / "run/report.html").read_text()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("call", [1, 2], ids=["train", "test"])
def test_predictions_that_are_no_numbers_are_one_error(
    value: float, call: int, tmp_path: Path, config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest, calls = fold_model.predict, []

    def broken(*given: object) -> np.ndarray:
        calls.append(1)
        logit = honest(*given)  # type: ignore[arg-type]
        if len(calls) == call:
            logit[0] = value
        return logit

    monkeypatch.setattr(fold_model, "predict", broken)
    said = answer(tasks.run, config, tmp_path / "run")
    assert_says(said, "fold 1: 1 of", f"for {('train', 'test')[call - 1]} donors", "not finite")
    assert not (tmp_path / "run/metrics.json").exists()


# The command line


@pytest.mark.slow
def test_a_command_for_a_directory_that_is_taken_changes_nothing_there(tmp_path: Path) -> None:
    path = write(atlas(effect=0.3), tmp_path)
    small = "data=sea_ad data.min_genes=1 data.min_nuclei=2 fit.epochs=1 tracker=none"

    def start(*words: str) -> tuple[int, str]:
        ran = subprocess.run(
            [sys.executable, CONF.parent / "run.py", *small.split(), f"data.path={path}", *words],
            cwd=tmp_path,
            env=os.environ | {"OLIGO_AD_CACHE": str(tmp_path / "cache")},
            capture_output=True,
            text=True,
            timeout=200,
        )
        return ran.returncode, ran.stdout + ran.stderr

    few = "model.featurizer.n_genes=30"
    assert start(few, "split.seed=${seed}", "hydra.run.dir=run")[0] == 0
    run = tmp_path / "run"
    assert Record(run).words[-1] == Record(run).typed[-1] == "split.seed=${seed}"
    assert_says((run / "report.html").read_text(), "&#39;split.seed=${seed}&#39;")
    assert_says((run / "run.log").read_text(), "report: run/report.html")
    before = contents(run)
    code, said = start(few, "seed=7", "hydra.run.dir=run")
    assert code == 1
    assert_says(said, "already holds a finished run")
    assert contents(run) == before
    start("task=cache", "hydra.run.dir=looked")
    assert not (tmp_path / "looked").exists()
