"""Sweeps: which trials there are, what becomes of them, that none runs twice, and that a search never
looks at test donors before it has chosen."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import optuna
import pandas as pd
import pytest
from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from oligo_ad import tasks
from oligo_ad.config import SweepConfig, ValidateTask, read_sweep
from oligo_ad.facts import Epoch
from oligo_ad.inputs.loader import NucleusLoader
from oligo_ad.record import FAILURE, PRUNED, RESULT, Record
from oligo_ad.sweeps import search, study, sweep
from oligo_ad.sweeps.study import STUDY, Pruned, open_study, reporter
from oligo_ad.sweeps.trials import Trial, TrialRunner
from tests.builders import CONF, answer, assert_says, atlas, configuration, write
from tests.commands import ENVIRONMENT, python

pytestmark = pytest.mark.usefixtures("without_pictures")
SEARCHES = ["mlp", "scgpt", "transformer"]
GRIDS = ["learning_curve", "sensitivity"]
Ending = Callable[[Path, dict[str, str]], None]


class Launcher:
    """Stands for Hydra's: makes each trial's directory and lets `ending` decide what becomes of it."""

    def __init__(self, folder: Path, ending: Ending) -> None:
        self.folder, self.ending = folder, ending
        self.batches: list[list[dict[str, str]]] = []

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> None:
        jobs = [dict(override.split("=", 1) for override in overrides) for overrides in job_overrides]
        self.batches.append(jobs)
        for job in jobs:
            place = self.folder / job["hydra.sweep.subdir"]
            assert not place.exists()
            place.mkdir(parents=True)
            self.ending(place, job)

    @property
    def jobs(self) -> list[dict[str, str]]:
        return [job for batch in self.batches for job in batch]


def finish(place: Path, job: dict[str, str], value: float = 0.0) -> None:
    (place / RESULT).write_text(json.dumps({"objective": {"value": value}}))


def runner(folder: Path, ending: Ending) -> tuple[TrialRunner, Launcher]:
    launcher = Launcher(folder, ending)
    return TrialRunner(launcher, folder), launcher  # type: ignore[arg-type]


# Grids


def test_a_grid_has_a_trial_for_every_combination_numbered_in_order() -> None:
    context = SimpleNamespace(config_loader=None)
    trials = sweep.grid(context, ["model=mlp,transformer", "seed=range(2)", "data.path='a b'"])  # type: ignore[arg-type]
    assert [trial.subdir for trial in trials] == ["0", "1", "2", "3"]
    assert [trial.overrides[:2] for trial in trials] == [
        [f"model={model}", f"seed={seed}"] for model in ("mlp", "transformer") for seed in (0, 1)
    ]
    assert {trial.overrides[2] for trial in trials} == {"data.path='a b'"}


def test_what_has_ended_is_not_run_again_and_what_was_interrupted_starts_anew(tmp_path: Path) -> None:
    for place, mark in (("0", RESULT), ("1", FAILURE), ("2", PRUNED)):
        (tmp_path / place).mkdir()
        (tmp_path / place / mark).write_text("{}")
    (tmp_path / "3").mkdir()
    (tmp_path / "3" / "run.log").write_text("left by a killed process")
    ours, launcher = runner(tmp_path, finish)
    ours.run([Trial(str(n), [f"seed={n}"]) for n in range(5)])
    assert [job["hydra.sweep.subdir"] for job in launcher.jobs] == ["3", "4"]
    assert not (tmp_path / "3" / "run.log").exists()
    ours.run([Trial(str(n), [f"seed={n}"]) for n in range(5)])
    assert len(launcher.batches) == 1


def test_a_trial_whose_process_died_is_recorded_as_failed(tmp_path: Path) -> None:
    ours, _ = runner(tmp_path, lambda place, job: None)
    ours.run([Trial("0", ["seed=0"])])
    assert_says(json.loads((tmp_path / "0" / FAILURE).read_text())["message"], "killed, or out of memory")


def test_a_launcher_that_breaks_off_loses_the_trial_that_broke_it_only(tmp_path: Path) -> None:
    def broken_by_the_second(place: Path, job: dict[str, str]) -> None:
        if job["seed"] == "1":
            raise RuntimeError("a worker was killed")
        finish(place, job)

    ours, launcher = runner(tmp_path, broken_by_the_second)
    ours.run([Trial(str(n), [f"seed={n}"]) for n in range(4)])
    assert [(tmp_path / str(n) / RESULT).exists() for n in range(4)] == [True, False, True, True]
    assert_says((tmp_path / "1" / FAILURE).read_text(), "a worker was killed")
    assert [len(batch) for batch in launcher.batches] == [4, 2]


def test_a_launcher_that_starts_nothing_is_told_of(tmp_path: Path) -> None:
    ours, _ = runner(tmp_path, finish)
    ours._launcher = SimpleNamespace(launch=lambda *_, **__: 1 / 0)  # type: ignore[assignment]
    assert_says(answer(ours.run, [Trial("0", ["seed=0"])]), "no trial could be started", "ZeroDivisionError")


def sweep_settings(**changed: Any) -> SweepConfig:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return replace(read_sweep(compose("config")), **changed)


def hydra_config(folder: Path) -> DictConfig:
    hydra = {"sweep": {"dir": str(folder)}, "overrides": {"hydra": []}, "launcher": {"_target_": "basic"}}
    return OmegaConf.create({"hydra": hydra})


def test_a_sweep_directory_is_the_same_for_all_its_processes(tmp_path: Path) -> None:
    config = hydra_config(tmp_path)
    assert sweep._directory(config, sweep_settings()) == tmp_path
    assert config.hydra.overrides.hydra == [f'hydra.sweep.dir="{tmp_path}"']
    (tmp_path / sweep.PLAN).write_text("{}")
    again = hydra_config(Path("elsewhere"))
    assert sweep._directory(again, sweep_settings(resume=str(tmp_path))) == tmp_path
    assert again.hydra.sweep.dir == str(tmp_path)
    assert_says(answer(sweep._directory, again, sweep_settings(resume="nothing")), "there is no sweep")
    assert not Path("nothing").exists()


def test_a_sweep_directory_holds_one_sweep(tmp_path: Path) -> None:
    sweep._record_command(tmp_path, ["seed=1,2"], resumed=False)
    said = answer(lambda: sweep._record_command(tmp_path, ["seed=1,2"], resumed=False))
    assert_says(said, f"sweep.resume={tmp_path}")
    assert sweep._record_command(tmp_path, ["seed=1,2"], resumed=True) == ["seed=1,2"]
    assert [file.name for file in tmp_path.iterdir()] == [sweep.PLAN]


def test_a_sweep_is_resumed_by_the_same_command_only(tmp_path: Path) -> None:
    sweep._record_command(tmp_path, ["seed=1,2", "model=mlp"], resumed=False)
    said = answer(lambda: sweep._record_command(tmp_path, ["seed=1,2,3", "model=mlp"], resumed=True))
    assert_says(said, f"python run.py -m seed=1,2 model=mlp sweep.resume={tmp_path}")


def test_a_grid_resumed_with_its_words_in_another_order_keeps_the_numbers_of_its_trials(
    tmp_path: Path,
) -> None:
    first = sweep._record_command(tmp_path, ["seed=1,2", "model=a,b"], resumed=False)
    again = sweep._record_command(tmp_path, ["model=a,b", "seed=1,2"], resumed=True)
    trials = [sweep.grid(SimpleNamespace(config_loader=None), words) for words in (first, again)]  # type: ignore[arg-type]
    assert trials[0] == trials[1]


def test_a_preset_whose_values_were_changed_is_not_resumed(tmp_path: Path) -> None:
    preset = {"data.min_nuclei": "choice(10,50)", "seed": "range(2)"}
    sweep._record_command(tmp_path, [], False, preset)
    sweep._record_command(tmp_path, [], True, dict(preset))
    for changed in (preset | {"seed": "range(3)"}, dict(reversed(preset.items()))):
        said = answer(sweep._record_command, tmp_path, [], True, changed)
        assert_says(said, "other values of its preset", f"sweep.resume={tmp_path}")


def preset_trials(name: str, *typed: str) -> list[dict[str, str]]:
    """The trials of a preset as the command line starts them, with none of them run."""
    words = [f"sweep={name}", *typed]
    jobs: list[Trial] = []
    ours = SimpleNamespace(folder=Path("nowhere"), run=jobs.extend)
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = compose("config", [word for word in words if "," not in word], return_hydra_config=True)
    context = SimpleNamespace(config_loader=SimpleNamespace(load_sweep_config=lambda *given: config))
    sweep._run(ours, context, config, read_sweep(config), words)  # type: ignore[arg-type]
    return [dict(word.split("=", 1) for word in trial.overrides) for trial in jobs]


def test_a_preset_that_is_a_grid_has_a_trial_for_each_combination_and_none_is_a_search() -> None:
    trials = preset_trials("sensitivity")
    assert len({tuple(sorted(trial.items())) for trial in trials}) == len(trials) == 36
    assert {trial["evaluation.donor_score"] for trial in trials} == {"mean", "mean_logit", "fraction"}
    assert not any("task" in trial or "split.only" in trial for trial in trials)
    shares = [trial["split.train_fraction"] for trial in preset_trials("learning_curve", "split=cv")]
    assert shares == ["0.4", "0.55", "0.7", "0.85", "1.0"]


def test_what_is_typed_makes_a_grid_larger_or_stands_in_the_place_of_its_values() -> None:
    trials = preset_trials("sensitivity", "model=mlp,transformer", "evaluation.donor_score=mean", "seed=7")
    assert len(trials) == 2 * 3 * 2 * 2
    assert {trial["evaluation.donor_score"] for trial in trials} == {"mean"}
    assert {trial["seed"] for trial in trials} == {"7"}
    shares = preset_trials("learning_curve", "split.train_fraction=0.5,1.0")
    assert [trial["split.train_fraction"] for trial in shares] == ["0.5", "1.0"]


def test_a_field_that_a_model_lacks_is_named_and_can_be_left_out() -> None:
    frozen = ("model=scgpt_frozen", "model.checkpoint=x")
    said = answer(lambda: preset_trials("sensitivity", *frozen))
    assert_says(
        said, "model.featurizer.n_genes", "scgpt_frozen", "+sweep.space.model.featurizer.n_genes=null"
    )
    out = [f"+sweep.space.model.featurizer.{field}=null" for field in ("n_genes", "flavor")]
    assert len(preset_trials("sensitivity", *frozen, *out)) == 2 * 3


def test_a_grid_over_an_interval_is_refused_with_what_a_grid_takes() -> None:
    said = answer(lambda: preset_trials("mlp", "sweep.sampler=grid"))
    assert_says(said, "interval(1e-5, 1e-2)", "choice(…)")


@pytest.mark.parametrize("model", ["mlp", "transformer", "scgpt"])
@pytest.mark.parametrize("name", GRIDS)
def test_every_grid_is_over_fields_of_these_models(name: str, model: str) -> None:
    assert preset_trials(name, f"model={model}")


def test_ray_listens_on_this_machine_only_unless_it_is_told_of_a_cluster(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "RAY_USAGE_STATS_ENABLED"):
        monkeypatch.setenv(name, "x")
        monkeypatch.delenv(name)
    ours = OmegaConf.create({"ray": {"init": {"address": None}, "remote": {}}})
    sweep._keep_ray_local(ours)
    assert ours.ray.init._node_ip_address == "127.0.0.1"
    assert ours.ray.init.include_dashboard is False
    assert os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] == "0"
    theirs = OmegaConf.create({"ray": {"init": {"address": "auto"}}})
    sweep._keep_ray_local(theirs)
    assert theirs == {"ray": {"init": {"address": "auto"}}}
    sweep._keep_ray_local(OmegaConf.create({"_target_": "basic"}))


# Searches


@pytest.mark.parametrize(
    ("written", "wanted"),
    [
        ("choice(a,b)", CategoricalDistribution(["a", "b"])),
        ("choice([1,2],[])", CategoricalDistribution(["[1,2]", "[]"])),
        ("range(1,5)", IntDistribution(1, 4)),
        ("range(10,31,10)", IntDistribution(10, 30, step=10)),
        ("interval(0.1,0.5)", FloatDistribution(0.1, 0.5)),
        ("int(interval(2,9))", IntDistribution(2, 9)),
        ("tag(log, interval(1e-5, 1e-2))", FloatDistribution(1e-5, 1e-2, log=True)),
    ],
)
def test_values_are_written_as_on_the_command_line(written: str, wanted: Any) -> None:
    assert search._distribution(OverridesParser.create(), "seed", written) == wanted


def test_what_cannot_be_searched_is_refused() -> None:
    assert_says(answer(search._distribution, OverridesParser.create(), "seed", "3"), "sweep.space.seed=3")
    said = answer(search._space, {}, ["model=mlp,transformer"])
    assert_says(said, "model=mlp,transformer lists values")


def test_a_field_given_on_the_command_line_is_not_searched() -> None:
    space = search._space({"seed": "range(3)", "fit.clip": "choice(1,2)"}, ["seed=1"])
    assert list(space) == ["fit.clip"]


@pytest.mark.parametrize("name", SEARCHES)
def test_every_search_is_over_fields_of_its_model(name: str) -> None:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        composed = compose("config", overrides=[f"model={name}", f"sweep={name}"])
    space = search._space(read_sweep(composed).space, [])
    assert set(space) == set(composed.sweep.space)
    for field in space:
        # None is what it raises for a field that is not there; some fields are null.
        OmegaConf.select(composed, field, throw_on_missing=True)
        parent, _, last = field.rpartition(".")
        assert last in OmegaConf.select(composed, parent), field


SPACE = {"fit.optimizer.lr": "tag(log, interval(1e-4, 1.0))", "fit.clip": "choice(1,2)"}


def run_search(ours: TrialRunner, kind: str = "holdout", **changed: Any) -> None:
    """A search of six trials over two seeds, started with data=demo."""
    settings = sweep_settings(**({"space": SPACE, "trials": 6, "seeds": (0, 1), "startup": 3} | changed))
    split = OmegaConf.create({"kind": kind, "folds": 2, "repeats": 1, "file": None})
    search.search(ours, settings, split, ["data=demo"])


def best_near_a_hundredth(place: Path, job: dict[str, str]) -> None:
    finish(place, job, value=-abs(float(job["fit.optimizer.lr"]) - 0.01))


def test_the_best_on_validation_donors_is_tested_once_at_the_end(tmp_path: Path) -> None:
    ours, launcher = runner(tmp_path, best_near_a_hundredth)
    run_search(ours)
    *trials, last = launcher.jobs
    assert len(trials) == 6
    assert all(job["task"] == "validate" and job["task.seeds"] == "[0,1]" for job in trials)
    assert not any(key.startswith(("task", "sweep")) for key in last)
    best = min(trials, key=lambda job: abs(float(job["fit.optimizer.lr"]) - 0.01))
    for key in ("fit.optimizer.lr", "fit.clip"):
        assert last[key] == best[key]
    assert last["hydra.sweep.subdir"] == "best/1"


def test_with_crossed_folds_each_outer_fold_has_a_search_of_its_own(tmp_path: Path) -> None:
    ours, launcher = runner(tmp_path, best_near_a_hundredth)
    run_search(ours, kind="cv", trials=3)
    assert [job["split.only"] for job in launcher.jobs] == ["1"] * 3 + ["2"] * 3 + ["1", "2"]
    assert [job.get("task") for job in launcher.jobs] == ["validate"] * 6 + [None] * 2
    places = [job["hydra.sweep.subdir"] for job in launcher.jobs]
    assert places == [*(f"fold_{k}/{n}" for k in (1, 2) for n in range(3)), "best/1", "best/2"]


def test_a_search_goes_on_where_it_was_killed(tmp_path: Path) -> None:
    def die_at_the_third(place: Path, job: dict[str, str]) -> None:
        if job.get("task.trial") == "2":
            raise KeyboardInterrupt
        best_near_a_hundredth(place, job)

    ours, before = runner(tmp_path, die_at_the_third)
    with pytest.raises(KeyboardInterrupt):
        run_search(ours)
    ours, after = runner(tmp_path, best_near_a_hundredth)
    run_search(ours)
    assert [job.get("task.trial") for job in before.jobs] == ["0", "1", "2"]
    assert [job.get("task.trial") for job in after.jobs] == ["2", "3", "4", "5", None]
    assert after.jobs[0] == before.jobs[2]
    ours, idle = runner(tmp_path, best_near_a_hundredth)
    run_search(ours)
    assert idle.jobs == []


def test_failed_and_pruned_trials_are_told_to_the_study_and_the_others_go_on(tmp_path: Path) -> None:
    def some_fail(place: Path, job: dict[str, str]) -> None:
        if job.get("task.trial") == "1":
            Record(place).write_failure("the loss became nan")
        elif job.get("task.trial") == "3":
            (place / PRUNED).write_text("{}")
        else:
            best_near_a_hundredth(place, job)

    ours, _ = runner(tmp_path, some_fail)
    run_search(ours)
    study = optuna.load_study(storage=f"sqlite:///{tmp_path / STUDY}", study_name="fold_1")
    states = [trial.state.name for trial in study.trials]
    assert states == ["COMPLETE", "FAIL", "COMPLETE", "PRUNED", "COMPLETE", "COMPLETE"]
    assert (tmp_path / "best/1" / RESULT).exists()


def test_nothing_is_tested_when_no_trial_finished(tmp_path: Path) -> None:
    ours, launcher = runner(tmp_path, lambda place, job: Record(place).write_failure("out of memory"))
    said = answer(lambda: run_search(ours, trials=2))
    assert_says(said, "no trial", "nothing can be chosen")
    assert len(launcher.jobs) == 2


def test_parallel_trials_are_launched_together_and_time_ends_a_search(tmp_path: Path) -> None:
    ours, launcher = runner(tmp_path, best_near_a_hundredth)
    run_search(ours, parallel=4)
    assert [len(batch) for batch in launcher.batches] == [4, 2, 1]
    (tmp_path / "short").mkdir()
    ours, _ = runner(tmp_path / "short", best_near_a_hundredth)
    said = answer(lambda: run_search(ours, hours=1e-9))
    assert_says(said, "no trial")


@pytest.fixture
def trials_of_an_hour(monkeypatch: pytest.MonkeyPatch) -> Ending:
    """Trials that end well, an hour after they were launched."""
    clock = [1000.0]
    monkeypatch.setattr(search.time, "monotonic", lambda: clock[0])

    def an_hour(place: Path, job: dict[str, str]) -> None:
        clock[0] += 3600
        best_near_a_hundredth(place, job)

    return an_hour


@pytest.mark.parametrize(
    ("hours", "parallel", "batches"), [(2.5, 1, [1, 1, 1]), (2.5, 2, [2, 2]), (9, 2, [2] * 3)]
)
def test_no_trial_is_started_after_the_time_is_spent_and_the_best_so_far_is_tested(
    tmp_path: Path, trials_of_an_hour: Ending, hours: float, parallel: int, batches: list[int]
) -> None:
    ours, launcher = runner(tmp_path, trials_of_an_hour)
    run_search(ours, hours=hours, parallel=parallel)
    assert [len(batch) for batch in launcher.batches] == [*batches, 1]
    *trials, last = launcher.jobs
    best = min(trials, key=lambda job: abs(float(job["fit.optimizer.lr"]) - 0.01))
    assert last["fit.optimizer.lr"] == best["fit.optimizer.lr"]
    assert "task" not in last


def test_outer_folds_share_the_time(tmp_path: Path, trials_of_an_hour: Ending) -> None:
    ours, launcher = runner(tmp_path, trials_of_an_hour)
    run_search(ours, kind="cv", trials=6, hours=6)
    assert [job["hydra.sweep.subdir"] for job in launcher.jobs][-2:] == ["best/1", "best/2"]


def rates_tried(folder: Path, best: float, **changed: Any) -> list[float]:
    """Learning rates of the trials of a search in which so large a rate is best."""
    folder.mkdir()

    def near_the_best(place: Path, job: dict[str, str]) -> None:
        finish(place, job, value=-abs(float(job["fit.optimizer.lr"]) - best))

    ours, launcher = runner(folder, near_the_best)
    run_search(ours, trials=7, **changed)
    return [float(job["fit.optimizer.lr"]) for job in launcher.jobs[:-1]]


def test_a_random_search_does_not_learn_from_its_trials(tmp_path: Path) -> None:
    low, high = (rates_tried(tmp_path / str(best), best, sampler="random") for best in (1e-4, 1.0))
    assert low == high
    assert len(set(low)) == 7


@pytest.mark.parametrize("startup", [2, 5])
def test_a_tpe_search_learns_from_its_trials_once_so_many_were_random(tmp_path: Path, startup: int) -> None:
    low, high = (
        rates_tried(tmp_path / str(best), best, sampler="tpe", startup=startup) for best in (1e-4, 1.0)
    )
    same = [one == other for one, other in zip(low, high, strict=True)]
    assert all(same[:startup])
    assert not any(same[startup + 1 :])


def test_a_trial_knows_its_study_its_number_and_how_it_is_searched(tmp_path: Path) -> None:
    ours, launcher = runner(tmp_path, best_near_a_hundredth)
    run_search(ours, trials=2, objective="cell_auroc", prune=False)
    for number, job in enumerate(launcher.jobs[:2]):
        words = [f"{field}={value}" for field, value in job.items() if not field.startswith("hydra")]
        task = configuration(*words).task
        assert isinstance(task, ValidateTask)
        assert (task.study, task.trial) == (str(tmp_path / STUDY), number)
        assert (task.objective, task.seeds, task.prune, task.startup) == ("cell_auroc", (0, 1), False, 3)


def report_a_bad_trial(tmp_path: Path, *overrides: str) -> None:
    """Three trials of two epochs, the last of them worse than the others."""
    study = open_study(tmp_path / STUDY, 1, sweep_settings(startup=2))
    for value in (0.8, 0.9, 0.2):
        number = study.ask().number
        words = (f"task.study={tmp_path / STUDY}", f"task.trial={number}", "task.startup=2")
        task = configuration("task=validate", *words, *overrides).task
        assert isinstance(task, ValidateTask)
        report = reporter(task, 1)
        report(1, value)
        report(2, value)
        study.tell(number, value)


def test_a_trial_is_pruned_below_the_median_of_earlier_ones(tmp_path: Path) -> None:
    with pytest.raises(Pruned) as pruned:
        report_a_bad_trial(tmp_path)
    assert pruned.value.value == 0.2


def test_a_trial_goes_on_where_pruning_is_off(tmp_path: Path) -> None:
    report_a_bad_trial(tmp_path, "task.prune=false")


def test_no_trial_is_pruned_before_there_are_as_many_as_asked_for(tmp_path: Path) -> None:
    report_a_bad_trial(tmp_path, "task.startup=3")


def test_a_trial_reports_the_mean_of_what_it_has_reached(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two trainings of ten epochs came before: the best of this one so far counts beside theirs."""
    reported: list[tuple[int, float]] = []
    monkeypatch.setattr(study, "reporter", lambda *given: lambda step, value: reported.append((step, value)))
    task = configuration("task=validate", "task.objective=donor_auroc").task
    assert isinstance(task, ValidateTask)
    report = study.epoch_reporter(task, 1, [0.6, 0.8], epochs=10)
    for number, auroc in enumerate((0.5, 0.9, 0.7), 1):
        report(Epoch(number, 0.1, 0.2, 0.3, auroc, 1.0, 1e-3, 9.0))
    assert [step for step, _ in reported] == [21, 22, 23]
    assert [value for _, value in reported] == pytest.approx([1.9 / 3, 2.3 / 3, 2.3 / 3])


