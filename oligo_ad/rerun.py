"""`rerun=RUN`: the configuration of an earlier run, for the same data and nothing but training."""

import logging
from dataclasses import replace
from pathlib import Path

from oligo_ad.config import Config, ValidateTask, read_plain
from oligo_ad.data.cache import fingerprint, simulated_path
from oligo_ad.errors import UserError
from oligo_ad.facts import Source
from oligo_ad.record import FACTS, SPLIT, Record
from oligo_ad.tasks import TRAINING
from oligo_ad.words import command_of, word

log = logging.getLogger(__name__)


def settings_of(run: str, data_path: str | None = None, field: str = "rerun") -> Config:
    """The whole configuration of an earlier run.

    Args:
        run: its directory, perhaps another person's: its configuration is plain text, and is checked.
        data_path: where its data file is now, if that has moved.
        field: by which the user has named the run.

    Raises:
        UserError: there is no such run, or it was made of files that are not there any more.
    """
    record, named = Record(Path(run).expanduser()), f"{field}={run}"
    try:
        saved = record.plain_config
    except UserError as error:
        raise UserError(f"{named} names no finished run: {error}") from None
    try:
        settings = read_plain(saved)
    except UserError as error:
        file = record.folder / "config.yaml"
        raise UserError(f"{named}: {file} was written by another version of oligo_ad.\n{error}") from None
    if settings.task.name not in TRAINING:
        raise UserError(
            f"{named}: its task is {settings.task.name}, and {' or '.join(TRAINING)} is repeated."
        )
    if isinstance(settings.task, ValidateTask):
        # The study of a search already has the trial's result, and may no longer exist.
        settings = replace(settings, task=replace(settings.task, study=None, trial=None))
    elif settings.split.file:
        own = (record.folder / SPLIT).absolute()
        settings = replace(settings, split=replace(settings.split, file=str(own)))
    return _of_same_files(named, record, settings, data_path)


def _of_same_files(named: str, record: Record, settings: Config, data_path: str | None) -> Config:
    """The same configuration, after a look at what the run was made of."""
    sources = record.facts.sources if (record.folder / FACTS).exists() else {}
    if settings.data.simulation is None:
        path = _same(named, record, sources.get("data"), "data.path", data_path or settings.data.path)
        settings = replace(settings, data=replace(settings.data, path=path))
    elif data := sources.get("data"):
        now = simulated_path(settings.data.simulation, settings.cache.path).stem
        _check_same(now, data, _another(named, record, "the simulated atlas", "data.path", ""))
    if settings.model.checkpoint:
        path = _same(named, record, sources.get("checkpoint"), "model.checkpoint", settings.model.checkpoint)
        settings = replace(settings, model=replace(settings.model, checkpoint=path))
    return settings


def _same(named: str, record: Record, source: Source | None, field: str, given: str | None) -> str | None:
    """Where a file of the run is, with the content it had."""
    if source is None:
        log.warning("%s has not recorded the content of %s=%s: it is not checked", named, field, given)
        return given
    path = Path(given or source.path).expanduser()
    if not path.is_absolute():  # of an earlier version, which kept it as it was typed
        path = Path(source.path)
    if not path.exists():
        moved = "" if field != "data.path" else f" Where it has moved, add {word(field, 'FILE')}."
        raise UserError(f"{named} was made of {path}, which is not there.{moved}")
    _check_same(fingerprint(path), source, _another(named, record, str(path), field, str(path)))
    return str(path)


def _check_same(now: str, source: Source, message: str) -> None:
    if now != source.fingerprint:
        raise UserError(message)


def _another(named: str, record: Record, what: str, field: str, path: str) -> str:
    others = [own for own in record.words if not own.startswith(f"{field}=")]
    given = [word(field, path)] if path else []
    repeats = any(own.startswith("rerun=") for own in others)
    command = (
        f"the words of the first run{' and '.join(['', *given])}" if repeats else command_of(others + given)
    )
    return (
        f"{named} gives the same numbers from the same files, and {what} is another than that run was "
        f"made of: its content differs. For a new run on what it holds now, type: {command}"
    )
