"""The scenarios of the simulated atlas: what each plants is there, and nothing else; and its extra donors."""

from dataclasses import asdict, replace
from functools import cache
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import pytest

from oligo_ad.config import SimulationConfig
from oligo_ad.data.cache import source
from oligo_ad.simulation.simulate import write_atlas
from oligo_ad.simulation.truth import DONORS, Truth, draw_nuclei, plant
from tests.builders import CONF, compared, configuration
from tests.simulation.test_simulation import differences, oligodendrocytes

SCENARIOS = sorted(file.stem for file in (CONF / "data/simulation").glob("*.yaml"))
SMALL = {"nuclei": 3000, "genes": 500, "oligodendrocytes": 0.9}
LIMIT = 3.5  # standard errors


@cache
def scenario(name: str, **changed: Any) -> SimulationConfig:
    """The parameters of a scenario, for a small atlas."""
    simulation = configuration("data=demo", f"data/simulation={name}").data.simulation
    assert simulation is not None
    return replace(simulation, **(SMALL | changed))


def planted(config: SimulationConfig) -> tuple[Truth, pd.DataFrame]:
    """The truth of an atlas, and its nuclei."""
    rng = np.random.default_rng(config.seed)
    truth = plant(config, rng)
    return truth, draw_nuclei(config, truth, rng)


def written(config: SimulationConfig, folder: Path) -> ad.AnnData:
    path = folder / f"{len(list(folder.iterdir()))}.h5ad"
    write_atlas(path, config)
    return ad.read_h5ad(path)


def shares(name: str) -> pd.Series:
    """Of affected oligodendrocytes, the mean over donors of each class, in many donors."""
    truth, nuclei = planted(scenario(name, nuclei=20_000, genes=200, extra=300))
    own = nuclei[nuclei["cell_type"] == 0]
    of_donor = own["affected"].groupby(own["donor"]).mean()
    return of_donor.groupby(truth.donors["adnc"]).mean()


# The files


@pytest.mark.parametrize("name", SCENARIOS)
def test_a_scenario_is_made_of_the_demo_and_says_its_name(name: str) -> None:
    simulation = configuration("data=demo", f"data/simulation={name}").data.simulation
    assert simulation is not None
    assert simulation.scenario == name
    demo = scenario("demo")
    assert (simulation.nuclei, simulation.genes, simulation.seed) == (16_000, 20_000, demo.seed)
    assert simulation.states == (0 if name == "demo" else 6)
    assert simulation.extra == 0


def test_the_demo_is_what_is_simulated_unless_told_otherwise() -> None:
    assert configuration("data=demo") == configuration("data=demo", "data/simulation=demo")


def test_a_field_of_a_scenario_is_changed_like_any_other() -> None:
    changed = configuration("data=demo", "data/simulation=rare", "data.simulation.effect=0").data.simulation
    assert changed == replace(scenario("rare"), effect=0.0, nuclei=16_000, genes=20_000, oligodendrocytes=0.6)


def test_the_experiment_without_signal_is_the_scenario_without_signal() -> None:
    experiment = configuration("data=demo", "experiment=no_signal").data
    assert experiment == configuration("data=demo", "data/simulation=no_signal").data


@pytest.mark.parametrize("name", SCENARIOS)
def test_a_file_says_which_scenario_and_parameters_it_was_made_from(name: str, tmp_path: Path) -> None:
    config = scenario(name, nuclei=500, genes=200, seed=3)
    said = written(config, tmp_path).uns
    assert "no real donor" in said["SIMULATED"]
    assert tuple(said["SIMULATED affected"]) == config.affected
    others = {name: value for name, value in asdict(config).items() if name != "affected"}
    assert {name: said[f"SIMULATED {name}"] for name in others} == others


# What is planted


@pytest.mark.parametrize(("name", "low", "high"), [("demo", 0.20, 0.55), ("rare", 0.04, 0.14)])
def test_the_share_of_affected_nuclei_is_that_of_the_scenario(name: str, low: float, high: float) -> None:
    found = shares(name)
    assert found["Not AD"] == pytest.approx(low, abs=0.02)
    assert found["High"] == pytest.approx(high, abs=0.02)
    assert found["Not AD"] < found["Low"] < found["High"]


@pytest.mark.parametrize("name", ["states", "weak", "interaction"])
def test_as_many_nuclei_are_affected_as_in_the_demo(name: str) -> None:
    assert shares(name).to_numpy() == pytest.approx(shares("demo").to_numpy())


