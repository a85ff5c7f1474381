"""A finished run is tested against permuted labels: whole refits, by several processes, resumed, extended."""

import gc
import json
import logging
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest

from oligo_ad import tasks
from oligo_ad.config import Config, PermuteTask, ValidateTask
from oligo_ad.errors import UserError
from oligo_ad.record import Record
from oligo_ad.tasks import permute
from oligo_ad.training import workers
from oligo_ad.training.refit import Refit, open_refit
from tests.builders import CONF, atlas, configuration, write

pytestmark = pytest.mark.usefixtures("without_pictures")
ROOT = CONF.parent
BASELINES = {"majority", "covariates", "depth", "pseudobulk", "pls", "axes", "covariates+pseudobulk", "stack"}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Config, Path]:
    """A finished run of two folds, with a signal."""
    folder = tmp_path_factory.mktemp("permute")
    path = write(atlas(12, 10, effect=1.0), folder)
    config = settings(path, folder / "cache", "evaluation.depth_matched=false")
    tasks.run(config, folder / "run")
    return config, folder / "run"


def settings(path: Path, cache: Path, *more: str) -> Config:
    small = ("split=cv", "split.folds=2", "fit.epochs=2", "model.network.hidden=[8]", "tracker=none")
    return configuration(f"data.path={path}", f"cache.dir={cache}", *small, *more)


@pytest.fixture(scope="module")
def refit(made: tuple[Config, Path]) -> Iterator[Refit]:
    """In this process, what a worker opens."""
    opened = permute.open_contrast(made[0].data, made[0].split, made[0].metadata, made[0].cache.path)
    found = open_refit(made[0], opened.folds, with_model=True)
    gc.freeze()
    yield found
    gc.unfreeze()


@pytest.fixture
def record(made: tuple[Config, Path], tmp_path: Path) -> Record:
    """A copy of the run."""
    shutil.copytree(made[1], tmp_path / "run")
    return Record(tmp_path / "run")


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch, refit: Refit) -> list[int]:
    """Permutations are made in this process; the list holds the numbers that were."""
    numbers: list[int] = []

    def refitted(  # type: ignore[no-untyped-def]
        config: Config, folds: object, with_model: bool, wanted: list[int], n_processes: int
    ):
        for number in wanted:
            numbers.append(number)
            yield number, replace(refit, accelerator=refit.accelerator if with_model else None).auroc(number)

    monkeypatch.setattr(permute, "refitted", refitted)
    return numbers


def asked(config: Config, run: Path | None, n: int, predictors: str = "baselines", **how: object) -> Config:
    """The configuration of `task=permute run=RUN permutations=N`."""
    task = PermuteTask(name="permute", run=run and str(run), predictors=predictors)  # type: ignore[arg-type]
    default = configuration().evaluation
    data = replace(config.data, path=None)
    return replace(config, task=task, data=data, permutations=n, evaluation=replace(default, **how))


def permute_without_report(refit: Refit, record: Record, n: int, predictors: str = "baselines") -> None:
    permute.refit_permuted(record, refit.config, refit.contrast, n, with_model=predictors == "all")


# What a permutation is


def test_with_the_labels_where_they_were_a_refit_is_the_run(
    made: tuple[Config, Path], refit: Refit, monkeypatch: pytest.MonkeyPatch
) -> None:
    same = {donor: donor for donor in refit.strata.index}
    monkeypatch.setattr("oligo_ad.data.contrast.exchanged", lambda strata, seed, number: same)
    found, donors = refit.auroc(1), Record(made[1]).metrics["donors"]
    for name, value in found.items():
        assert value == pytest.approx(donors[name]["mean_over_folds"]["auroc"], abs=1e-9), name
    assert set(found) == BASELINES | {"model", "ensemble"}


def test_a_refit_is_a_run_on_a_file_that_has_these_labels(
    made: tuple[Config, Path], refit: Refit, tmp_path: Path
) -> None:
    """Whatever still knew of the true labels would differ: weights, penalties, genes, early stopping."""
    permuted = refit.contrast.permuted(refit.strata, made[0].seed, 3)
    adata = ad.read_h5ad(made[0].data.path)
    names = permuted.labels.of_donor.map({1: "High", 0: "Not AD"})
    adata.obs["ADNC"] = pd.Categorical(names[adata.obs["Donor ID"].astype(str)])
    saved = json.loads((made[1] / "split.json").read_text())
    saved["label"] = permuted.labels.of_donor.to_dict()
    saved["folds"] = [{"number": fold.number, **fold.parts} for fold in permuted.folds]
    (tmp_path / "split.json").write_text(json.dumps(saved))
    more = (f"split.file={tmp_path / 'split.json'}", "evaluation.depth_matched=false")
    tasks.run(settings(write(adata, tmp_path), tmp_path / "cache", *more), tmp_path / "run")
    donors = Record(tmp_path / "run").metrics["donors"]
    for name, value in refit.auroc(3).items():
        assert value == pytest.approx(donors[name]["mean_over_folds"]["auroc"], abs=1e-6), name


