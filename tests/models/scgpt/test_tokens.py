"""What scGPT reads of a nucleus: bins by the definition, draws that depend on nothing else, subsets."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

from oligo_ad.data.cohort import Cohort
from oligo_ad.draws import draw, mix, nucleus_keys, stream
from oligo_ad.inputs.batch import Tokens
from oligo_ad.inputs.panel import choose_genes
from oligo_ad.models.pretrained import Pretrained
from oligo_ad.models.scgpt.tokens import BINNING, BinnedGenes, bin_values
from tests import builders

PAD, CLS = 0, 1
# The ids of GENE0, GENE1, … are not their places in the file.
VOCABULARY = ("<pad>", "<cls>", "OTHER", *(f"GENE{i}" for i in reversed(range(300))))
FOUNDATION = Pretrained(VOCABULARY, {"n_bins": 51, "pad_value": -2})
Bins = dict[str, dict[str, int]]


def uniforms(key: int, seed: int, items: np.ndarray) -> np.ndarray:
    """The draws of a cell, from 0 to below 1."""
    bits = draw(np.array([key], np.int64), stream(seed, BINNING), items.astype(np.int64))
    return (bits.view(np.uint64) >> np.uint64(11)) / 2.0**53


def by_definition(
    values: np.ndarray, ids: np.ndarray, key: int, seed: int = 0, n_bins: int = 51
) -> np.ndarray:
    """The bins of one cell: of all that the edges at or beside a value bound, one is drawn."""
    values = values.astype(np.float64)
    edges = np.quantile(values, np.linspace(0, 1, n_bins - 1))
    at_most, below = np.digitize(values, edges), np.digitize(values, edges, right=True)
    return at_most - np.floor(uniforms(key, seed, ids) * (at_most - below)).astype(int)


def exact(n: int, n_bins: int) -> bool:
    """Whether every edge that lies at a value does so in floating point too, where ties do not hide it."""
    position = np.linspace(0, 1, n_bins - 1) * (n - 1)
    off = abs(position - position.round())
    return not ((off > 0) & (off < 1e-9)).any()


def bins_of(values: np.ndarray, ids: np.ndarray, key: int, seed: int = 0, n_bins: int = 51) -> np.ndarray:
    offsets, keys = np.array([0, len(values)]), np.array([key], np.int64)
    return bin_values(offsets, values, ids, keys, stream(seed, BINNING), n_bins)


counts = st.lists(st.sampled_from([1] * 6 + [2] * 3 + [3, 4, 5, 9, 40]), min_size=1, max_size=120).map(
    lambda values: np.array(values, np.float32)
)
spread = st.lists(st.integers(1, 60), min_size=1, max_size=120).map(lambda v: np.array(v, np.float32))
keys = st.integers(-(2**63), 2**63 - 1)


@settings(max_examples=120, deadline=None)
@given(counts | spread, keys, st.integers(0, 2**31), st.sampled_from([51] * 4 + [2, 3, 11, 100, 256]))
def test_bins_are_those_of_the_definition(values: np.ndarray, key: int, seed: int, n_bins: int) -> None:
    assume(exact(len(values), n_bins))
    ids = np.random.default_rng(0).permutation(60_000)[: len(values)].astype(np.int32)
    found = bins_of(values, ids, key, seed, n_bins)
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, by_definition(values, ids, key, seed, n_bins))
    assert found.min() >= 1
    assert found.max() <= n_bins - 1


@settings(max_examples=100, deadline=None)
@given(counts | spread, keys)
def test_log_values_have_the_bins_of_counts(values: np.ndarray, key: int) -> None:
    ids = np.arange(len(values), dtype=np.int32)
    logged = np.log1p(values.astype(np.float64) * 10_000 / values.sum())
    found = bins_of(values, ids, key)
    np.testing.assert_array_equal(bins_of(logged, ids, key), found)
    np.testing.assert_array_equal(bins_of(logged.astype(np.float32), ids, key), found)
    if exact(len(values), 51):
        np.testing.assert_array_equal(by_definition(logged, ids, key), found)


def test_cells_are_binned_each_by_itself_and_empty_ones_are_passed_over() -> None:
    rng = np.random.default_rng(0)
    length = rng.integers(0, 40, 1000)  # more cells than one block
    length[[0, 255, 256, 999]] = 0
    offsets = np.concatenate([[0], np.cumsum(length)])
    values = rng.geometric(0.5, offsets[-1]).astype(np.float32)
    ids = rng.integers(0, 60_000, offsets[-1]).astype(np.int32)
    keys = rng.integers(-(2**63), 2**63 - 1, 1000)
    found = bin_values(offsets, values, ids, keys, stream(4, BINNING), 51)
    for cell, key in enumerate(keys):
        own = slice(offsets[cell], offsets[cell + 1])
        np.testing.assert_array_equal(found[own], bins_of(values[own], ids[own], key, 4))


@pytest.mark.parametrize("value", [1.0, 7.0, 0.3])
@pytest.mark.parametrize("n", [1, 2, 500])
def test_equal_values_may_get_any_bin(n: int, value: float) -> None:
    n_cells = 10_000 // n
    offsets, keys = np.arange(n_cells + 1) * n, nucleus_keys(pd.Series([f"AAAC-{i}" for i in range(n_cells)]))
    values, ids = np.full(n_cells * n, value, np.float32), np.tile(np.arange(n, dtype=np.int32), n_cells)
    found = bin_values(offsets, values, ids, keys, stream(0, BINNING), 51)
    assert chisquare(np.bincount(found, minlength=51)[1:]).pvalue > 1e-3


def test_distinct_values_are_binned_by_rank() -> None:
    values = np.arange(51, 101, dtype=np.float32)
    order = np.random.default_rng(0).permutation(50)
    found = bins_of(values[order], order.astype(np.int32), 3)
    np.testing.assert_array_equal(found, order + 1)


# What bins do not depend on


def atlas() -> ad.AnnData:
    return builders.atlas(5, 4, nuclei=8, genes=60)


def featurizer(cohort: Cohort, **options: Any) -> BinnedGenes:
    return BinnedGenes(FOUNDATION, **options).fit(cohort, tuple(cohort.donors.index))


def bins_by_name(cohort: Cohort, **options: Any) -> Bins:
    """The bin of each gene of each nucleus."""
    tokens = featurizer(cohort, **options).tokens(cohort)
    return {
        barcode: {
            VOCABULARY[token]: int(value)
            for token, value in zip(tokens.gene_ids[start:stop], tokens.values[start:stop], strict=True)
        }
        for barcode, start, stop in zip(
            cohort.cells["barcode"], tokens.offsets[:-1], tokens.offsets[1:], strict=True
        )
    }


def test_the_featurizer_reads_every_expressed_gene_with_the_bin_of_the_definition(tmp_path: Path) -> None:
    cohort = builders.cohort(atlas(), tmp_path)
    found = bins_by_name(cohort, seed=5)
    assert len(found) == len(cohort.cells)
    keys = nucleus_keys(cohort.cells["barcode"])
    for cell, values in enumerate(builders.counts(cohort)):
        genes = np.flatnonzero(values)
        names = cohort.genes["name"].to_numpy()[genes]
        ids = np.array([VOCABULARY.index(name) for name in names])
        wanted = by_definition(values[genes], ids, keys[cell], seed=5)
        named = dict(zip(names, wanted, strict=True))
        if exact(len(genes), 51):
            assert found[cohort.cells["barcode"][cell]] == named


def test_a_file_of_log_values_is_read_as_one_of_counts(tmp_path: Path) -> None:
    cohort = builders.cohort(atlas(), tmp_path)
    logged = builders.exchanged(cohort, builders.log_values(cohort), "log")
    assert bins_by_name(logged) == bins_by_name(cohort)


def other_cells(adata: ad.AnnData) -> ad.AnnData:
    """Two donors fewer, and of every other nucleus of the rest other counts."""
    adata = adata[~adata.obs["Donor ID"].isin(["D00", "D08"])].copy()
    adata.X = adata.X.multiply(np.where(np.arange(adata.n_obs) % 4 < 2, 1, 3)[:, None]).tocsr()
    changed = adata.X.toarray()
    changed[2::4] = np.random.default_rng(1).poisson(4, changed[2::4].shape)
    adata.X = type(adata.X)(changed)
    adata.obs_names = [name if i % 4 != 2 else f"other-{i}" for i, name in enumerate(adata.obs_names)]
    return adata


def other_order(adata: ad.AnnData) -> ad.AnnData:
    return adata[np.random.default_rng(2).permutation(adata.n_obs)].copy()


def other_order_of_genes(adata: ad.AnnData) -> ad.AnnData:
    return adata[:, np.random.default_rng(3).permutation(adata.n_vars)].copy()


@pytest.mark.parametrize("change", [other_cells, other_order, other_order_of_genes])
def test_bins_follow_from_the_nucleus_alone(
    tmp_path: Path, change: Callable[[ad.AnnData], ad.AnnData]
) -> None:
    first = bins_by_name(builders.cohort(atlas(), tmp_path))
    second = bins_by_name(builders.cohort(change(atlas()), tmp_path))
    common = first.keys() & second.keys()
    assert len(common) >= 20
    for barcode in common:
        assert first[barcode] == second[barcode]


def test_bins_change_with_the_seed_and_the_barcode(tmp_path: Path) -> None:
    cohort = builders.cohort(atlas(), tmp_path)
    first, again, other = (bins_by_name(cohort, seed=seed) for seed in (0, 0, 1))
    assert first == again
    assert all(first[barcode] != other[barcode] for barcode in first)
    renamed = replace(cohort, cells=cohort.cells.assign(barcode="x" + cohort.cells["barcode"]))
    assert all(bins != first[barcode[1:]] for barcode, bins in bins_by_name(renamed).items())


def test_a_restored_featurizer_reads_as_the_fitted_one(tmp_path: Path) -> None:
    cohort = builders.cohort(atlas(), tmp_path)
    fitted = featurizer(cohort, genes="hvg", n_genes=20)
    restored = BinnedGenes(FOUNDATION, genes="hvg", n_genes=20).restore(fitted.gene_names, fitted.state())
    for one, other in zip(fitted.tokens(cohort), restored.tokens(cohort), strict=True):
        assert torch.equal(one, other)


def test_of_a_panel_no_other_gene_is_read_or_binned(tmp_path: Path) -> None:
    cohort = builders.cohort(atlas(), tmp_path)
    train = tuple(cohort.donors.index)[1:]
    panel = choose_genes(cohort, train, "hvg", 20, "seurat")
    made = BinnedGenes(FOUNDATION, genes="hvg", n_genes=20).fit(cohort, train)
    assert made.gene_names == panel
    assert len(panel) == 20
    values = builders.counts(cohort)
    others = ~cohort.genes["name"].isin(panel).to_numpy()
    values[:, others] = np.random.default_rng(0).poisson(3, (len(values), others.sum()))
    tokens, unmoved = made.tokens(builders.exchanged(cohort, values)), made.tokens(cohort)
    assert {VOCABULARY[token] for token in tokens.gene_ids} == set(panel)
    for one, other in zip(tokens, unmoved, strict=True):
        assert torch.equal(one, other)


def test_a_panel_of_the_file_is_read_and_genes_without_a_token_are_told(tmp_path: Path) -> None:
    cohort = builders.cohort(atlas(), tmp_path)
    genes = cohort.genes.replace({"symbol": {"GENE7": "NOWHERE"}})
    marked = replace(
        cohort, genes=genes.assign(highly_variable=genes["name"].isin(["GENE3", "GENE5", "GENE7"]))
    )
    made = featurizer(marked, genes="provided")
    assert made.gene_names == ["GENE3", "GENE5"]
    builders.assert_says(made.facts()["without a token"], "GENE7")


# Draws


@pytest.mark.parametrize("shift", [0, 11, 32, 58])
def test_draws_are_uniform(shift: int) -> None:
    keys = nucleus_keys(pd.Series([f"AAAC-{i}" for i in range(400)]))
    bits = draw(keys[:, None], stream(0, BINNING), np.arange(500)[None]).view(np.uint64)
    cut = (bits >> np.uint64(shift)) & np.uint64(63)
    assert chisquare(np.bincount(cut.ravel().astype(int), minlength=64)).pvalue > 1e-3
    # Nor do those of the next gene, the next cell or the next purpose follow from them.
    later = (draw(keys[:, None], stream(0, 1), np.arange(500)[None]).view(np.uint64) >> np.uint64(shift)) % 64
    for one, other in [(cut[:, 1:], cut[:, :-1]), (cut[1:], cut[:-1]), (cut, later)]:
        pair = (one % 8 * 8 + other % 8).ravel().astype(int)
        assert chisquare(np.bincount(pair, minlength=64)).pvalue > 1e-3


def test_draws_are_the_same_of_arrays_and_of_tensors() -> None:
    key = np.random.default_rng(0).integers(-(2**63), 2**63 - 1, 100)
    item = np.arange(100)
    wanted = draw(key, stream(7, 3), item)
    assert wanted.dtype == np.int64
    assert len(set(wanted)) == 100
    tensors = draw(torch.from_numpy(key), stream(7, 3), torch.from_numpy(item))
    np.testing.assert_array_equal(tensors.numpy(), wanted)


def test_a_key_follows_from_the_barcode_and_streams_do_not_meet() -> None:
    keys = nucleus_keys(pd.Series(["AAAC-1", "AAAC-2", "AAAC-1"]))
    assert keys.dtype == np.int64
    assert keys[0] == keys[2] != keys[1]
    categories = pd.Series(["AAAC-1", "AAAC-2", "AAAC-1"], dtype="category")
    np.testing.assert_array_equal(nucleus_keys(categories), keys)
    assert len({stream(seed, purpose) for seed in range(20) for purpose in range(200)}) == 4000


# Packing


def cells(*lengths: int) -> Tokens:
    """Cells of so many genes: ids that rise from 3, and bins that tell cell and gene apart."""
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    ids = np.concatenate([np.random.default_rng(n).permutation(300)[:n] + 3 for n in lengths])
    bins = np.concatenate([np.arange(n) * (i + 1) % 50 + 1 for i, n in enumerate(lengths)])
    keys = nucleus_keys(pd.Series([f"cell-{n}-{i}" for i, n in enumerate(lengths)]))
    parts = (offsets, ids.astype(np.int32), bins.astype(np.uint8), keys)
    return Tokens(*(torch.from_numpy(part) for part in parts))


def packed(
    tokens: Tokens, rows: list[int], epoch: int = 0, **options: Any
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    longest = max(1, int(tokens.offsets.diff()[rows].max()))  # as the loader has it
    return BinnedGenes(FOUNDATION, **options).pack(tokens, torch.tensor(rows), longest, epoch)


def pairs(tokens: Tokens, row: int) -> list[tuple[int, int]]:
    """Ids and bins of a cell, as stored."""
    own = slice(tokens.offsets[row], tokens.offsets[row + 1])
    return list(zip(tokens.gene_ids[own].tolist(), tokens.values[own].tolist(), strict=True))


def kept(
    tokens: Tokens, rows: list[int], epoch: int = 0, **options: Any
) -> dict[int, list[tuple[int, float]]]:
    """Ids and bins of each cell, without `<cls>` and padding."""
    ids, values, mask = packed(tokens, rows, epoch, **options)
    return {
        row: [(int(i), float(v)) for i, v in zip(ids[place, 1:], values[place, 1:], strict=True) if i != PAD]
        for place, row in enumerate(rows)
        if mask[place, 0]
    }


@pytest.mark.parametrize("cls_value", [0.0, -2.0])
def test_cls_comes_first_and_padding_last(cls_value: float) -> None:
    tokens = cells(4, 0, 2)
    ids, values, mask = packed(tokens, [2, 1, 0], cls_value=cls_value)
    assert ids.dtype == torch.int64
    assert values.dtype == torch.float32
    a, c = pairs(tokens, 0), pairs(tokens, 2)
    assert ids.tolist() == [
        [CLS, *(i for i, _ in c), PAD, PAD],
        [CLS, PAD, PAD, PAD, PAD],
        [CLS, *(i for i, _ in a)],
    ]
    assert values.tolist() == [
        [cls_value, *(v for _, v in c), -2, -2],
        [cls_value, -2, -2, -2, -2],
        [cls_value, *(v for _, v in a)],
    ]
    assert mask.tolist() == [[True] * 3 + [False] * 2, [True] + [False] * 4, [True] * 5]


def test_padding_has_the_value_and_the_id_of_the_checkpoint() -> None:
    pretrained = Pretrained(("GENE0", "<cls>", "GENE1", "<pad>"), {"n_bins": 51, "pad_value": -9})
    offsets, genes, bins = (torch.tensor(part) for part in ([0, 1, 3], [0, 2, 0], [5, 6, 7]))
    tokens = Tokens(offsets, genes, bins, torch.arange(2))
    ids, values, _ = BinnedGenes(pretrained).pack(tokens, torch.tensor([0, 1]), 2, 0)
    assert ids.tolist() == [[1, 0, 3], [1, 2, 0]]
    assert values.tolist() == [[0, 5, -9], [0, 6, 7]]


def test_a_cell_that_fits_is_read_whole_and_one_gene_more_is_too_many() -> None:
    tokens = cells(9, 10, 3)
    ids, _, mask = packed(tokens, [0, 1, 2], max_len=10)
    assert ids.shape == (3, 10)
    assert mask.sum(1).tolist() == [10, 10, 4]
    found = kept(tokens, [0, 1, 2], max_len=10)
    assert found[0] == pairs(tokens, 0)
    assert len(found[1]) == 9
    assert found[2] == pairs(tokens, 2)
    assert kept(tokens, [0], max_len=10)[0] == pairs(tokens, 0)
    assert packed(tokens, [0], max_len=10)[0].shape == (1, 10)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(0, 120), min_size=1, max_size=6).filter(any), st.integers(2, 60), st.integers(0, 50)
)
def test_of_a_long_cell_as_many_genes_as_fit_are_read_each_with_its_bin(
    lengths: list[int], max_len: int, epoch: int
) -> None:
    tokens, rows = cells(*lengths), list(range(len(lengths)))
    ids, values, mask = packed(tokens, rows, epoch, max_len=max_len)
    assert ids.shape == values.shape == mask.shape == (len(rows), min(max_len, max(lengths) + 1))
    assert mask.sum(1).tolist() == [min(max_len, n + 1) for n in lengths]
    assert (ids[~mask] == PAD).all()
    assert (values[~mask] == -2).all()
    for row, found in kept(tokens, rows, epoch, max_len=max_len).items():
        assert len(found) == len(set(found)) == min(max_len - 1, lengths[row])
        assert len({i for i, _ in found}) == len(found)
        # In the order of the cell.
        assert found == [pair for pair in pairs(tokens, row) if pair in found]


def test_a_subset_is_the_same_in_an_epoch_and_another_in_the_next() -> None:
    tokens = cells(200, 150)
    first, again, later = (kept(tokens, [0, 1], epoch, max_len=50) for epoch in (3, 3, 4))
    assert first == again
    for row in (0, 1):
        assert first[row] != later[row]
    other = kept(tokens, [0, 1], 3, max_len=50, seed=1)
    assert first[0] != other[0]


def test_a_subset_does_not_depend_on_the_other_cells_of_the_batch() -> None:
    tokens = cells(80, 299, 200, 3, 80)
    together = kept(tokens, [3, 1, 0, 2, 4], 5, max_len=50)
    for row in range(5):
        assert kept(tokens, [row], 5, max_len=50)[row] == together[row]
    assert kept(tokens, [2, 4], 5, max_len=50)[2] == together[2]
    # Nor on the place of the cell in the cohort, or its neighbours there.
    start, stop = tokens.offsets[1], tokens.offsets[2]
    alone = Tokens(
        torch.tensor([0, 299]), tokens.gene_ids[start:stop], tokens.values[start:stop], tokens.keys[1:2]
    )
    assert kept(alone, [0], 5, max_len=50)[0] == together[1]


def test_two_cells_of_the_same_genes_have_subsets_of_their_own() -> None:
    twice = cells(200, 200)
    found = kept(twice, [0, 1], max_len=50)
    assert {i for i, _ in pairs(twice, 0)} == {i for i, _ in pairs(twice, 1)}
    assert {i for i, _ in found[0]} != {i for i, _ in found[1]}


def test_over_many_epochs_every_gene_is_read_about_equally_often() -> None:
    n, n_kept, epochs, rows = 40, 10, 400, list(range(8))
    tokens = cells(*[n] * len(rows))
    times = np.zeros((len(rows), len(VOCABULARY)))
    for epoch in range(epochs):
        ids = packed(tokens, rows, epoch, max_len=n_kept + 1)[0][:, 1:].numpy()
        np.add.at(times, (np.array(rows)[:, None], ids), 1)
    assert times.sum() == epochs * n_kept * len(rows)
    own = times[:, tokens.gene_ids[:n].long().numpy()]
    for of_cell in [*own, own.sum(axis=0)]:
        assert (of_cell > 0).all()
        # Draws without replacement vary less than the chi-square law has it, by this factor.
        statistic = chisquare(of_cell).statistic / (1 - n_kept / n)
        assert 15 < statistic * (n - 1) / n < 75


@given(st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1, max_size=20))
def test_bits_are_mixed_as_by_splitmix64(numbers: list[int]) -> None:
    """In numbers without a sign, as it was published; ours have one."""

    def published(bits: int) -> int:
        bits = ((bits ^ (bits >> 30)) * 0xBF58476D1CE4E5B9) % 2**64
        bits = ((bits ^ (bits >> 27)) * 0x94D049BB133111EB) % 2**64
        return bits ^ (bits >> 31)

    expected = [published(number % 2**64) for number in numbers]
    with np.errstate(over="ignore"):
        found = mix(np.array(numbers, np.int64)).view(np.uint64)
    assert found.tolist() == expected
    assert mix(torch.tensor(numbers)).numpy().view(np.uint64).tolist() == expected
