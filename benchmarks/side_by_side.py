"""Times variants of one job, each in its own process, in turns: a busy machine then slows all alike.

A benchmark is a script that calls `main` with its variants. The parent starts the script once for each
variant and round; the child sets up, runs the job once, and prints time and memory.
"""

import argparse
import json
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import date
from typing import Any, NamedTuple

import numpy as np


class Job(NamedTuple):
    """A job that is set up: `run` is timed; `check` turns its result into text that must agree."""

    run: Callable[[], Any]
    check: Callable[[Any], str] | None = None


class Measured(NamedTuple):
    """One run: wall seconds, MB of memory at the peak beyond what imports take, and what came out."""

    seconds: float
    peak: float
    result: str  # empty where there is nothing to compare


def main(variants: dict[str, Callable[[argparse.Namespace], Job]], parser: argparse.ArgumentParser) -> None:
    """Measure every variant and print a table; the first variant is the reference."""
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", nargs="+", choices=variants, help="some of the variants")
    parser.add_argument("--child", choices=variants, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print(json.dumps(_measure(variants[options.child], options)))
        return
    names = options.only or list(variants)
    rounds = [[_in_a_process(name) for name in names] for _ in range(options.rounds)]
    print(_table(names, rounds))


def _measure(make: Callable[[argparse.Namespace], Job], options: argparse.Namespace) -> Measured:
    before = _peak()
    job = make(options)
    started = time.perf_counter()
    result = job.run()
    seconds = time.perf_counter() - started
    return Measured(seconds, _peak() - before, job.check(result) if job.check else "")


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3


def _in_a_process(name: str) -> Measured:
    words = [sys.executable, *sys.argv, "--child", name]
    answer = subprocess.run(words, capture_output=True, text=True, check=False)
    if answer.returncode:
        sys.exit(f"{name} failed:\n{answer.stderr[-2000:]}")
    measured = Measured(*json.loads(answer.stdout.splitlines()[-1]))
    print(f"{name}: {measured.seconds:.3g} s, {measured.peak:.0f} MB", file=sys.stderr)
    return measured


def _table(names: list[str], rounds: list[list[Measured]]) -> str:
    reference = names[0]
    lines = [
        f"{date.today()}, {platform.processor() or platform.machine()}, {len(rounds)} rounds in turns",
        f"| variant | s, median (least to most) | times faster than {reference}, median of rounds "
        "| MB at the peak | same result |",
        "|---|---|---|---|---|",
    ]
    for place, name in enumerate(names):
        runs = [measured[place] for measured in rounds]
        seconds = [run.seconds for run in runs]
        ratio = statistics.median(measured[0].seconds / measured[place].seconds for measured in rounds)
        results = {run.result for run in runs}
        same = "" if results == {""} else "yes" if results == {rounds[0][0].result} else "NO"
        lines.append(
            f"| {name} | {statistics.median(seconds):.3g} ({min(seconds):.3g} to {max(seconds):.3g}) "
            f"| {ratio:.1f} | {np.median([run.peak for run in runs]):.0f} | {same} |"
        )
    return "\n".join(lines)
