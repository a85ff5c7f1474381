"""Nuclei that are in a cohort twice: under two donors they may be in two parts of a split."""

import numpy as np
import pandas as pd

from oligo_ad.errors import listing
from oligo_ad.storage.matrix import BLOCK, NucleusMatrix

TOLD = 50  # expressed genes from which on two nuclei are not alike by accident
MIX = np.uint64(0x9E3779B97F4A7C15)


def copies(matrix: NucleusMatrix, cells: pd.DataFrame) -> list[str]:
    """Notes on nuclei with the same counts, or the same barcode, as another one.

    Args:
        matrix: [nuclei, genes].
        cells: barcode, donor, total and n_genes of each nucleus.
    """
    donor = pd.factorize(cells["donor"])[0]
    frame = pd.DataFrame(
        {"genes": cells["n_genes"].to_numpy(), "total": cells["total"].to_numpy(), "donor": donor}
    )
    alike = frame.duplicated(["genes", "total"], keep=False).to_numpy() & (frame["genes"] >= TOLD).to_numpy()
    rows = np.flatnonzero(alike)
    alike_rows = frame.iloc[rows].assign(content=_contents(matrix, rows))
    same = alike_rows[alike_rows.duplicated(["genes", "total", "content"], keep=False)]
    groups = same.groupby(["genes", "total", "content"], dropna=False)["donor"].transform("nunique")
    crossed, within = same[groups > 1], same[groups == 1]
    notes = []
    if len(crossed):
        ids = cells["donor"].iloc[crossed.index].drop_duplicates()
        notes.append(
            f"{len(crossed):,} nuclei have exactly the counts of a nucleus of another donor "
            f"({listing(ids, 4)}): the same nuclei may be in two parts of the split. Give each donor "
            "one id, and each nucleus once"
        )
    if len(within):
        notes.append(f"{len(within):,} nuclei have exactly the counts of another nucleus of their donor")
    barcodes = pd.Series(pd.factorize(cells["barcode"])[0])
    twice = barcodes.duplicated(keep=False).to_numpy()
    pairs = pd.DataFrame({"barcode": barcodes[twice], "donor": donor[twice]}).drop_duplicates()
    shared = pairs[pairs.duplicated("barcode", keep=False)]
    if len(shared):
        notes.append(
            f"{shared['barcode'].nunique():,} barcodes are found in more than one donor, "
            f"{len(set(crossed.index) & set(np.flatnonzero(twice))):,} of their nuclei with the same counts"
        )
    return notes


def _contents(matrix: NucleusMatrix, rows: np.ndarray) -> np.ndarray:
    """A number for the content of each of some rows, in which equal rows agree [rows] uint64."""
    lengths = matrix.stops[rows] - matrix.starts[rows]
    block = np.cumsum(lengths) // BLOCK
    found = [_hashed(matrix, rows[block == number]) for number in np.unique(block)]
    return np.concatenate(found) if found else np.zeros(0, dtype=np.uint64)


def _hashed(matrix: NucleusMatrix, rows: np.ndarray) -> np.ndarray:
    """The same of rows that memory holds at once; none of them is empty."""
    lengths = matrix.stops[rows] - matrix.starts[rows]
    ends = np.cumsum(lengths)
    places = np.arange(ends[-1]) + np.repeat(matrix.starts[rows] - (ends - lengths), lengths)
    gene = matrix.indices[places].astype(np.uint64) + np.uint64(1)
    mixed = (matrix.data[places].view(np.uint32).astype(np.uint64) + gene * MIX) * MIX
    mixed ^= mixed >> np.uint64(29)
    found: np.ndarray = np.add.reduceat(mixed * MIX, ends - lengths)
    return found
