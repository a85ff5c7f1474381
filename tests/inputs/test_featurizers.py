"""What a network reads of a nucleus: fitted on training donors, gathered in a known order."""

from collections.abc import Callable
from dataclasses import replace

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scanpy as sc
import scipy.sparse as sp
import torch

from oligo_ad.data.cohort import Cohort
from oligo_ad.errors import UserError
from oligo_ad.inputs.batch import Tokens
from oligo_ad.inputs.featurizers import ExpressedPanel, Featurizer, StandardisedPanel, ragged
from oligo_ad.inputs.panel import choose_genes, most_dispersed
from tests import builders

CPU = torch.device("cpu")
Panel = Callable[..., Featurizer]
TRAIN = ("D00", "D01", "D02", "D05", "D06", "D07")
OTHERS = ("D03", "D04", "D08")
every_panel = pytest.mark.parametrize("panel", [StandardisedPanel, ExpressedPanel])


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Cohort:
    """108 nuclei of nine donors; the last gene, GENE9, is silent in the training donors."""
    adata = builders.atlas(5, 4, nuclei=24, genes=40)
    counts = adata.X.toarray()
    counts[adata.obs["Donor ID"].isin(TRAIN), 9] = 0
    adata.X = sp.csr_matrix(counts)
    return builders.cohort(adata, tmp_path_factory.mktemp("featurizers"))


@pytest.fixture(scope="module")
def rows(cohort: Cohort) -> np.ndarray:
    """The nuclei of the training donors."""
    return cohort.rows_of(TRAIN)


