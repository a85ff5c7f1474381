"""The simulated atlas: what each parameter plants and leaves alone, and that every output is marked."""

import json
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import anndata as ad
import h5py
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from oligo_ad.config import SimulationConfig
from oligo_ad.data.cache import source
from oligo_ad.simulation.counts import AFFECTED_FOLD, _negative_binomial
from oligo_ad.simulation.simulate import write_atlas
from oligo_ad.simulation.truth import plant
from oligo_ad.tasks.inspect import describe
from tests.builders import CONF, configuration, load

SCHEMA = CONF.parent.parent / "shared/data/dream_a9_schema.json"
NOTHING = {"effect": 0.0, "interaction": 0.0, "confounding": 0.0}
MANY = 25  # seeds: 225 donors without the disease, 975 with


def parameters(**changed: Any) -> SimulationConfig:
    """3,000 nuclei, nearly all of them oligodendrocytes, of 500 genes."""
    simulation = configuration("data=demo").data.simulation
    assert simulation is not None
    return replace(simulation, **({"nuclei": 3000, "genes": 500, "oligodendrocytes": 0.9} | changed))


Simulate = Callable[..., ad.AnnData]


@pytest.fixture(scope="module")
def simulate(tmp_path_factory: pytest.TempPathFactory) -> Simulate:
    """The atlas of some parameters, written once."""
    folder = tmp_path_factory.mktemp("atlases")

    @cache
    def written(config: SimulationConfig) -> ad.AnnData:
        path = folder / f"{len(list(folder.iterdir()))}.h5ad"
        write_atlas(path, config)
        return ad.read_h5ad(path)

    return lambda **changed: written(parameters(**changed))


def small(folder: Path, **changed: Any) -> Path:
    path = folder / f"{len(list(folder.iterdir()))}.h5ad"
    write_atlas(path, parameters(**({"nuclei": 600, "genes": 200} | changed)))
    return path


class Nuclei(NamedTuple):
    """Oligodendrocytes: whether each is affected, its donor, and its log values [nuclei, genes]."""

    affected: np.ndarray
    donor: np.ndarray
    values: np.ndarray


def oligodendrocytes(atlas: ad.AnnData) -> Nuclei:
    own = atlas[(atlas.obs["Subclass"] == "Oligodendrocyte").to_numpy()]
    donor = own.obs["Donor ID"].cat.remove_unused_categories().cat.codes.to_numpy(int)
    return Nuclei(own.obs["SIMULATED affected"].to_numpy(bool), donor, own.X.toarray().astype(np.float64))


def within_donors(values: np.ndarray, donor: np.ndarray) -> np.ndarray:
    """Differences of nuclei [nuclei, …] from the mean of their donor."""
    return values - pd.DataFrame(values).groupby(donor).transform("mean").to_numpy().reshape(values.shape)


def differences(nuclei: Nuclei) -> tuple[np.ndarray, np.ndarray]:
    """Of each gene's mean log value, affected nuclei less the others of their donors; and the same in units
    of its standard error, which have SD 1 where there is no difference."""
    affected = within_donors(nuclei.affected.astype(float), nuclei.donor)
    values = within_donors(nuclei.values, nuclei.donor)
    weight = (affected**2).sum()
    difference = affected @ values / weight
    residual = values - np.outer(affected, difference)
    freedom = len(affected) - nuclei.donor.max() - 2
    return difference, difference / np.sqrt((residual**2).sum(axis=0) / freedom / weight)


def correlation_of_modules(nuclei: Nuclei, config: SimulationConfig, affected: bool) -> float:
    """Of the mean log values of the two modules, over affected nuclei or over the others."""
    modules = plant(config, np.random.default_rng(config.seed)).modules
    assert modules.sum(axis=1).tolist() == [60, 60]
    scores = within_donors(nuclei.values @ modules.T / 60, nuclei.donor)
    return float(np.corrcoef(scores[nuclei.affected == affected].T)[0, 1])


# What is planted


def test_where_nothing_is_planted_affected_nuclei_differ_by_noise_alone(simulate: Simulate) -> None:
    nuclei = oligodendrocytes(simulate(**NOTHING))
    assert 500 < nuclei.affected.sum() < len(nuclei.affected) - 500
    _, errors = differences(nuclei)
    assert np.sqrt(np.mean(errors**2)) == pytest.approx(1, abs=0.1)
    assert abs(errors).max() < 4.5
    coupled, other = (correlation_of_modules(nuclei, parameters(**NOTHING), among) for among in (True, False))
    assert coupled == pytest.approx(other, abs=0.15)


