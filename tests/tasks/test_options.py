"""Options of what a run reads and repeats, each through a whole run: what it changes is in the record."""

import sys
from collections.abc import Callable
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scanpy as sc

from oligo_ad import tasks
from oligo_ad.errors import UserError
from oligo_ad.record import Record
from oligo_ad.results import report
from tests.builders import answer, assert_says, atlas, configuration, load, write

Run = Callable[..., Record]
WIDE = 200  # genes, so that few bins of mean expression hold two of them


@pytest.fixture(scope="module")
def nuclei() -> ad.AnnData:
    """360 nuclei, half of them oligodendrocytes; seven genes are marked in the file as highly variable."""
    adata = atlas(genes=WIDE, seed=5)
    adata.var["highly_variable"] = np.arange(WIDE) % 31 == 0
    return adata


@pytest.fixture
def run(nuclei: ad.AnnData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """A short run without pictures and baselines."""
    monkeypatch.setattr(report, "draw", lambda run: {})

    def start(*overrides: str, adata: ad.AnnData = nuclei, name: str = "run") -> Record:
        path = write(adata, tmp_path, f"{name}.h5ad")
        words = ("fit.epochs=1", "model.network.hidden=[4]", "evaluation.baselines=false")
        shared = (f"data.path={path}", f"cache.dir={tmp_path / 'cache'}")
        tasks.run(configuration(*shared, *words, *overrides), tmp_path / name)
        return Record(tmp_path / name)

    return start


def training_nuclei(adata: ad.AnnData, record: Record) -> ad.AnnData:
    """Raw counts of the nuclei that the run was trained on, of the genes expressed in them."""
    train = record.predictions.query("part == 'train'")["barcode"]
    own = adata[train].copy()
    own.X = own.X.astype(np.float64)
    return own[:, np.asarray(own.X.sum(axis=0)).ravel() > 0].copy()


# Which genes are read


def test_the_genes_of_cell_ranger_are_scanpys_on_the_training_nuclei(run: Run, nuclei: ad.AnnData) -> None:
    record = run("model.featurizer.flavor=cell_ranger")
    mine = training_nuclei(nuclei, record)
    sc.pp.normalize_total(mine, target_sum=1e4)
    sc.pp.log1p(mine)
    sc.pp.highly_variable_genes(mine, n_top_genes=30, flavor="cell_ranger")
    wanted = mine.var_names[mine.var["highly_variable"]].tolist()
    (history,) = record.histories
    assert history.genes == sorted(wanted)
    assert "cell_ranger" in history.input["chosen"]
    (usual,) = run("model.featurizer.flavor=seurat", name="usual").histories
    assert usual.genes != sorted(wanted)


def test_the_genes_of_seurat_v3_are_scanpys_on_the_training_counts(run: Run, nuclei: ad.AnnData) -> None:
    pytest.importorskip("skmisc", reason="scikit-misc, which fits the trend, is not installed")
    record = run("model.featurizer.flavor=seurat_v3")
    mine = training_nuclei(nuclei, record)
    sc.pp.highly_variable_genes(mine, n_top_genes=30, flavor="seurat_v3")
    assert record.histories[0].genes == sorted(mine.var_names[mine.var["highly_variable"]])


def test_seurat_v3_without_its_package_is_refused_with_what_to_install(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("skmisc", "skmisc.loess"):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(UserError) as refused:
        run("model.featurizer.flavor=seurat_v3")
    assert_says(str(refused.value), "model.featurizer.flavor=seurat_v3", "scikit-misc")


def test_every_gene_expressed_in_training_donors_is_read_where_all_are_asked_for(
    run: Run, nuclei: ad.AnnData
) -> None:
    silent = nuclei.copy()
    silent.X = silent.X.multiply(np.arange(WIDE) != 8).tocsr()
    (history,) = run("model.featurizer.genes=all", adata=silent).histories
    assert history.genes == sorted(name for name in nuclei.var_names if name != "GENE8")
    assert "all" in history.input["chosen"]


def test_the_genes_marked_in_the_file_are_read_where_they_are_asked_for(run: Run, nuclei: ad.AnnData) -> None:
    (history,) = run("model.featurizer.genes=provided").histories
    assert history.genes == sorted(nuclei.var_names[nuclei.var["highly_variable"]])
    assert "all nuclei" in history.input["fitted"]
    plain = nuclei.copy()
    del plain.var["highly_variable"]
    with pytest.raises(UserError, match="no 'highly_variable' column"):
        run("model.featurizer.genes=provided", adata=plain, name="plain")


# Which values are read


@pytest.fixture(scope="module")
def logged(nuclei: ad.AnnData) -> ad.AnnData:
    """The same nuclei with log values and no counts."""
    adata = nuclei.copy()
    sc.pp.normalize_total(adata, target_sum=1e4)
    sc.pp.log1p(adata)
    del adata.uns["log1p"]
    return adata


def test_a_file_without_counts_gives_the_run_of_its_counts(
    run: Run, nuclei: ad.AnnData, logged: ad.AnnData
) -> None:
    genes = ("model.featurizer.genes=all",)
    without, counted = (
        run("data.counts=none", *genes, adata=logged, name="logged"),
        run(*genes, name="counted"),
    )
    assert "as it is in the file" in without.histories[0].input["values"]
    assert "counts per 10,000" in counted.histories[0].input["values"]
    pd.testing.assert_frame_equal(
        without.predictions.drop(columns="logit"), counted.predictions.drop(columns="logit")
    )
    np.testing.assert_allclose(without.predictions["logit"], counted.predictions["logit"], atol=1e-3)


def test_what_needs_counts_is_refused_of_a_file_without(run: Run, logged: ad.AnnData) -> None:
    with pytest.raises(UserError, match="seurat_v3 needs raw counts"):
        run("data.counts=none", "model.featurizer.flavor=seurat_v3", adata=logged)


def test_counts_are_taken_from_the_layer_that_is_named(
    logged: ad.AnnData, nuclei: ad.AnnData, tmp_path: Path
) -> None:
    both = logged.copy()
    both.layers["other"], both.layers["mine"] = nuclei.X * 2, nuclei.X
    path = write(both, tmp_path)
    cohort = load(path, "data.counts=mine")
    total = pd.Series(np.asarray(nuclei.X.sum(axis=1)).ravel(), nuclei.obs_names)
    assert cohort.cells["total"].tolist() == total[cohort.cells["barcode"]].tolist()
    assert_says(answer(load, path, "data.counts=nowhere"), "data.counts=nowhere")


# Which folds


def test_repeats_test_every_donor_once_more_in_other_folds(run: Run) -> None:
    record = run("split=cv", "split.folds=2", "split.repeats=2")
    assert [history.fold for history in record.histories] == [1, 2, 3, 4]
    donors = record.donors
    assert donors.groupby("donor").size().tolist() == [2] * 15
    first = donors.query("fold <= 2").set_index("donor")["fold"]
    second = donors.query("fold > 2").set_index("donor")["fold"] - 2
    assert len({*zip(first.sort_index(), second.sort_index(), strict=True)}) > 2
    assert record.metrics["cohort"]["donors_per_class"] == [6, 9]


# How it is evaluated


@pytest.mark.parametrize("how", ["mean", "mean_logit", "fraction"])
def test_donors_of_a_run_are_scored_from_its_nuclei_as_asked(run: Run, how: str) -> None:
    record = run(f"evaluation.donor_score={how}")
    test = record.predictions.query("part == 'test'")
    of_nucleus = test.assign(
        mean=1 / (1 + np.exp(-test["logit"])), fraction=(test["logit"] >= 0).astype(float)
    )
    by_donor = of_nucleus.groupby("donor")[["mean", "logit", "fraction"]].mean()
    by_donor["mean_logit"] = 1 / (1 + np.exp(-by_donor["logit"]))
    found = record.donors.set_index("donor")["model"].sort_index()
    np.testing.assert_allclose(found, by_donor[how].sort_index(), rtol=1e-6)
    assert record.config.evaluation.donor_score == how
