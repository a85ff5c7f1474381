"""Does the suite notice a bug? Each mutant is a realistic one, seeded alone into a copy of the source.

    python benchmarks/mutants.py              all: about an hour on one core
    python benchmarks/mutants.py -j 2 gain    those whose name, source or tests contain "gain", two at a time
    python benchmarks/mutants.py --list       their names

The mutants are in mutants/*.toml: the bug in words, the file, its text before and after, and the tests that
ought to fail. These must pass without a mutant, and fail with it; the exit code is 1 if one survives.

Tests run in a process for each mutant, forked from one that has imported PyTorch and the rest, but nothing of
this project.
"""

import argparse
import contextlib
import multiprocessing
import os
import shutil
import signal
import sys
import tempfile
import time
import tomllib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from queue import Queue
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parent.parent
SLOWEST = 180  # seconds after which tests hang
PARTS = ("benchmarks", "conf", "docs", "hydra_plugins", "oligo_ad", "tests", "pyproject.toml", "run.py")
IMPORTED = (
    "accelerate", "anndata", "filelock", "h5py", "hydra", "hypothesis", "jinja2", "matplotlib.figure",
    "numba", "optuna", "pyarrow.parquet", "pydantic", "pytest", "scanpy", "sklearn.linear_model", "torch",
)  # fmt: skip


class Mutant(NamedTuple):
    """A bug: `old`, which `file` holds once, becomes `new`; `tests`, files or single tests, ought to fail."""

    bug: str
    file: str
    old: str
    new: str
    tests: list[str]

    def seeded(self, text: str) -> str:
        """The text with the bug in it."""
        if (n := text.count(self.old)) != 1:
            sys.exit(f"the mutant no longer applies, {self.file} holds its text {n} times: {self.bug}")
        return text.replace(self.old, self.new)


class Outcome(NamedTuple):
    """How tests ended: `failed`, the name of the first that did; empty where all passed."""

    failed: str
    seconds: float


class Watch:
    """A plugin of pytest that keeps the name of the first test that fails."""

    failed = ""

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            self.failed = self.failed or report.nodeid.rpartition("::")[2].removeprefix("test_")


def mutants() -> Iterator[Mutant]:
    for file in sorted(Path(__file__).with_suffix("").glob("*.toml")):
        for bug, fields in tomllib.loads(file.read_text(encoding="utf-8")).items():
            yield Mutant(bug, **fields)


@contextlib.contextmanager
def copies(n: int) -> Iterator["Queue[Path]"]:
    """Copies of the source, each for one process at a time."""
    free: Queue[Path] = Queue()
    with tempfile.TemporaryDirectory(prefix="mutants") as folder:
        for number in range(n):
            copy = Path(folder) / str(number)
            for part in PARTS:
                source, target = ROOT / part, copy / part
                target.parent.mkdir(exist_ok=True)
                shutil.copytree(source, target) if source.is_dir() else shutil.copy2(source, target)
            free.put(copy)
        yield free


def work(copy: Path, tests: list[str], answer: Connection) -> None:
    """Run tests in a copy of the source; in a process of its own, and a group with what it starts."""
    os.setsid()
    os.chdir(copy)
    sys.path.insert(0, str(copy))
    with (copy / "log").open("w") as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
        os.environ |= {"OLIGO_AD_CACHE": str(copy / "cache"), "TMPDIR": str(copy)}
        tempfile.tempdir = None
        watch = Watch()
        code = pytest.main(["-x", "-q", "-n0", "-p", "no:cacheprovider", *tests], [watch])
    answer.send((int(code), watch.failed))


def outcome(copy: Path, tests: list[str], seconds: float) -> Outcome:
    """How tests end in a copy of the source, which has so many seconds."""
    context, started = multiprocessing.get_context("forkserver"), time.monotonic()
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=work, args=(copy, tests, sender))
    process.start()
    sender.close()
    code, failed = 1, "(they hang)"
    if receiver.poll(seconds):
        try:
            code, failed = receiver.recv()
        except EOFError:
            failed = "(the process died)"
        process.join(10)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.join()
    if code not in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED):
        sys.exit(f"{' '.join(tests)} cannot be run:\n{(copy / 'log').read_text()[-3000:]}")
    return Outcome(failed, time.monotonic() - started)


def tried(mutant: Mutant, free: "Queue[Path]") -> Outcome:
    """How the tests of a mutant end, with it in the source."""
    copy = free.get()
    file = copy / mutant.file
    text, times = file.read_text(encoding="utf-8"), (file.stat().st_atime_ns, file.stat().st_mtime_ns)
    file.write_text(mutant.seeded(text), encoding="utf-8")
    try:
        return outcome(copy, mutant.tests, SLOWEST)
    finally:
        file.write_text(text, encoding="utf-8")
        os.utime(file, ns=times)  # compiled loops are kept by this time
        free.put(copy)


def check(found: list[Mutant], free: "Queue[Path]") -> None:
    """Stop if a mutant does not apply, or a test fails without any."""
    for mutant in found:
        mutant.seeded((ROOT / mutant.file).read_text(encoding="utf-8"))
    copy = free.get()
    named = sorted({test for mutant in found for test in mutant.tests})
    plain = outcome(copy, named, SLOWEST * len(named))
    if plain.failed:
        sys.exit(f"without a mutant {plain.failed} fails:\n{(copy / 'log').read_text()[-3000:]}")
    print(f"without a mutant all tests pass: {plain.seconds:.0f} s", flush=True)
    free.put(copy)


def run(found: list[Mutant], n_processes: int) -> int:
    """Try mutants and print a table; returns how many survive."""
    multiprocessing.get_context("forkserver").set_forkserver_preload(list(IMPORTED))
    started, survived = time.monotonic(), 0
    with copies(n_processes) as free, ThreadPoolExecutor(n_processes) as pool:
        check(found, free)
        for mutant, ended in zip(found, pool.map(partial(tried, free=free), found), strict=True):
            survived += not ended.failed
            verdict = f"killed by {ended.failed}" if ended.failed else "SURVIVED"
            print(f"{ended.seconds:4.0f} s  {mutant.bug}  [{mutant.file}]\n        {verdict}", flush=True)
    killed, seconds = len(found) - survived, time.monotonic() - started
    print(f"{killed} killed, {survived} survived, of {len(found)} mutants, in {seconds:.0f} s")
    return survived


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("words", nargs="*", help="try only mutants that contain one of them")
    parser.add_argument("-j", type=int, default=1, help="how many at a time")
    parser.add_argument("--list", action="store_true", help="print names and try none")
    given = parser.parse_args()
    words = given.words or [""]
    chosen = [mutant for mutant in mutants() if any(word in repr(mutant) for word in words)]
    if not chosen:
        sys.exit(f"no mutant contains {' or '.join(words)}")
    if given.list:
        print("\n".join(f"{mutant.bug}  [{mutant.file}]" for mutant in chosen))
        sys.exit()
    os.environ |= {"PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1"}
    sys.exit(run(chosen, given.j) > 0)