def everything(featurizer: Featurizer, cohort: Cohort) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Gene ids, values and mask of all nuclei, in order."""
    tokens = featurizer.tokens(cohort)
    rows = torch.arange(len(cohort.cells))
    return tuple(part.numpy() for part in featurizer.pack(tokens, rows, int(tokens.offsets.diff().max()), 0))


def dense(featurizer: Featurizer, cohort: Cohort) -> np.ndarray:
    """Log values of the panel, in its order."""
    position = pd.Index(cohort.genes["name"]).get_indexer(featurizer.gene_names)
    return builders.log_values(cohort)[:, position]


@pytest.mark.parametrize("genes", ["all", "hvg"])
def test_standardised_values_have_mean_0_and_sd_1_in_training(
    cohort: Cohort, rows: np.ndarray, genes: str
) -> None:
    featurizer = StandardisedPanel(genes=genes, n_genes=15).fit(cohort, TRAIN)
    ids, values, mask = everything(featurizer, cohort)
    assert ids.tolist() == [list(range(len(featurizer.gene_names)))] * len(cohort.cells)
    assert mask.all()
    assert values.dtype == np.float32
    np.testing.assert_allclose(values[rows].mean(axis=0), 0, atol=1e-5)
    np.testing.assert_allclose(values[rows].std(axis=0), 1, atol=1e-4)
    log_values = dense(featurizer, cohort).astype(np.float64)
    expected = (log_values - log_values[rows].mean(axis=0)) / log_values[rows].std(axis=0)
    np.testing.assert_allclose(values, expected, atol=1e-4)


def test_a_gene_silent_in_training_is_no_nan(cohort: Cohort, rows: np.ndarray) -> None:
    with_silent = replace(cohort, genes=cohort.genes.assign(highly_variable=True))
    featurizer = StandardisedPanel(genes="provided").fit(with_silent, TRAIN)
    values = everything(featurizer, with_silent)[1]
    assert len(featurizer.gene_names) == 40
    assert np.isfinite(values).all()
    assert (values[rows, -1] == 0).all()
    assert (values[:, -1] != 0).any()


def test_a_gene_constant_in_training_is_centred_and_not_scaled(cohort: Cohort, rows: np.ndarray) -> None:
    logged = builders.log_values(cohort)
    logged[rows, 0] = 1.1
    constant = builders.exchanged(cohort, logged, "log")
    values = everything(StandardisedPanel(genes="all").fit(constant, TRAIN), constant)[1]
    np.testing.assert_allclose(values[:, 0], logged[:, 0] - 1.1, atol=1e-5)


def test_standardised_values_are_clipped(cohort: Cohort) -> None:
    free = everything(StandardisedPanel(genes="all").fit(cohort, TRAIN), cohort)[1]
    clipped = everything(StandardisedPanel(genes="all", clip=1.5).fit(cohort, TRAIN), cohort)[1]
    assert abs(free).max() > 1.5
    np.testing.assert_array_equal(clipped, free.clip(-1.5, 1.5))


@pytest.mark.parametrize("genes", ["all", "hvg"])
def test_the_expressed_panel_is_the_dense_log_matrix(cohort: Cohort, genes: str) -> None:
    featurizer = ExpressedPanel(genes=genes, n_genes=15).fit(cohort, TRAIN)
    ids, values, mask = everything(featurizer, cohort)
    expected = dense(featurizer, cohort)
    rebuilt = np.zeros_like(expected)
    cells = np.broadcast_to(np.arange(len(ids))[:, None], ids.shape)
    rebuilt[cells[mask], ids[mask]] = values[mask]
    np.testing.assert_array_equal(rebuilt, expected)
    assert (values[mask] > 0).all()
    assert mask.sum() == (expected > 0).sum()
    assert (values[~mask] == 0).all()
    assert (ids[~mask] == 0).all()


def test_the_panel_is_of_the_size_asked_for_and_in_the_order_of_the_cohort(cohort: Cohort) -> None:
    names = ExpressedPanel(genes="hvg", n_genes=15).fit(cohort, TRAIN).gene_names
    assert len(names) == 15
    assert names == [name for name in cohort.genes["name"] if name in names]
    everyone = ExpressedPanel(genes="all").fit(cohort, TRAIN).gene_names
    assert everyone == cohort.genes["name"].tolist()[:-1]


def test_the_files_own_panel_is_taken(cohort: Cohort) -> None:
    chosen = cohort.genes["name"].isin(["GENE3", "GENE7"])
    marked = replace(cohort, genes=cohort.genes.assign(highly_variable=chosen))
    assert ExpressedPanel(genes="provided").fit(marked, TRAIN).gene_names == ["GENE3", "GENE7"]
    with pytest.raises(UserError, match="no 'highly_variable' column"):
        ExpressedPanel(genes="provided").fit(cohort, TRAIN)


def changed_elsewhere(cohort: Cohort) -> Cohort:
    """The same cohort with other counts in every nucleus of other than training donors."""
    counts, others = builders.counts(cohort), cohort.rows_of(OTHERS)
    counts[others] = np.random.default_rng(1).poisson(30, (len(others), counts.shape[1]))
    return builders.exchanged(cohort, counts)


@every_panel
@pytest.mark.parametrize("genes", ["all", "hvg"])
def test_donors_outside_training_change_nothing(cohort: Cohort, panel: Panel, genes: str) -> None:
    first, second = (
        panel(genes=genes, n_genes=15).fit(c, TRAIN) for c in (cohort, changed_elsewhere(cohort))
    )
    assert first.gene_names == second.gene_names
    assert first.state().keys() == second.state().keys()
    for name, learned in first.state().items():
        assert torch.equal(learned, second.state()[name])
    for one, other in zip(everything(first, cohort), everything(second, cohort), strict=True):
        np.testing.assert_array_equal(one, other)


def test_training_donors_do_change_the_panel(cohort: Cohort) -> None:
    first, second = (StandardisedPanel(n_genes=15).fit(cohort, donors) for donors in (TRAIN, OTHERS))
    assert first.gene_names != second.gene_names


def scanpys_choice(log_values: np.ndarray, n_genes: int) -> np.ndarray:
    """The genes that scanpy marks, from log values in double precision."""
    nuclei = ad.AnnData(sp.csr_matrix(log_values))
    found = sc.pp.highly_variable_genes(nuclei, n_top_genes=n_genes, flavor="seurat", inplace=False)
    return found["highly_variable"].to_numpy(bool)


def per_10_000(seed: int, n_genes: int = 200) -> np.ndarray:
    """Normalised values of 150 nuclei: a few genes far above the rest, so that some are alone in a bin."""
    rng = np.random.default_rng(seed)
    mean = np.exp(rng.normal(-1, 1.5, n_genes))
    mean[:3] *= [300, 3000, 40_000]
    counts = rng.poisson(mean * rng.gamma(rng.uniform(0.3, 3, n_genes), 1, (150, n_genes)))
    return counts / counts.sum(axis=1, keepdims=True) * 1e4


@pytest.mark.parametrize("n_genes", [1, 10, 60, 150])
@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("flat", ["none", "constant", "silent", "both"])
def test_the_most_dispersed_genes_are_scanpys(seed: int, n_genes: int, flat: str) -> None:
    values = per_10_000(seed)
    if flat in ("constant", "both"):
        values[:, 10:12] = [1.0, 8.0]  # of which scanpy's variance is exactly 0; rounding leaves others some
    if flat in ("silent", "both"):
        values[:, 20:24] = 0
    mean, variance = values.mean(axis=0), values.var(axis=0, ddof=1)
    bins = pd.cut(np.log1p(mean), 20).value_counts()
    assert (bins == 1).any()
    chosen = most_dispersed(mean, variance, n_genes)
    np.testing.assert_array_equal(chosen, scanpys_choice(np.log1p(values), n_genes))
    assert chosen.sum() >= n_genes
    assert not chosen[variance == 0].any()


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Cohort:
    """Enough genes that few bins hold two: those are as far from their mean as each other."""
    return builders.cohort(builders.atlas(5, 4, genes=300), tmp_path_factory.mktemp("wide"))


@pytest.mark.parametrize("content", ["counts", "log"])
@pytest.mark.parametrize("n_genes", [20, 100, 250])
def test_the_panel_is_scanpys_on_the_training_nuclei(wide: Cohort, n_genes: int, content: str) -> None:
    counts = builders.counts(wide).astype(np.float64)
    counts[wide.rows_of(TRAIN), 7] = 0
    logged = np.log1p(counts / counts.sum(axis=1, keepdims=True) * 1e4)
    if content == "log":
        logged = logged.astype(np.float32).astype(np.float64)
    cohort = builders.exchanged(wide, counts if content == "counts" else logged, content)
    mine = logged[wide.rows_of(TRAIN)]
    expressed = mine.any(axis=0)
    expected = wide.genes["name"].to_numpy()[expressed][scanpys_choice(mine[:, expressed], n_genes)]
    assert expressed.sum() == 299
    assert choose_genes(cohort, TRAIN, "hvg", n_genes, "seurat") == expected.tolist()


@pytest.mark.parametrize(
    ("panel", "genes", "chosen", "values", "fitted"),
    [
        (
            StandardisedPanel,
            "hvg",
            "15 genes: of those expressed in training donors the most variable (seurat",
            "ln(1 + counts per 10,000), standardised with mean and SD of training nuclei, clipped at ±10",
            "choice of genes: training donors; mean and SD of each gene: training donors",
        ),
        (
            ExpressedPanel,
            "all",
            "39 genes: of those expressed in training donors all",
            "ln(1 + counts per 10,000), of expressed genes only",
            "choice of genes: training donors",
        ),
        (
            ExpressedPanel,
            "provided",
            "40 genes, marked highly variable in the file",
            "ln(1 + counts per 10,000)",
            "choice of genes: by the file's authors, who may have used all nuclei",
        ),
    ],
)
def test_a_featurizer_tells_what_it_reads_and_what_was_fitted_on_whom(
    cohort: Cohort, panel: Panel, genes: str, chosen: str, values: str, fitted: str
) -> None:
    marked = replace(cohort, genes=cohort.genes.assign(highly_variable=True))
    facts = panel(genes=genes, n_genes=15).fit(marked, TRAIN).facts()
    assert facts.keys() == {"chosen", "values", "fitted"}
    assert facts["chosen"].startswith(chosen)
    assert facts["values"].startswith(values)
    assert facts["fitted"] == fitted


def test_log_values_of_a_file_are_not_called_counts(cohort: Cohort) -> None:
    logged = builders.exchanged(cohort, builders.log_values(cohort), "log")
    facts = StandardisedPanel(genes="all", clip=2.5).fit(logged, TRAIN).facts()
    assert facts["values"].startswith("log expression as it is in the file, standardised")
    assert facts["values"].endswith("clipped at ±2.5")


@every_panel
def test_every_id_has_the_name_of_its_gene(cohort: Cohort, panel: Panel) -> None:
    featurizer = panel(n_genes=15).fit(cohort, TRAIN)
    names = featurizer.names_of_ids()
    assert len(names) == featurizer.n_ids
    ids, values, mask = everything(featurizer, cohort)
    (row, place), *_ = np.argwhere(mask & (values != 0))
    assert names[ids[row, place]] in featurizer.gene_names


@every_panel
def test_a_restored_featurizer_reads_as_the_fitted_one(cohort: Cohort, panel: Panel) -> None:
    fitted = panel(n_genes=15).fit(cohort, TRAIN)
    restored = panel(n_genes=15).restore(fitted.gene_names, fitted.state())
    for one, other in zip(everything(fitted, cohort), everything(restored, cohort), strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_file_without_a_gene_of_the_panel_is_refused(cohort: Cohort) -> None:
    fitted = ExpressedPanel(genes="all").fit(cohort, TRAIN)
    other = replace(cohort, genes=cohort.genes.replace({"name": {"GENE4": "OTHER"}}))
    with pytest.raises(UserError, match="1 genes of the model are not in this file: GENE4"):
        fitted.tokens(other)


def test_gathered_cells_are_padded_with_zeros() -> None:
    tokens = Tokens(
        torch.tensor([0, 2, 2, 5]),
        torch.tensor([4, 7, 1, 2, 3], dtype=torch.int32),
        torch.tensor([0.4, 0.7, 0.1, 0.2, 0.3]),
    )
    ids, values, mask = tokens.gather(torch.tensor([2, 1, 0]), 3)
    assert ids.tolist() == [[1, 2, 3], [0, 0, 0], [4, 7, 0]]
    torch.testing.assert_close(values, torch.tensor([[0.1, 0.2, 0.3], [0, 0, 0], [0.4, 0.7, 0]]))
    assert mask.tolist() == [[True] * 3, [False] * 3, [True, True, False]]


def test_a_dense_batch_is_the_same_by_a_compiled_loop_and_by_tensor_operations(cohort: Cohort) -> None:
    tokens, rows = ExpressedPanel(n_genes=15).fit(cohort, TRAIN).tokens(cohort), torch.tensor([7, 0, 40])
    background = torch.linspace(-1, 1, 15)
    wanted = background.repeat(3, 1)
    for i, row in enumerate(rows.tolist()):
        cell = slice(tokens.offsets[row], tokens.offsets[row + 1])
        wanted[i, tokens.gene_ids[cell].long()] = tokens.values[cell]
    longest = int(tokens.offsets.diff()[rows].max())
    assert torch.equal(tokens.dense(rows, longest, background), wanted)
    assert torch.equal(tokens._scattered(rows, longest, background), wanted)


@every_panel
def test_genes_are_read_by_their_names_whatever_order_a_file_has(cohort: Cohort, panel: Panel) -> None:
    fitted = panel(n_genes=15).fit(cohort, TRAIN)
    order = np.random.default_rng(0).permutation(cohort.matrix.shape[1])
    moved = builders.exchanged(cohort, builders.counts(cohort)[:, order])
    moved = replace(moved, genes=cohort.genes.iloc[order].reset_index(drop=True))

    def dense(other: Cohort) -> np.ndarray:
        tokens = fitted.tokens(other)
        rows = torch.arange(len(other.cells))
        return tokens.dense(rows, int(tokens.offsets.diff().max()), torch.zeros(15)).numpy()

    np.testing.assert_allclose(dense(moved), dense(cohort), rtol=1e-6)


@pytest.mark.parametrize("n_genes", [100, 2**15, 2**15 + 1, 70_000])
def test_every_gene_keeps_its_id_however_many_there_are(n_genes: int) -> None:
    last = [0, n_genes // 2, n_genes - 1]
    values = sp.csr_matrix((np.ones(3, np.float32), ([0, 0, 1], last)), shape=(2, n_genes))
    assert ragged(values).gene_ids.tolist() == last
