"""The directory of a run that begins: claimed before anything is written to it, and logged into."""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from shutil import rmtree

from oligo_ad.errors import UserError, listing
from oligo_ad.faults import writing
from oligo_ad.foreign import to_yaml
from oligo_ad.record import CELLS, CONFIG, DONORS, FACTS, FOLDS, OVERRIDES, REPORT, SPLIT, Record
from oligo_ad.storage.shelf import claimed, write_text

# What a run writes besides its words, by which its directory is known.
WRITTEN = (CONFIG, SPLIT, FACTS, FOLDS, DONORS, CELLS, REPORT)
LOG = "run.log"
ELSEWHERE = "Choose another hydra.run.dir, or leave it out."
FORMAT = "[%(asctime)s][%(name)s][%(levelname)s] - %(message)s"


@contextmanager
def begun(folder: Path, words: Sequence[str]) -> Iterator[None]:
    """The directory of a run that begins: no other process may work in it, and its log is kept there.

    Raises:
        UserError: another run has it, or it holds what no run has left.
    """
    made = not folder.exists()
    try:
        with _claimed(folder, words):
            yield
    except UserError:
        # A run that is refused leaves nothing behind where nothing was.
        if made and not any((folder / name).exists() for name in WRITTEN):
            rmtree(folder, ignore_errors=True)
        raise


@contextmanager
def _claimed(folder: Path, words: Sequence[str]) -> Iterator[None]:
    with claimed(folder, f"another run is at work in {folder}.", ELSEWHERE):
        record = Record(folder)
        if record.finished:
            raise UserError(f"{folder} already holds a finished run. {ELSEWHERE}")
        there = [name for name in WRITTEN if (folder / name).exists()]
        if there and not (folder / OVERRIDES).exists():
            raise UserError(f"{folder} holds {listing(there)} of something else than a run. {ELSEWHERE}")
        with _logged(folder / LOG):
            with writing(folder):
                (folder / OVERRIDES).parent.mkdir(exist_ok=True)
                write_text(folder / OVERRIDES, to_yaml(list(words)))
            yield


class _RunLog(logging.FileHandler):
    """A line that cannot be written, as on a full disk, is on the terminal all the same."""

    def emit(self, record: logging.LogRecord) -> None:
        with suppress(OSError):  # of opening the file
            super().emit(record)

    def handleError(self, record: logging.LogRecord) -> None:
        return None


@contextmanager
def _logged(file: Path) -> Iterator[None]:
    """Write what a run logs to a file too, and why it ended."""
    handler = _RunLog(file, encoding="utf-8", errors="surrogateescape", delay=True)
    handler.setFormatter(logging.Formatter(FORMAT))
    logging.getLogger().addHandler(handler)
    try:
        yield
    except BaseException as error:
        expected = isinstance(error, UserError)
        trace = None if expected else (type(error), error, error.__traceback__)
        handler.handle(logging.LogRecord(__name__, logging.ERROR, __file__, 0, str(error), (), trace))
        raise
    finally:
        logging.getLogger().removeHandler(handler)
        try:
            handler.close()
        except OSError:
            logging.getLogger(__name__).warning("%s is not complete: the disk takes no more", file)
