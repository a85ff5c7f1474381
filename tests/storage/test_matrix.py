"""The matrix on disk and the sums by donor: what is written is what is read, whatever the blocks."""

import tempfile
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st

from oligo_ad.data.sums import DonorSums, sum_by_donor
from oligo_ad.storage import matrix
from oligo_ad.storage.matrix import FILES, MatrixWriter, NucleusMatrix, open_matrix

GENES, DONORS = 20, 4


def counts(n_rows: int, seed: int = 0, n_genes: int = GENES) -> sp.csr_matrix:
    """Rows of any length, the second one empty."""
    rng = np.random.default_rng(seed)
    dense = rng.poisson(rng.random((n_rows, 1)), (n_rows, n_genes))
    dense[1:2] = 0
    return sp.csr_matrix(dense.astype(np.float32))


def blocks(rows: sp.csr_matrix, cuts: list[int]) -> list[tuple[int, int]]:
    """First and last row of the blocks between the cuts."""
    edges = sorted({0, rows.shape[0], *(cut for cut in cuts if cut < rows.shape[0])})
    return list(pairwise(edges))


def written(
    rows: sp.csr_matrix, folder: Path, cuts: list[int], keep: np.ndarray | None = None
) -> NucleusMatrix:
    writer = MatrixWriter(folder, rows.shape[1])
    for first, last in blocks(rows, cuts):
        writer.append(rows[first:last])
    return writer.close(np.ones(rows.shape[0], bool) if keep is None else keep)


def dense(cells: NucleusMatrix) -> np.ndarray:
    return cells.columns(np.arange(cells.shape[1])).toarray()


# Any rows, any of them kept: their lengths, which are kept, where blocks are cut, values moved at once.
lengths = st.lists(st.integers(0, GENES), min_size=1, max_size=40)
cuts = st.lists(st.integers(1, 40), max_size=5)


@settings(max_examples=150, deadline=None)
@given(lengths, st.randoms(use_true_random=False), cuts, st.integers(1, 60))
def test_exactly_the_rows_to_be_kept_are_kept(
    lengths: list[int], chance: st.DataObject, cuts: list[int], moved: int
) -> None:
    rows = np.zeros((len(lengths), GENES), np.float32)
    for row, length in enumerate(lengths):
        rows[row, chance.sample(range(GENES), length)] = np.arange(1, length + 1) + 100 * row
    keep = np.array([chance.random() < 0.6 for _ in lengths])
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory() as folder:
        patch.setattr(matrix, "BLOCK", moved)
        cells = written(sp.csr_matrix(rows), Path(folder), cuts, keep)
        expected = sp.csr_matrix(rows[keep])
        assert cells.shape == expected.shape
        np.testing.assert_array_equal(cells.data, expected.data)
        np.testing.assert_array_equal(cells.indices, expected.indices)
        np.testing.assert_array_equal(cells.starts, expected.indptr[:-1])
        np.testing.assert_array_equal(cells.stops, expected.indptr[1:])
        size = (Path(folder) / FILES[0]).stat().st_size
        assert size - 4 * expected.nnz == (Path(folder) / FILES[1]).stat().st_size - 2 * expected.nnz == 128


def test_each_file_is_one_that_numpy_opens(tmp_path: Path) -> None:
    rows = counts(30)
    cells = written(rows, tmp_path, [7, 8, 20])
    parts = [np.load(tmp_path / name) for name in FILES]
    for part, expected in zip(parts, (rows.data, rows.indices), strict=True):
        np.testing.assert_array_equal(part, expected)
    assert [part.dtype for part in parts] == [np.float32, np.uint16]
    cells.save(tmp_path)
    np.testing.assert_array_equal(dense(open_matrix(tmp_path)), rows.toarray())


