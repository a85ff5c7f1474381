"""A finished run is tested against permuted labels: whole refits, by several processes, resumed, extended."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from oligo_ad import tasks
from oligo_ad.config import Config, PermuteTask
from oligo_ad.errors import UserError
from oligo_ad.record import Record
from oligo_ad.tasks import permute
from oligo_ad.training.refit import Refit, open_refit
from tests.builders import atlas, configuration, write


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Config, Path]:
    """A finished run of two folds, with a signal."""
    folder = tmp_path_factory.mktemp("permute")
    config = configuration(
        f"data.path={write(atlas(12, 10, effect=1.0), folder)}",
        f"cache.dir={folder / 'cache'}",
        "split=cv",
        "split.folds=2",
        "fit.epochs=2",
        "model.network.hidden=[8]",
    )
    tasks.run(config, folder / "run")
    return config, folder / "run"


@pytest.fixture(scope="module")
def refit(made: tuple[Config, Path]) -> Refit:
    return open_refit(made[0], with_model=True)


def copied(run: Path, tmp_path: Path) -> Record:
    shutil.copytree(run, tmp_path / "run")
    return Record(tmp_path / "run")


def in_this_process(
    record: Record, settings: Config, monkeypatch: pytest.MonkeyPatch, refit: Refit, **how: object
) -> list[int]:
    """Permute without processes; returns the numbers that were refitted."""
    refitted: list[int] = []

    def alone(settings: Config, with_model: bool, numbers: list[int], n: int):  # type: ignore[no-untyped-def]
        for number in numbers:
            refitted.append(number)
            yield replace(refit, accelerator=refit.accelerator if with_model else None).permutation(number)

    monkeypatch.setattr(permute, "_refitted", alone)
    permute.refit_permuted(record, settings, settings.evaluation, **how)  # type: ignore[arg-type]
    return refitted


def test_with_the_labels_where_they_were_a_refit_is_the_run(
    made: tuple[Config, Path], refit: Refit, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "oligo_ad.data.contrast.exchanged", lambda strata, seed, number: {d: d for d in strata.index}
    )
    found, donors = refit.permutation(1).auroc, Record(made[1]).metrics["donors"]
    for name, value in found.items():
        assert value == pytest.approx(donors[name]["mean_over_folds"]["auroc"], abs=1e-9), name
    assert {"model", "ensemble", "pseudobulk", "stack"} <= set(found)


def test_the_refit_of_a_permutation_does_not_remember_the_true_labels(refit: Refit) -> None:
    found = pd.DataFrame([refit.permutation(number).auroc for number in range(1, 13)])
    for name in ("model", "pseudobulk", "ensemble"):
        assert abs(found[name].mean() - 0.5) < 3 * found[name].std() / np.sqrt(len(found)) + 0.02, name


def test_a_test_goes_on_where_it_stopped_and_can_be_extended(
    made: tuple[Config, Path], refit: Refit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record, config = copied(made[1], tmp_path), made[0]
    go = {"monkeypatch": monkeypatch, "refit": refit}
    assert in_this_process(record, config, n=3, with_model=False, **go) == [1, 2, 3]
    first = record.permuted
    (record.folder / "permutations/2.json").unlink()
    (record.folder / "permutations/4.json.partial").write_text("{")
    assert in_this_process(record, config, n=4, with_model=False, **go) == [2, 4]
    pd.testing.assert_frame_equal(record.permuted.iloc[:3], first, check_exact=True)
    assert in_this_process(record, config, n=2, **go) == [1, 2]  # now with the model
    assert in_this_process(record, config, n=2, **go) == []
    pd.testing.assert_frame_equal(
        record.permuted[first.columns].iloc[:3], first, check_exact=True, check_like=True
    )


@pytest.mark.slow
def test_processes_share_the_work_and_the_report_holds_the_result(
    made: tuple[Config, Path], refit: Refit, tmp_path: Path
) -> None:
    record, config = copied(made[1], tmp_path), made[0]
    task = PermuteTask(name="permute", run=str(record.folder), predictors="all")
    evaluation = replace(config.evaluation, parallel=2)
    tasks.run(replace(config, task=task, permutations=4, evaluation=evaluation), tmp_path / "none")
    for number in (1, 4):
        alone = refit.permutation(number).auroc
        assert record.permutations[number - 1].auroc == pytest.approx(alone, abs=1e-9)
    record = Record(record.folder)
    assert record.metrics["headline"]["permutations"] == 4
    assert record.metrics["headline"]["p"] >= 1 / 5
    assert "not shown to be told apart" in record.metrics["verdict"]
    assert "Permuted labels" in (record.folder / "report.html").read_text()
    assert not (tmp_path / "none").exists()


def test_a_run_permutes_when_it_is_asked_to(
    made: tuple[Config, Path], refit: Refit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    monkeypatch.setattr("oligo_ad.tasks.train.refit_permuted", lambda *given: asked.append(given[-1]))
    tasks.run(made[0], tmp_path / "none")
    tasks.run(replace(made[0], permutations=7), tmp_path / "seven")
    assert asked == [7]


def test_other_strata_are_another_test(
    made: tuple[Config, Path], refit: Refit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record, config = copied(made[1], tmp_path), made[0]
    in_this_process(record, config, monkeypatch, refit, n=1, with_model=False)
    stratified = replace(config, evaluation=replace(config.evaluation, strata=("sex",)))
    with pytest.raises(UserError, match="was permuted within no strata, not within sex"):
        permute.refit_permuted(record, stratified, stratified.evaluation, 2)


@pytest.mark.parametrize(
    "content", ["{", "[]", '{"number": 1, "strata": [], "auroc": {"model": 2.0}}', '{"number": 1}']
)
def test_a_damaged_permutation_is_named_and_not_counted(
    made: tuple[Config, Path], tmp_path: Path, content: str
) -> None:
    record = copied(made[1], tmp_path)
    (record.folder / "permutations").mkdir()
    (record.folder / "permutations/1.json").write_text(content)
    with pytest.raises(UserError, match=r"permutations/1\.json"):
        _ = record.permuted


def test_without_a_run_or_a_number_of_permutations_nothing_is_tested(made: tuple[Config, Path]) -> None:
    config = made[0]
    for run, n, message in (
        (None, 200, "needs the directory of a run"),
        (str(made[1]), 0, "needs permutations=N"),
    ):
        task = PermuteTask(name="permute", run=run, predictors="all")
        with pytest.raises(UserError, match=message):
            permute.permute(replace(config, task=task, permutations=n), Path("none"))


def test_a_run_that_is_not_tested_offers_the_test_with_its_time(made: tuple[Config, Path]) -> None:
    page = (made[1] / "report.html").read_text()
    assert "Not tested against permuted labels" in page
    assert f"task=permute run={made[1]}" in page
    assert json.loads((made[1] / "metrics.json").read_text())["headline"]["permutations"] == 0
