"""The same atlas as three sources publish it: each is read by `data=sea_ad` without further settings.

The layouts follow the DREAM A9 file, the Allen Institute's release and CELLxGENE's copy, in miniature.
"""

from collections.abc import Callable
from pathlib import Path

import anndata as ad
import h5py
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from anndata.io import write_elem

from oligo_ad.data.cohort import gene_names
from oligo_ad.data.contrast import Contrast, prepared_cohort
from oligo_ad.data.covariates import encode
from oligo_ad.storage.atlas import open_atlas
from tests import builders

LEVELS = ["High"] * 5 + ["Not AD"] * 4 + ["Low"] * 3 + ["Intermediate"] * 2 + ["Reference"] + [None]
N_DONORS, NUCLEI, GENES = len(LEVELS), 8, 30
TAKEN = {"High": 5, "Not AD": 4}
AGES = 70.0 + 5 * np.arange(N_DONORS) % N_DONORS
SYMBOLS = [f"GENE{i:02d}" for i in range(GENES)]
ENSEMBL = [f"ENSG{i:011d}" for i in range(GENES)]
NESTED = ("Hispanic/Latino", "Race (choice=American Indian/ Alaska Native)")


def nuclei() -> ad.AnnData:
    """Counts; obs columns donor, label and cell type under neutral names, half of the nuclei wanted."""
    adata = builders.atlas(N_DONORS, 0, nuclei=NUCLEI, genes=GENES)
    donor = adata.obs["Donor ID"].cat.codes.to_numpy()
    adata.obs = pd.DataFrame(
        {
            "donor": adata.obs["Donor ID"],
            "level": pd.Categorical(np.array(LEVELS, object)[donor]),
            "type": adata.obs["Subclass"],
            "number": donor,
        },
        index=adata.obs_names,
    )
    return adata


def logged(adata: ad.AnnData) -> ad.AnnData:
    """The same with X as ln(1 + counts per 10,000)."""
    counts = adata.X.astype(np.float64)
    scaled = counts.multiply(1e4 / counts.sum(axis=1)).tocsr()
    return ad.AnnData(scaled.log1p().astype(np.float32), obs=adata.obs.copy(), var=adata.var.copy())


def dream(folder: Path) -> Path:
    """SEAAD_A9_RNAseq_DREAM: log X, counts in a layer, symbols in the index, '/' in column names."""
    source = nuclei()
    adata = logged(source)
    adata.layers["UMIs"] = source.X
    adata.obs = pd.DataFrame(
        {
            "ADNC": source.obs["level"],
            "APOE Genotype": pd.Categorical(np.array(["3/3", "3/4"])[source.obs["number"] % 2]),
            "Age at Death": AGES[source.obs["number"]],
            "Braak": pd.Categorical(np.array(["Braak IV", "Braak VI"])[source.obs["number"] % 2]),
            "Donor ID": source.obs["donor"],
            "Sex": pd.Categorical(np.array(["Male", "Female", "Male"])[source.obs["number"] % 3]),
            "Subclass": source.obs["type"],
            "Supertype": pd.Categorical([f"Oligo_{1 + i // N_DONORS // 2}" for i in range(len(source))]),
        }
    )
    adata.var = pd.DataFrame({"gene_ids": ENSEMBL}, index=SYMBOLS)
    path = builders.write(adata, folder)
    values = {
        NESTED[0]: pd.Categorical(np.array(["Yes", "No", "No"])[source.obs["number"] % 3]),
        NESTED[1]: pd.Categorical(["Unchecked"] * len(source)),
    }
    with h5py.File(path, "r+") as file:
        for column, given in values.items():
            parent, _, leaf = column.rpartition("/")
            write_elem(file["obs"].require_group(parent), leaf, given)
        columns = [*file["obs"].attrs["column-order"], *NESTED]
        file["obs"].attrs["column-order"] = np.array(columns, dtype=h5py.string_dtype())
    return path


def allen(folder: Path) -> Path:
    """The Allen release: another label column with a fifth level, ages such as `90+`."""
    source = nuclei()
    adata = logged(source)
    adata.layers["UMIs"] = source.X
    ages = np.where(np.arange(N_DONORS) % 3, AGES.astype(int).astype(str), "90+")
    adata.obs = pd.DataFrame(
        {
            "sample_id": source.obs_names,
            "Neurotypical reference": pd.Categorical((source.obs["level"] == "Reference").astype(str)),
            "Donor ID": source.obs["donor"],
            "Age at Death": pd.Categorical(ages[source.obs["number"]]),
            "Sex": pd.Categorical(np.array(["Male", "Female", "Male"])[source.obs["number"] % 3]),
            "APOE4 Status": pd.Categorical(np.array(["Y", "N"])[source.obs["number"] % 2]),
            "Overall AD neuropathological Change": source.obs["level"],
            "CERAD score": pd.Categorical(np.array(["Sparse", "Frequent"])[source.obs["number"] % 2]),
            "method": pd.Categorical(["10xv3.1"] * len(source)),
            "Doublet score": np.linspace(0, 0.4, len(source)),
            "Used in analysis": np.ones(len(source), bool),
            "Severely Affected Donor": pd.Categorical(np.array(["N", "Y"])[source.obs["number"] % 2]),
            "Subclass": source.obs["type"],
        },
        index=source.obs_names,
    )
    adata.var = pd.DataFrame({"gene_ids": SYMBOLS}, index=SYMBOLS)
    return builders.write(adata, folder)


