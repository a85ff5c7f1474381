"""The planted truth of a simulated atlas: the genes, donors and nuclei from which its counts are drawn."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from oligo_ad.config import SimulationConfig

GENES = Path(__file__).with_name("genes.csv.gz")
DONORS = {"Not AD": 9, "Low": 12, "Intermediate": 21, "High": 39}
SEVERITY = {"Not AD": 0.0, "Low": 0.4, "Intermediate": 0.7, "High": 1.0}
# Mean and SD over donors of ln(nuclei per donor); Low and Intermediate between the measured two.
NUCLEI = {"Not AD": (7.61, 0.88), "Low": (7.4, 0.9), "Intermediate": (7.2, 1.0), "High": (7.01, 1.05)}
COMMON_SD = 1.0  # that SD in every class, where nothing is confounded
CONCENTRATION = 12.0  # of the Beta distribution of the share of affected nuclei in a donor
OTHER_TYPES = {"L2/3 IT": 0.4, "Astrocyte": 0.2, "Microglia-PVM": 0.15, "OPC": 0.15, "Vip": 0.1}
LN_DEPTH, LN_DEPTH_DONOR_SD, LN_DEPTH_NUCLEUS_SD = np.log(6000.0), 0.18, 0.22
PROGRAMS = 6  # of donor-to-donor variation
MODULE_GENES = 60  # in each of the two interacting modules
# Of each program unrelated to disease: its genes, SD of their loadings (log2), SD of the donors' means in
# units of the SD of a donor's nuclei.
STATE_GENES, STATE_LOG2, STATE_DONOR_SD = 1500, 0.4, 0.6
EXTRA = ("Not AD", "High")  # classes of the extra donors
# Random numbers apart from those of the cohort, which stays as it is whatever else is planted or written.
STATES, STATES_OF_NUCLEI, EXTRA_DONORS, EXTRA_NUCLEI = 2, 3, 4, 5


@dataclass(frozen=True)
class Truth:
    """The planted truth: log2 effects per gene, and everything about a donor that its counts depend on."""

    genes: pd.DataFrame
    donors: pd.DataFrame  # the extra ones last
    donor_log2: np.ndarray  # [donors, genes] donor random effects, sex genes included
    type_log2: np.ndarray  # [cell types, genes]; row 0, oligodendrocytes, is 0
    modules: np.ndarray  # [2, genes] bool
    state_log2: np.ndarray  # [states, genes] loadings of the programs unrelated to disease
    donor_state: np.ndarray  # [donors, states] the donors' means


def plant(config: SimulationConfig, rng: np.random.Generator) -> Truth:
    """Draw the donors and everything that is the same for all nuclei of a donor or a cell type."""
    genes = _panel(config.genes)
    donors = _donors(config, np.repeat(list(DONORS), list(DONORS.values())), rng).assign(extra=False)
    scores = rng.normal(size=(len(donors), PROGRAMS))
    programs = rng.normal(size=(PROGRAMS, len(genes)))
    donor_log2 = _donor_effects(donors, scores @ programs, genes, rng)
    type_log2 = rng.normal(0, 1.2, size=(1 + len(OTHER_TYPES), len(genes)))
    type_log2[0] = 0
    modules = _modules(genes, rng)
    # Further donors of the same population: other draws, the same programs, modules and cell types.
    own = np.random.default_rng([config.seed, EXTRA_DONORS])
    extra = _donors(config, np.repeat(EXTRA, config.extra), own, group="99").assign(extra=True)
    scores = own.normal(size=(len(extra), PROGRAMS))
    donor_log2 = np.concatenate([donor_log2, _donor_effects(extra, scores @ programs, genes, own)])
    donors = pd.concat([donors, extra], ignore_index=True) if len(extra) else donors
    return Truth(genes, donors, donor_log2, type_log2, modules, *_states(config, len(genes), len(donors)))


def _donor_effects(
    donors: pd.DataFrame, programs: np.ndarray, genes: pd.DataFrame, rng: np.random.Generator
) -> np.ndarray:
    """Log2 effects of each donor [donors, genes]; `programs`: what its programs do, of the same shape."""
    # Half of the variance between donors runs along a few programs, as it does in real cohorts.
    log2 = (programs / np.sqrt(PROGRAMS) + rng.normal(size=programs.shape)) / np.sqrt(2)
    log2 *= genes["donor_sd"].to_numpy()
    # A gene of one sex is all but silent in the other; its profile is a mean over both.
    of_sex = np.where(donors["sex"] == "Female", 1, -1)[:, None] * genes["sex"].to_numpy()[None, :]
    log2 += np.select([of_sex > 0, of_sex < 0], [0.7, -9.0], 0.0)
    return log2


def _modules(genes: pd.DataFrame, rng: np.random.Generator) -> np.ndarray:
    """The genes of the two interacting modules [2, genes] bool."""
    well_expressed = np.flatnonzero(
        genes["per_million"].between(60, 400) & (genes["log2_fold_change"] == 0) & (genes["sex"] == 0)
    )
    chosen = rng.permutation(well_expressed)[: 2 * MODULE_GENES]
    modules = np.zeros((2, len(genes)), bool)
    modules[0, chosen[::2]] = modules[1, chosen[1::2]] = True
    return modules


def _states(config: SimulationConfig, n_genes: int, n_donors: int) -> tuple[np.ndarray, np.ndarray]:
    """Programs unrelated to disease: loadings [states, genes] and the donors' means [donors, states]."""
    rng = np.random.default_rng([config.seed, STATES])
    log2 = np.zeros((config.states, n_genes))
    for loadings in log2:
        chosen = rng.permutation(n_genes)[:STATE_GENES]
        loadings[chosen] = rng.normal(0, STATE_LOG2, len(chosen))
    return log2, rng.normal(0, STATE_DONOR_SD, size=(n_donors, config.states))


