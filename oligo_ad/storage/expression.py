"""Finds which matrix of a file holds raw counts, or log-normalised values, from a sample of its rows.

Normalising twice is impossible by construction: counts are normalised once, here; a file without
counts must hold log values, which are taken as they are.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import scipy.sparse as sp

from oligo_ad.errors import UserError, listing, nearest
from oligo_ad.storage.atlas import Atlas

TARGET = 10_000  # counts per nucleus after normalisation; fixed, so that no other nucleus matters
USUAL_NAMES = ("layers/UMIs", "layers/counts", "layers/raw_counts", "layers/raw")


@dataclass(frozen=True)
class Expression:
    """The matrix to read. `content`: what its values are; `evidence`: how that was found, in words."""

    matrix: str
    content: Literal["counts", "log"]
    evidence: str


def find_expression(atlas: Atlas, wanted: str) -> Expression:
    """Choose the matrix: raw counts when there are any, else log values in X.

    Args:
        atlas: the file.
        wanted: `auto`; `none` to take X as log values; or where the counts are: X, raw, a layer.

    Raises:
        UserError: `wanted` is not there or holds no counts, or X is neither counts nor log values.
    """
    if wanted not in ("auto", "none"):
        matrix = _named(atlas, wanted)
        if not is_counts(atlas.sample(matrix)):
            raise UserError(
                f"data.counts={wanted}: {matrix} does not hold raw counts (whole numbers ≥ 0). "
                "Use data.counts=auto, or data.counts=none to take X as log values."
            )
        return Expression(matrix, "counts", f"raw counts in {matrix}, as asked")
    if wanted == "auto":
        for matrix in sorted(atlas.matrices, key=lambda name: _preference(name)):
            if is_counts(sample := atlas.sample(matrix)):
                relation = _agreement(atlas, matrix, sample)
                return Expression(matrix, "counts", f"raw counts in {matrix}; {relation}")
    sample = atlas.sample("X")
    if is_counts(sample):
        raise UserError("data.counts=none, but X holds raw counts, no log values. Use data.counts=auto.")
    return Expression("X", "log", _require_log(sample, atlas))


def log_normalise(counts: sp.csr_matrix, totals: np.ndarray) -> sp.csr_matrix:
    """ln(1 + counts per 10,000) of each nucleus. `totals` [nuclei]: counts over all its genes."""
    logged = counts.astype(np.float32, copy=True)
    scale = (TARGET / np.maximum(totals, 1)).astype(np.float32)
    logged.data *= np.repeat(scale, np.diff(counts.indptr))
    np.log1p(logged.data, out=logged.data)
    return logged


def require(block: sp.csr_matrix, expression: Expression, file: str) -> None:
    """Refuse rows whose values are not of the kind that was found in a sample of the matrix.

    Raises:
        UserError: a negative value, or a fraction among counts.
    """
    values = block.data
    whole = expression.content == "counts"
    broken = values[(values < 0) | (values != np.round(values))] if whole else values[values < 0]
    if len(broken):
        among = "raw counts" if whole else "log values"
        raise UserError(
            f"{expression.matrix} of {file} holds {broken[0]:.4g} among {among}. Name a matrix of raw "
            "counts with data.counts=LAYER."
        )


def is_counts(sample: sp.csr_matrix) -> bool:
    """Whether there are values, all whole and none negative."""
    values = sample.data
    return bool(len(values) and (values >= 0).all() and (values == np.round(values)).all())


def _named(atlas: Atlas, wanted: str) -> str:
    matrix = {"X": "X", "raw": "raw/X"}.get(wanted, f"layers/{wanted}")
    if matrix not in atlas.matrices:
        layers = [name.removeprefix("layers/") for name in atlas.matrices]
        raise UserError(
            f"data.counts={wanted}: {atlas.path.name} has no such matrix.{nearest(wanted, layers)} "
            f"It has {listing(layers)}."
        )
    return matrix


def _preference(matrix: str) -> tuple[int, str]:
    usual = USUAL_NAMES.index(matrix) if matrix in USUAL_NAMES else len(USUAL_NAMES)
    return (usual + {"raw/X": 1, "X": 2}.get(matrix, 0), matrix)


def _agreement(atlas: Atlas, counts: str, sample: sp.csr_matrix) -> str:
    """How X relates to the counts found elsewhere, on the sample."""
    if counts == "X":
        return "normalised once, by this program"
    given = atlas.sample("X")
    if sample.shape != given.shape:
        return "X has other genes"
    expected = log_normalise(sample, np.asarray(sample.sum(axis=1)).ravel())
    if abs(expected - given).max() < 1e-3:
        return "X is ln(1 + counts per 10,000) of them, as recomputed"
    return "X is something else and is not used"


def _require_log(sample: sp.csr_matrix, atlas: Atlas) -> str:
    values, where = sample.data, f"X of {atlas.path.name}"
    if (values < 0).any():
        raise UserError(
            f"{where} holds negative values and there are no raw counts: it was scaled. "
            "Give a file with raw counts or log-normalised values."
        )
    sums = np.asarray(_expm1(sample).sum(axis=1)).ravel()
    if _constant(sums):
        return f"log-normalised values in {where}, {sums.mean():,.0f} counts per nucleus"
    if values.max(initial=0) < 5 and _constant(np.asarray(_expm1(_expm1(sample)).sum(axis=1)).ravel()):
        raise UserError(f"{where} was log-transformed twice and there are no raw counts.")
    # ln(1 + 1e4) is 9.2; larger values are no logarithm of a normalised count.
    if values.max(initial=0) > 15:
        raise UserError(
            f"{where} is neither raw counts (whole numbers) nor log values: largest "
            f"{values.max():.4g}. Name the counts with data.counts=LAYER."
        )
    return f"values in {where} taken as log-normalised (largest {values.max(initial=0):.2f})"


def _expm1(matrix: sp.csr_matrix) -> sp.csr_matrix:
    out = matrix.astype(np.float64)
    # A value too large for a logarithm overflows to infinity, which no caller takes for a sum.
    with np.errstate(over="ignore"):
        out.data = np.expm1(out.data)
    return out


def _constant(sums: np.ndarray) -> bool:
    return bool(sums.mean() > 0 and np.isfinite(sums).all() and sums.std() < 1e-3 * sums.mean())
