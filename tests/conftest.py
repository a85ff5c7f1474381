"""How the tests share the machine: one thread a process, and several processes for the whole suite."""

import os

import pytest
import torch
from hypothesis import settings

from oligo_ad.threads import CORES

# Several threads on a busy machine wait for each other, and change the last bits of sums. What the tests
# start as processes of their own reads the variable.
torch.set_num_threads(1)
os.environ.setdefault("OMP_NUM_THREADS", "1")

# A busy machine may hold any example up.
settings.register_profile("tests", deadline=None)
settings.load_profile("tests")

MOST_WORKERS = 4  # each has its own PyTorch in memory


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """A process a core for the whole suite; named files run in this process, which starts sooner."""
    if config.args_source is not pytest.Config.ArgsSource.TESTPATHS:
        return 0
    return min(MOST_WORKERS, CORES)


@pytest.fixture
def without_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs draw no pictures, which would be half of the time of a small one."""
    monkeypatch.setattr("oligo_ad.results.report.draw", lambda run: {})