def test_the_effect_shifts_the_genes_of_the_disease_in_their_direction_and_no_others(
    simulate: Simulate,
) -> None:
    config = NOTHING | {"effect": 1.0}
    difference, errors = differences(oligodendrocytes(simulate(**config)))
    published = plant(parameters(), np.random.default_rng(0)).genes["log2_fold_change"].to_numpy()
    changed = abs(published) >= 0.2
    assert changed.sum() > 20
    assert (np.sign(difference[changed]) == np.sign(published[changed])).all()
    assert np.sqrt(np.mean(errors[published == 0] ** 2)) < 1.25
    slope = np.polyfit(published, difference / np.log(2), 1)[0]
    assert slope == pytest.approx(AFFECTED_FOLD, rel=0.15)


def test_half_the_effect_is_half_the_shift(simulate: Simulate) -> None:
    published = plant(parameters(), np.random.default_rng(0)).genes["log2_fold_change"].to_numpy()
    slopes = [
        np.polyfit(published, differences(oligodendrocytes(simulate(**NOTHING | {"effect": size})))[0], 1)[0]
        for size in (0.0, 0.5, 1.0)
    ]
    assert slopes[0] == pytest.approx(0, abs=0.05)
    assert slopes[1] / slopes[2] == pytest.approx(0.5, abs=0.1)


def test_the_interaction_couples_two_modules_in_affected_nuclei_and_changes_no_mean(
    simulate: Simulate,
) -> None:
    config = NOTHING | {"interaction": 0.5}
    nuclei = oligodendrocytes(simulate(**config))
    assert correlation_of_modules(nuclei, parameters(**config), affected=True) > 0.8
    assert abs(correlation_of_modules(nuclei, parameters(**config), affected=False)) < 0.3
    _, errors = differences(nuclei)
    assert np.sqrt(np.mean(errors**2)) < 1.25
    assert abs(errors).max() < 4.5


def test_nuclei_have_what_their_donor_has(simulate: Simulate) -> None:
    """XIST, on the inactive X chromosome, is expressed by women; the donors' other effects come with it."""
    atlas = simulate(**NOTHING)
    xist = atlas[:, "XIST"].layers["UMIs"].toarray().ravel()
    of_donor = pd.Series(xist).groupby(atlas.obs["Donor ID"].to_numpy(str)).mean()
    sex = atlas.obs.groupby("Donor ID", observed=True)["Sex"].first()[of_donor.index]
    assert of_donor[sex == "Male"].max() < 0.5 < 2 < of_donor[sex == "Female"].min()


def test_every_nucleus_has_the_columns_of_its_donor(simulate: Simulate) -> None:
    truth = plant(parameters(), np.random.default_rng(0)).donors.set_index("donor")
    columns = {"ADNC": "adnc", "Age at Death": "age", "Sex": "sex", "APOE Genotype": "apoe"}
    obs = simulate().obs
    expected = truth.loc[obs["Donor ID"].astype(str), [*columns.values()]]
    assert (obs[[*columns]].astype(object).to_numpy() == expected.to_numpy()).all()


def test_nuclei_are_drawn_apart_from_each_other(simulate: Simulate) -> None:
    """However far apart in the file: also those at the same place of two blocks."""
    nuclei = oligodendrocytes(simulate(**NOTHING | {"oligodendrocytes": 0.999}))
    noise = within_donors(nuclei.values, nuclei.donor)
    noise /= np.linalg.norm(noise, axis=1, keepdims=True)
    likeness = noise @ noise.T
    assert np.abs(likeness[np.triu_indices(len(noise), 1)]).max() < 0.35


def test_counts_have_the_mean_and_the_spread_that_was_measured_at_it() -> None:
    means = np.array([0.004, 0.015, 0.03, 0.3, 3.0])
    dispersions = np.array([0, 0, 1.1, 0.5, 0.26])
    n = 60_000
    drawn = _negative_binomial(np.tile(means, (n, 1)).astype(np.float32), np.random.default_rng(0)).toarray()
    variance = means + dispersions * means**2
    assert np.abs((drawn.mean(axis=0) - means) / np.sqrt(variance / n)).max() < 4
    assert drawn.var(axis=0) == pytest.approx(variance, rel=0.08)


