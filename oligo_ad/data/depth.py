"""Counts thinned to a common depth, as if no donor had been sequenced deeper than the poorest one.

Each count of a nucleus is kept with the same probability (binomial thinning), which is what fewer reads of
the same library would have given. The depth is the same for all donors of a file, whatever their label.
"""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import scipy.sparse as sp

from oligo_ad.data.cohort import Cohort, sums_of
from oligo_ad.draws import draw, mix, nucleus_keys
from oligo_ad.errors import UserError
from oligo_ad.progress import progress
from oligo_ad.storage.compiled import compiled
from oligo_ad.storage.matrix import BLOCK, MatrixWriter
from oligo_ad.threads import CORES, in_order

DEPTH = "depth"  # among what defines a cohort
_mix = compiled(mix)


def require_counts(cohort: Cohort) -> None:
    """Refuse values that cannot be thinned.

    Raises:
        UserError: there are no raw counts.
    """
    if cohort.expression.content != "counts":
        raise UserError(
            f"data.match_depth=true thins raw counts, and {cohort.expression.matrix} of "
            f"{cohort.about['file']} holds logarithms. Leave it out, or name a matrix of counts with "
            "data.counts=LAYER."
        )


def common_depth(cohort: Cohort) -> tuple[float, str]:
    """The lowest of the donors' median counts per nucleus, and the donor that has it."""
    medians = cohort.cells.groupby("donor")["total"].median()
    return float(medians.min()), str(medians.idxmin())


def thinned(cohort: Cohort, folder: Path, min_genes: int) -> Cohort:
    """The same nuclei with counts drawn from theirs, each kept with the probability depth / total.

    Nuclei with fewer counts keep them all. What is drawn for a nucleus depends on its donor, barcode and
    counts alone, and on the common depth: what a lower one keeps, a higher one keeps too.

    Args:
        cohort: raw counts, of every donor of the file.
        folder: where the counts go.
        min_genes: what quality control asked for; nuclei that have fewer genes now stay.
    """
    depth, poorest = common_depth(cohort)
    share = np.minimum(1.0, depth / np.maximum(cohort.cells["total"].to_numpy(), 1))
    writer = MatrixWriter(folder, len(cohort.matrix.stored_as))
    totals, n_genes = [], []
    with progress("thinning counts", len(share), "nuclei") as advance:
        for block in _blocks(cohort, share):
            writer.append(block)
            totals.append(np.asarray(block.sum(axis=1, dtype=np.float64)).ravel())
            n_genes.append(np.diff(block.indptr))
            advance(block.shape[0], block.data.nbytes + block.indices.nbytes)
    matrix = replace(writer.close(np.ones(len(share), bool)), stored_as=cohort.matrix.stored_as)
    cells = cohort.cells.assign(total=np.concatenate(totals), n_genes=np.concatenate(n_genes))
    highest = cohort.cells.groupby("donor")["total"].median().max()
    poor = int((cells["n_genes"] < min_genes).sum())
    note = (
        f"{int((share < 1).sum()):,} of {len(share):,} nuclei are thinned to {depth:,.0f} counts, the median "
        f"of {poorest}, the lowest of a donor (the highest is {highest:,.0f})"
    ) + (f"; {poor:,} have fewer than data.min_genes={min_genes} genes then, and stay" if poor else "")
    return replace(
        cohort,
        matrix=matrix,
        cells=cells,
        sums=sums_of(matrix, cells, cohort.expression),
        about=cohort.about | {DEPTH: f"matched: thinned to {depth:,.0f} counts per nucleus"},
        notes=(*cohort.notes, note),
    )


def _blocks(cohort: Cohort, share: np.ndarray) -> Iterator[sp.csr_matrix]:
    """The thinned rows, genes as they are stored, as many at a time as memory holds in any case."""
    matrix = cohort.matrix
    keys = draw(nucleus_keys(cohort.cells["donor"]), 0, nucleus_keys(cohort.cells["barcode"]))
    genes = np.zeros(len(matrix.stored_as), np.int64)
    genes[matrix.stored_as] = nucleus_keys(cohort.genes["name"])
    ends = np.cumsum(matrix.stops - matrix.starts)
    bounds = np.flatnonzero(np.diff(ends // BLOCK, prepend=-1, append=-1))

    def of_rows(number: int) -> sp.csr_matrix:
        rows = slice(bounds[number], bounds[number + 1])
        starts, stops = matrix.starts[rows], matrix.stops[rows]
        size = int((stops - starts).sum())
        to_genes, to_values = np.empty(size, np.int32), np.empty(size, np.float32)
        stored = (starts, stops, matrix.indices, matrix.data)
        pointers = thin_rows(*stored, share[rows], keys[rows], genes, to_genes, to_values)
        kept = slice(pointers[-1])
        shape = (len(starts), len(genes))
        return sp.csr_matrix((to_values[kept], to_genes[kept], pointers), shape)

    yield from in_order(of_rows, range(len(bounds) - 1), CORES)


@compiled
def thin_rows(
    starts: np.ndarray,
    stops: np.ndarray,
    genes: np.ndarray,
    counts: np.ndarray,
    share: np.ndarray,
    keys: np.ndarray,
    gene_keys: np.ndarray,
    to_genes: np.ndarray,
    to_counts: np.ndarray,
) -> np.ndarray:
    """Draw from the counts of nuclei, and write what is left of them; returns row pointers [rows + 1].

    Every single count has a draw of its own, from the keys of its nucleus and its gene: exactly binomial, and
    faster than to draw from the distribution, since most counts are 1 or 2.
    """
    pointers, filled = np.zeros(len(starts) + 1, np.int64), 0
    for row in range(len(starts)):
        for place in range(starts[row], stops[row]):
            left, gene = counts[place], genes[place]
            if share[row] < 1:
                key, left = _mix(keys[row] ^ gene_keys[gene]), np.float32(0)
                for unit in range(np.int64(counts[place])):
                    bits = np.uint64(_mix(key + unit))
                    left += np.float32((bits >> np.uint64(11)) * 2.0**-53 < share[row])
            if left > 0:
                to_genes[filled], to_counts[filled] = gene, left
                filled += 1
        pointers[row + 1] = filled
    return pointers
