"""Axes: the few directions along which nuclei of one donor differ, found without a look at labels.

A donor's own offset (genotype, library, depth, ambient profile) is what networks remember. So the mean of a
nucleus's own donor is taken off, and those singular vectors are kept that explain more than chance does. What
is left of a donor is how its nuclei lie along these axes.

Legend: N nuclei, G genes, K axes, D donors.
"""

from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import scipy.sparse as sp
from sklearn.utils.extmath import randomized_svd

from oligo_ad.data.cohort import Cohort
from oligo_ad.errors import UserError
from oligo_ad.storage.compiled import compiled
from oligo_ad.storage.expression import log_normalise

FEWEST, USUAL, MOST = 2, 14, 30  # axes that are kept
ABOVE = 1.02  # an axis explains so many times what the first axis of chance explains
FLOOR = 1e-3  # added to the SD of a gene, so that all but silent ones are not blown up
SPARE, POWER = 10, 5  # further directions, and passes, of the randomised SVD (Halko 2011)
GENES, NUCLEI = 2000, 150  # that are read, and of a donor that are looked at
KEPT = 8  # sets of axes that are remembered


@dataclass(frozen=True)
class Found:
    """The axes of some donors.

    `genes` [G]: names. `loading` [G, K] float32: log expression times this is the position on the axes.
    `explained`: singular values, and `chance`: the largest one of genes shuffled within donors. `above`: how
    many axes explain more than chance.
    """

    genes: list[str]
    loading: np.ndarray
    explained: np.ndarray
    chance: float
    above: int


class Spread(NamedTuple):
    """How the nuclei of each donor lie on the axes [D, K]: the donor's own mean, the log of the variance
    around it, and the skewness."""

    mean: np.ndarray
    log_variance: np.ndarray
    skewness: np.ndarray


def find_axes(
    cohort: Cohort,
    donors: tuple[str, ...],
    n_genes: int = GENES,
    nuclei: int = NUCLEI,
    n_axes: int | None = None,
) -> Found:
    """The axes of some donors, each of whom weighs the same, whatever the number of its nuclei.

    Args:
        cohort: nuclei and genes; those of other donors are not looked at.
        donors: ids.
        n_genes: the best expressed ones are read.
        nuclei: of a donor that are looked at, evenly spaced in the order of barcodes.
        n_axes: how many; None: as many as explain more than chance, at least two.

    Raises:
        UserError: there is nothing in which nuclei of one donor could differ.
    """
    # Baselines and model of a fold ask for the same axes. What is kept holds its cohort, so that no other
    # one can take its place in memory.
    key = (id(cohort.matrix.data), tuple(sorted(donors)), n_genes, nuclei, n_axes)
    if key not in _known:
        while len(_known) >= KEPT:
            del _known[next(iter(_known))]
        _known[key] = (cohort, _find(cohort, donors, n_genes, nuclei, n_axes))
    return _known[key][1]


_known: dict[tuple[object, ...], tuple[Cohort, Found]] = {}


def _find(cohort: Cohort, donors: tuple[str, ...], n_genes: int, nuclei: int, n_axes: int | None) -> Found:
    genes = best_expressed(cohort, donors, n_genes)
    values_NG, bounds = _around_own_donor(cohort, donors, genes, nuclei)
    most = min(MOST, *(size - 1 for size in values_NG.shape))
    if most < FEWEST:
        raise UserError(f"{values_NG.shape[0]} nuclei and {values_NG.shape[1]} genes are too few for axes.")
    sd_G = np.sqrt(np.mean([values_NG[slice(*rows)].var(0) for rows in bounds], axis=0)) + np.float32(FLOOR)
    values_NG /= sd_G
    for first, last in bounds:  # donors with many nuclei weigh no more
        values_NG[first:last] /= np.float32(np.sqrt(last - first))
    chance = _chance(values_NG, bounds)
    explained, axes_KG = _svd(values_NG, min(USUAL, most))
    if explained[-1] > ABOVE * chance or len(explained) < (n_axes or 0):
        explained, axes_KG = _svd(values_NG, most)
    above = int((explained > ABOVE * chance).sum())
    kept = min(most, n_axes or max(FEWEST, above))
    # An axis has no direction of its own: most of its genes rise along it.
    loading_GK = (axes_KG[:kept] * np.where(axes_KG[:kept].sum(1) < 0, -1, 1)[:, None] / sd_G).T
    names = cohort.genes["name"].to_numpy()[genes].tolist()
    return Found(names, np.ascontiguousarray(loading_GK, np.float32), explained, chance, above)


def _chance(values_NG: np.ndarray, bounds: list[tuple[int, int]]) -> float:
    """The largest singular value of genes that are shuffled among the nuclei of each donor."""
    rng, shuffled_NG = np.random.default_rng(0), values_NG.copy()
    for first, last in bounds:
        _shuffle_columns(shuffled_NG[first:last], rng)
    # As many directions as of the true values, so that what is approximate errs alike.
    return float(_svd(shuffled_NG, min(USUAL, *(size - 1 for size in values_NG.shape)))[0][0])


