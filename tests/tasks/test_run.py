"""Whole runs: what they leave behind, that they repeat to the last bit, and in two processes."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from oligo_ad import tasks
from oligo_ad.config import Config
from oligo_ad.data.cache import load_cohort
from oligo_ad.errors import UserError
from oligo_ad.record import Record
from oligo_ad.tasks import train
from oligo_ad.training import fold_model, members
from oligo_ad.training.checkpoint import load_bundle
from oligo_ad.training.fit import Fitted
from tests.builders import CONF, assert_predicts_as_in_its_run, atlas, configuration, write

TRANSFORMER = (
    "model=transformer",
    "model.network.width=16",
    "model.network.heads=2",
    "model.network.layers=2",
    "model.network.feedforward=16",
)


@pytest.fixture
def path(tmp_path: Path, without_pictures: None) -> Path:
    """An atlas; runs on it draw no pictures."""
    return write(atlas(), tmp_path)


def settings(path: Path, *overrides: str) -> Config:
    return configuration(f"data.path={path}", f"cache.dir={path.parent / 'cache'}", *overrides)


def predictions(folder: Path) -> pd.DataFrame:
    return pd.read_parquet(folder / "cells.parquet")


@pytest.mark.slow
def test_a_simulated_run_leaves_every_file_and_each_says_so(tmp_path: Path) -> None:
    config = configuration(
        "data=demo",
        "data.simulation.nuclei=2500",
        "data.simulation.genes=300",
        "split=cv",
        "split.folds=2",
        "metadata=on",
        "tracker=tensorboard",
        f"cache.dir={tmp_path / 'cache'}",
    )
    headline = tasks.run(config, tmp_path / "run")
    left = {file.name for file in (tmp_path / "run").iterdir()}
    files = {"metrics.json", "donors.csv", "cells.parquet", "split.json", "config.yaml", "report.html"}
    assert files | {"facts.json", "folds", "tensorboard"} <= left
    for fold in ("1", "2"):
        assert {file.name for file in (tmp_path / "run/folds" / fold).iterdir()} == {
            "history.json",
            "predictions.parquet",
            "baselines.parquet",
            "matched.parquet",
            "model.safetensors",
        }
    metrics = json.loads((tmp_path / "run/metrics.json").read_text())
    assert metrics["headline"]["value"] == headline
    assert metrics["simulated"] is True
    assert metrics["verdict"].startswith("SIMULATED")
    assert "SIMULATED" in (tmp_path / "run/report.html").read_text()
    assert pd.read_csv(tmp_path / "run/donors.csv")["simulated"].all()
    assert predictions(tmp_path / "run")["simulated"].all()


def test_every_score_comes_with_its_interval_and_its_baselines(path: Path, tmp_path: Path) -> None:
    tasks.run(settings(path), tmp_path / "run")
    metrics = json.loads((tmp_path / "run/metrics.json").read_text())
    for level in ("donors", "cells"):
        rivals = {"majority", "depth", "covariates", "pseudobulk", "pls", "axes", "covariates+pseudobulk"}
        assert {"model", *rivals, "stack", "ensemble"} == set(metrics[level])
        for scores in metrics[level].values():
            assert scores["auroc"]["low"] <= scores["mean_over_folds"]["auroc"] <= scores["auroc"]["high"]
    assert metrics["training"]["donors"]["auroc"] >= 0
    assert metrics["cohort"]["donors_per_class"] == [6, 9]
    assert metrics["environment"]["torch threads"] == str(torch.get_num_threads())


@pytest.mark.parametrize("model", [("model=mlp",), TRANSFORMER], ids=["mlp", "transformer"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_same_run_gives_the_same_bits(
    path: Path, tmp_path: Path, model: tuple[str, ...], precision: str
) -> None:
    fast = (*model, f"precision={precision}", "metadata=on", "evaluation.baselines=false")
    for name in ("first", "second"):
        tasks.run(settings(path, *fast), tmp_path / name)
    pd.testing.assert_frame_equal(*(predictions(tmp_path / n) for n in ("first", "second")), check_exact=True)
    first, second = ((tmp_path / n / "folds/1/model.safetensors").read_bytes() for n in ("first", "second"))
    assert first == second


def test_attention_is_named_by_the_kernel_that_ran(path: Path, tmp_path: Path) -> None:
    tasks.run(settings(path, *TRANSFORMER), tmp_path / "run")
    metrics = json.loads((tmp_path / "run/metrics.json").read_text())
    assert metrics["attention_kernels"] == ["flash_attention_for_cpu"]


@pytest.mark.parametrize(
    "how",
    [
        ("pool=each",),
        ("pool=mean",),
        ("pool=attention",),
        ("fit.members=2",),
        ("model=donor", "fit.members=2", "fit.batch_size=8"),
    ],
    ids=lambda how: how[0],
)
def test_a_saved_model_predicts_as_it_did_in_its_run(
    how: tuple[str, ...], path: Path, tmp_path: Path
) -> None:
    config = settings(path, "metadata=on", "metadata.columns=[age,sex]", "fit.bag_size=5", *how)
    tasks.run(config, tmp_path / "run")
    bundle = load_bundle(tmp_path / "run/folds/1/model.safetensors")
    cohort = load_cohort(config.data, Path(config.cache.dir))
    assert_predicts_as_in_its_run(bundle, cohort, tmp_path / "run")


def test_a_saved_model_holds_what_prediction_needs_and_no_path(path: Path, tmp_path: Path) -> None:
    config = settings(path, "metadata=on", "metadata.columns=[age,sex]", "evaluation.threshold=validation")
    tasks.run(config, tmp_path / "run")
    file = tmp_path / "run/folds/1/model.safetensors"
    bundle, history = load_bundle(file), Record(tmp_path / "run").folds[0].history
    assert bundle.usage.classes == ("Not AD", "High")
    assert bundle.usage.threshold == history.threshold != 0.5
    assert (bundle.usage.donor_score, bundle.usage.calibration) == ("mean", None)
    assert bundle.covariates == ("age", "sex")
    assert bundle.genes["name"].tolist() == bundle.genes["symbol"].tolist() == history.genes
    content = file.read_bytes()
    assert str(tmp_path).encode() not in content
    assert str(CONF.parent).encode() not in content


def test_a_loss_that_is_not_finite_stops_the_run_with_its_step(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []

    def break_at_fourth_step(self: nn.Module, inputs: Tensor) -> Tensor:
        calls.append(1)
        out = nn.functional.linear(inputs, self.weight, self.bias)
        return out * torch.nan if len(calls) == 4 else out

    monkeypatch.setattr(fold_model, "attention_kernels", lambda *_: [])
    monkeypatch.setattr("oligo_ad.models.classifier.nn.Linear.forward", break_at_fourth_step)
    config = settings(path, "model.network.hidden=[]", "fit.log_every=1")
    with pytest.raises(UserError, match="the loss became nan at optimizer step 4"):
        tasks.run(config, tmp_path / "run")
    assert not (tmp_path / "run/metrics.json").exists()


def test_the_learning_rate_follows_the_optimizer_step_whatever_is_accumulated(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rates = []
    original = members.fit

    def spy(*arguments: object) -> Fitted:
        fitted = original(*arguments)  # type: ignore[arg-type]
        rates.append([epoch.learning_rate for epoch in fitted.history])
        return fitted

    monkeypatch.setattr(members, "fit", spy)
    for name, words in (
        ("whole", ["fit.batch_size=16"]),
        ("parts", ["fit.batch_size=8", "fit.accumulate=2"]),
    ):
        config = settings(path, *words, "fit.epochs=3", "fit.patience=3", "evaluation.baselines=false")
        tasks.run(config, tmp_path / name)
    assert rates[0] == pytest.approx(rates[1])
    assert rates[0][-1] < rates[0][0]


def test_prepare_makes_the_cohort_that_a_run_then_finds_and_trains_nothing(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def trains(*_: object) -> None:
        pytest.fail("it trains")

    monkeypatch.setattr(train, "train_fold", trains)
    assert tasks.run(settings(path, "task=prepare"), tmp_path / "run") is None
    assert not (tmp_path / "run").exists()
    monkeypatch.setattr("oligo_ad.data.cache.build", lambda *_: pytest.fail("it builds again"))
    assert len(load_cohort(settings(path).data, tmp_path / "cache").cells) == 180


def test_a_mistake_in_the_data_is_told_by_prepare(path: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="quality control"):
        tasks.run(settings(path, "task=prepare", "data.min_nuclei=500"), tmp_path / "run")


def test_the_cache_is_shown_and_cleared_without_any_data(
    path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tasks.run(settings(path, "task=prepare"), tmp_path / "run")
    path.unlink()
    capsys.readouterr()
    assert tasks.run(settings(path, "task=cache"), tmp_path / "run") is None
    shown = capsys.readouterr().out
    assert f"cache.dir={tmp_path / 'cache'}" in shown
    assert "180 nuclei x 60 genes of atlas.h5ad" in shown
    assert tasks.run(settings(path, "task=clear_cache"), tmp_path / "run") is None
    assert f"removed from {tmp_path / 'cache'}" in capsys.readouterr().out
    assert {left.suffix for left in (tmp_path / "cache").iterdir()} <= {".lock"}
    tasks.run(settings(path, "task=cache"), tmp_path / "run")
    assert "nuclei x" not in capsys.readouterr().out
    assert not (tmp_path / "run").exists()


def run_in_one_and_in_two_processes(path: Path, tmp_path: Path, *overrides: str) -> None:
    words = [
        "data=sea_ad", f"data.path={path}", "data.min_genes=1", "data.min_nuclei=2", "device=cpu",
        "fit.batch_size=16", "model.featurizer.n_genes=30", "model.network.dropout=0",
        *overrides,
    ]  # fmt: skip
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    several = ["-m", "torch.distributed.run", "--nproc_per_node", "2", "--master_port", port]
    for name, start in (("one", []), ("two", several)):
        subprocess.run(
            [sys.executable, *start, "run.py", *words, f"hydra.run.dir={tmp_path / name}"],
            cwd=CONF.parent,
            env=os.environ | {"OLIGO_AD_CACHE": str(tmp_path / "cache"), "OMP_NUM_THREADS": "1"},
            check=True,
            timeout=300,
        )
    assert {file.name for file in tmp_path.iterdir() if file.is_dir()} == {"cache", "one", "two"}


@pytest.mark.slow
def test_forty_steps_in_two_processes_leave_the_weights_of_one(tmp_path: Path) -> None:
    path = write(atlas(nuclei=150, genes=60, effect=0.5), tmp_path)
    run_in_one_and_in_two_processes(
        path, tmp_path, *TRANSFORMER, "fit.epochs=1", "evaluation.baselines=false"
    )
    one, two = (load_file(tmp_path / name / "folds/1/model.safetensors") for name in ("one", "two"))
    called = json.loads((tmp_path / "one" / "metrics.json").read_text())["training"]["cells"]
    outcomes = ("true_positive", "false_positive", "true_negative", "false_negative")
    assert sum(called[outcome] for outcome in outcomes) // 16 >= 40
    for name, weight in one.items():
        difference = (two[name] - weight).abs()
        if name.endswith("in_proj_bias"):
            # A bias of all keys changes no softmax: its gradient is rounding, which AdamW makes a step of.
            difference[16:32] = 0
        assert difference.max() <= 1e-6, name
    pd.testing.assert_series_equal(
        predictions(tmp_path / "two")["model"], predictions(tmp_path / "one")["model"], atol=1e-5
    )


@pytest.mark.slow
@pytest.mark.parametrize("how", [(), ("model.adapt.recompute=true", "model.adapt.lora_rank=2")])
def test_two_processes_make_one_run_with_the_result_of_one(
    how: tuple[str, ...], path: Path, tmp_path: Path
) -> None:
    run_in_one_and_in_two_processes(path, tmp_path, "fit.epochs=2", *how)
    one, two = predictions(tmp_path / "one"), predictions(tmp_path / "two")
    assert one["barcode"].tolist() == two["barcode"].tolist()
    np.testing.assert_allclose(one["model"], two["model"], atol=1e-4)
    scores = [
        json.loads((tmp_path / n / "metrics.json").read_text())["headline"]["value"] for n in ("one", "two")
    ]
    assert scores[0] == pytest.approx(scores[1], abs=1e-6)