def test_where_all_nuclei_shift_no_nucleus_of_a_donor_differs_from_another() -> None:
    truth, nuclei = planted(scenario("global"))
    own, share = nuclei[nuclei["cell_type"] == 0], truth.donors["affected_share"].to_numpy()
    assert (own["affected"] == share[own["donor"]]).all()
    assert not nuclei.loc[nuclei["cell_type"] != 0, "affected"].any()
    assert (own["sign_a"] == own["sign_b"]).mean() == pytest.approx(0.5, abs=0.05)


def test_where_all_nuclei_shift_donors_have_the_same_means_as_where_affected_ones_do() -> None:
    truth, everywhere = planted(scenario("global", nuclei=20_000, genes=200))
    _, in_some = planted(scenario("states", nuclei=20_000, genes=200))
    means = [nuclei.groupby("donor")["affected"].mean() for nuclei in (everywhere, in_some)]
    assert means[0].to_numpy() == pytest.approx(means[1].to_numpy(), abs=0.16)
    assert means[0].mean() == pytest.approx(means[1].mean(), abs=0.01)
    assert len(truth.donors) == 81


def test_where_all_nuclei_shift_the_counts_do(tmp_path: Path) -> None:
    """The genes of the disease follow a donor's share, in the direction that is published."""
    config = scenario("global", states=0, effect=2.0, extra=40)
    atlas = written(config, tmp_path)
    own = atlas[(atlas.obs["Subclass"] == "Oligodendrocyte").to_numpy()]
    share = own.obs.groupby("Donor ID", observed=True)["SIMULATED affected"].agg(["mean", "std"])
    assert share["std"].max() < 1e-9
    values = pd.DataFrame(own.X.toarray()).groupby(own.obs["Donor ID"].to_numpy(str)).mean()
    published = plant(config, np.random.default_rng(0)).genes["log2_fold_change"].to_numpy()
    centred = share["mean"].loc[values.index].to_numpy() - share["mean"].mean()
    slope = centred @ values.to_numpy() / (centred**2).sum() / np.log(2)
    assert np.polyfit(published, slope, 1)[0] == pytest.approx(2 * config.effect, rel=0.25)


def test_the_effect_of_weak_is_half_that_of_states(tmp_path: Path) -> None:
    published = plant(scenario("weak"), np.random.default_rng(0)).genes["log2_fold_change"].to_numpy()
    slopes = [
        np.polyfit(published, differences(oligodendrocytes(written(scenario(name), tmp_path)))[0], 1)[0]
        for name in ("weak", "states")
    ]
    assert slopes[0] / slopes[1] == pytest.approx(0.5, abs=0.1)


def test_the_interaction_alone_moves_no_mean_and_couples_all_affected_nuclei() -> None:
    config = scenario("interaction")
    assert (config.effect, config.interaction) == (0.0, 1.0)
    _, nuclei = planted(config)
    own, affected = nuclei[nuclei["cell_type"] == 0], nuclei["affected"].astype(bool)
    assert (own["sign_a"] == own["sign_b"])[affected[own.index]].all()
    assert (own["sign_a"] == own["sign_b"])[~affected[own.index]].mean() == pytest.approx(0.5, abs=0.05)


def test_states_differ_between_nuclei_and_donors_and_half_are_either_or() -> None:
    truth, nuclei = planted(scenario("states", nuclei=40_000, genes=200, extra=300))
    scores = nuclei.filter(like="state ")
    assert scores.shape[1] == 6
    for number, (name, score) in enumerate(scores.items()):
        assert score.nunique() == 2 if number % 2 == 0 else score.nunique() > 10_000, name
    assert truth.donor_state.std(axis=0) == pytest.approx(np.full(6, 0.6), rel=0.15)
    within = scores.groupby(nuclei["donor"]).std().mean()
    assert within.iloc[1::2].to_numpy() == pytest.approx(np.ones(3), rel=0.05)
    of_donor = scores.groupby(nuclei["donor"]).mean()
    assert of_donor.iloc[:, 1::2].std().to_numpy() == pytest.approx(np.full(3, 0.6), rel=0.15)


def test_each_state_moves_1500_genes_of_its_own() -> None:
    loadings = plant(scenario("states", genes=20_000), np.random.default_rng(0)).state_log2
    moved = loadings != 0
    assert moved.sum(axis=1).tolist() == [1500] * 6
    assert loadings[moved].std() == pytest.approx(0.4, rel=0.05)
    assert (moved[0] & moved[1]).sum() == pytest.approx(1500**2 / 20_000, abs=45)