def test_a_study_that_is_not_there_is_not_made_by_a_trial(tmp_path: Path) -> None:
    task = configuration("task=validate", f"task.study={tmp_path / STUDY}", "task.trial=0").task
    assert_says(answer(reporter, task, 1), f"task.study={tmp_path / STUDY}", "no such file")
    assert not list(tmp_path.iterdir())


# Validation instead of test


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return write(atlas(effect=0.5), tmp_path)


@pytest.mark.slow
def test_a_trial_predicts_no_test_donor_and_says_what_it_scored(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: set[str] = set()
    honest = NucleusLoader._own
    ids = sorted({f"D{i:02d}" for i in range(15)})

    def spy(self: NucleusLoader, rows: Any, epoch: int) -> Any:
        seen.update(ids[place] for place in self.donor[rows.numpy()])
        return honest(self, rows, epoch)

    monkeypatch.setattr(NucleusLoader, "_own", spy)
    shared = (f"data.path={path}", f"cache.dir={tmp_path / 'cache'}", "split=cv", "split.folds=3")
    long = ("fit.epochs=4", "fit.patience=4", "fit.optimizer.lr=0.01")
    config = configuration(*shared, *long, "task=validate", "split.only=2", "task.seeds=[0,1]")
    tasks.run(config, tmp_path / "run")
    histories = Record(tmp_path / "run").histories
    assert [history.seed for history in histories] == [0, 1]
    assert any(history.best_epoch < len(history.epochs) for history in histories)
    split = json.loads((tmp_path / "run/split.json").read_text())
    assert [fold["number"] for fold in split["folds"]] == [2, 4]
    test = {donor for fold in split["folds"] for donor in fold["test"]}
    validation = {donor for fold in split["folds"] for donor in fold["validation"]}
    assert test
    assert not seen & test
    assert set(pd.read_csv(tmp_path / "run/donors.csv")["donor"]) == validation
    metrics = json.loads((tmp_path / "run" / RESULT).read_text())
    assert metrics["scored_on"] == "validation donors"
    assert metrics["verdict"].startswith("VALIDATION DONORS, NOT TEST DONORS")
    losses = [fold["history"][fold["best_epoch"] - 1]["loss"] for fold in metrics["folds"]]
    assert metrics["objective"]["value"] == pytest.approx(-sum(losses) / 2)
    assert not list((tmp_path / "run").rglob("model.safetensors"))
    assert set(Record(tmp_path / "run").predictions["part"]) == {"train", "validation"}
    saved = OmegaConf.load(tmp_path / "run/config.yaml")
    assert "sweep" not in saved
    assert saved.task.seeds == [0, 1]


@pytest.mark.slow
def test_one_fold_of_a_split_is_that_fold(path: Path, tmp_path: Path) -> None:
    shared = (f"data.path={path}", f"cache.dir={tmp_path / 'cache'}", "split=cv", "split.folds=3")
    for name, words in (("all", ()), ("second", ("split.only=2",))):
        tasks.run(configuration(*shared, "evaluation.baselines=false", *words), tmp_path / name)
    every, second = (pd.read_parquet(tmp_path / name / "cells.parquet") for name in ("all", "second"))
    own = every[every["fold"] == 2].reset_index(drop=True)
    pd.testing.assert_frame_equal(own, second, check_exact=True)
    said = answer(tasks.run, configuration(*shared, "split.only=9"), tmp_path / "none")
    assert_says(said, "split.only=9", "1 to 3")


# The command line


def run_py(*words: str, cache: Path) -> tuple[int | None, str]:
    """The exit code of a command, and what it prints."""
    environment = ENVIRONMENT | {"OLIGO_AD_CACHE": str(cache)}
    return python(["run.py", *words], CONF.parent, cache.with_suffix(".txt"), environment)


def run_py_anew(*words: str, cache: Path) -> tuple[int | None, str]:
    """The same in a program of its own: a forked process does not end while joblib's are there."""
    ended = subprocess.run(
        [sys.executable, "run.py", *words],
        cwd=CONF.parent,
        env=os.environ | {"OLIGO_AD_CACHE": str(cache), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=300,
    )
    return ended.returncode, ended.stdout


@pytest.mark.slow
@pytest.mark.parametrize(("launcher", "start"), [("basic", run_py), ("joblib", run_py_anew)])
def test_a_sweep_from_the_command_line_ends_in_a_leaderboard_and_goes_on(
    launcher: str, start: Callable[..., tuple[int | None, str]], path: Path, tmp_path: Path
) -> None:
    small = ("data=sea_ad", f"data.path={path}", "data.min_genes=1", "data.min_nuclei=2", "fit.epochs=1")
    few = ("fit.batch_size=16", "model.featurizer.n_genes=30", "tracker=none")
    words = ("-m", *small, *few, "fit.optimizer.lr=0.001,1e30", f"hydra/launcher={launcher}")
    folder = tmp_path / "sweep"
    code, first = start(*words, "fit.log_every=1", f"hydra.sweep.dir={folder}", cache=tmp_path / "cache")
    assert code == 1, first
    assert_says(first, "1 trials have no result", f"sweep.resume={folder}")
    table = pd.read_csv(folder / "leaderboard.csv")
    assert table["status"].tolist() == ["finished", "failed"]
    assert_says(table["failure"][1], "the loss became")
    assert "the loss became" in (folder / "leaderboard.html").read_text()
    before = (folder / "0" / RESULT).stat().st_mtime_ns
    (folder / "1" / FAILURE).unlink()
    code, _ = start(*words, "fit.log_every=1", f"sweep.resume={folder}", cache=tmp_path / "cache")
    assert code == 1
    assert (folder / "0" / RESULT).stat().st_mtime_ns == before
    assert (folder / "1" / FAILURE).exists()


@pytest.mark.slow
def test_a_search_from_the_command_line_ends_in_what_it_chose_and_its_trials_can_be_repeated(
    path: Path, tmp_path: Path
) -> None:
    small = ("data=sea_ad", f"data.path={path}", "data.min_genes=1", "data.min_nuclei=2", "fit.epochs=1")
    few = ("fit.batch_size=16", "model.featurizer.n_genes=30", "tracker=none")
    folder = tmp_path / "sweep"
    words = (*small, *few, "sweep=mlp", "sweep.trials=2", f"hydra.sweep.dir={folder}")
    code, ended = run_py(*words, cache=tmp_path / "cache")
    assert code == 0, ended
    assert (folder / "best/1/report.html").exists()
    for trial in (0, 1):
        saved = OmegaConf.load(folder / str(trial) / "config.yaml")
        assert (saved.task.study, saved.task.trial) == (str(folder / STUDY), trial)
        assert not {"sweep", "rerun", "run"} & set(saved)
    (folder / STUDY).unlink()
    code, twice = run_py(
        f"rerun={folder / '1'}", f"hydra.run.dir={tmp_path / 'twice'}", cache=tmp_path / "cache"
    )
    assert code == 0, twice
    before, after = (json.loads((f / RESULT).read_text()) for f in (folder / "1", tmp_path / "twice"))
    for part in ("headline", "objective", "donors", "cells"):
        assert before[part] == after[part]


@pytest.mark.slow
def test_a_trial_of_a_grid_is_repeated_from_its_directory(path: Path, tmp_path: Path) -> None:
    words = ("data=sea_ad", f"data.path={path}", "data.min_genes=1", "data.min_nuclei=2", "fit.epochs=1")
    few = ("fit.batch_size=16", "model.featurizer.n_genes=30", "seed=5")
    once, twice = tmp_path / "sweep/0", tmp_path / "twice"
    code, ended = run_py("-m", *words, *few, f"hydra.sweep.dir={once.parent}", cache=tmp_path / "cache")
    assert code == 0, ended
    code, ended = run_py(f"rerun={once}", f"hydra.run.dir={twice}", cache=tmp_path / "x")
    assert code == 0, ended
    tables = (pd.read_parquet(folder / "cells.parquet") for folder in (once, twice))
    pd.testing.assert_frame_equal(*tables, check_exact=True)
    code, refused = run_py(f"rerun={once}", "seed=3", cache=tmp_path / "cache")
    assert code == 1
    assert_says(refused, "seed=3 has no use")
