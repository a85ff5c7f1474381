"""Versions, commit, machine and threads: results depend on them besides data and configuration."""

import os
import platform
import shutil
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
    program = trusted_program("git")
    source = Path(__file__).resolve()
    # Such as GIT_DIR, which a hook sets, and by which git would name a commit of another repository.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}

    def git(*words: str) -> str:
        answer = subprocess.run(
            [str(program), "-c", "core.fsmonitor=false", *words],
            cwd=source.parent, env=environment, capture_output=True, text=True, encoding="utf-8",
            errors="replace", check=True, timeout=60,
        )  # fmt: skip
        return answer.stdout.strip()

    try:
        if program is None:
            return "unknown: no git"
        git("ls-files", "--error-unmatch", source.name)  # not installed inside another repository
        return git("rev-parse", "--short", "HEAD") + ("+" if git("status", "--porcelain", "-uno") else "")
    except (OSError, subprocess.SubprocessError):
        return "not a git checkout"


def trusted_program(name: str) -> str | None:
    """The path of a program, not looked up in the current directory nor below it, where a file could lie."""
    here = Path.cwd()
    entries = [Path(entry) for entry in os.environ.get("PATH", "").split(os.pathsep) if entry]
    kept = [
        str(entry)
        for entry in entries
        if entry.is_absolute() and not (here != Path(here.anchor) and entry.resolve().is_relative_to(here))
    ]
    return shutil.which(name, path=os.pathsep.join([*kept, *os.defpath.strip(os.pathsep).split(os.pathsep)]))
