"""Compiled loops run where nothing can be written: a read-only installation and no usable home."""

import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from tests.builders import CONF

RUN = """
import numpy as np
from oligo_ad.inputs.kernels import write_rows
from oligo_ad.storage.kernels import count_wanted
one = np.zeros(1, np.int64)
print(count_wanted(one, one + 2, np.array([0, 1]), np.array([0, -1])).tolist())
dense = np.zeros((1, 2), np.float32)
write_rows(one, np.array([0, 1]), one, np.ones(1, np.float32), np.zeros(2, np.float32), dense)
print(dense.tolist())
"""


@pytest.mark.parametrize("home", ["", "/proc/none", None], ids=["empty", "unwritable", "unset"])
def test_loops_compile_without_a_place_for_their_cache(tmp_path: Path, home: str | None) -> None:
    package = CONF.parent / "oligo_ad"
    shutil.copytree(package, tmp_path / "oligo_ad", ignore=shutil.ignore_patterns("__pycache__"))
    for folder in (tmp_path / "oligo_ad/storage", tmp_path / "oligo_ad/inputs"):
        # A file where the cache would be: whoever runs the tests may write anywhere.
        (folder / "__pycache__").write_text("")
        (folder / "__pycache__").chmod(stat.S_IRUSR)
    words = {k: v for k, v in os.environ.items() if k not in ("HOME", "XDG_CACHE_HOME", "NUMBA_CACHE_DIR")}
    words |= {"PYTHONPATH": str(tmp_path), "PYTHONDONTWRITEBYTECODE": "1", "XDG_CACHE_HOME": "/proc/none"}
    words |= {} if home is None else {"HOME": home}
    done = subprocess.run(
        [sys.executable, "-c", RUN], env=words, cwd="/", capture_output=True, text=True, check=False
    )
    assert done.stdout.splitlines() == ["[0, 1]", "[[1.0, 0.0]]"], done.stderr