@settings(max_examples=40, deadline=None)
@given(st.permutations(range(30)), st.permutations(range(GENES)))
def test_a_view_in_any_order_is_kept_as_it_is(nuclei: list[int], genes: list[int]) -> None:
    rows = counts(30)
    with tempfile.TemporaryDirectory() as folder:
        view = written(rows, Path(folder), [9]).of(np.array(nuclei)).reordered(np.array(genes))
        view.save(Path(folder))
        for found in (view, open_matrix(Path(folder))):
            np.testing.assert_array_equal(dense(found), rows.toarray()[nuclei][:, genes])


@pytest.mark.parametrize(
    ("n_genes", "dtype"), [(65_535, np.uint16), (65_536, np.uint16), (65_537, np.int32), (70_000, np.int32)]
)
def test_gene_indices_are_small_where_the_last_gene_fits(tmp_path: Path, n_genes: int, dtype: type) -> None:
    places = ([0, 0, 1], [0, n_genes - 1, n_genes - 1])
    cells = written(sp.csr_matrix(([1.0, 2.0, 3.0], places), shape=(2, n_genes)), tmp_path, [1])
    assert cells.indices.dtype == dtype
    assert cells.indices.tolist() == places[1]
    assert cells.shape == (2, n_genes)
    assert cells.columns(np.array([n_genes - 1, 0])).toarray().tolist() == [[2, 1], [3, 0]]


@pytest.mark.parametrize("kind", [np.float64, np.int32, np.uint16, bool])
def test_values_of_any_kind_are_written_as_float32(tmp_path: Path, kind: type) -> None:
    rows = counts(20).astype(kind)
    cells = written(rows, tmp_path, [])
    assert cells.data.dtype == np.float32
    np.testing.assert_array_equal(dense(cells), rows.toarray())


def test_some_rows_are_those_of_scipy_and_copy_no_value(tmp_path: Path) -> None:
    rows = counts(30)
    cells = written(rows, tmp_path, [])
    for some in ([*range(30)], [3], [1, 5, 2], [*range(9, 21)], []):
        part = cells.of(np.array(some, int))
        assert part.shape == (len(some), GENES)
        assert part.data is cells.data
        np.testing.assert_array_equal(dense(part), rows[some].toarray())
    again = cells.of(np.array([4, 9, 2])).of(np.array([2, 0]))
    np.testing.assert_array_equal(dense(again), rows[[2, 4]].toarray())


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, GENES - 1), unique=True), st.integers(0, 20))
def test_columns_are_those_of_scipy_in_any_order(genes: list[int], seed: int) -> None:
    rows = counts(30, seed)
    cells = stored(rows)
    found = cells.columns(np.array(genes, int))
    assert found.has_canonical_format
    assert found.dtype == np.float32
    assert found.shape == (30, len(genes))
    np.testing.assert_array_equal(found.toarray(), rows.toarray()[:, genes])


# Sums by donor


def per_10_000(rows: sp.csr_matrix) -> tuple[np.ndarray, np.ndarray]:
    """Values [rows, genes] in double precision, and the scale of each row."""
    scale = 10_000 / np.maximum(rows.sum(axis=1, dtype=np.float64).A1, 1)
    return rows.toarray().astype(np.float64) * scale[:, None], scale


def stored(rows: sp.csr_matrix) -> NucleusMatrix:
    pointers = rows.indptr.astype(np.int64)
    indices = rows.indices.astype(np.uint16)
    return NucleusMatrix(rows.data, indices, pointers[:-1], pointers[1:], np.arange(rows.shape[1]))


def summed(rows: sp.csr_matrix, donor: np.ndarray, logged: bool = False) -> DonorSums:
    """The sums of rows in any order of donors."""
    order = np.argsort(donor, kind="stable")
    scale = None if logged else per_10_000(rows)[1][order]
    return sum_by_donor(stored(rows).of(order), donor[order], DONORS, scale)


@pytest.fixture
def donor() -> np.ndarray:
    """Of 50 nuclei; the second donor has none."""
    return np.random.default_rng(1).choice([0, 2, 3], 50)