def test_the_counts_of_a_nucleus_follow_its_states(tmp_path: Path) -> None:
    config = scenario("states", effect=0.0)
    atlas = written(config, tmp_path)
    states = [name for name in atlas.obs if name.startswith("SIMULATED state")]
    scores = np.c_[atlas.obs[states].to_numpy(float), np.ones(atlas.n_obs)]
    own = (atlas.obs["Subclass"] == "Oligodendrocyte").to_numpy()
    slopes = np.linalg.lstsq(scores[own], atlas.X.toarray()[own].astype(float), rcond=None)[0][:-1]
    loadings = plant(config, np.random.default_rng(config.seed)).state_log2
    for slope, loading in zip(slopes, loadings, strict=True):
        assert np.corrcoef(slope, loading)[0, 1] > 0.8


def test_the_demo_and_its_states_are_of_the_same_donors_and_nuclei() -> None:
    (demo, nuclei), (states, others) = (planted(scenario(name)) for name in ("demo", "states"))
    pd.testing.assert_frame_equal(demo.donors, states.donors)
    pd.testing.assert_frame_equal(nuclei, others[nuclei.columns])


# Where nothing is planted, nothing differs by class: no mean, and no spread either


@cache
def without_signal(extra: bool) -> pd.DataFrame:
    """Numbers of every High and Not AD donor of many atlases without signal."""
    tables = []
    for seed in range(6 if extra else 40):
        truth, nuclei = planted(scenario("no_signal", genes=200, seed=seed, extra=350 if extra else 0))
        tables.append(numbers(truth, nuclei)[truth.donors["extra"] == extra])
    return pd.concat(tables).query("adnc in ['High', 'Not AD']")


def numbers(truth: Truth, nuclei: pd.DataFrame) -> pd.DataFrame:
    """Everything of a donor that can be counted, as a number."""
    of_donor, donors = nuclei.groupby("donor"), truth.donors
    states = {f"mean of state {i + 1}": values for i, values in enumerate(truth.donor_state.T)}
    return donors.drop(columns=["severity", "extra"]).assign(
        **states,
        number=donors["donor"].str[-3:].astype(int),
        female=donors["sex"] == "Female",
        e4=donors["apoe"].str.count("4"),
        e2=donors["apoe"].str.count("2"),
        nuclei=of_donor.size(),
        oligodendrocytes=(nuclei["cell_type"] == 0).groupby(nuclei["donor"]).sum(),
        depth=of_donor["ln_depth"].mean(),
        affected=of_donor["affected"].mean(),
        libraries_used=of_donor["library"].nunique(),
        expression=truth.donor_log2[:, 0],
        spread=truth.donor_log2.std(axis=1),
    )


def errors_from_chance(values: pd.Series, high: pd.Series) -> float:
    """The AUROC of one number, in standard errors from one half."""
    n_high, n_other = int(high.sum()), int((~high).sum())
    auroc = (values.rank()[high].sum() - n_high * (n_high + 1) / 2) / (n_high * n_other)
    return float((auroc - 0.5) / np.sqrt((n_high + n_other + 1) / (12 * n_high * n_other)))


@pytest.mark.parametrize("extra", [False, True])
def test_without_signal_no_number_of_a_donor_tells_its_class(extra: bool) -> None:
    donors = without_signal(extra).reset_index(drop=True)
    high = donors["adnc"] == "High"
    for name, values in donors.select_dtypes(["number", "bool"]).astype(float).items():
        assert abs(errors_from_chance(values, high)) < LIMIT, name
        assert abs(errors_from_chance((values - values.median()).abs(), high)) < LIMIT, f"spread of {name}"


@pytest.mark.parametrize("extra", [False, True])
def test_without_signal_the_spread_of_nuclei_per_donor_does_not_tell_the_class(extra: bool) -> None:
    donors = without_signal(extra).reset_index(drop=True)
    deviation = (np.log(donors["weight"]) - 7.3).abs()
    assert abs(errors_from_chance(deviation, donors["adnc"] == "High")) < LIMIT
    spread = np.log(donors["weight"]).groupby(donors["adnc"]).std()
    assert spread["High"] == pytest.approx(spread["Not AD"], rel=0.06)


def test_half_the_confounding_is_half_the_difference_in_spread() -> None:
    def ratio(confounding: float) -> float:
        tables = [
            plant(scenario("demo", genes=200, seed=seed, extra=400, confounding=confounding), rng).donors
            for seed, rng in ((seed, np.random.default_rng(seed)) for seed in range(5))
        ]
        donors = pd.concat(tables).query("extra")
        spread = np.log(donors["weight"]).groupby(donors["adnc"]).std()
        return float(spread["High"] / spread["Not AD"])

    # The largest numbers of nuclei are cut off at 6,300, which makes the ratio somewhat smaller.
    assert ratio(0.0) == pytest.approx(1.0, abs=0.05)
    assert 1.03 < ratio(0.5) < ratio(1.0) < 1.3


