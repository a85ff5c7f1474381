"""Whole runs on the same data told otherwise: the same numbers, to the last bit."""

from collections.abc import Callable
from functools import cache
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import torch

from oligo_ad import tasks
from oligo_ad.baselines.predictors import ENSEMBLE
from oligo_ad.record import Record
from tests import builders

pytestmark = pytest.mark.usefixtures("without_pictures")
Change = Callable[[ad.AnnData], ad.AnnData]
MODELS = {
    "mlp": ("model.network.hidden=[8]",),
    "transformer": ("model=transformer", "model.network.width=16", "model.network.layers=1"),
    "donor": ("model=donor", "fit.members=2", "fit.bag_size=4", "fit.batch_size=8"),
    "a bag a donor": ("model.network.hidden=[8]", "pool=attention", "fit.bag_size=4", "fit.batch_size=4"),
}

BOTH = "nuclei and genes in another order, in zarr"
SCORES = ("headline", "donors", "cells", "training", "verdict", "alarms")


def atlas() -> ad.AnnData:
    """Every nucleus has a total of its own, so that two of them never tie."""
    adata = builders.atlas(8, 6, nuclei=16, genes=40, effect=0.3)
    adata.var["ensembl"] = [f"ENSG{i * 7919 % 100_003:011d}" for i in range(40)]
    return adata


def run(
    adata: ad.AnnData, folder: Path, *overrides: str, store: str = "atlas.h5ad", **options: str
) -> Record:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / store
    adata.write_zarr(path) if store.endswith("zarr") else adata.write_h5ad(path, **options)
    config = builders.configuration(
        f"data.path={path}", f"cache.dir={folder / 'cache'}", "metadata=on", *overrides
    )
    tasks.run(config, folder / "run")
    return Record(folder / "run")


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Record]:
    """The run of a model on the atlas as it is, made once."""

    @cache
    def of(model: str) -> Record:
        return run(atlas(), tmp_path_factory.mktemp("original"), *MODELS[model])

    return of


def shuffled_nuclei(adata: ad.AnnData) -> ad.AnnData:
    return adata[np.random.default_rng(1).permutation(adata.n_obs)].copy()


def shuffled_genes(adata: ad.AnnData) -> ad.AnnData:
    return adata[:, np.random.default_rng(2).permutation(adata.n_vars)].copy()


def donors_backwards(adata: ad.AnnData) -> ad.AnnData:
    return adata[adata.obs["Donor ID"].argsort()[::-1]].copy()


def categories_in_another_order_and_more_of_them(adata: ad.AnnData) -> ad.AnnData:
    for name in ("Donor ID", "ADNC", "Sex"):
        known = adata.obs[name].astype("category").cat.categories
        adata.obs[name] = adata.obs[name].cat.set_categories([*known[::-1], "not in this file"])
    return adata


def columns_of_text(adata: ad.AnnData) -> ad.AnnData:
    adata.obs = adata.obs.astype(dict.fromkeys(("Donor ID", "ADNC", "Subclass", "Sex"), object))
    return adata


def counts_as(kind: Callable[[sp.csr_matrix], object]) -> Change:
    def change(adata: ad.AnnData) -> ad.AnnData:
        adata.X = kind(adata.X)
        return adata

    return change


SAME: dict[str, tuple[Change, dict[str, str]]] = {
    "nuclei in another order": (shuffled_nuclei, {}),
    "genes in another order": (shuffled_genes, {}),
    BOTH: (lambda adata: shuffled_genes(shuffled_nuclei(adata)), {"store": "atlas.zarr"}),
    "donors backwards, gzip": (donors_backwards, {"compression": "gzip"}),
    "other categories": (categories_in_another_order_and_more_of_them, {}),
    "columns of text": (columns_of_text, {}),
    "dense, int32": (counts_as(lambda x: x.toarray().astype(np.int32)), {}),
    "csc, float64": (counts_as(lambda x: x.tocsc().astype(np.float64)), {}),
}


