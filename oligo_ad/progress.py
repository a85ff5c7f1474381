"""Progress of long work: a bar on a terminal, a line every ten seconds in a log."""

import logging
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from tqdm import tqdm

log = logging.getLogger(__name__)

EVERY = 10.0  # seconds between lines


class Advance(Protocol):
    """Report that some more units are done, and how many bytes were read for them."""

    def __call__(self, done: int, n_bytes: int = 0) -> None: ...


@contextmanager
def progress(what: str, total: int, unit: str) -> Iterator[Advance]:
    """Show how far a piece of work is, its rate, bytes per second where known, and the time left.

    Args:
        what: the work, such as "reading X".
        total: units to do.
        unit: their name, in the plural.
    """
    started = last_line = time.monotonic()
    finished = n_read = 0
    bar = tqdm(total=total, desc=what, unit=f" {unit}", unit_scale=True, leave=False, disable=not _terminal())

    def advance(done: int, n_bytes: int = 0) -> None:
        nonlocal last_line, finished, n_read
        finished, n_read = finished + done, n_read + n_bytes
        elapsed = max(time.monotonic() - started, 1e-9)
        speed = f"{n_read / elapsed / 1e6:,.0f} MB/s" if n_read else ""
        bar.set_postfix_str(speed, refresh=False)
        bar.update(done)
        if bar.disable and started + elapsed - last_line > EVERY:
            last_line = started + elapsed
            left = elapsed * (total - finished) / finished
            done_so_far = f"{finished:,} of {total:,} {unit}, {_rate(finished / elapsed)}"
            log.info("%s: %s, %.0f s left", what, ", ".join(filter(None, (done_so_far, speed))), left)

    with bar:
        yield advance


def _rate(a_second: float) -> str:
    return f"{a_second:,.0f} a second" if a_second >= 1 else f"{60 * a_second:.2g} a minute"


def _terminal() -> bool:
    return sys.stderr.isatty()
