"""`task=permute run=DIR`: a finished run tested against permuted labels, each with a whole refit.

Permutations are divided among processes, and each leaves a small file in the run directory when it is done;
so a test that was interrupted goes on, and one of 200 can be extended.
"""

import logging
import multiprocessing
import os
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from oligo_ad.config import Config, EvaluationConfig, PermuteTask
from oligo_ad.errors import UserError, listing
from oligo_ad.facts import Permutation
from oligo_ad.launch import world_size
from oligo_ad.progress import progress
from oligo_ad.record import Record, open_run
from oligo_ad.threads import CORES
from oligo_ad.words import command_of, word

if TYPE_CHECKING:
    from oligo_ad.training.refit import Refit

log = logging.getLogger(__name__)

FEWEST = 19  # permutations; with fewer no p can be as small as .05


def permute(config: Config, folder: Path) -> None:
    """Test the run that `config.task` names, and draw its report anew; nothing is written to `folder`.

    Raises:
        UserError: no run is named, its directory holds no finished run, or its data are not there any more.
    """
    assert isinstance(config.task, PermuteTask)
    if config.task.run is None:
        raise UserError("task=permute needs the directory of a run: python run.py task=permute run=DIR")
    if config.permutations < 1:
        raise UserError("task=permute needs permutations=N, such as permutations=200.")
    from oligo_ad.faults import writing
    from oligo_ad.rerun import settings_of
    from oligo_ad.results.report import conclude
    from oligo_ad.storage.shelf import claimed

    record = open_run(config.task.run)
    settings = settings_of(config.task.run)
    with claimed(record.folder, f"another process is at work in {record.folder}."), writing(record.folder):
        with_model = config.task.predictors == "all"
        refit_permuted(record, settings, config.evaluation, config.permutations, with_model)
        conclude(record, record.metrics.get("objective"))


def refit_permuted(
    record: Record, settings: Config, how: EvaluationConfig, n: int, with_model: bool = True
) -> None:
    """Refit a run on permuted labels until `n` permutations are recorded.

    Args:
        record: of the run.
        settings: its configuration.
        how: strata, and processes that share the work.
        with_model: whether the model is refitted too, or its baselines only.

    Raises:
        UserError: it was permuted within other strata, or other processes share the run.
    """
    if (size := world_size()) > 1:
        raise UserError(
            f"permutations are not divided among {size} processes of torchrun or accelerate launch. When the "
            f"run is done, type: {command_of(['task=permute', word('run', record.folder)])}"
        )
    _check_strata(record, how.strata)
    done = {one.number for one in record.permutations if not with_model or "model" in one.auroc}
    missing = [number for number in range(1, n + 1) if number not in done]
    if n < FEWEST:
        log.warning("%d permutations: with fewer than %d no p can be as small as .05", n, FEWEST)
    if not missing:
        return
    settings = replace(settings, evaluation=replace(settings.evaluation, strata=how.strata))
    n_processes = min(_processes(settings) if how.parallel == "auto" else how.parallel, len(missing))
    log.info("%d permutations, of which %d are done; %d processes", n, n - len(missing), n_processes)
    with progress("permuting", len(missing), "permutations") as advance:
        for permutation in _refitted(settings, with_model, missing, n_processes):
            record.write_permutation(permutation)
            advance(1)


def _check_strata(record: Record, strata: tuple[str, ...]) -> None:
    """Refuse to mix permutations of different tests."""
    others = {tuple(one.strata) for one in record.permutations} - {strata}
    if others:
        raise UserError(
            f"{record.folder} was permuted within {listing(others.pop()) or 'no strata'}, not within "
            f"{listing(strata) or 'no strata'}. Remove its folder permutations to test it otherwise."
        )


def _refitted(
    settings: Config, with_model: bool, numbers: list[int], n_processes: int
) -> Iterator[Permutation]:
    """Permutations as they are done, by several processes."""
    context = multiprocessing.get_context("spawn")
    with (
        _threads(CORES // n_processes or 1),
        ProcessPoolExecutor(n_processes, context, _open, (settings, with_model)) as pool,
    ):
        waiting = [pool.submit(_refit, number) for number in numbers]
        try:
            for future in as_completed(waiting):
                yield future.result()
        except BrokenProcessPool:
            raise UserError(
                "a process that permuted was killed, perhaps for want of memory. What was done is kept: "
                "repeat the command, with a smaller evaluation.parallel."
            ) from None
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


@contextmanager
def _threads(n: int) -> Iterator[None]:
    """The number of threads that a new process uses."""
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS")
    before = {name: os.environ.get(name) for name in names}
    os.environ.update(dict.fromkeys(names, str(n)))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _processes(settings: Config) -> int:
    """One a core; one where a GPU does the work."""
    import torch

    return CORES if settings.device == "cpu" or not torch.cuda.is_available() else 1


# In a process that permutes: opened once, used for each of its permutations.
_opened: "list[Refit]" = []


def _open(settings: Config, with_model: bool) -> None:
    from oligo_ad.training.refit import open_refit

    logging.disable(logging.WARNING)
    _opened.append(open_refit(settings, with_model))


def _refit(number: int) -> Permutation:
    (refit,) = _opened
    return refit.permutation(number)
