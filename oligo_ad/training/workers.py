"""Processes that refit a run on permuted labels: each opens its contrast once, and ends with its parent."""

import gc
import logging
import multiprocessing
import os
import signal
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from functools import cache
from threading import Thread

import torch

from oligo_ad.config import Config
from oligo_ad.data.split import Fold
from oligo_ad.threads import CORES
from oligo_ad.training.refit import Refit, open_refit

THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS")

Refitted = dict[str, float] | BaseException


def default_processes(config: Config, with_model: bool) -> int:
    """One a core; one where a GPU trains the model."""
    on_gpu = torch.cuda.is_available() or torch.backends.mps.is_available()
    return 1 if with_model and config.device != "cpu" and on_gpu else CORES


def refitted(
    config: Config, folds: list[Fold], with_model: bool, numbers: list[int], n_processes: int
) -> Iterator[tuple[int, Refitted]]:
    """Permutations in the order in which they are done: AUROC by predictor, or why there is none.

    One that fails does not stop the others. Where a process is killed, those that were not done fail.
    """
    context = multiprocessing.get_context("spawn")
    given = (config, folds, with_model)
    with (
        _threads(max(CORES // n_processes, 1)),
        ProcessPoolExecutor(n_processes, context, _start, given) as pool,
        _ended_with_the_block(),
    ):
        waiting = {}
        for number in numbers:
            try:
                waiting[pool.submit(_refit, number)] = number
            except BrokenProcessPool as error:  # a process was killed before all were handed out
                yield number, error
        for future in as_completed(waiting):
            yield waiting[future], future.exception() or future.result()


@contextmanager
def _ended_with_the_block() -> Iterator[None]:
    """End the processes that are started in a block when it is left early, whatever they are doing.

    A pool would wait for what they have begun, which may take an hour.
    """
    before = set(multiprocessing.active_children())
    try:
        yield
    except BaseException:
        for process in set(multiprocessing.active_children()) - before:
            process.kill()
        raise


@contextmanager
def _threads(n: int) -> Iterator[None]:
    """The number of threads that a new process uses."""
    before = {name: os.environ.get(name) for name in THREADS}
    os.environ.update(dict.fromkeys(THREADS, str(n)))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


# In a process that refits

_given: list[tuple[Config, list[Fold], bool]] = []


def _start(config: Config, folds: list[Fold], with_model: bool) -> None:
    logging.disable(logging.WARNING)  # what is to be told, the first process has told
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the first process ends the others
    Thread(target=_end_with_parent, daemon=True).start()
    _given.append((config, folds, with_model))


def _end_with_parent() -> None:
    """A process whose parent was killed would wait for work for ever, and keep its memory."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


@cache
def _refit_of_run() -> Refit:
    opened = open_refit(*_given[0])
    # Memory is freed after each fold: looking through all that was imported takes longer than a small model.
    gc.freeze()
    return opened


def _refit(number: int) -> dict[str, float]:
    return _refit_of_run().auroc(number)