def cellxgene(folder: Path) -> Path:
    """CELLxGENE: counts in .raw, Ensembl ids in the index, lower-case cell types, values in bins."""
    source = nuclei()
    bins = np.array(["90+ years old", "78 to 89 years old", "65 to 77 years old"])
    source.var = pd.DataFrame(
        {
            "feature_is_filtered": np.zeros(GENES, bool),
            "feature_name": pd.Categorical(SYMBOLS),
            "feature_reference": pd.Categorical(["NCBITaxon:9606"] * GENES),
            "feature_length": np.arange(GENES),
        },
        index=pd.Index(ENSEMBL, name="gene_id"),
    )
    adata = logged(source)
    adata.raw = source
    adata.obs = pd.DataFrame(
        {
            "donor_id": source.obs["donor"],
            "Age at death": pd.Categorical(bins[source.obs["number"] % 3]),
            "ADNC": source.obs["level"],
            "Braak stage": pd.Categorical(np.array(["Braak IV", "Braak VI"])[source.obs["number"] % 2]),
            "cell_type": source.obs["type"].cat.rename_categories(str.lower),
            "disease": pd.Categorical(np.array(["dementia", "normal"])[source.obs["number"] % 2]),
            "sex": pd.Categorical(np.array(["male", "female", "male"])[source.obs["number"] % 3]),
            "observation_joinid": [f"id{i}" for i in range(len(source))],
        },
        index=source.obs_names,
    )
    return builders.write(adata, folder)


Release = Callable[[Path], Path]
every_release = pytest.mark.parametrize("release", [dream, allen, cellxgene], ids=lambda r: r.__name__)


def read(release: Release, folder: Path) -> Contrast:
    return builders.compared(release(folder))


@every_release
def test_counts_donors_and_labels_are_those_of_the_source(release: Release, tmp_path: Path) -> None:
    contrast, source = read(release, tmp_path), nuclei()
    cohort, label = contrast.cohort, contrast.labels.of_donor
    wanted = source[source.obs["level"].isin(list(TAKEN)) & (source.obs["type"] == "Oligodendrocyte")]
    wanted.var_names = SYMBOLS
    wanted = builders.arranged(wanted, "donor")
    assert cohort.expression.content == "counts"
    np.testing.assert_array_equal(builders.counts(cohort), wanted.X.toarray())
    assert cohort.cells["barcode"].tolist() == wanted.obs_names.tolist()
    assert cohort.cells["donor"].tolist() == wanted.obs["donor"].tolist()
    assert label[cohort.cells["donor"]].tolist() == (wanted.obs["level"] == "High").astype(int).tolist()
    assert label.value_counts().to_dict() == {1: 5, 0: 4}
    assert cohort.cells["total"].tolist() == np.asarray(wanted.X.sum(axis=1)).ravel().tolist()


@every_release
def test_values_are_normalised_from_the_counts(release: Release, tmp_path: Path) -> None:
    cohort = read(release, tmp_path).cohort
    assert "as recomputed" in cohort.expression.evidence
    expected = logged(nuclei())[cohort.cells["barcode"]].X
    assert abs(builders.log_values(cohort) - expected).max() < 1e-5