@pytest.mark.parametrize("logged", [False, True], ids=["counts", "log values"])
def test_sums_by_donor_are_those_of_numpy(donor: np.ndarray, logged: bool) -> None:
    rows = counts(50)
    values = rows.toarray().astype(np.float64)
    normalised = np.expm1(values) if logged else per_10_000(rows)[0]
    sums = summed(rows, donor, logged)
    for found, part in zip(sums.values, (values, normalised, normalised**2), strict=True):
        expected = np.stack([part[donor == i].sum(axis=0) for i in range(DONORS)])
        np.testing.assert_allclose(found, expected, rtol=1e-13)
    assert (sums.values[:, 1] == 0).all()
    np.testing.assert_array_equal(sums.raw, sums.values[0])


@settings(max_examples=40, deadline=None)
@given(st.permutations(range(GENES)), st.integers(0, 9))
def test_sums_are_the_same_bits_in_any_order_of_donors_and_of_genes(genes: list[int], seed: int) -> None:
    rows, donor = counts(50, seed), np.random.default_rng(seed).integers(0, DONORS, 50)
    whole = summed(rows, donor)
    renamed = summed(rows, DONORS - 1 - donor)
    np.testing.assert_array_equal(renamed.values[:, ::-1], whole.values, strict=True)
    order, by_donor = np.array(genes), np.argsort(donor, kind="stable")
    view = stored(rows[:, np.argsort(order)].sorted_indices()).reordered(order).of(by_donor)
    found = sum_by_donor(view, donor[by_donor], DONORS, per_10_000(rows)[1][by_donor])
    np.testing.assert_array_equal(found.values, whole.values, strict=True)


@pytest.mark.parametrize("changed", [0, 2, 3])
def test_the_sums_of_a_donor_are_its_own_to_the_last_bit(donor: np.ndarray, changed: int) -> None:
    rows = counts(50)
    before = summed(rows, donor).values
    other = rows.toarray()
    other[donor == changed] = np.random.default_rng(2).poisson(300, other[donor == changed].shape)
    after = summed(sp.csr_matrix(other), donor).values
    same = np.arange(DONORS) != changed
    np.testing.assert_array_equal(before[:, same], after[:, same], strict=True)
    assert (before[:, changed] != after[:, changed]).all()


def test_mean_and_variance_are_those_of_numpy_for_any_donors(donor: np.ndarray) -> None:
    rows = counts(50)
    sums, values = summed(rows, donor), per_10_000(rows)[0]
    for chosen in ([0], [0, 2], [3, 0], [0, 1, 2, 3]):
        own = np.isin(donor, chosen)
        mean, variance = sums.of(np.array(chosen)).mean_variance(int(own.sum()))
        np.testing.assert_allclose(mean, values[own].mean(axis=0), rtol=1e-12)
        np.testing.assert_allclose(variance, values[own].var(axis=0, ddof=1), rtol=1e-9)
    mask = np.array([True, False, True, False])
    np.testing.assert_array_equal(sums.of(mask).values, sums.of(np.array([0, 2])).values)


def test_the_variance_of_one_nucleus_is_zero() -> None:
    rows = counts(1)
    mean, variance = summed(rows, np.array([0])).of(np.array([0])).mean_variance(1)
    np.testing.assert_allclose(mean, per_10_000(rows)[0][0], rtol=1e-12)
    assert (variance == 0).all()


@pytest.mark.parametrize("n", [3, 7, 1000])
def test_a_gene_of_the_same_value_in_every_nucleus_has_no_variance(n: int) -> None:
    """Though its value is no binary fraction, and sums of it and of its square are rounded."""
    same = sp.csr_matrix(np.tile(np.array([[1, 2, 3, 7]], np.float32), (n, 1)))
    sums = summed(same, np.arange(n) % DONORS, [])
    assert (sums.mean_variance(n)[1] == 0).all()
