"""Chunks of an array that were never stored: left out because they hold the fill value only, or lost.

A reader gives the fill value for either. zarr leaves out chunks of zeros, so an absent one is damage only
where what is around it, or the kind of array, says that it cannot have been all fill.
"""

import itertools
import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

LARGEST_CHUNK = 1 << 31  # bytes; no writer makes larger ones, and one is held in memory
REACH = 16  # a run that covers a chunk covers more than this part of another in all but 1 of some 500 cases
EXPECTED = 20  # values that are not zero, in a chunk of zeros, where its neighbours are a guide


class Damaged(ValueError):
    """A stored array is not valid. The message continues a sentence that begins with its name."""


class Grid(NamedTuple):
    """Shape and chunks of a stored array, how chunk files are named, and whether it has a fill value."""

    shape: tuple[int, ...]
    chunks: tuple[int, ...]
    itemsize: int
    prefix: str
    separator: str
    has_fill: bool

    @property
    def size(self) -> tuple[int, ...]:
        """Number of chunks along each axis."""
        return tuple(-(-n // max(1, c)) for n, c in zip(self.shape, self.chunks, strict=True))

    @property
    def n_chunks(self) -> int:
        """Number of chunks in all."""
        return math.prod(self.size)

    def places(self) -> Iterator[tuple[int, ...]]:
        """The place of every chunk in the grid."""
        return itertools.product(*(range(n) for n in self.size))

    def key(self, place: tuple[int, ...]) -> str:
        """The name of the file of a chunk."""
        numbers = [*([self.prefix] if self.prefix else []), *map(str, place)]
        return self.separator.join(numbers) or "0"


def require_present(
    array: Any, grid: Grid, absent: list[tuple[int, ...]], may_be_absent: bool, may_be_constant: bool
) -> None:
    """Refuse absent chunks that cannot have been left out for holding the fill value only.

    Args:
        array: what is read.
        absent: places of its chunks that are not stored.
        may_be_absent: whether a chunk of it can hold one value throughout.
        may_be_constant: whether all of it can.

    Raises:
        Damaged: naming a chunk.
    """
    if not absent:
        return
    if not (may_be_absent and grid.has_fill):
        plausible = False
    elif len(absent) == grid.n_chunks:
        plausible = may_be_constant
    elif len(grid.shape) == 1:
        plausible = _within_runs_of_fill(array, grid, absent)
    else:
        plausible = _empty_bands(array, grid, absent)
    if not plausible:
        raise Damaged(
            f"lacks {len(absent):,} of its {grid.n_chunks:,} chunks (chunk {'.'.join(map(str, absent[0]))}): "
            "the copy is not whole. Copy it again, or write the store anew with zarr's write_empty_chunks"
        )


def _within_runs_of_fill(array: Any, grid: Grid, absent: list[tuple[int, ...]]) -> bool:
    """Whether around every absent chunk enough entries hold what it is read as.

    A run of one value that covers a whole chunk nearly always reaches well into the next ones.
    """
    size, missing = grid.chunks[0], {place[0] for place in absent}
    for first in sorted(number for number in missing if number - 1 not in missing):
        last = first
        while last + 1 in missing:
            last += 1
        start, stop = first * size, min((last + 1) * size, grid.shape[0])
        fill = array[start : start + 1][0]
        before = array[max(0, start - size) : start][::-1] != fill
        after = array[stop : stop + size] != fill
        runs = [int(np.argmax(other)) if other.any() else len(other) for other in (before, after)]
        if sum(runs) < size / REACH or any(
            len(o) and not run for o, run in zip((before, after), runs, strict=True)
        ):
            return False
    return True


def _empty_bands(array: Any, grid: Grid, absent: list[tuple[int, ...]]) -> bool:
    """Whether chunks of a matrix can be empty, as the other chunks of the same genes tell."""
    missing = set(absent)
    for column in sorted({place[1] for place in absent}):
        stored = [row for row in range(grid.size[0]) if (row, column) not in missing]
        if not stored:
            continue
        rows, genes = (
            slice(i * n, (i + 1) * n) for i, n in zip((stored[0], column), grid.chunks, strict=True)
        )
        block = array[rows, genes]
        if np.count_nonzero(block) > EXPECTED:
            return False
    return True
