"""What another person's directory may hold: nothing of it runs, leads outside, hangs, or hides other runs."""

import json
import os
import random
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pandas as pd
import pytest
import yaml
from optuna.distributions import BaseDistribution, CategoricalDistribution, IntDistribution

from oligo_ad import command, compare, tasks
from oligo_ad.config import SweepConfig
from oligo_ad.errors import UserError
from oligo_ad.record import Record
from oligo_ad.results import report
from oligo_ad.sweeps import sweep
from oligo_ad.sweeps.comparison import compare as compared
from oligo_ad.sweeps.comparison import find_runs
from oligo_ad.sweeps.leaderboard import write as write_board
from oligo_ad.sweeps.study import STUDY, check_study, open_study
from tests.builders import answer, assert_says, atlas, configuration, write

Change = Callable[[Path], Any]
BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{b}: &{b} [{', '.join([f'*{a}'] * 9)}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("finished")
    path = write(atlas(effect=0.3), folder)
    config = configuration(f"data.path={path}", f"cache.dir={folder / 'cache'}", "model.network.hidden=[8]")
    tasks.run(config, folder / "run", ["model=mlp", "seed=0"])
    return folder / "run"


@pytest.fixture
def bad(finished: Path, tmp_path: Path) -> Path:
    """A run beside a good one, to be changed."""
    shutil.copytree(finished, tmp_path / "runs/good")
    return Path(shutil.copytree(finished, tmp_path / "runs/bad"))


def text(name: str, content: str) -> Change:
    return lambda run: (run / name).write_text(content)


def merged(name: str, **changed: Any) -> Change:
    """The JSON or YAML file with other entries."""

    def change(run: Path) -> None:
        file = run / name
        content = yaml.safe_load(file.read_text()) if name.endswith("yaml") else json.loads(file.read_text())
        file.write_text(json.dumps(content | changed))

    return change


def rows(name: str, edit: Callable[[pd.DataFrame], pd.DataFrame]) -> Change:
    def change(run: Path) -> None:
        file = run / name
        if name.endswith("csv"):
            edit(pd.read_csv(file)).to_csv(file, index=False)
        else:
            edit(pd.read_parquet(file)).to_parquet(file, index=False)

    return change


def pipe(name: str) -> Change:
    def change(run: Path) -> None:
        (run / name).unlink()
        os.mkfifo(run / name)

    return change


def huge(name: str) -> Change:
    return lambda run: os.truncate(run / name, 1 << 33)


def without(*names: str) -> Change:
    return lambda run: [(run / name).unlink() for name in names]


def all_of(*changes: Change) -> Change:
    return lambda run: [change(run) for change in changes]


HEADLINE = {"interval": {"low": 0, "high": 1}, "best_baseline": None, "gain": 0, "gain_interval": None}
UNFINISHED = without("metrics.json", "facts.json")
FOLD = {"number": 1, "train": [], "validation": [], "test": []}


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (text("metrics.json", '{"acc'), "metrics.json"),
        (text("metrics.json", ""), "metrics.json"),
        (text("metrics.json", "[1]"), "it holds a list"),
        (text("metrics.json", '{"accuracy": 0.9}'), "metrics.json"),
        (text("metrics.json", '{"a":' * 100_000), "metrics.json"),
        (merged("metrics.json", headline=HEADLINE | {"value": 7}), "less than or equal to 1"),
        (merged("metrics.json", headline=HEADLINE | {"value": "=cmd"}), "metrics.json"),
        (merged("metrics.json", cells="none"), "metrics.json"),
        (pipe("metrics.json"), "it is no file"),
        (huge("metrics.json"), "bytes, more than"),
        (without("donors.csv"), "donors.csv"),
        (text("donors.csv", "fold,donor\n1,a\n"), "it has no column"),
        (rows("donors.csv", lambda table: table.assign(model=np.nan)), "not finite"),
        (rows("donors.csv", lambda table: table.assign(label=2)), "labels"),
        (rows("donors.csv", lambda table: pd.concat([table, table])), "twice"),
        (
            rows("donors.csv", lambda t: pd.concat([t, t.assign(fold=2, label=1 - t["label"])])),
            "two labels",
        ),
        (merged("facts.json", words="rm -rf"), "facts.json"),
        (all_of(without("metrics.json"), text("failure.json", "")), "failure.json"),
        (all_of(without("metrics.json"), text("failure.json", '{"msg": 1}')), "no message"),
        (all_of(UNFINISHED, text(".hydra/overrides.yaml", "- a: [\n")), "overrides.yaml"),
        (all_of(UNFINISHED, text(".hydra/overrides.yaml", "- {a: b}\n")), "no list of words"),
        (all_of(UNFINISHED, text(".hydra/overrides.yaml", BOMB)), "aliases"),
        (all_of(UNFINISHED, text(".hydra/overrides.yaml", "- !!python/object/apply:os.abort []")), "python"),
    ],
)
def test_a_damaged_or_foreign_directory_is_a_row_of_its_own_and_the_others_stand(
    bad: Path, change: Change, told: str
) -> None:
    change(bad)
    board = compared(find_runs([bad.parent]))
    table = board.table.set_index("run")
    assert table["status"].to_dict() == {"good": "finished", "bad": "damaged"}
    assert_says(table.loc["bad", "failure"], str(bad), told)
    assert table.loc["good", "donor AUROC"] == Record(bad.parent / "good").metrics["headline"]["value"]
    assert board.n_failed == 1
    compare.main([str(bad.parent), "--out", str(bad.parent.parent / "a new folder")])
    assert "damaged" in (bad.parent.parent / "a new folder/leaderboard.html").read_text()
    with pytest.raises(SystemExit, match="nothing can be compared"):
        compare.main([str(bad)])


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (text("config.yaml", BOMB), "aliases"),
        (text("config.yaml", "task: !!python/object/apply:os.abort []"), "config.yaml"),
        (huge("config.yaml"), "bytes, more than"),
        (merged("config.yaml", evaluation={"threshold": 10**9}), "threshold"),
        (text("split.json", "{}"), "no folds"),
        (merged("split.json", folds=[FOLD | {"number": "../.."}]), "not numbered"),
        (merged("split.json", folds=[FOLD | {"test": ["nobody"]}]), "names donors"),
        (merged("split.json", folds=[FOLD | {"test": "all"}]), "no lists of donors"),
        (merged("folds/1/history.json", fold=2), "another fold"),
        (text("folds/1/predictions.parquet", "PAR1"), "predictions.parquet"),
        (rows("folds/1/predictions.parquet", lambda t: t.assign(logit=np.inf)), "not finite"),
        (rows("folds/1/predictions.parquet", lambda t: t.assign(logit="1")), "no numbers"),
        (rows("folds/1/predictions.parquet", lambda t: t.assign(donor="nobody")), "other donors"),
        (rows("folds/1/predictions.parquet", lambda t: t.drop(columns="part")), "no column part"),
        (rows("folds/1/baselines.parquet", lambda t: t.assign(depth=np.nan)), "not finite"),
    ],
)
def test_a_report_of_a_changed_directory_is_refused_and_none_is_written(
    bad: Path, change: Change, told: str
) -> None:
    change(bad)
    before = (bad / "report.html").read_bytes()
    redraw = configuration("task=report", f"run={bad}")
    assert_says(answer(tasks.run, redraw, bad / "x"), str(bad), told)
    assert (bad / "report.html").read_bytes() == before
    assert not (bad / "x").exists()