def best_expressed(cohort: Cohort, donors: tuple[str, ...], n_genes: int) -> np.ndarray:
    """Positions of the genes with the highest mean of counts per 10,000, each donor weighing the same."""
    mine = cohort.donors.index.isin(donors)
    per_nucleus_DG = cohort.sums.values[1][mine] / cohort.donors["nuclei"].to_numpy()[mine, None]
    mean_G = per_nucleus_DG.mean(0)
    best = np.argsort(-mean_G, kind="stable")[: min(n_genes, int((mean_G > 0).sum()))]
    return np.sort(best)


def bounds_by_donor(cohort: Cohort) -> np.ndarray:
    """Where the nuclei of each donor begin and end [D, 2]; they stand together."""
    place = cohort.donors.index.get_indexer(cohort.cells["donor"])
    edges = np.searchsorted(place, np.arange(len(cohort.donors) + 1))
    return np.stack([edges[:-1], edges[1:]], axis=1)


def positions(cohort: Cohort, genes: list[str], loading_GK: np.ndarray) -> np.ndarray:
    """Positions [N, K] of all nuclei on axes, donors not centred; each depends on its nucleus alone."""
    places = cohort.places_of(genes)
    found_NK = np.zeros((len(cohort.cells), loading_GK.shape[1]), np.float32)
    for first, last in bounds_by_donor(cohort):
        values = _log_values(cohort, np.arange(first, last), places)
        _project_rows(values.indptr, values.indices, values.data, loading_GK, found_NK[first:last])
    return found_NK


def spread_on_axes(cohort: Cohort, genes: list[str], loading_GK: np.ndarray) -> Spread:
    """How the nuclei of each donor of a cohort lie on axes; each donor's from its own nuclei alone."""
    return spread_of(positions(cohort, genes, loading_GK), bounds_by_donor(cohort))


def spread_of(positions_NK: np.ndarray, bounds: np.ndarray) -> Spread:
    """How nuclei lie around their donors, whose bounds are given."""
    parts = [_spread(positions_NK[first:last].astype(np.float64)) for first, last in bounds]
    return Spread(*(np.stack(part) for part in zip(*parts, strict=True)))


def _spread(own_NK: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    mean_K = own_NK.mean(0)
    variance_K = own_NK.var(0) + FLOOR
    return mean_K, np.log(variance_K), ((own_NK - mean_K) ** 3).mean(0) / variance_K**1.5


def _around_own_donor(
    cohort: Cohort, donors: tuple[str, ...], genes: np.ndarray, nuclei: int
) -> tuple[np.ndarray, list[tuple[int, int]]]:
    """Log values [N, G] of nuclei less the mean of their donor, and where each donor's begin and end."""
    wanted = bounds_by_donor(cohort)[cohort.donors.index.isin(donors)]
    rows = [_spaced(first, last, nuclei) for first, last in wanted]
    bounds = list(pairwise(np.cumsum([0, *map(len, rows)]).tolist()))
    values = _log_values(cohort, np.concatenate(rows), genes)
    values_NG = np.zeros(values.shape, np.float32)
    _write_dense(values.indptr, values.indices, values.data, values_NG)
    for first, last in bounds:
        values_NG[first:last] -= values_NG[first:last].mean(0)
    return values_NG, bounds


def _spaced(first: int, last: int, n: int) -> np.ndarray:
    """At most `n` rows from `first` to before `last`, evenly spaced."""
    if last - first <= n:
        return np.arange(first, last)
    return np.linspace(first, last - 1, n).round().astype(np.int64)


def _log_values(cohort: Cohort, rows: np.ndarray, genes: np.ndarray) -> sp.csr_matrix:
    """Log values [rows, genes], those of a nucleus in any order."""
    values = cohort.matrix.of(rows).unsorted_columns(genes)
    if cohort.expression.content == "log":
        return values
    return log_normalise(values, cohort.cells["total"].to_numpy()[rows])


def _svd(values_NG: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray]:
    """The largest singular values, and their right vectors [n, G]."""
    spare = min(SPARE, min(values_NG.shape) - n)
    _, values, vectors = randomized_svd(values_NG, n, n_oversamples=spare, n_iter=POWER, random_state=0)
    return values, vectors


@compiled
def _write_dense(pointers: np.ndarray, columns: np.ndarray, values: np.ndarray, dense: np.ndarray) -> None:
    """Write the values of a CSR matrix, whose columns may be in any order, into `dense`, which is 0."""
    for row in range(len(pointers) - 1):
        for at in range(pointers[row], pointers[row + 1]):
            dense[row, columns[at]] = values[at]


@compiled
def _shuffle_columns(values: np.ndarray, rng: np.random.Generator) -> None:
    """Bring the rows of each column into an order of its own (Fisher & Yates)."""
    for column in range(values.shape[1]):
        for row in range(len(values) - 1, 0, -1):
            other = rng.integers(0, row + 1)
            values[row, column], values[other, column] = values[other, column], values[row, column]


@compiled
def _project_rows(
    pointers: np.ndarray, columns: np.ndarray, values: np.ndarray, loading: np.ndarray, projected: np.ndarray
) -> None:
    """A CSR matrix times `loading`, added in the order of columns, whatever the one of the stored values."""
    whole = np.zeros(len(loading), np.float32)
    for row in range(len(pointers) - 1):
        for at in range(pointers[row], pointers[row + 1]):
            whole[columns[at]] = values[at]
        for column in range(len(loading)):
            if whole[column] != 0:
                for axis in range(loading.shape[1]):
                    projected[row, axis] += whole[column] * loading[column, axis]
                whole[column] = 0