def by_barcode(record: Record) -> pd.DataFrame:
    table = pd.concat([fold.predictions for fold in record.folds])
    names = [name for name in ("part", "donor", "barcode") if table[name].notna().all()]
    return table.sort_values(names).reset_index(drop=True)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "told"),
    [("mlp", told) for told in SAME] + [(model, BOTH) for model in MODELS if model != "mlp"],
)
def test_the_same_data_told_otherwise_give_the_same_bits(
    original: Callable[[str], Record], model: str, told: str, tmp_path: Path
) -> None:
    first, (change, options) = original(model), SAME[told]
    second = run(change(atlas()), tmp_path, *MODELS[model], **options)
    pd.testing.assert_frame_equal(by_barcode(first), by_barcode(second), check_exact=True)
    for own, other in zip(first.folds, second.folds, strict=True):
        pd.testing.assert_frame_equal(own.baselines, other.baselines, check_exact=True)
        assert own.history.genes == other.history.genes
    for entry in SCORES:
        assert first.metrics[entry] == second.metrics[entry]


def renamed(adata: ad.AnnData) -> ad.AnnData:
    """Donors, genes and nuclei by other names, in the same order."""
    adata.obs["Donor ID"] = adata.obs["Donor ID"].cat.rename_categories(lambda name: f"patient {name}")
    adata.obs_names = [f"AAAC-{name}" for name in adata.obs_names]
    adata.var_names = [f"X{name}" for name in adata.var_names]
    return adata


def test_names_of_donors_genes_and_nuclei_are_only_names(
    original: Callable[[str], Record], tmp_path: Path
) -> None:
    """As far as they leave the order: folds and initial weights are drawn in the order of names."""
    first, second = original("mlp"), run(renamed(atlas()), tmp_path, *MODELS["mlp"])
    assert by_barcode(first)["logit"].tolist() == by_barcode(second)["logit"].tolist()
    for entry in SCORES:
        assert first.metrics[entry] == second.metrics[entry]


def test_any_names_of_donors_give_the_same_on_the_same_folds(tmp_path: Path) -> None:
    """What is drawn follows from the order of names; all else, such as baselines, does not."""
    first = run(atlas(), tmp_path / "first")
    names = {f"D{i:02d}": f"D{i * 5 % 14:02d}" for i in range(14)}
    other = atlas()
    other.obs["Donor ID"] = pd.Categorical(other.obs["Donor ID"].map(names).astype(str))
    split = (first.folder / "split.json").read_text(encoding="utf-8")
    for old in names:
        split = split.replace(f'"{old}"', f'"<{old}>"')
    for old, new in names.items():
        split = split.replace(f'"<{old}>"', f'"{new}"')
    (tmp_path / "split.json").write_text(split, encoding="utf-8")
    second = run(other, tmp_path / "second", f"split.file={tmp_path / 'split.json'}")
    (own,), (again,) = (
        [
            fold.baselines.assign(donor=fold.baselines["donor"].replace(known)).drop(columns=ENSEMBLE)
            for fold in record.folds
        ]
        for record, known in ((first, names), (second, {}))
    )
    own, again = (table.sort_values("donor").reset_index(drop=True) for table in (own, again))
    pd.testing.assert_frame_equal(own, again, check_exact=False, rtol=1e-9)


@pytest.mark.slow
def test_the_number_of_threads_moves_a_logit_by_rounding_only(tmp_path: Path) -> None:
    """Sums of a product of matrices are taken in other pieces: float32 has 24 bits."""
    logits = []
    threads = torch.get_num_threads()
    try:
        for number in (1, 2, 3):
            torch.set_num_threads(number)
            logits.append(by_barcode(run(atlas(), tmp_path / str(number)))["logit"].to_numpy())
    finally:
        torch.set_num_threads(threads)
    for other in logits[1:]:
        np.testing.assert_allclose(other, logits[0], rtol=0, atol=1e-4)