def test_where_labels_mean_nothing_no_baseline_finds_them(refit: Refit) -> None:
    """One that saw labels of test donors would."""
    cheap = replace(refit, accelerator=None)
    found = pd.DataFrame([cheap.auroc(number) for number in range(1, 61)])
    assert set(found) == BASELINES
    error = found.std() / np.sqrt(len(found))
    assert ((found.mean() - 0.5).abs() < 3.5 * error + 0.02).all(), found.mean()


def test_a_prediction_that_is_no_number_is_no_permutation(
    refit: Refit, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "oligo_ad.training.fold_model.FoldModel.logits", lambda self, model, part: np.array([0.0, np.nan])
    )
    with pytest.raises(UserError, match="fold 1 are not finite"):
        refit.auroc(1)


# A test goes on


def test_a_test_goes_on_where_it_stopped_and_can_be_extended(
    record: Record, refit: Refit, alone: list[int]
) -> None:
    def go(n: int, predictors: str) -> list[int]:
        alone.clear()
        permute_without_report(refit, record, n, predictors)
        return list(alone)

    assert go(3, "baselines") == [1, 2, 3]
    first = record.permuted
    (record.folder / "permutations/2.json").unlink()
    (record.folder / "permutations/4.json.partial").write_text("{")
    assert go(4, "baselines") == [2, 4]
    pd.testing.assert_frame_equal(record.permuted.iloc[:3], first, check_exact=True)
    assert go(2, "all") == [1, 2]  # of baselines alone, so the model is missing
    assert go(2, "all") == []
    again = record.permuted[first.columns].iloc[:3]
    pd.testing.assert_frame_equal(again, first, check_exact=True)
    assert record.permuted["model"].notna().tolist() == [True, True, False, False]


def test_a_run_that_was_killed_while_it_permuted_goes_on(
    made: tuple[Config, Path], record: Record, alone: list[int]
) -> None:
    finished = Record(made[1]).metrics
    for name in ("metrics.json", "report.html", "donors.csv"):
        (record.folder / name).unlink()
    permute.permute(asked(made[0], record.folder, 3), Path("none"))
    assert Record(record.folder).metrics["donors"] == finished["donors"]
    assert len(record.permutations) == 3
    shutil.rmtree(record.folder / "folds/2")
    with pytest.raises(UserError, match="it has no folds/2"):
        permute.permute(asked(made[0], record.folder, 3), Path("none"))


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT], ids=["killed", "interrupted"])
def test_what_a_stopped_test_has_made_is_kept_and_its_processes_end(
    made: tuple[Config, Path], record: Record, refit: Refit, alone: list[int], how: signal.Signals
) -> None:
    words = ["task=permute", f"run={record.folder}", "permutations=100000", "task.predictors=baselines"]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "HOME": str(record.folder.parent)}
    test = subprocess.Popen(
        [sys.executable, ROOT / "run.py", *words, "evaluation.parallel=2"],
        env=environment,
        cwd=record.folder.parent,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(
            signal.SIGINT, signal.SIG_DFL
        ),  # a shell's `&` would have it ignored
    )
    try:
        until(lambda: (record.folder / "permutations/3.json").exists())
        processes = children(test.pid)
        # A terminal interrupts all of them, a kill is of one.
        os.kill(test.pid, how) if how is signal.SIGKILL else os.killpg(test.pid, how)
        test.wait(60)
        assert len(processes) >= 2
        until(lambda: not any(Path(f"/proc/{process}").exists() for process in processes), 60)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(test.pid, signal.SIGKILL)
        test.wait()
    done = record.permutations
    assert done[0].auroc == replace(refit, accelerator=None).auroc(done[0].number)
    (record.folder / ".lock").unlink(missing_ok=True)
    n = done[-1].number + 1
    permute.permute(asked(made[0], record.folder, n), Path("none"))
    assert alone == [number for number in range(1, n + 1) if number not in {one.number for one in done}]
    assert len(record.permutations) == n


