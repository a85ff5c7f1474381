"""Compiles loops, with a cache on disk where there is a place for it."""

from collections.abc import Callable
from typing import Any, TypeVar

from numba import njit

Function = TypeVar("Function", bound=Callable[..., Any])


def compiled(function: Function) -> Function:
    """The function compiled, without Python's lock. It is compiled anew by every process where neither the
    installation nor the user's cache directory can be written, as in a read-only container."""
    try:
        made: Function = njit(cache=True, nogil=True)(function)
    except RuntimeError as error:
        if "locator" not in str(error):
            raise
        made = njit(nogil=True)(function)
    return made
