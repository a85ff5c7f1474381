"""Files that are whole or absent, and folders that one process at a time works in."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from oligo_ad.errors import UserError


@contextmanager
def claimed(folder: Path, message: str) -> Iterator[None]:
    """Keep a folder to this process for a while.

    Raises:
        UserError: `message`, when another process has it.
    """
    lock = FileLock(folder / ".lock", timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise UserError(message) from None
    try:
        yield
    finally:
        lock.release()


@contextmanager
def published(path: Path) -> Iterator[Path]:
    """A path to write to, which becomes `path` when all is written."""
    staging = path.with_name(f"{path.name}.partial")
    yield staging
    staging.rename(path)
