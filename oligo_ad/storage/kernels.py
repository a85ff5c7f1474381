"""Compiled loops over every value of a cohort, for which numpy would need several passes."""

import numpy as np

from oligo_ad.storage.compiled import compiled


@compiled
def add_rows(
    starts: np.ndarray,
    stops: np.ndarray,
    genes: np.ndarray,
    values: np.ndarray,
    scale: np.ndarray,
    logged: bool,
    sums: np.ndarray,
) -> None:
    """Add nuclei to `sums` [3, genes], one after the other: values, values per 10,000, and their squares.

    Per 10,000 is a value times its nucleus's `scale` [rows], or its exponential - 1 where `logged`.
    """
    for row in range(len(starts)):
        for place in range(starts[row], stops[row]):
            gene, value = genes[place], np.float64(values[place])
            normalised = np.expm1(value) if logged else value * scale[row]
            sums[0, gene] += value
            sums[1, gene] += normalised
            sums[2, gene] += normalised * normalised


@compiled
def count_wanted(
    starts: np.ndarray, stops: np.ndarray, genes: np.ndarray, place_of: np.ndarray
) -> np.ndarray:
    """Row pointers [rows + 1] of the values whose gene has a place ≥ 0."""
    pointers = np.zeros(len(starts) + 1, np.int64)
    for row in range(len(starts)):
        n = 0
        for place in range(starts[row], stops[row]):
            n += place_of[genes[place]] >= 0
        pointers[row + 1] = pointers[row] + n
    return pointers


@compiled
def copy_wanted(
    starts: np.ndarray,
    stops: np.ndarray,
    genes: np.ndarray,
    values: np.ndarray,
    place_of: np.ndarray,
    to_genes: np.ndarray,
    to_values: np.ndarray,
) -> None:
    """Copy the values whose gene has a place ≥ 0, and these places, one row after the other."""
    filled = 0
    for row in range(len(starts)):
        for place in range(starts[row], stops[row]):
            if place_of[genes[place]] >= 0:
                to_genes[filled], to_values[filled] = place_of[genes[place]], values[place]
                filled += 1
