"""Counts thinned to a common depth, as if no donor had been sequenced deeper than the poorest one."""

import hashlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import scipy.sparse as sp

from oligo_ad.data.cohort import Cohort, sums_of
from oligo_ad.errors import UserError
from oligo_ad.progress import progress
from oligo_ad.storage.matrix import MatrixWriter, NucleusMatrix
from oligo_ad.threads import CORES, in_order


def require_counts(cohort: Cohort) -> None:
    """Refuse values that cannot be thinned.

    Raises:
        UserError: there are no raw counts.
    """
    if cohort.expression.content != "counts":
        raise UserError(
            "data.match_depth=true needs raw counts, and this file has none that can be used. Leave it out."
        )


def common_depth(cohort: Cohort) -> float:
    """The lowest of the donors' median counts per nucleus."""
    return float(cohort.cells.groupby("donor")["total"].median().min())


def thinned(cohort: Cohort, folder: Path) -> Cohort:
    """The same nuclei with counts drawn from theirs, each count kept with the probability depth / total.

    Nuclei with fewer counts keep them all. The draws of a donor depend on its id and its own nuclei alone.

    Args:
        cohort: raw counts, of every donor of the file.
        folder: where the counts go.
    """
    depth, cells = common_depth(cohort), cohort.cells
    share = np.minimum(1.0, depth / np.maximum(cells["total"].to_numpy(), 1))
    matrix = cohort.matrix
    writer = MatrixWriter(folder, len(matrix.stored_as))
    totals, n_genes = [], []
    with progress("thinning counts", len(cells), "nuclei") as advance:
        for block in _blocks(cohort, share):
            writer.append(block)
            totals.append(np.asarray(block.sum(axis=1, dtype=np.float64)).ravel())
            n_genes.append(np.diff(block.indptr))
            advance(block.shape[0])
    written = writer.close(np.ones(len(cells), bool))
    counted = replace(written, stored_as=matrix.stored_as)
    before = cells.groupby("donor")["total"].median()
    cells = cells.assign(total=np.concatenate(totals), n_genes=np.concatenate(n_genes))
    note = (
        f"depth is matched: {int((share < 1).sum()):,} of {len(cells):,} nuclei are thinned to {depth:,.0f} "
        f"counts, the lowest median of a donor (the highest is {before.max():,.0f})"
    )
    return replace(
        cohort,
        matrix=counted,
        cells=cells,
        sums=sums_of(counted, cells, cohort.expression),
        about=cohort.about | {"depth": f"matched: thinned to {depth:,.0f} counts per nucleus"},
        notes=(*cohort.notes, note),
    )


def _blocks(cohort: Cohort, share: np.ndarray) -> Iterator[sp.csr_matrix]:
    """The thinned rows, a donor at a time, genes as they are stored."""
    donors, first, n = np.unique(cohort.cells["donor"], return_index=True, return_counts=True)

    def of_donor(place: int) -> sp.csr_matrix:
        rows = slice(first[place], first[place] + n[place])
        return _thin(cohort.matrix, rows, share[rows], str(donors[place]))

    yield from in_order(of_donor, range(len(donors)), CORES)


def _thin(matrix: NucleusMatrix, rows: slice, share: np.ndarray, donor: str) -> sp.csr_matrix:
    starts, stops = matrix.starts[rows], matrix.stops[rows]
    lengths = stops - starts
    places = np.repeat(starts - np.cumsum(lengths) + lengths, lengths) + np.arange(lengths.sum())
    counts = matrix.data[places].astype(np.int64)
    rng = np.random.default_rng(int.from_bytes(hashlib.sha256(donor.encode()).digest()[:8], "big"))
    kept = rng.binomial(counts, np.repeat(share, lengths)).astype(np.float32)
    indptr = np.concatenate([[0], np.cumsum(lengths)])
    # Genes as stored, of which a view may read some only.
    n_genes = int(matrix.stored_as.max()) + 1
    block = sp.csr_matrix((kept, matrix.indices[places].astype(np.int32), indptr), (len(lengths), n_genes))
    block.eliminate_zeros()
    return block
