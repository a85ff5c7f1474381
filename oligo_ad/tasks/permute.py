"""`task=permute run=DIR`: a finished run tested against permuted labels, each with a whole refit.

Each permutation leaves a small file in the run directory when it is done. So a test that was interrupted
goes on, one of 200 can be extended, and one of the baselines alone can have the model added.
"""

import logging
from collections import defaultdict
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from pathlib import Path

from oligo_ad.config import Config, PermuteTask
from oligo_ad.data.contrast import Contrast, open_contrast
from oligo_ad.data.permutation import labellings, movable, strata_of
from oligo_ad.data.split import read_folds
from oligo_ad.errors import UserError, listing
from oligo_ad.facts import Permutation
from oligo_ad.faults import writing
from oligo_ad.launch import world_size
from oligo_ad.progress import progress
from oligo_ad.record import SPLIT, Record, open_trained
from oligo_ad.rerun import settings_of
from oligo_ad.results.permutation import seconds_of
from oligo_ad.results.report import conclude
from oligo_ad.results.sentences import duration
from oligo_ad.storage.shelf import claimed
from oligo_ad.training.workers import default_processes, refitted
from oligo_ad.words import command_of, word

log = logging.getLogger(__name__)

FEWEST = 19  # permutations; with fewer no p can be as small as .05


def permute(config: Config, folder: Path) -> None:
    """Test the run that `config.task` names, and draw its report anew; nothing is written to `folder`.

    Raises:
        UserError: no run is named, its directory holds no trained run, its data are not there any more, or
            some permutations could not be made.
    """
    assert isinstance(config.task, PermuteTask)
    if config.task.run is None:
        raise UserError("task=permute needs the directory of a run: python run.py task=permute run=DIR")
    if config.permutations < 1:
        raise UserError("task=permute needs permutations=N, such as permutations=200.")
    record = open_trained(config.task.run)
    with claimed(record.folder, f"another process is at work in {record.folder}."), writing(record.folder):
        settings = _settings(config, config.task.run)
        contrast = _contrast_of(record, settings)
        check_permutations(record, settings, contrast)
        with_model = config.task.predictors == "all"
        missing = refit_permuted(record, settings, contrast, config.permutations, with_model)
        conclude(record, record.metrics.get("objective"))
    if missing:
        raise UserError(
            f"{len(missing)} of {config.permutations} permutations could not be made: {listing(missing, 6)}. "
            "The others are kept, and the same command tries these again."
        )


def check_permutations(record: Record, settings: Config, contrast: Contrast) -> None:
    """Find what would stop a test before anything is trained for it; say how many donors can move.

    Raises:
        UserError: other processes share the run, or its strata cannot be used.
    """
    if (size := world_size()) > 1:
        raise UserError(
            f"permutations are not divided among {size} processes of torchrun or accelerate launch. Leave "
            f"permutations out, and then: {command_of(['task=permute', word('run', record.folder)])}"
        )
    names, label = settings.evaluation.strata, contrast.labels.of_donor
    strata = strata_of(contrast.cohort.donors, label, names)
    if names:
        log.warning(
            "labels are permuted within levels of %s: %d of %d donors can get the other label, in %s ways",
            listing(names),
            movable(strata, label),
            len(label),
            f"{labellings(strata, label):,}",
        )


