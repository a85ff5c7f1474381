"""Stub until merge."""

from typing import NamedTuple


class PermutationTest(NamedTuple):
    """How a headline compares with those of permuted labels."""

    n: int
    p: float
    null_mean: float
    null_sd: float


def tests_of(record: object) -> dict[str, PermutationTest]:
    """Stub until merge."""
    return {}
