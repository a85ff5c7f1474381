"""Mistakes of the user: their exception and help with its wording. Bugs keep their traceback."""

from collections.abc import Iterable
from difflib import get_close_matches


class UserError(Exception):
    """A mistake the user can mend. The message says what is wrong, what was given, what to type."""


def nearest(given: object, legal: Iterable[object]) -> str:
    """` Did you mean 'x'?` for the legal word closest to `given`, or an empty string."""
    words = [str(word) for word in legal]
    by_folded = {word.casefold(): word for word in words}
    close = get_close_matches(str(given).casefold(), by_folded, n=1, cutoff=0.6)
    return f" Did you mean '{by_folded[close[0]]}'?" if close else ""


def listing(words: Iterable[object], most: int = 12) -> str:
    """`a, b, c and 4 more`: a list short enough to read in an error message."""
    every = [str(word) for word in words]
    shown = ", ".join(every[:most])
    return f"{shown} and {len(every) - most} more" if len(every) > most else shown