STRANGE = (None, True, -1, 3, 1e308, float("nan"), "", "=1", [], {}, [1], {"a": 1}, "../..", 10**30)


def mutated(content: Any, rng: random.Random) -> None:
    """Change one entry somewhere: remove it, or put something strange in its place."""
    places: list[tuple[Any, Any]] = []

    def walk(node: Any) -> None:
        entries = (
            node.items() if isinstance(node, dict) else enumerate(node[:6]) if isinstance(node, list) else ()
        )
        for key, inner in list(entries):
            places.append((node, key))
            walk(inner)

    walk(content)
    node, key = rng.choice(places)
    if rng.random() < 0.25:
        del node[key]
    else:
        node[key] = rng.choice(STRANGE)


@pytest.mark.parametrize("seed", range(20))
def test_any_entry_may_be_strange_and_is_refused_or_harmless(
    bad: Path, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(report, "draw", lambda run: {})
    rng = random.Random(seed)
    file = bad / rng.choice(
        ["metrics.json", "facts.json", "split.json", "folds/1/history.json", "config.yaml"]
    )
    content = yaml.safe_load(file.read_text())
    mutated(content, rng)
    file.write_text(json.dumps(content))
    board = compared(find_runs([bad.parent]))
    write_board(board, bad.parent)
    assert board.table.set_index("run")["status"]["good"] == "finished"
    with suppress(UserError):
        tasks.run(configuration("task=report", f"run={bad}"), bad / "x")
    with suppress(UserError):
        command._saved(str(bad), [])


def test_a_folder_that_is_named_like_no_fold_is_none(bad: Path) -> None:
    for name in ("²", "-1", "1.partial", "9" * 200):
        (bad / "folds" / name).symlink_to("/")
    tasks.run(configuration("task=report", f"run={bad}"), bad / "x")


def test_nothing_is_resolved_in_what_a_directory_holds(bad: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET_TOKEN", "hunter2")
    secret = "${oc.env:SECRET_TOKEN}"
    (bad / ".hydra/overrides.yaml").write_text(f"- model.name={secret}\n")
    merged("facts.json", words=[f"model.name={secret}"])(bad)
    merged("config.yaml", tracker="none", model=Record(bad).plain_config["model"] | {"name": secret})(bad)
    assert command._saved(str(bad), [f"rerun={bad}"]).model.name == secret
    write_board(compared(find_runs([bad.parent])), bad)
    tasks.run(configuration("task=report", f"run={bad}"), bad / "x")
    for name in ("leaderboard.csv", "leaderboard.html", "report.html", "metrics.json"):
        assert_says((bad / name).read_text(), secret)
        assert "hunter2" not in (bad / name).read_text()


@pytest.mark.parametrize(
    "task", [{"name": "clear_cache"}, {"name": "report", "run": "/"}, {"name": "prepare"}]
)
def test_only_training_is_repeated(bad: Path, task: dict[str, str]) -> None:
    merged("config.yaml", task=task)(bad)
    assert_says(answer(command._saved, str(bad), []), f"its task is {task['name']}")


# Sweeps


@pytest.mark.parametrize("plan", ["[]", '{"arguments": 3}', '{"arguments": [{}]}', "{", '{"a":' * 100_000])
def test_a_foreign_plan_of_a_sweep_is_one_message(tmp_path: Path, plan: str) -> None:
    (tmp_path / sweep.PLAN).write_text(plan)
    said = answer(lambda: sweep._record_command(tmp_path, ["seed=1,2"], resumed=True))
    assert_says(said, str(tmp_path / sweep.PLAN), "holds no sweep")


def test_words_of_a_foreign_sweep_are_shown_quoted(tmp_path: Path) -> None:
    (tmp_path / sweep.PLAN).write_text('{"arguments": ["seed=1,2; touch x", "$(id)"]}')
    said = answer(lambda: sweep._record_command(tmp_path, ["seed=1,2"], resumed=True))
    assert_says(said, "'seed=1,2; touch x' '$(id)'")


def test_a_sweep_does_not_begin_where_there_is_something_else(tmp_path: Path) -> None:
    (tmp_path / "0").mkdir()
    (tmp_path / "0/thesis.tex").write_text("mine")
    said = answer(lambda: sweep._record_command(tmp_path, ["seed=1,2"], resumed=False))
    assert_says(said, f"{tmp_path} holds 0")
    assert [file.name for file in tmp_path.iterdir()] == ["0"]


SPACE: dict[str, BaseDistribution] = {"fit.epochs": IntDistribution(1, 5)}
SETTINGS = SweepConfig(
    name="mlp", space={}, trials=1, hours=None, seeds=(0,), objective="loss", parallel=1, sampler="random",
    prune=False, startup=1, resume=None,
)  # fmt: skip


@pytest.mark.parametrize(
    ("fill", "told"),
    [
        (lambda study: study.ask({"+hydra.job.env_set.PATH": CategoricalDistribution(["'/x'"])}), "env_set"),
        (lambda study: study.ask({"fit.clip": CategoricalDistribution(["3 seed=${x}"])}), "fit.clip"),
        (lambda study: study.ask({"fit.epochs": IntDistribution(1, 500)}), "fit.epochs"),
        (lambda study: study.ask({**SPACE, "task.name": CategoricalDistribution(["cache"])}), "task.name"),
        (lambda study: study.enqueue_trial({"fit.epochs": 10**9}), "was not proposed"),
        (lambda study: study.enqueue_trial({"fit.epochs": 3}) or study.ask(SPACE), "was not proposed"),
    ],
)
def test_settings_in_a_study_are_those_of_the_space_or_no_word_of_a_command(
    tmp_path: Path, fill: Callable[[optuna.Study], object], told: str
) -> None:
    study = open_study(tmp_path / STUDY, 1, SETTINGS)
    study.ask(SPACE)
    check_study(study, SPACE, tmp_path / STUDY)
    fill(study)
    assert_says(answer(check_study, study, SPACE, tmp_path / STUDY), str(tmp_path / STUDY), told)


def test_a_study_that_minimises_is_none_of_ours(tmp_path: Path) -> None:
    study = optuna.create_study(storage=f"sqlite:///{tmp_path / STUDY}", study_name="fold_1")
    assert_says(answer(check_study, study, SPACE, tmp_path / STUDY), "of another kind")


@pytest.mark.parametrize("content", [b"not a database, whatever its name", b"SQLite format 3\0" + b"x" * 500])
def test_a_file_that_is_no_study_is_one_message(tmp_path: Path, content: bytes) -> None:
    (tmp_path / STUDY).write_bytes(content)
    assert_says(answer(open_study, tmp_path / STUDY, 1, SETTINGS), str(tmp_path / STUDY), "no study")