def _panel(n_genes: int) -> pd.DataFrame:
    """The `n_genes` most expressed genes; beyond the 22,017 measured ones, all but silent fillers."""
    measured = pd.read_csv(GENES).nlargest(n_genes, "per_million", keep="first")
    n_silent = n_genes - len(measured)
    silent = pd.DataFrame(
        {
            "ensembl": [f"SIMULATED{i:05d}" for i in range(n_silent)],
            "symbol": [f"SIMULATED-{i:05d}" for i in range(n_silent)],
            "per_million": 0.01,
            "log2_fold_change": 0.0,
            "donor_sd": 0.35,
            "sex": 0,
        }
    )
    return pd.concat([measured, silent], ignore_index=True) if n_silent else measured


def _donors(
    config: SimulationConfig, adnc: np.ndarray, rng: np.random.Generator, group: str = "33"
) -> pd.DataFrame:
    """One row a donor: diagnosis, covariates, and how many nuclei it has, how deep and how affected.

    Args:
        config: what is planted, and how far covariates follow the diagnosis.
        adnc: the diagnosis of each donor.
        rng: what is drawn from.
        group: the middle part of the donors' ids.
    """
    severity = pd.Series(adnc).map(SEVERITY).astype(float)
    n, confounding = len(adnc), config.confounding
    # Where nothing is planted, the share of affected nuclei must not differ between the classes either.
    planted = config.effect > 0 or config.interaction > 0
    affected = dict(zip(DONORS, config.affected, strict=True))
    share = np.array([affected[level if planted else "Intermediate"] for level in adnc])
    mean_nuclei, sd_nuclei = np.array([NUCLEI[level] for level in adnc]).reshape(-1, 2).T
    # With no confounding, the number of nuclei does not depend on the class.
    mean_nuclei = 7.3 + (mean_nuclei - 7.3) * confounding
    sd_nuclei = (COMMON_SD + (sd_nuclei - COMMON_SD) * confounding).clip(0)
    ages = rng.normal(87 + 2 * confounding * (severity - 0.5), 7, n).clip(65, 102).round()
    e4_rate = (0.5 * confounding * severity).clip(0, 1) + 0.2 * max(0.0, 1 - confounding)
    e4, e2 = rng.random(n) < e4_rate, rng.random(n) < 0.15
    apoe = np.select([e4 & e2, e4 & (rng.random(n) < 0.2), e4, e2], ["2/4", "4/4", "3/4", "2/3"], "3/3")
    return pd.DataFrame(
        {
            "donor": [f"SIM.{group}.{i:03d}" for i in rng.permutation(n) + 1],
            "adnc": adnc,
            "affected_share": rng.beta(share * CONCENTRATION, (1 - share) * CONCENTRATION),
            "weight": np.exp(rng.normal(mean_nuclei, sd_nuclei)).clip(40, 6300),
            "ln_depth": rng.normal(-0.1 * confounding * (severity - 0.5), LN_DEPTH_DONOR_SD, n),
            "age": ages,
            "sex": np.where(rng.random(n) < 0.6, "Female", "Male"),
            "apoe": apoe,
            "libraries": rng.integers(1, 5, n),
            "multiome": rng.random(n) < 0.35,
            "education": rng.normal(16, 2.5, n).clip(8, 22).round(),
            "pmi": rng.normal(7, 2, n).clip(3, 12).round(1),
            "severity": severity,
        }
    )


