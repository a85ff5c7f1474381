"""Whole runs from a checkpoint folder: fine-tuned, and with the backbone frozen."""

import json
import shutil
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import torch

from oligo_ad import tasks
from oligo_ad.config import Config
from oligo_ad.data import cache
from oligo_ad.data.cache import kept_array, load_cohort
from oligo_ad.models.frozen import Frozen
from oligo_ad.training.checkpoint import load_bundle
from tests.builders import (
    answer,
    assert_predicts_as_in_its_run,
    assert_says,
    atlas,
    configuration,
    scgpt_folder,
    write,
)
from tests.tasks.test_wiring import check_that_a_ruined_test_donor_changes_nothing_else

MODELS = ["scgpt", "scgpt_frozen"]
TOKENS = [f"GENE{i}" for i in range(60)]


def settings(path: Path, model: str, *overrides: str) -> Config:
    """A run from a checkpoint beside the file, which is written now unless it is there."""
    folder = path.parent / "checkpoint"
    if not folder.exists():
        scgpt_folder(folder, TOKENS)
    inner = "featurizer." if model == "scgpt_frozen" else ""
    return configuration(
        f"data.path={path}",
        f"cache.dir={path.parent / 'cache'}",
        f"model={model}",
        f"model.checkpoint={folder}",
        f"model.featurizer.{inner}max_len=25",
        "evaluation.baselines=false",
        *overrides,
    )


@pytest.fixture
def path(tmp_path: Path, without_pictures: None) -> Path:
    """An atlas; runs on it draw no pictures."""
    return write(atlas(), tmp_path)


def predictions(folder: Path) -> pd.DataFrame:
    return pd.read_parquet(folder / "cells.parquet")


@pytest.mark.parametrize("model", MODELS)
def test_a_run_says_what_was_loaded_and_how_the_genes_got_their_tokens(
    model: str, path: Path, tmp_path: Path
) -> None:
    tasks.run(settings(path, model, "metadata=on"), tmp_path / "run")
    metrics = json.loads((tmp_path / "run/metrics.json").read_text())
    page = (tmp_path / "run/report.html").read_text()
    assert_says(metrics["pretrained"]["weights"], "33 of 36 tensors", "best_model.pt", "whole backbone")
    assert_says(metrics["pretrained"]["left out"], "decoder", "mvc_decoder", "flag_encoder")
    assert metrics["panel"]["with a token"] == "60 (100.0%)"
    assert_says(page, metrics["pretrained"]["weights"], "60 (100.0%)")
    assert "RANDOM" not in page
    kernels = {"scgpt": ["flash_attention_for_cpu"], "scgpt_frozen": []}
    assert metrics["attention_kernels"] == kernels[model]


@pytest.mark.parametrize("model", MODELS)
def test_random_weights_stamp_every_output(model: str, path: Path, tmp_path: Path) -> None:
    tasks.run(settings(path, model, "model.pretrained=false"), tmp_path / "run")
    stamp = "RANDOM WEIGHTS, NOT PRETRAINED"
    metrics = json.loads((tmp_path / "run/metrics.json").read_text())
    assert metrics["verdict"].startswith(stamp)
    assert_says(metrics["pretrained"]["weights"], "RANDOM")
    assert stamp in (tmp_path / "run/report.html").read_text()
    assert set(pd.read_csv(tmp_path / "run/donors.csv")["weights"]) == {"random, not pretrained"}
    assert set(predictions(tmp_path / "run")["weights"]) == {"random, not pretrained"}


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("model", MODELS)
def test_the_same_run_gives_the_same_bits(model: str, precision: str, path: Path, tmp_path: Path) -> None:
    for name in ("first", "second"):
        tasks.run(settings(path, model, f"precision={precision}"), tmp_path / name)
    pd.testing.assert_frame_equal(*(predictions(tmp_path / n) for n in ("first", "second")), check_exact=True)
    first, second = ((tmp_path / n / "folds/1/model.safetensors").read_bytes() for n in ("first", "second"))
    assert first == second


@pytest.mark.parametrize("model", MODELS)
def test_a_ruined_test_donor_changes_no_weight_and_no_other_prediction(
    model: str, path: Path, tmp_path: Path
) -> None:
    def run(adata: ad.AnnData, name: str) -> Path:
        ours = settings(write(adata, tmp_path, f"{name}.h5ad"), model)
        tasks.run(ours, tmp_path / name)
        return tmp_path / name

    check_that_a_ruined_test_donor_changes_nothing_else(run)