def refit_permuted(
    record: Record, settings: Config, contrast: Contrast, n: int, with_model: bool = True
) -> list[int]:
    """Refit a run on permuted labels until `n` permutations are recorded.

    Args:
        record: of the run.
        settings: its configuration, with the strata and the number of processes.
        contrast: its donors and folds.
        with_model: whether the model is refitted too, or its baselines only.

    Returns:
        The numbers that could not be made; the reason is logged.

    Raises:
        UserError: it was permuted within other strata, or there is nothing to refit.
    """
    if not with_model and not settings.evaluation.baselines:
        raise UserError("the run has no baselines (evaluation.baselines=false): leave task.predictors out.")
    strata = settings.evaluation.strata
    missing = _missing(record, strata, n, with_model)
    if n < FEWEST:
        log.warning("%d permutations: with fewer than %d no p can be as small as .05", n, FEWEST)
    if not missing:
        return []
    asked = settings.evaluation.parallel
    n_processes = min(default_processes(settings, with_model) if asked == "auto" else asked, len(missing))
    _announce(record, n, len(missing), n_processes, with_model)
    identity, failed = record.identity, dict[int, BaseException]()
    with progress("permuting", len(missing), "permutations") as advance:
        for number, found in refitted(settings, contrast.folds, with_model, missing, n_processes):
            if isinstance(found, BaseException):
                failed[number] = found
            else:
                record.write_permutation(Permutation(number, identity, list(strata), found))
            advance(1)
    _tell(failed)
    return sorted(failed)


def _settings(config: Config, run: str) -> Config:
    """The run's configuration, with what the command line says of the test; its strata, if no others."""
    saved = settings_of(run, config.data.path, field="run")
    if saved.task.name != "train":
        raise UserError(
            f"run={run} is a trial of a search, which scores validation donors: there is no result to test. "
            "Give the run of the chosen settings."
        )
    how = replace(
        saved.evaluation,
        strata=config.evaluation.strata or saved.evaluation.strata,
        parallel=config.evaluation.parallel,
    )
    # The cache may be of another machine.
    cache = saved.cache if saved.cache.path.is_dir() else config.cache
    return replace(saved, evaluation=how, cache=cache, permutations=config.permutations)


def _contrast_of(record: Record, settings: Config) -> Contrast:
    """The donors and folds of a run, from its file: opened here first, so that the cache is filled once."""
    contrast = open_contrast(settings.data, settings.split, settings.metadata, settings.cache.path)
    labels = {donor: of.label for donor, of in record.facts.donors.items()}
    if contrast.labels.of_donor.to_dict() != labels:
        raise UserError(
            f"run={record.folder} had other donors or labels than this version of oligo_ad finds in its "
            "file, so it cannot be tested. Train it again, with permutations=N."
        )
    return replace(contrast, folds=read_folds(record.folder / SPLIT))


def _missing(record: Record, strata: tuple[str, ...], n: int, with_model: bool) -> list[int]:
    """The numbers up to `n` that are not made; permutations of different tests are not mixed."""
    before = record.strata
    if before not in (None, strata):
        raise UserError(
            f"{record.folder} was permuted within {listing(before or ()) or 'no strata'}, not within "
            f"{listing(strata) or 'no strata'}. Remove its folder permutations to test it otherwise."
        )
    done = {one.number for one in record.permutations if not with_model or "model" in one.auroc}
    return [number for number in range(1, n + 1) if number not in done]


def _announce(record: Record, n: int, n_missing: int, n_processes: int, with_model: bool) -> None:
    seconds = seconds_of(record.histories, n_missing, n_processes)
    log.info(
        "%d permutations, of which %d are done; %d processes%s. If this is interrupted, go on by: %s",
        n,
        n - n_missing,
        n_processes,
        f", about {duration(seconds)}" if with_model else "",
        command_of(["task=permute", word("run", record.folder)]),
    )


def _tell(failed: dict[int, BaseException]) -> None:
    """Log why permutations could not be made: each reason once, with the traceback of a bug."""
    by_reason = defaultdict[str, list[int]](list)
    for number, error in sorted(failed.items()):
        by_reason[f"{type(error).__name__}: {error}"].append(number)
    for numbers in by_reason.values():
        error, which = failed[numbers[0]], f"{len(numbers)} permutations ({listing(numbers, 6)})"
        if isinstance(error, BrokenProcessPool):
            log.error(
                "a process was killed, perhaps for want of memory, so %s are not made. What was done is "
                "kept; try a smaller evaluation.parallel",
                which,
            )
        elif isinstance(error, UserError):
            log.error("%s could not be made: %s", which, error)
        else:
            log.error("%s: a bug in oligo_ad, not a mistake of yours", which, exc_info=error)