def draw_nuclei(config: SimulationConfig, truth: Truth, rng: np.random.Generator) -> pd.DataFrame:
    """One row a nucleus, those of extra donors last; donors and types interleaved, at least 30 a donor."""
    weight = truth.donors["weight"].to_numpy()
    of_cohort = weight[~truth.donors["extra"]]
    few = min(30, config.nuclei // len(of_cohort))
    more, share = config.nuclei - few * len(of_cohort), weight / of_cohort.sum()
    donor = np.repeat(np.arange(len(of_cohort)), few)
    donor = np.concatenate([donor, rng.choice(len(of_cohort), more, p=share[: len(of_cohort)])])
    cohort = _of_donors(config, truth, rng.permutation(donor), rng)
    own = np.random.default_rng([config.seed, EXTRA_NUCLEI])
    extra = np.arange(len(of_cohort), len(weight))
    donor = np.repeat(extra, few + own.poisson(more * share[extra]))
    nuclei = pd.concat([cohort, _of_donors(config, truth, own.permutation(donor), own)], ignore_index=True)
    return nuclei.join(_states_of_nuclei(config, truth, nuclei["donor"].to_numpy()))


def _of_donors(
    config: SimulationConfig, truth: Truth, donor: np.ndarray, rng: np.random.Generator
) -> pd.DataFrame:
    """One row a nucleus, without its states; `donor` [nuclei]: the number of its donor."""
    n, donors = len(donor), truth.donors
    other = (1 - config.oligodendrocytes) * np.array(list(OTHER_TYPES.values()))
    cell_type = rng.choice(1 + len(OTHER_TYPES), n, p=np.r_[config.oligodendrocytes, other])
    share = donors["affected_share"].to_numpy()[donor]
    affected = (rng.random(n) < share) & (cell_type == 0) & (config.shifted == "affected")
    # Signs of the two modules: equal in affected oligodendrocytes, independent elsewhere.
    signs = rng.choice([-1.0, 1.0], size=(n, 2))
    signs[:, 1] = np.where(affected, signs[:, 0], signs[:, 1])
    ln_depth = LN_DEPTH + donors["ln_depth"].to_numpy()[donor]
    return pd.DataFrame(
        {
            "donor": donor,
            "cell_type": cell_type,
            # How much of the shifts it carries.
            "affected": affected if config.shifted == "affected" else share * (cell_type == 0),
            "sign_a": signs[:, 0],
            "sign_b": signs[:, 1],
            "ln_depth": ln_depth + rng.normal(0, LN_DEPTH_NUCLEUS_SD, n),
            "library": rng.integers(0, donors["libraries"].to_numpy()[donor]),
        }
    )


def _states_of_nuclei(config: SimulationConfig, truth: Truth, donor: np.ndarray) -> pd.DataFrame:
    """Scores of each nucleus on the programs unrelated to disease; every second one has two states."""
    rng = np.random.default_rng([config.seed, STATES_OF_NUCLEI])
    scores = truth.donor_state[donor] + rng.normal(size=(len(donor), config.states))
    scores[:, ::2] = np.sign(scores[:, ::2])
    return pd.DataFrame(scores, columns=state_columns(config))


def state_columns(config: SimulationConfig) -> list[str]:
    """Names of the scores of nuclei on the programs unrelated to disease."""
    return [f"state {number + 1}" for number in range(config.states)]
