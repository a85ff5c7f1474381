"""Every mistake on the command line is answered: what is wrong, what was given, what to type instead."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from oligo_ad import tasks
from oligo_ad.components import component
from oligo_ad.data.cache import source
from oligo_ad.data.split import make_folds
from oligo_ad.errors import UserError
from oligo_ad.tasks import train
from tests.builders import CONF, answer, assert_says, configuration

# Splits


def split(positive: int, negative: int, *overrides: str) -> None:
    label = pd.Series([1] * positive + [0] * negative)
    make_folds(label.rename(lambda i: f"D{i:02d}"), configuration(*overrides).split)


def test_fewer_donors_of_a_class_than_folds_are_counted() -> None:
    message = answer(split, 9, 4, "split=cv", "split.folds=5")
    assert_says(message, "split.folds=5", "smaller class has 4", "Set split.folds=4")
    split(9, 4, "split=cv", "split.folds=4")


def test_no_number_of_folds_is_advised_where_none_will_do() -> None:
    message = answer(split, 9, 1, "split=cv", "split.folds=5")
    assert_says(message, " 1")
    assert "Set split.folds" not in message


@pytest.mark.parametrize(
    ("negative", "override", "field"),
    [
        (3, "split.seed=0", "split.validation_fraction"),
        (6, "split.test_fraction=0.01", "split.test_fraction"),
    ],
)
def test_a_part_without_both_classes_is_answered_with_what_to_change(
    negative: int, override: str, field: str
) -> None:
    message = answer(split, 9, negative, override)
    assert_says(message, f"9 positive and {negative} negative", field)


# Options


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("fit.batch_size=0", ["fit.batch_size=0", "greater than or equal to"]),
        ("fit.epochs=abc", ["fit.epochs=abc", "valid integer"]),
        ("split.kind=holdoutt", ["split.kind=holdoutt", "'holdout' or 'cv'", "Did you mean 'holdout'?"]),
        ("split.test_fraction=1.5", ["split.test_fraction=1.5", "less than 1"]),
        ("evaluation.threshold=half", ["evaluation.threshold=half", "'validation'", "valid number"]),
        ("+fit.epoch=3", ["fit.epoch=3", "Did you mean 'epochs'?"]),
        ("data.path=${nowhere}", ["data.path", "nowhere"]),
    ],
)
def test_a_wrong_option_is_named_with_what_it_takes(override: str, words: list[str]) -> None:
    assert_says(answer(configuration, override), *words)


@pytest.mark.parametrize(
    ("override", "field"),
    [
        ("fit.batch_size=1", "fit.batch_size"),
        ("fit.optimizer.lr=-1", "fit.optimizer"),
        ("model.network.dropout=7", "model.network.dropout"),
        ("model.featurizer.n_genes=0", "model.featurizer.n_genes"),
    ],
)
def test_an_impossible_number_is_refused_before_any_data_are_read(
    tmp_path: Path, override: str, field: str
) -> None:
    message = answer(lambda: tasks.run(configuration(override, "data.path=not-reached.h5ad"), tmp_path))
    assert_says(message, field, override.partition("=")[2])


def test_half_precision_on_a_cpu_is_refused(tmp_path: Path) -> None:
    config = configuration("precision=fp16", "device=cpu", "data.path=not-reached.h5ad")
    assert_says(answer(tasks.run, config, tmp_path), "precision=fp16 needs a GPU", "bf16 or fp32")


def test_a_file_beside_the_simulation_is_not_ignored(tmp_path: Path) -> None:
    small = ("data.simulation.nuclei=500", "data.simulation.genes=200")
    message = answer(source, configuration("data=demo", "data.path=mine.h5ad", *small).data, tmp_path)
    assert_says(message, "mine.h5ad", "data=demo", "data=sea_ad")


# Components


def edited(where: str, **options: object) -> Callable[..., Any]:
    """The component at `where` of the default configuration, with some entries replaced."""
    section, field = where.split(".")
    return component(getattr(getattr(configuration(), section), field) | options, where)


@pytest.mark.parametrize(
    "target", ["os.system", "torch.load", "oligo_ad.models.mlp.torch.load", "torch.optim.adamw.torch.load"]
)
def test_a_foreign_target_is_refused(target: str) -> None:
    message = answer(component, {"_target_": target}, "model.network")
    assert_says(message, "model.network._target_", target.rpartition(".")[0])
    assert "not allowed" in message or "has no" in message


def test_the_module_of_a_foreign_target_is_not_even_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "hostile.py").write_text("def run(): ...")
    monkeypatch.syspath_prepend(tmp_path)
    assert "hostile.run is not allowed" in answer(component, {"_target_": "hostile.run"}, "model.network")
    assert "hostile" not in sys.modules


@pytest.mark.parametrize("nested", [lambda node: node, lambda node: [node], lambda node: {"a": [node]}])
@pytest.mark.parametrize(("where", "option"), [("model.network", "hidden"), ("fit.optimizer", "betas")])
def test_a_target_inside_an_option_is_refused_and_never_called(
    tmp_path: Path, nested: Callable[[object], object], where: str, option: str
) -> None:
    trace = tmp_path / "called"
    node = {"_target_": "os.system", "command": f"touch {trace}"}
    message = answer(lambda: edited(where, **{option: nested(node)})())
    assert_says(message, f"{where}.{option}")
    assert not trace.exists()


def test_a_misspelt_class_is_answered_once_with_the_nearest(caplog: pytest.LogCaptureFixture) -> None:
    message = answer(component, {"_target_": "oligo_ad.models.mlp.MPL"}, "model.network")
    assert_says(message, "model.network._target_", "'MPL'", "Did you mean 'MLP'?")
    assert caplog.messages == []


@pytest.mark.parametrize(
    ("option", "value", "words"),
    [
        ("hiden", [8], ["model.network.hiden", "Did you mean 'hidden'?"]),
        ("dropout", "some", ["model.network.dropout=some", "valid number"]),
        ("hidden", ["wide"], ["model.network.hidden.0=wide", "valid integer"]),
    ],
)
def test_a_wrong_option_of_a_component_is_named(option: str, value: object, words: list[str]) -> None:
    assert_says(answer(lambda: edited("model.network", **{option: value})), *words)


def test_a_wrong_option_of_the_optimizer_is_named_as_it_was_typed() -> None:
    message = answer(lambda: edited("fit.optimizer", lr="fast"))
    assert {line.partition(": ")[0] for line in message.splitlines()} == {"fit.optimizer.lr=fast"}


# Run directories


def test_the_directory_of_a_finished_run_is_not_written_again(tmp_path: Path) -> None:
    (tmp_path / "metrics.json").write_text("{}")
    message = answer(tasks.run, configuration("data.path=not-reached.h5ad"), tmp_path)
    assert_says(message, str(tmp_path), "finished run", "hydra.run.dir")
    assert {file.name for file in tmp_path.iterdir()} <= {"metrics.json", ".lock"}
    assert (tmp_path / "metrics.json").read_text() == "{}"


def test_the_directory_of_a_run_at_work_is_refused_to_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = configuration("data.path=not-reached.h5ad")
    let_in = []

    def start_another(*_: object) -> None:
        let_in.append("a run")
        if len(let_in) == 1:
            assert_says(answer(tasks.run, config, tmp_path), str(tmp_path), "hydra.run.dir")
        raise UserError("the end of this run")

    monkeypatch.setattr(train, "open_contrast", start_another)
    assert answer(tasks.run, config, tmp_path) == "the end of this run"


# The command line


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["fit.epoch=3"], "There is no field 'fit.epoch'. Did you mean 'fit.epochs'?"),
        (
            ["model=transfomer"],
            "model is one of donor, mlp, mlp_axes, scgpt, scgpt_frozen, transformer. Did you mean "
            "'transformer'?",
        ),
        (["data=null"], "data is one of anndata, demo, sea_ad."),
        (["data.path=a=b.h5ad"], "data.path=a=b.h5ad"),
        (["data.positive=[High"], "data.positive=[High"),
        (["fit.epochs=abc"], "fit.epochs=abc: should be a valid integer"),
        (["data=sea_ad", "data.path=none.h5ad"], "there is no file none.h5ad."),
        (["hydra.run.dir=run.py/inside"], "run.py/inside"),
    ],
    ids=lambda given: " ".join(given) if isinstance(given, list) else "",
)
def test_the_command_line_answers_a_mistake_once_and_exits_with_1(
    tmp_path: Path, words: list[str], told: str
) -> None:
    ended = subprocess.run(
        [sys.executable, "run.py", f"hydra.run.dir={tmp_path}/run", *words],
        cwd=CONF.parent,
        env=os.environ | {"OLIGO_AD_CACHE": str(tmp_path / "cache")},
        capture_output=True,
        text=True,
        timeout=120,
    )
    said = ended.stdout + ended.stderr
    assert ended.returncode == 1
    assert "Traceback" not in said
    assert said.count(told) == 1
