"""The program on real nuclei: 23 donors with and without autism (Velmeshev 2019)."""

from pathlib import Path

import anndata as ad
import numpy as np
import pytest
import scanpy as sc

from oligo_ad.config import Config
from oligo_ad.data.contrast import open_contrast
from oligo_ad.inputs.panel import choose_genes
from oligo_ad.tasks.inspect import describe
from tests.builders import CONF, configuration

FILE = CONF.parent.parent / "shared/data/velmeshev2019_asd_pfc_glia_counts.h5ad"
pytestmark = pytest.mark.skipif(not FILE.exists(), reason=f"the real data are not here: {FILE.name}")


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return configuration(
        "data=anndata",
        f"data.path={FILE}",
        "data.donor_key=donor_id",
        "data.label_key=diagnosis",
        "data.positive=ASD",
        "data.negative=Control",
        "data.cell_type_key=cell_type",
        "data.cell_types=[Microglia]",
        "data.min_nuclei=10",
        "split=cv",
        f"cache.dir={tmp_path}",
    )


def test_microglia_of_eighteen_donors_are_read_as_raw_counts(config: Config, tmp_path: Path) -> None:
    contrast = open_contrast(config.data, config.split, config.metadata, tmp_path)
    assert contrast.cohort.expression.content == "counts"
    assert contrast.labels.of_donor.value_counts().to_dict() == {1: 9, 0: 9}
    assert contrast.flow.query("step == 'in the file'")["nuclei"].sum() == 6111
    assert len(contrast.folds) == 5


@pytest.mark.parametrize("n_genes", [100, 2_000])
def test_the_most_dispersed_genes_of_training_donors_are_scanpys(
    config: Config, tmp_path: Path, n_genes: int
) -> None:
    contrast = open_contrast(config.data, config.split, config.metadata, tmp_path)
    cohort, train = contrast.cohort, contrast.folds[0].train
    adata = ad.read_h5ad(FILE)
    nuclei = adata[(adata.obs["cell_type"] == "Microglia") & adata.obs["donor_id"].isin(train)].copy()
    nuclei.X = nuclei.X.astype(np.float64)
    sc.pp.normalize_total(nuclei, target_sum=1e4)
    sc.pp.log1p(nuclei)
    expressed = np.asarray(nuclei.X.sum(axis=0)).ravel() > 0
    nuclei = nuclei[:, expressed].copy()
    sc.pp.highly_variable_genes(nuclei, n_top_genes=n_genes, flavor="seurat")
    expected = nuclei.var_names[nuclei.var["highly_variable"]]
    assert sorted(choose_genes(cohort, train, "hvg", n_genes, "seurat")) == sorted(expected)


def test_inspection_tells_donors_and_nuclei_before_anything_is_trained(config: Config) -> None:
    told = describe(config)
    assert "6,111 nuclei x 18,041 genes" in told
    assert "ASD = 1: 12 donors, 1,222 nuclei" in told
    assert "raw counts in X" in told