# Extra donors


def test_extra_donors_leave_the_cohort_as_it_was_to_the_bit(tmp_path: Path) -> None:
    config = scenario("states", nuclei=1100, genes=300)
    atlas, more = (written(replace(config, extra=extra), tmp_path) for extra in (0, 5))
    same = more[: atlas.n_obs]
    assert same.obs_names.tolist() == atlas.obs_names.tolist()
    for name in atlas.obs:
        assert same.obs[name].tolist() == atlas.obs[name].tolist(), name
    assert (same.X != atlas.X).nnz == 0
    assert (same.layers["UMIs"] != atlas.layers["UMIs"]).nnz == 0
    assert not same.obs["SIMULATED extra"].any()
    assert more[atlas.n_obs :].obs["SIMULATED extra"].all()
    assert "SIMULATED extra" not in atlas.obs


def test_extra_donors_are_marked_and_as_many_of_each_class_as_asked_for(tmp_path: Path) -> None:
    obs = written(scenario("demo", extra=7), tmp_path).obs
    donors = obs[obs["SIMULATED extra"]].groupby("Donor ID", observed=True)["ADNC"].agg(["first", "nunique"])
    assert donors["first"].astype(str).value_counts().to_dict() == {"Extra High": 7, "Extra Not AD": 7}
    assert set(donors["nunique"]) == {1}
    assert donors.index.str.startswith("SIM.99.").all()
    assert not obs.loc[~obs["SIMULATED extra"], "Donor ID"].str.startswith("SIM.99.").any()


def test_extra_donors_are_of_the_same_population() -> None:
    """The same programs and modules, and donors that differ as those of the cohort do."""
    cohort, truth = (planted(scenario("states", extra=extra))[0] for extra in (0, 100))
    for shared in ("type_log2", "modules", "state_log2"):
        np.testing.assert_array_equal(getattr(cohort, shared), getattr(truth, shared))
    extra = truth.donors["extra"].to_numpy()
    own, further = truth.donor_log2[~extra], truth.donor_log2[extra]
    autosomal = (truth.genes["sex"] == 0).to_numpy()
    assert further[:, autosomal].std() == pytest.approx(own[:, autosomal].std(), rel=0.02)
    # The cohort's programs explain as much of further donors as of itself; a program is no chance finding.
    axes = np.linalg.svd(own[:, autosomal] - own[:, autosomal].mean(0), full_matrices=False)[2][:6]
    explained = [
        ((d[:, autosomal] @ axes.T) ** 2).sum() / (d[:, autosomal] ** 2).sum() for d in (own, further)
    ]
    assert explained[1] > 0.3
    assert explained[1] == pytest.approx(explained[0], abs=0.15)


def test_extra_donors_have_as_many_nuclei_as_those_of_the_cohort() -> None:
    truth, nuclei = planted(scenario("no_signal", nuclei=40_000, genes=200, extra=400))
    size = nuclei.groupby("donor").size().to_numpy()
    extra = truth.donors["extra"].to_numpy()
    assert size.min() >= 30
    assert np.log(size[extra]).mean() == pytest.approx(np.log(size[~extra]).mean(), abs=0.25)
    assert (~extra)[nuclei["donor"]].sum() == 40_000


def test_no_run_takes_extra_donors_unless_it_asks_for_them(tmp_path: Path) -> None:
    data = configuration("data=demo").data
    config = scenario("demo", nuclei=1500, genes=200)
    paths = [source(replace(data, simulation=replace(config, extra=n)), tmp_path) for n in (0, 6)]
    without, beside = (compared(path) for path in paths)
    assert beside.labels.of_donor.equals(without.labels.of_donor)
    assert beside.labels.of_donor.value_counts().to_dict() == {1: 39, 0: 9}
    assert [fold.test for fold in beside.folds] == [fold.test for fold in without.folds]
    wanted = ("data.positive=[Extra High]", "data.negative=[Extra Not AD]", "split.test_fraction=0.4")
    asked = compared(paths[1], *wanted).labels.of_donor
    assert asked.value_counts().to_dict() == {1: 6, 0: 6}
    assert asked.index.str.startswith("SIM.99.").all()


def test_classes_of_the_cohort_are_those_of_the_real_one_with_and_without_extra_donors() -> None:
    for extra in (0, 3):
        donors = plant(scenario("demo", genes=200, extra=extra), np.random.default_rng(0)).donors
        assert donors.query("not extra")["adnc"].value_counts().to_dict() == DONORS
        assert donors["donor"].is_unique