def until(true: Callable[[], bool], seconds: float = 240) -> None:
    """Wait for something; a busy machine takes its time to start processes."""
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def children(process: int) -> set[int]:
    """Processes that one has started."""
    listed = subprocess.run(
        ["ps", "-o", "pid=", "--ppid", str(process)], capture_output=True, text=True, check=True
    )
    return {int(word) for word in listed.stdout.split()}


# Several processes


@pytest.mark.slow
def test_processes_share_the_work_and_the_report_holds_the_result(
    made: tuple[Config, Path], refit: Refit, record: Record, tmp_path: Path
) -> None:
    tasks.run(asked(made[0], record.folder, 4, "all", parallel=2), tmp_path / "none")
    for number in (1, 4):
        found, alone = record.permutations[number - 1].auroc, refit.auroc(number)
        assert {name: found[name] for name in BASELINES} == {name: alone[name] for name in BASELINES}
        assert found == pytest.approx(alone, abs=1e-4)
    record = Record(record.folder)
    assert record.metrics["headline"]["permutations"] == 4
    assert record.metrics["headline"]["p"] >= 1 / 5
    assert "not shown to be told apart" in record.metrics["verdict"]
    assert "Permuted labels" in (record.folder / "report.html").read_text()
    assert not (tmp_path / "none").exists()


@pytest.mark.slow
def test_a_process_that_fails_or_is_killed_stops_no_other(made: tuple[Config, Path], refit: Refit) -> None:
    # No generator takes a negative seed.
    wanted, found, killed = [1, -1, *range(2, 4000)], dict[int, workers.Refitted](), False
    for number, result in workers.refitted(made[0], refit.contrast.folds, False, wanted, 2):
        found[number] = result
        if {1, -1} < found.keys() and not killed:
            os.kill(multiprocessing.active_children()[0].pid or 0, signal.SIGKILL)
            killed = True
    assert sorted(found) == sorted(wanted)
    assert found[1] == replace(refit, accelerator=None).auroc(1)
    assert isinstance(found[-1], ValueError)
    assert sum(isinstance(result, dict) for result in found.values()) > 1
    assert isinstance(found[3999], workers.BrokenProcessPool)


