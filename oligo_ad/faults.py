"""Faults of a disk: told as what they are, whichever library meets them."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from oligo_ad.errors import UserError

NUMBERS = frozenset(
    getattr(errno, name)
    for name in (
        *("ENOSPC", "EDQUOT", "EROFS", "EIO", "EACCES", "EPERM", "EMFILE", "ENFILE", "EFBIG"),
        *("ENAMETOOLONG", "ENODEV", "ESTALE", "ENOTCONN", "EBUSY", "ETIMEDOUT"),
    )
    if hasattr(errno, name)
)
# Of libraries that raise an exception of their own: safetensors, HDF5, SQLite.
TEXTS = (
    *("No space left on device", "Read-only file system", "Disk quota exceeded", "Input/output error"),
    *("Permission denied", "database or disk is full", "disk I/O error", "readonly database"),
)


def is_disk_fault(error: BaseException) -> bool:
    """Whether an exception, or one that led to it, is a fault of the disk or of its permissions."""
    reached: BaseException | None = error
    while reached is not None:
        if isinstance(reached, OSError) and reached.errno in NUMBERS:
            return True
        if any(text in str(reached) for text in TEXTS):
            return True
        reached = reached.__cause__ or reached.__context__
    return False


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Turn a fault of the disk while results are written into an error that the user can mend."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        if isinstance(error, OSError) or is_disk_fault(error):
            raise UserError(f"the results cannot be written to {folder}: {error}.") from error
        raise