def test_only_oligodendrocytes_are_affected_and_more_of_them_in_the_disease(simulate: Simulate) -> None:
    obs = simulate().obs
    assert not obs.loc[obs["Subclass"] != "Oligodendrocyte", "SIMULATED affected"].any()
    share = obs.groupby("ADNC", observed=True)["SIMULATED affected"].mean()
    assert share["Not AD"] < share["Low"] < share["Intermediate"] < share["High"]


# What is confounded. Classes are compared over many seeds: in one cohort of nine donors chance decides.


@cache
def donors(n_atlases: int = MANY, **changed: float) -> pd.DataFrame:
    """The donors of many atlases, of the two classes that are compared."""
    drawn = [
        plant(parameters(genes=200, seed=seed, **changed), np.random.default_rng(seed)).donors
        for seed in range(n_atlases)
    ]
    both = pd.concat(drawn, ignore_index=True).query("adnc in ['High', 'Not AD']")
    return both.assign(
        e4=both["apoe"].str.contains("4").astype(float),
        e2=both["apoe"].str.contains("2").astype(float),
        female=(both["sex"] == "Female").astype(float),
        ln_nuclei=np.log(both["weight"]),
    )


def shift(table: pd.DataFrame, column: str) -> tuple[float, float]:
    """High less Not AD, and its standard error."""
    of_class = table.groupby("adnc")[column].agg(["mean", "var", "size"])
    error = np.sqrt((of_class["var"] / of_class["size"]).sum())
    return float(of_class["mean"]["High"] - of_class["mean"]["Not AD"]), float(error)


FOLLOWING = ["age", "ln_depth", "e4", "ln_nuclei"]
INDEPENDENT = ["e2", "female", "education", "pmi", "libraries", "multiome"]


@pytest.mark.parametrize("column", [*FOLLOWING, *INDEPENDENT])
def test_without_confounding_no_covariate_follows_the_class(column: str) -> None:
    found, error = shift(donors(confounding=0.0), column)
    assert abs(found) < 3.5 * error


@pytest.mark.parametrize(
    ("column", "wanted"), [("age", 2.0), ("ln_depth", -0.1), ("e4", 0.5), ("ln_nuclei", 7.01 - 7.61)]
)
def test_full_confounding_shifts_covariates_by_as_much_as_was_seen(column: str, wanted: float) -> None:
    found, error = shift(donors(confounding=1.0), column)
    assert abs(found) > 3.5 * error
    assert found == pytest.approx(wanted, abs=3.5 * error)


@pytest.mark.parametrize("column", INDEPENDENT)
def test_what_is_not_confounded_stays_so(column: str) -> None:
    found, error = shift(donors(confounding=1.0), column)
    assert abs(found) < 3.5 * error


def test_affected_nuclei_are_as_common_in_both_classes_unless_something_is_planted() -> None:
    found, error = shift(donors(10, **NOTHING), "affected_share")
    assert abs(found) < 3.5 * error
    for planted in ({"effect": 1.0}, {"interaction": 0.5}):
        assert shift(donors(2, **NOTHING | planted), "affected_share")[0] > 0.25


# What it is written as


def test_the_file_has_as_many_nuclei_and_genes_as_asked_for_and_the_share_of_oligodendrocytes(
    simulate: Simulate,
) -> None:
    atlas = simulate()
    assert atlas.shape == (3000, 500)
    assert (atlas.obs["Subclass"] == "Oligodendrocyte").mean() == pytest.approx(0.9, abs=0.02)
    assert atlas.obs["Donor ID"].value_counts().min() >= 30
    of_class = atlas.obs.groupby("ADNC", observed=True)["Donor ID"].nunique()
    assert of_class.to_dict() == {"Not AD": 9, "Low": 12, "Intermediate": 21, "High": 39}


def test_fewer_oligodendrocytes_leave_more_other_types(tmp_path: Path) -> None:
    types = ad.read_h5ad(small(tmp_path, nuclei=2000, oligodendrocytes=0.3)).obs["Subclass"]
    assert (types == "Oligodendrocyte").mean() == pytest.approx(0.3, abs=0.05)
    assert types.nunique() == 6