def test_what_fails_is_told_and_the_rest_is_kept(
    made: tuple[Config, Path],
    record: Record,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    found: list[workers.Refitted] = [{"model": 0.5}, UserError("too hot"), {"model": 0.6}, KeyError("odd")]
    found += [UserError("too hot"), workers.BrokenProcessPool("gone")]
    monkeypatch.setattr(permute, "refitted", lambda *given: enumerate(found, start=1))
    with pytest.raises(UserError, match=r"4 of 6 permutations could not be made: 2, 4, 5, 6"):
        permute.permute(asked(made[0], record.folder, 6, "all"), Path("none"))
    assert [one.number for one in record.permutations] == [1, 3]
    assert Record(record.folder).metrics["headline"]["permutations"] == 2
    errors = [line for line in caplog.records if line.levelno == logging.ERROR]
    assert len(errors) == 3
    assert "2 permutations (2, 5) could not be made: too hot" in caplog.text
    assert "a bug in oligo_ad" in caplog.text
    assert errors[1].exc_info is not None
    assert "a smaller evaluation.parallel" in caplog.text


def test_a_gpu_is_not_shared_by_processes_that_train(monkeypatch: pytest.MonkeyPatch) -> None:
    config = configuration()
    monkeypatch.setattr(workers, "CORES", 16)
    assert workers.default_processes(replace(config, device="cpu"), with_model=True) == 16
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    assert workers.default_processes(config, with_model=True) == 1
    assert workers.default_processes(config, with_model=False) == 16
    assert workers.default_processes(replace(config, device="cpu"), with_model=True) == 16


# As a part of a run


def test_a_run_permutes_when_it_is_asked_to(
    made: tuple[Config, Path], alone: list[int], tmp_path: Path
) -> None:
    tasks.run(replace(made[0], permutations=2), tmp_path / "run")
    assert alone == [1, 2]
    assert Record(tmp_path / "run").metrics["headline"]["permutations"] == 2
    assert Record(made[1]).metrics["headline"]["permutations"] == 0


def test_a_run_whose_permutations_fail_finishes_all_the_same(
    made: tuple[Config, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    failed = UserError("too hot")
    monkeypatch.setattr(permute, "refitted", lambda c, f, m, wanted, n: ((one, failed) for one in wanted))
    tasks.run(replace(made[0], permutations=2), tmp_path / "run")
    assert Record(tmp_path / "run").metrics["headline"]["permutations"] == 0


def test_what_would_stop_a_test_is_found_before_training(
    made: tuple[Config, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("oligo_ad.tasks.train.train_fold", lambda run, fold: pytest.fail("it trains"))
    within = replace(made[0].evaluation, strata=("brain_bank",))
    with pytest.raises(UserError, match="no 'brain_bank' that can be used"):
        tasks.run(replace(made[0], permutations=2, evaluation=within), tmp_path / "run")
    monkeypatch.setattr(permute, "world_size", lambda: 4)
    with pytest.raises(UserError, match=r"not divided among 4 processes.*task=permute run="):
        tasks.run(replace(made[0], permutations=2), tmp_path / "run")


def test_a_trial_of_a_search_permutes_nothing_and_is_not_tested(
    made: tuple[Config, Path], alone: list[int], tmp_path: Path
) -> None:
    trial = ValidateTask(
        name="validate", objective="loss", seeds=(0,), study=None, trial=None, prune=False, startup=1
    )
    tasks.run(replace(made[0], task=trial, permutations=2), tmp_path / "trial")
    with pytest.raises(UserError, match="a trial of a search"):
        permute.permute(asked(made[0], tmp_path / "trial", 2), Path("none"))
    assert alone == []


# Which test it is


def test_labels_move_within_the_strata_of_the_run(
    made: tuple[Config, Path], alone: list[int], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    within = replace(made[0].evaluation, strata=("sex",))
    tasks.run(replace(made[0], evaluation=within), tmp_path / "run")
    permute.permute(asked(made[0], tmp_path / "run", 1), Path("none"))
    assert Record(tmp_path / "run").strata == ("sex",)
    assert "within levels of sex: 22 of 22 donors can get the other label, in 213,444 ways" in caplog.text
    with pytest.raises(UserError, match="was permuted within sex, not within age"):
        permute.permute(asked(made[0], tmp_path / "run", 2, strata=("age",)), Path("none"))


def damaged(content: str) -> str:
    return content[:-5]


def changed(name: str, value: object) -> Callable[[str], str]:
    return lambda content: json.dumps(json.loads(content) | {name: value})


@pytest.mark.parametrize(
    "change",
    [
        damaged,
        *(changed(*one) for one in [("auroc", {"model": 2.0}), ("auroc", {}), ("number", 2), ("run", "")]),
    ],
    ids=["damaged", "no AUROC", "empty", "another number", "another run"],
)
def test_what_is_no_permutation_of_the_run_is_named_and_not_counted(
    refit: Refit, record: Record, alone: list[int], change: Callable[[str], str]
) -> None:
    permute_without_report(refit, record, 1)
    file = record.folder / "permutations/1.json"
    file.write_text(change(file.read_text()))
    with pytest.raises(UserError, match=r"permutations/1\.json is no permutation of this run"):
        _ = record.permuted
    file.unlink()
    permute_without_report(refit, record, 1)
    assert len(record.permuted) == 1


def test_a_file_that_holds_other_donors_now_is_not_tested(
    made: tuple[Config, Path], record: Record, alone: list[int]
) -> None:
    facts = json.loads((record.folder / "facts.json").read_text())
    facts["donors"]["D00"]["label"] = 0
    (record.folder / "facts.json").write_text(json.dumps(facts))
    with pytest.raises(UserError, match="had other donors or labels"):
        permute.permute(asked(made[0], record.folder, 1), Path("none"))


def test_a_file_that_has_moved_is_found_where_it_is_said_to_be(
    made: tuple[Config, Path], record: Record, alone: list[int], tmp_path: Path
) -> None:
    for name in ("config.yaml", "facts.json"):
        file = record.folder / name
        file.write_text(file.read_text().replace(str(made[0].data.path), str(tmp_path / "gone.h5ad")))
    with pytest.raises(UserError, match=r"run=.* was made of .*gone\.h5ad.*data\.path=FILE"):
        permute.permute(asked(made[0], record.folder, 1), Path("none"))
    config = asked(made[0], record.folder, 1)
    permute.permute(replace(config, data=made[0].data), Path("none"))
    assert len(record.permutations) == 1


def test_without_a_run_or_a_number_of_permutations_nothing_is_tested(made: tuple[Config, Path]) -> None:
    for run, n, message in (
        (None, 200, "needs the directory of a run"),
        (made[1], 0, "needs permutations=N"),
    ):
        with pytest.raises(UserError, match=message):
            permute.permute(asked(made[0], run, n), Path("none"))


def test_a_run_that_is_not_tested_offers_the_test_with_its_time(made: tuple[Config, Path]) -> None:
    page = (made[1] / "report.html").read_text()
    assert "Not tested against permuted labels" in page
    assert f"task=permute run={made[1]}" in page
