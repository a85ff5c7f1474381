"""Sums of each gene over each donor's nuclei: enough to choose genes and to make pseudobulk profiles."""

from dataclasses import dataclass

import numpy as np

from oligo_ad.storage.kernels import add_rows
from oligo_ad.storage.matrix import NucleusMatrix
from oligo_ad.threads import CORES, in_order


@dataclass(frozen=True)
class DonorSums:
    """Sums over the nuclei of each donor, donors as in `cohort.donors`.

    `values` [3, donors, genes] float64: of the stored values (counts, or log values), of counts per
    10,000, and of the squares of those. A donor's sums depend on its own nuclei alone, to the last bit.
    So gene means of any set of donors need neither the counts again nor any other donor.
    """

    values: np.ndarray

    def of(self, donors: np.ndarray) -> "DonorSums":
        """The sums of some donors, by their positions or a mask."""
        return DonorSums(self.values[:, donors])

    @property
    def raw(self) -> np.ndarray:
        """Sums of the stored values [donors, genes]."""
        return self.values[0]

    def mean_variance(self, n_nuclei: int) -> tuple[np.ndarray, np.ndarray]:
        """Mean and unbiased variance [genes] of counts per 10,000 over the nuclei of all these donors."""
        mean = self.values[1].sum(axis=0) / n_nuclei
        squares = self.values[2].sum(axis=0)
        about_mean = squares - n_nuclei * mean**2
        # What the difference of two equal sums leaves is rounding, not variance.
        return mean, np.where(about_mean > 1e-10 * squares, about_mean, 0.0) / max(1, n_nuclei - 1)


def sum_by_donor(
    matrix: NucleusMatrix, donor: np.ndarray, n_donors: int, scale: np.ndarray | None
) -> DonorSums:
    """The sums of each donor's nuclei, added one after the other in the order of the matrix.

    Args:
        matrix: their values.
        donor: [nuclei] the position of each one's donor, rising.
        n_donors: how many donors there are.
        scale: [nuclei] what makes their counts counts per 10,000; None for log values.
    """
    bounds = np.searchsorted(donor, np.arange(n_donors + 1))
    scales = np.empty(0) if scale is None else scale

    def of_donor(number: int) -> np.ndarray:
        rows = slice(*bounds[number : number + 2])
        sums = np.zeros((3, len(matrix.stored_as)))
        places = (matrix.starts[rows], matrix.stops[rows])
        add_rows(*places, matrix.indices, matrix.data, scales[rows], scale is None, sums)
        return sums[:, matrix.stored_as]

    return DonorSums(np.stack(list(in_order(of_donor, range(n_donors), CORES)), axis=1))
