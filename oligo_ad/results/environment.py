"""Versions, commit, machine and threads: results depend on them besides data and configuration."""

import platform
import subprocess
from importlib import metadata
from pathlib import Path

import torch

PACKAGES = (
    "torch", "accelerate", "hydra-core", "omegaconf", "anndata", "scanpy", "scikit-learn",
    "numpy", "scipy", "pandas", "h5py",
)  # fmt: skip


def environment(device: torch.device, n_processes: int) -> dict[str, str]:
    """Facts for metrics.json and the report."""
    of_gpu = torch.cuda.get_device_name(device) if device.type == "cuda" else ""
    return {
        "oligo_ad": metadata.version("oligo_ad"),
        "git commit": _commit(),
        "python": platform.python_version(),
        **{name: metadata.version(name) for name in PACKAGES},
        "device": f"{device.type} {of_gpu}".strip(),
        "processes": str(n_processes),
        # The number of threads changes the last bits of every sum.
        "torch threads": str(torch.get_num_threads()),
        "platform": platform.platform(),
    }


def _commit() -> str:
    """The commit of the source, with `+` where it has uncommitted changes."""

    def git(*words: str) -> str:
        source = Path(__file__).resolve().parent
        answer = subprocess.run(["git", *words], cwd=source, capture_output=True, text=True, check=True)
        return answer.stdout.strip()

    try:
        return git("rev-parse", "--short", "HEAD") + ("+" if git("status", "--porcelain", "-uno") else "")
    except (OSError, subprocess.CalledProcessError):
        return "not a git checkout"