def test_fewer_genes_are_the_most_expressed_ones(simulate: Simulate, tmp_path: Path) -> None:
    few, more = ad.read_h5ad(small(tmp_path)), simulate()
    assert few.var_names.tolist() == more.var_names[:200].tolist()
    mean = np.asarray(more.layers["UMIs"].mean(axis=0)).ravel()
    assert mean[:200].min() > 0
    assert mean[:200].mean() > 2 * mean[200:].mean()


def test_beyond_the_measured_genes_there_are_silent_ones_marked_as_simulated() -> None:
    genes = plant(parameters(genes=36_601), np.random.default_rng(0)).genes
    assert len(genes) == genes["ensembl"].nunique() == 36_601
    made_up = genes["ensembl"].str.startswith("SIMULATED")
    assert made_up.any()
    assert (genes["symbol"].str.startswith("SIMULATED") == made_up).all()
    assert genes.loc[made_up, "per_million"].max() <= genes.loc[~made_up, "per_million"].min()


def test_log_values_are_those_of_the_counts(simulate: Simulate) -> None:
    atlas = simulate()
    counts = atlas.layers["UMIs"].toarray().astype(np.float64)
    assert (counts == counts.round()).all()
    logged = np.log1p(counts / counts.sum(axis=1, keepdims=True) * 1e4)
    np.testing.assert_allclose(atlas.X.toarray(), logged, rtol=1e-5)
    assert np.exp(np.log(counts.sum(axis=1)).mean()) == pytest.approx(6000, rel=0.15)


def test_a_seed_repeats_to_the_byte_and_another_differs(tmp_path: Path) -> None:
    first, again, other = (small(tmp_path, seed=seed) for seed in (3, 3, 4))
    assert first.read_bytes() == again.read_bytes()
    one, two = (ad.read_h5ad(path) for path in (first, other))
    assert one.layers["UMIs"].nnz != two.layers["UMIs"].nnz
    assert one.obs_names.tolist() != two.obs_names.tolist()


@pytest.mark.skipif(
    not SCHEMA.exists(), reason=f"the layout of the published file is not here: {SCHEMA.name}"
)
def test_the_layout_is_that_of_the_published_file(simulate: Simulate) -> None:
    published, atlas = json.loads(SCHEMA.read_text()), simulate()
    own = [name for name in atlas.obs if not name.startswith("SIMULATED")]
    assert sorted(own) == sorted(published["obs_columns"])
    oligodendrocytes = atlas.obs[atlas.obs["Subclass"] == "Oligodendrocyte"]
    for column, levels in published["obs_levels"].items():
        table = oligodendrocytes if column.endswith("_oligo") else atlas.obs
        assert set(table[column.removesuffix("_oligo")].unique()) <= set(levels), column
    assert list(atlas.layers) == published["layers"]
    assert "gene_ids" in atlas.var
    assert isinstance(atlas.X, sp.csr_matrix)
    assert atlas.X.dtype == np.float32


# That it says what it is


def test_the_file_says_that_it_is_simulated_and_how(tmp_path: Path) -> None:
    config = parameters(nuclei=600, genes=200, seed=7, effect=0.25)
    words = [
        f"data.simulation.{field}={value}" for field, value in vars(config).items() if field != "affected"
    ]
    path = source(configuration("data=demo", *words).data, tmp_path)
    assert path.name.startswith("SIMULATED")
    with h5py.File(path) as file:
        uns = {name: value[()] for name, value in file["uns"].items()}
    assert "no real donor" in uns["SIMULATED"].decode()
    assert (uns["SIMULATED seed"], uns["SIMULATED effect"]) == (7, 0.25)
    atlas = ad.read_h5ad(path)
    assert atlas.obs["Donor ID"].str.startswith("SIM.").all()
    assert atlas.obs["SIMULATED affected"].dtype == bool


def test_whoever_reads_the_file_is_told_and_the_truth_is_no_covariate(tmp_path: Path) -> None:
    path = small(tmp_path, nuclei=1000)
    described = describe(configuration(f"data.path={path}", f"cache.dir={tmp_path / 'cache'}"))
    assert described.startswith("SIMULATED ")
    cohort = load(path)
    assert cohort.simulated
    assert set(cohort.cells["truth"]) == {0.0, 1.0}
    assert not [column for column in cohort.donors if column.startswith("SIMULATED")]
