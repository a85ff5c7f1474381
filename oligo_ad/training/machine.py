"""The machine a run trains on: processes, device, precision, determinism, trackers."""

import importlib.util
import logging
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, GradientState
from accelerate.utils import ProjectConfiguration, broadcast_object_list, set_seed

from oligo_ad.config import Config
from oligo_ad.errors import UserError
from oligo_ad.launch import is_first_process

log = logging.getLogger(__name__)

# Values of Accelerate's variables that change nothing; of these, `no` and `0` would.
ANY_NO_EFFECT = ("", "0", "no", "none", "false", "default", "info", "warning")
NO_EFFECT = {
    "ACCELERATE_GRADIENT_ACCUMULATION_STEPS": ("",),
    "ACCELERATE_MIXED_PRECISION": ("",),
    "ACCELERATE_USE_CPU": ("", "false", "0", "no"),
    "NVIDIA_TF32_OVERRIDE": ("",),
}
DETERMINISTIC_CUBLAS = (":4096:8", ":16:8")
EVENTS = "tensorboard"  # folder of TensorBoard's files in a run directory


def make_accelerator(config: Config, run_dir: Path) -> tuple[Accelerator, Path]:
    """An Accelerator for this run, and the run directory that all its processes share.

    Raises:
        UserError: the device cannot compute in that precision, the tracker is not installed, or the
            batch cannot be shared evenly by the processes.
    """
    on_cpu = config.device == "cpu" or not (torch.cuda.is_available() or torch.backends.mps.is_available())
    _check_precision(config.precision.name, on_cpu)
    if config.tracker not in ("none", "tensorboard") and not importlib.util.find_spec(config.tracker):
        raise UserError(
            f"tracker={config.tracker} is not installed: pip install {config.tracker}, "
            "or use tracker=tensorboard."
        )
    # A sweep makes many runs in one process; the state of the last must not decide this one's.
    AcceleratorState._reset_state()
    GradientState._reset_state()
    mixed = {"fp32": "no"}.get(config.precision.name, config.precision.name)
    _remove_overrides(config, mixed, on_cpu)
    if config.deterministic and os.environ.get("CUBLAS_WORKSPACE_CONFIG") not in DETERMINISTIC_CUBLAS:
        os.environ["CUBLAS_WORKSPACE_CONFIG"] = DETERMINISTIC_CUBLAS[0]
    torch.use_deterministic_algorithms(config.deterministic, warn_only=True)
    torch.backends.cudnn.benchmark = False
    torch.set_float32_matmul_precision("high" if config.precision.tf32 else "highest")
    accelerator = Accelerator(
        cpu=on_cpu,
        mixed_precision=mixed,
        gradient_accumulation_steps=config.fit.accumulate,
        log_with=None if config.tracker == "none" else config.tracker,
        project_config=ProjectConfiguration(str(run_dir), logging_dir=str(run_dir)),
    )
    if config.fit.batch_size % accelerator.num_processes:
        raise UserError(
            f"fit.batch_size={config.fit.batch_size} cannot be shared evenly by "
            f"{accelerator.num_processes} processes."
        )
    shared = broadcast_object_list([str(run_dir)])
    return accelerator, Path(shared[0])


def _remove_overrides(config: Config, mixed: str, on_cpu: bool) -> None:
    """Take from the environment what would override the configuration unsaid, and say so where it would have.

    `accelerate launch` sets such variables from its own configuration file.
    """
    ours = {
        "ACCELERATE_GRADIENT_ACCUMULATION_STEPS": str(config.fit.accumulate),
        "ACCELERATE_MIXED_PRECISION": mixed,
        "ACCELERATE_USE_CPU": str(on_cpu).lower(),
        "NVIDIA_TF32_OVERRIDE": str(int(config.precision.tf32)),
    }
    names = [name for name in os.environ if name.startswith("ACCELERATE_") or name in ours]
    values = {name: os.environ.pop(name) for name in names}
    effects = [
        f"{name}={value}"
        for name, value in values.items()
        if value.lower() != ours.get(name) and value.lower() not in NO_EFFECT.get(name, ANY_NO_EFFECT)
    ]
    if effects and is_first_process():
        log.warning(
            "%s in the environment has no effect: the configuration decides (device, precision, "
            "fit.accumulate, fit.compile)",
            ", ".join(effects),
        )


def start_tracker(accelerator: Accelerator, config: Config, folder: Path) -> None:
    """Open the tracker; TensorBoard gets the settings at the end, together with the results."""
    if config.tracker == "tensorboard":
        accelerator.init_trackers(EVENTS)
    elif config.tracker != "none":
        accelerator.init_trackers("oligo_ad", flat(asdict(config)), {"wandb": {"dir": str(folder)}})


def flat(nested: dict[str, Any], prefix: str = "") -> dict[str, str | int | float | bool]:
    """`{"a": {"b": 1}}` → `{"a.b": 1}`; whatever is neither number nor flag becomes text."""
    found: dict[str, str | int | float | bool] = {}
    for key, value in nested.items():
        if isinstance(value, dict):
            found |= flat(value, f"{prefix}{key}.")
        else:
            found[f"{prefix}{key}"] = value if isinstance(value, int | float | bool) else str(value)
    return found


def seed_everything(seed: int, fold: int) -> None:
    """One seed for Python, NumPy and PyTorch, a different one for each fold."""
    set_seed((seed * 1000 + fold) % 2**32)  # NumPy takes 32 bits


def _check_precision(name: str, on_cpu: bool) -> None:
    if name == "fp16" and on_cpu:
        raise UserError("precision=fp16 needs a GPU; on this CPU use precision=bf16 or fp32.")
    if name == "bf16" and not on_cpu and torch.cuda.is_available() and not torch.cuda.is_bf16_supported():
        raise UserError(
            f"precision=bf16 is not supported by {torch.cuda.get_device_name()}; use fp16 or fp32."
        )