@pytest.mark.parametrize("model", MODELS)
def test_a_saved_model_predicts_as_it_did_without_the_folder_it_came_from(
    model: str, path: Path, tmp_path: Path
) -> None:
    config = settings(path, model)
    tasks.run(config, tmp_path / "run")
    shutil.rmtree(tmp_path / "checkpoint")
    file = tmp_path / "run/folds/1/model.safetensors"
    assert str(tmp_path).encode() not in file.read_bytes()
    cohort = load_cohort(config.data, config.cache.path)
    assert_predicts_as_in_its_run(load_bundle(file), cohort, tmp_path / "run")


@pytest.mark.parametrize(
    "how",
    [
        ("model.adapt.lora_rank=2",),
        ("model.adapt.frozen_stages=2", "fit.layer_decay=0.8"),
        ("model.adapt.recompute=true", "model.network.attention_dropout=0.1"),
        ("model.featurizer.genes=hvg", "model.featurizer.cls_value=-2", "fit.accumulate=2"),
        ("fit.schedule._target_=oligo_ad.training.schedule.constant", "~fit.schedule.final"),
    ],
)
def test_every_way_of_fine_tuning_runs_to_its_end(how: tuple[str, ...], path: Path, tmp_path: Path) -> None:
    assert tasks.run(settings(path, "scgpt", *how), tmp_path / "run") is not None
    trained = load_bundle(tmp_path / "run/folds/1/model.safetensors")
    assert trained.pretrained is not None
    assert len(trained.pretrained.vocabulary) == 63


def test_frozen_stages_leave_the_run_as_they_came(path: Path, tmp_path: Path) -> None:
    tasks.run(settings(path, "scgpt", "model.adapt.frozen_stages=2"), tmp_path / "run")
    after = load_bundle(tmp_path / "run/folds/1/model.safetensors").classifier.network.state_dict()
    before = torch.load(tmp_path / "checkpoint/best_model.pt", weights_only=True)
    assert after["encoder.embedding.weight"].equal(before["encoder.embedding.weight"])
    assert after["transformer_encoder.layers.0.linear1.weight"].equal(
        before["transformer_encoder.layers.0.linear1.weight"]
    )
    assert not after["transformer_encoder.layers.1.linear1.weight"].equal(
        before["transformer_encoder.layers.1.linear1.weight"]
    )


@pytest.mark.slow
def test_vectors_are_computed_once_for_all_folds_and_runs(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    computed = []
    honest = Frozen._computed
    monkeypatch.setattr(Frozen, "_computed", lambda self, tokens: computed.append(1) or honest(self, tokens))
    n_donors = 15
    folds = ("split=cv", "split.folds=2")
    tasks.run(settings(path, "scgpt_frozen", *folds), tmp_path / "first")
    tasks.run(settings(path, "scgpt_frozen", *folds, "seed=3"), tmp_path / "second")
    assert len(computed) == n_donors
    tasks.run(settings(path, "scgpt_frozen", "model.featurizer.featurizer.max_len=24"), tmp_path / "third")
    assert len(computed) == 2 * n_donors
    scgpt_folder(tmp_path / "checkpoint", TOKENS, dropout=0.3)
    other = torch.load(tmp_path / "checkpoint/best_model.pt", weights_only=True)
    other["encoder.enc_norm.bias"] += 0.5
    torch.save(other, tmp_path / "checkpoint/best_model.pt")
    tasks.run(settings(path, "scgpt_frozen"), tmp_path / "fourth")
    assert len(computed) == 3 * n_donors


def test_compiling_is_refused_before_the_data_are_read(path: Path, tmp_path: Path) -> None:
    config = settings(path, "scgpt", "fit.compile=true")
    path.unlink()
    assert_says(answer(tasks.run, config, tmp_path / "run"), "fit.compile=true", "scgpt")
    assert not (tmp_path / "run").exists()


def test_an_array_in_the_cache_is_checked_described_and_cleared(tmp_path: Path) -> None:
    wanted = np.arange(12, dtype=np.float32).reshape(3, 4)
    name = "embedding-0123456789abcdef"
    np.testing.assert_array_equal(kept_array(tmp_path, name, lambda: wanted), wanted)
    np.testing.assert_array_equal(kept_array(tmp_path, name, lambda: pytest.fail("made again")), wanted)
    assert_says(cache.describe(tmp_path), "vectors of frozen networks, of 1 donors")
    file = tmp_path / f"{name}.safetensors"
    for damage in (lambda whole: whole[:-3] + b"\xff" + whole[-2:], lambda whole: whole[:20]):
        file.write_bytes(damage(file.read_bytes()))
        np.testing.assert_array_equal(kept_array(tmp_path, name, lambda: wanted), wanted)
    cache.clear(tmp_path)
    assert {left.suffix for left in tmp_path.iterdir()} <= {".lock"}
