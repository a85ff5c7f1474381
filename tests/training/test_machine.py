"""The machine: what options ask of PyTorch and Accelerate; what it cannot do is refused at the start."""

import importlib.util
import os
import random
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate import Accelerator

from oligo_ad.training.machine import flat, make_accelerator, seed_everything
from tests.builders import answer, assert_says, configuration


@pytest.fixture(autouse=True)
def restored(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """PyTorch as it was before."""
    precision = torch.get_float32_matmul_precision()
    algorithms = torch.are_deterministic_algorithms_enabled()
    warns = torch.is_deterministic_algorithms_warn_only_enabled()
    benchmark = torch.backends.cudnn.benchmark
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", "")
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG")
    yield
    torch.set_float32_matmul_precision(precision)
    torch.use_deterministic_algorithms(algorithms, warn_only=warns)
    torch.backends.cudnn.benchmark = benchmark


def test_determinism_is_asked_of_pytorch_and_of_cublas(tmp_path: Path) -> None:
    torch.backends.cudnn.benchmark = True
    make_accelerator(configuration("deterministic=true"), tmp_path)
    assert torch.are_deterministic_algorithms_enabled()
    assert torch.is_deterministic_algorithms_warn_only_enabled()
    assert not torch.backends.cudnn.benchmark
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"


def test_a_run_that_is_not_deterministic_does_not_inherit_it_from_the_one_before(tmp_path: Path) -> None:
    torch.use_deterministic_algorithms(True)
    make_accelerator(configuration("deterministic=false"), tmp_path)
    assert not torch.are_deterministic_algorithms_enabled()
    assert "CUBLAS_WORKSPACE_CONFIG" not in os.environ


def test_what_the_user_has_set_for_cublas_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":16:8")
    make_accelerator(configuration("deterministic=true"), tmp_path)
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":16:8"


@pytest.mark.parametrize("before", ["highest", "high"])
@pytest.mark.parametrize(("tf32", "wanted"), [("true", "high"), ("false", "highest")])
def test_tf32_decides_the_precision_of_products_whatever_it_was(
    tmp_path: Path, before: str, tf32: str, wanted: str
) -> None:
    torch.set_float32_matmul_precision(before)
    make_accelerator(configuration(f"precision.tf32={tf32}"), tmp_path)
    assert torch.get_float32_matmul_precision() == wanted


@pytest.mark.parametrize(("name", "wanted"), [("fp32", torch.float32), ("bf16", torch.bfloat16)])
def test_the_precision_is_that_of_the_products_in_a_forward_pass(
    tmp_path: Path, name: str, wanted: torch.dtype
) -> None:
    accelerator, _ = make_accelerator(configuration(f"precision={name}", "device=cpu"), tmp_path)
    with accelerator.autocast():
        assert torch.nn.functional.linear(torch.ones(2, 3), torch.ones(4, 3)).dtype == wanted


def test_the_precision_of_a_run_is_not_that_of_the_one_before(tmp_path: Path) -> None:
    for name, wanted in (("bf16", "bf16"), ("fp32", "no"), ("bf16", "bf16")):
        accelerator, _ = make_accelerator(configuration(f"precision={name}", "device=cpu"), tmp_path)
        assert accelerator.mixed_precision == wanted


def test_half_precision_is_refused_wherever_the_run_would_be_on_a_cpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    for device in ("auto", "cpu"):
        config = configuration("precision=fp16", f"device={device}")
        assert_says(
            answer(make_accelerator, config, tmp_path), "precision=fp16 needs a GPU", "precision=bf16"
        )


def test_bfloat16_is_refused_by_a_gpu_that_has_none_and_by_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: False)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "Tesla V100")
    message = answer(make_accelerator, configuration("precision=bf16"), tmp_path)
    assert_says(message, "precision=bf16", "Tesla V100", "fp16 or fp32")


@pytest.mark.parametrize("tracker", ["wandb", "mlflow"])
def test_a_tracker_that_is_not_installed_is_refused_with_what_to_type(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tracker: str
) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *given: None if name == tracker else find(name, *given)
    )
    message = answer(make_accelerator, configuration(f"tracker={tracker}"), tmp_path / "run")
    assert_says(message, f"tracker={tracker}", f"pip install {tracker}", "tracker=tensorboard")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("tracker", "wanted"), [("none", []), ("tensorboard", ["tensorboard"])])
def test_the_tracker_is_the_one_asked_for(tmp_path: Path, tracker: str, wanted: list[str]) -> None:
    accelerator, folder = make_accelerator(configuration(f"tracker={tracker}"), tmp_path)
    assert [str(kind) for kind in accelerator.log_with] == wanted
    assert folder == tmp_path


def test_a_batch_that_processes_cannot_share_evenly_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Accelerator, "num_processes", 3)
    message = answer(make_accelerator, configuration("fit.batch_size=16"), tmp_path)
    assert_says(message, "fit.batch_size=16", "3 processes")
    make_accelerator(configuration("fit.batch_size=18"), tmp_path)


def draws(seed: int, fold: int) -> tuple[float, float, float]:
    """What Python, NumPy and PyTorch draw first."""
    seed_everything(seed, fold)
    of_numpy = float(np.random.random())  # noqa: NPY002 the global generator is what is seeded
    return random.random(), of_numpy, float(torch.rand(()))


def test_every_fold_and_seed_has_draws_of_its_own_in_every_library_and_repeats_them() -> None:
    kinds = [(0, 1), (0, 2), (1, 1), (1, 2)]
    found = [draws(*kind) for kind in kinds]
    for library in zip(*found, strict=True):
        assert len(set(library)) == len(kinds)
    assert [draws(*kind) for kind in kinds] == found


def test_the_largest_seed_that_is_legal_is_one_that_works() -> None:
    draws(configuration(f"seed={2**31 - 1}").seed, 1)


def test_settings_are_told_to_a_tracker_by_their_names_on_the_command_line() -> None:
    told = flat({"fit": {"epochs": 3, "clip": None, "deep": {"lr": 0.5}}, "on": True, "names": (1, 2)})
    assert told == {"fit.epochs": 3, "fit.clip": "None", "fit.deep.lr": 0.5, "on": True, "names": "(1, 2)"}
