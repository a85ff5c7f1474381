"""What a sample of a matrix shows: whether its values can be raw counts, or which logarithms they are."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import scipy.sparse as sp

from oligo_ad.storage.atlas import Atlas

EXACT = 1 << 24  # whole numbers up to here are exact in single precision
EXACT_HALF = 1 << 11
FEW = 10  # nuclei: of fewer, equal sums and equal maxima may be chance
DEEP, SMALL = 1_000, 10  # counts of a nucleus with so many in all are not all as small as this


@dataclass(frozen=True)
class Candidate:
    """A matrix of the file: what was seen in a sample of it, and why it was taken or passed over."""

    matrix: str
    layout: str
    seen: str
    verdict: str


class Sampled(NamedTuple):
    """A sample of a matrix. `flaw` says why its values cannot be raw counts, None where they can."""

    matrix: str
    rows: sp.csr_matrix
    flaw: str | None


def sample(atlas: Atlas, matrix: str) -> Sampled:
    """Look at some rows of a matrix."""
    rows = atlas.sample(matrix)
    flaw = flaw_of_counts(rows)
    if flaw is None and atlas.dtype(matrix) == np.float16 and rows.data.max() > EXACT_HALF:
        flaw = f"stored in half precision, which rounds counts above {EXACT_HALF:,}"
    return Sampled(matrix, rows, flaw)


def is_counts(rows: sp.csr_matrix) -> bool:
    """Whether there are values, all whole and none negative."""
    values = rows.data
    return bool(len(values) and (values >= 0).all() and (values == np.round(values)).all())


def flaw_of_counts(rows: sp.csr_matrix) -> str | None:
    """Why some rows cannot be of raw counts; None where they can."""
    values = rows.data
    if not len(values):
        return "no values"
    if (values < 0).any():
        return "negative values"
    if not is_counts(rows):
        part = float((values != np.round(values)).mean())
        corrected = part < 0.9 and not rows.max() <= 1
        return f"fractions ({part:.0%} of the values)" + (
            ": corrected or expected counts are not raw counts" if corrected else ""
        )
    if values.max() > EXACT:
        return f"{values.max():,.0f}, which no gene reaches"
    if values.max() == 1:
        return "only 0 and 1: a mask, or nothing but presence"
    return _flaw_of_nuclei(rows)


def _flaw_of_nuclei(rows: sp.csr_matrix) -> str | None:
    """Why whole numbers cannot be counts, by what nuclei have in common."""
    sums = row_sums(rows)
    filled = sums > 0
    most = np.asarray(rows.max(axis=1).todense()).ravel()[filled]
    sums = sums[filled]
    if len(sums) >= FEW and sums.std() < 0.01 * sums.mean():
        return f"the same sum in every nucleus ({sums.mean():,.0f}): ranks, or values made equal"
    common = np.median(most)
    if len(sums) >= FEW and (most == common).mean() > 0.95:
        return f"the same largest value in every nucleus ({common:,.0f}): bins, or values cut off"
    if len(sums) >= FEW and rows.data.min() > 1:
        return f"no value 1 (the smallest is {rows.data.min():,.0f}): rounded or multiplied"
    if most.max() <= SMALL and np.median(sums) > DEEP:
        return f"none above {most.max():,.0f} in nuclei of {np.median(sums):,.0f}: rounded logarithms or bins"
    return None


def describe(rows: sp.csr_matrix) -> str:
    """What a sample shows, in a few words."""
    values = rows.data
    if not len(values):
        return "zeros only"
    kind = "whole numbers" if (values == np.round(values)).all() else "fractions"
    sums = row_sums(rows)
    zeros = 1 - len(values) / max(1, rows.shape[0] * rows.shape[1])
    return (
        f"{kind} {values.min():.4g} to {values.max():.4g}, {zeros:.0%} zeros, "
        f"sums of nuclei {sums.min():,.4g} to {sums.max():,.4g}"
    )


def is_part(one: sp.csr_matrix, other: sp.csr_matrix) -> bool:
    """Whether no value of `one` is above that of `other`, and some are below."""
    if one.shape != other.shape:
        return False
    rest = (other.astype(np.float64) - one.astype(np.float64)).data
    return bool((rest >= 0).all() and (rest > 0).any())


def are_same(one: sp.csr_matrix, other: sp.csr_matrix) -> bool:
    """Whether all values are the same."""
    return one.shape == other.shape and (one != other).nnz == 0


class Logarithm(NamedTuple):
    """How values were made: the logarithm to `base` of 1 + counts per `target`."""

    base: float
    target: float


BASES = {"2": 2.0, "10": 10.0}


def find_logarithm(rows: sp.csr_matrix) -> Logarithm | None:
    """Base and target of log values whose nuclei sum to the same once the logarithm is undone."""
    for base in (np.e, *BASES.values()):
        sums = row_sums(undone(rows, base))
        if is_constant(sums):
            return Logarithm(base, float(sums.mean()))
    return None


def flaw_of_logarithms(rows: sp.csr_matrix) -> str | None:
    """Why values are no logarithms of normalised counts; None where they may be."""
    values = rows.data
    if not len(values):
        return "holds zeros only"
    if (values < 0).any():
        return "holds negative values: it was scaled"
    neither = "is neither raw counts (whole numbers) nor log values"
    if is_constant(row_sums(rows)):
        return (
            f"{neither}: every nucleus sums to {row_sums(rows).mean():,.4g}, as before a logarithm is taken"
        )
    if is_constant(row_sums(rows.multiply(rows).tocsr())) or _all_whole(values.astype(np.float64) ** 2):
        return "holds square roots, no logarithms"
    twice = undone(undone(rows, np.e), np.e) if values.max() < 5 else None
    if twice is not None and find_logarithm(rows) is None and is_constant(row_sums(twice)):
        return "was log-transformed twice"
    for name, base in {"e": np.e, **BASES}.items():
        if values.max() < 30 and _all_whole(undone(rows, base).data):
            return f"holds logarithms (base {name}) of raw counts that were not normalised"
    # ln(1 + 1e4) is 9.2; larger values are no logarithm of a normalised count.
    if values.max() > 15 and find_logarithm(rows) is None:
        return f"{neither}: largest {values.max():.4g}"
    return None


def undone(rows: sp.csr_matrix, base: float) -> sp.csr_matrix:
    """base ** value - 1 of every value, in double precision."""
    out = rows.astype(np.float64)
    # A value too large for a logarithm overflows to infinity, which no caller takes for a sum.
    with np.errstate(over="ignore"):
        out.data = np.expm1(out.data * np.log(base))
    return out


def row_sums(rows: sp.csr_matrix) -> np.ndarray:
    """The sum of each row."""
    with np.errstate(over="ignore"):
        return np.asarray(rows.sum(axis=1, dtype=np.float64)).ravel()


def is_constant(sums: np.ndarray) -> bool:
    """Whether all nuclei that hold anything have nearly the same sum."""
    sums = sums[sums != 0]
    return bool(len(sums) > 1 and np.isfinite(sums).all() and sums.std() < 1e-3 * sums.mean())


def _all_whole(values: np.ndarray) -> bool:
    """Whether values are whole, but for the rounding of single precision; of large ones that says nothing."""
    small = values[values < 1_000]
    off = np.abs(small - np.round(small))
    return bool(2 * len(small) > len(values) and (off <= 1e-5 * small + 1e-5).all())