@every_release
def test_every_excluded_donor_and_nucleus_is_counted_at_its_step(release: Release, tmp_path: Path) -> None:
    contrast = read(release, tmp_path)
    flow = contrast.flow.set_index(["step", "class"])
    steps = list(contrast.flow["step"].drop_duplicates())
    assert [step.split()[0] for step in steps] == ["in", "cell", "label", "quality"]
    for step, share in zip(steps, (NUCLEI, NUCLEI // 2, NUCLEI // 2, NUCLEI // 2), strict=True):
        left_out = N_DONORS - sum(TAKEN.values()) if step in steps[:2] else 0
        expected = {"positive": 5, "negative": 4, "excluded": left_out}
        assert flow.loc[step, "donors"].to_dict() == expected
        assert flow.loc[step, "nuclei"].to_dict() == {name: n * share for name, n in expected.items()}
    excluded = contrast.excluded.set_index("value")
    expected = {"Low": 3, "Intermediate": 2, "Reference": 1, "missing": 1}
    assert excluded["donors"].to_dict() == expected
    assert excluded["nuclei"].to_dict() == {value: n * NUCLEI // 2 for value, n in expected.items()}


@every_release
def test_symbols_and_ensembl_ids_are_told_apart(release: Release, tmp_path: Path) -> None:
    genes = read(release, tmp_path).cohort.genes
    assert genes["symbol"].tolist() == SYMBOLS
    assert genes["name"].tolist() == (ENSEMBL if release is cellxgene else SYMBOLS)
    if release is allen:
        assert genes["ensembl"].isna().all()
    else:
        assert genes["ensembl"].tolist() == ENSEMBL


@every_release
def test_the_usual_covariates_are_found(release: Release, tmp_path: Path) -> None:
    donors = read(release, tmp_path).cohort.donors
    values = encode(donors, ("age", "sex"))
    ages = {
        dream: AGES[:9].tolist(),
        allen: [AGES[i] if i % 3 else 90.0 for i in range(9)],
        cellxgene: [90.0, 83.5, 71.0] * 3,
    }
    assert values.iloc[:, 0].tolist() == ages[release]
    assert values.iloc[:, 2].tolist() == [1.0, 0.0, 1.0] * 3


def test_columns_with_a_slash_in_their_name_are_read(tmp_path: Path) -> None:
    first_of_three = nuclei().obs["number"].to_numpy() % 3 == 0
    path = dream(tmp_path)
    with open_atlas(path) as atlas:
        assert set(NESTED) <= set(atlas.columns)
        assert (atlas.column(NESTED[0]).to_numpy() == "Yes").tolist() == first_of_three.tolist()
    donors = builders.compared(path).cohort.donors
    assert donors[f"obs:{NESTED[0]}"].tolist() == ["Yes", "No", "No"] * 3
    values = encode(donors, ("Hispanic/Latino",))
    assert values["Hispanic/Latino=Yes"].tolist() == [1.0, 0.0, 0.0] * 3


def test_what_varies_within_a_donor_is_no_donor_column(tmp_path: Path) -> None:
    donors = read(dream, tmp_path).cohort.donors
    assert "obs:Supertype" not in donors
    assert {"obs:Sex", "obs:Age at Death", "obs:Braak"} <= set(donors)
    assert "obs:Doublet score" not in read(allen, tmp_path).cohort.donors


def test_poor_nuclei_and_donors_with_few_good_ones_are_left_out(tmp_path: Path) -> None:
    adata = builders.atlas(4, 4, nuclei=12, genes=GENES)
    counts = adata.X.toarray()
    oligo = adata.obs["Subclass"].to_numpy() == "Oligodendrocyte"
    rows = {donor: np.flatnonzero(oligo & (adata.obs["Donor ID"] == donor)) for donor in ("D00", "D05")}
    poor = [*rows["D00"][:2], *rows["D05"][:4]]
    counts[poor, 2:] = 0
    adata.X = sp.csr_matrix(counts)
    path = builders.write(adata, tmp_path)
    config = builders.configuration(f"data.path={path}", "data.min_genes=3", "data.min_nuclei=4")
    cohort, labels = prepared_cohort(config.data, tmp_path / "cache")
    flow = labels.flow(cohort.steps)
    assert cohort.donors["nuclei"].to_dict() == {f"D{i:02d}": 4 if i == 0 else 6 for i in range(8) if i != 5}
    assert not set(cohort.cells["barcode"]) & set(adata.obs_names[poor])
    last = flow.set_index(["step", "class"]).loc[flow["step"].iloc[-1]]
    assert last["donors"].to_dict() == {"positive": 4, "negative": 3, "excluded": 0}
    assert last["nuclei"].to_dict() == {"positive": 22, "negative": 18, "excluded": 0}


@pytest.mark.parametrize(
    ("index", "columns"),
    [
        (SYMBOLS, {"gene_ids": ENSEMBL}),
        (SYMBOLS, {"feature_types": ["Gene Expression"] * GENES, "ensembl": ENSEMBL}),
        (ENSEMBL, {"feature_name": SYMBOLS}),
        (ENSEMBL, {"gene_ids": SYMBOLS}),
        ([f"{name}.3" for name in ENSEMBL], {"gene_symbols": SYMBOLS}),
    ],
)
def test_symbol_and_ensembl_id_are_found_in_index_or_column(
    index: list[str], columns: dict[str, list[str]]
) -> None:
    genes = gene_names(pd.DataFrame(columns, index=index))
    assert genes["name"].tolist() == index
    assert genes["symbol"].tolist() == SYMBOLS
    assert genes["ensembl"].str.slice(0, 15).tolist() == ENSEMBL


def test_gene_names_that_repeat_are_made_unique() -> None:
    genes = gene_names(pd.DataFrame(index=["A", "B", "A", "A"]))
    assert genes["name"].tolist() == ["A", "B", "A#1", "A#2"]
    assert genes["symbol"].tolist() == ["A", "B", "A", "A"]


def test_gene_ids_of_another_kind_do_not_hide_the_symbols() -> None:
    genes = gene_names(pd.DataFrame({"gene_ids": [str(653000 + i) for i in range(GENES)]}, index=SYMBOLS))
    assert genes["symbol"].tolist() == SYMBOLS
    assert genes["ensembl"].isna().all()


def test_a_gene_column_of_one_value_is_no_symbol() -> None:
    genes = gene_names(pd.DataFrame({"feature_biotype": ["gene"] * GENES}, index=ENSEMBL))
    assert genes["symbol"].isna().all()
