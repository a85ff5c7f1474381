"""Sums of each gene over each donor's nuclei: enough to choose genes and to make pseudobulk profiles."""

from dataclasses import dataclass
from typing import Self

import numpy as np
import scipy.sparse as sp

from oligo_ad.storage.kernels import add_by_donor


@dataclass(frozen=True)
class DonorSums:
    """Sums over the nuclei of each donor, donors as in `cohort.donors`.

    `values` [3, donors, genes] float64: of the stored values (counts, or log values), of counts per
    10,000, and of the squares of those. A donor's sums depend on its own nuclei alone, to the last bit.
    So gene means of any set of donors need neither the counts again nor any other donor.
    """

    values: np.ndarray

    @classmethod
    def zeros(cls, n_donors: int, n_genes: int) -> Self:
        """Sums before the first nucleus is added."""
        return cls(np.zeros((3, n_donors, n_genes)))

    def add(self, block: sp.csr_matrix, scale: np.ndarray | None, donor: np.ndarray) -> None:
        """Add nuclei one after the other: sums of blocks would depend on where blocks begin.

        Args:
            block: their rows.
            scale: what makes the counts of each row counts per 10,000; None for log values.
            donor: their donors' positions.
        """
        scales = np.empty(0) if scale is None else scale
        arrays = (block.indptr, block.indices, block.data)
        add_by_donor(*arrays, scales, scale is None, donor, self.values)

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
