"""The planted truth of a simulated atlas: the genes, donors and nuclei from which its counts are drawn."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from oligo_ad.config import SimulationConfig

GENES = Path(__file__).with_name("genes.csv.gz")
DONORS = {"Not AD": 9, "Low": 12, "Intermediate": 21, "High": 39}
# Mean and SD over donors of ln(nuclei per donor); Low and Intermediate between the measured two.
NUCLEI = {"Not AD": (7.61, 0.88), "Low": (7.4, 0.9), "Intermediate": (7.2, 1.0), "High": (7.01, 1.05)}
# Mean share of affected nuclei in a donor, and the concentration of its Beta distribution.
AFFECTED = {"Not AD": 0.20, "Low": 0.28, "Intermediate": 0.38, "High": 0.55}
CONCENTRATION = 12.0
OTHER_TYPES = {"L2/3 IT": 0.4, "Astrocyte": 0.2, "Microglia-PVM": 0.15, "OPC": 0.15, "Vip": 0.1}
LN_DEPTH, LN_DEPTH_DONOR_SD, LN_DEPTH_NUCLEUS_SD = np.log(6000.0), 0.18, 0.22
PROGRAMS = 6  # of donor-to-donor variation
MODULE_GENES = 60  # in each of the two interacting modules


@dataclass(frozen=True)
class Truth:
    """The planted truth: log2 effects per gene, and everything about a donor that its counts depend on."""

    genes: pd.DataFrame
    donors: pd.DataFrame
    donor_log2: np.ndarray  # [donors, genes] donor random effects, sex genes included
    type_log2: np.ndarray  # [cell types, genes]; row 0, oligodendrocytes, is 0
    modules: np.ndarray  # [2, genes] bool


def plant(config: SimulationConfig, rng: np.random.Generator) -> Truth:
    """Draw the donors and everything that is the same for all nuclei of a donor or a cell type."""
    genes = _panel(config.genes)
    donors = _donors(config, rng)
    n_genes, n_donors = len(genes), len(donors)
    # Half of the variance between donors runs along a few programs, as it does in real cohorts.
    programs = rng.normal(size=(n_donors, PROGRAMS)) @ rng.normal(size=(PROGRAMS, n_genes))
    donor_log2 = (programs / np.sqrt(PROGRAMS) + rng.normal(size=(n_donors, n_genes))) / np.sqrt(2)
    donor_log2 *= genes["donor_sd"].to_numpy()
    # A gene of one sex is all but silent in the other; its profile is a mean over both.
    of_sex = np.where(donors["sex"] == "Female", 1, -1)[:, None] * genes["sex"].to_numpy()[None, :]
    donor_log2 += np.select([of_sex > 0, of_sex < 0], [0.7, -9.0], 0.0)
    type_log2 = rng.normal(0, 1.2, size=(1 + len(OTHER_TYPES), n_genes))
    type_log2[0] = 0
    well_expressed = np.flatnonzero(
        genes["per_million"].between(60, 400) & (genes["log2_fold_change"] == 0) & (genes["sex"] == 0)
    )
    chosen = rng.permutation(well_expressed)[: 2 * MODULE_GENES]
    modules = np.zeros((2, n_genes), bool)
    modules[0, chosen[::2]] = modules[1, chosen[1::2]] = True
    return Truth(genes, donors, donor_log2, type_log2, modules)


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


def _donors(config: SimulationConfig, rng: np.random.Generator) -> pd.DataFrame:
    """One row a donor: diagnosis, covariates, and how many nuclei it has, how deep and how affected."""
    adnc = np.repeat(list(DONORS), list(DONORS.values()))
    severity = pd.Series(adnc).map({"Not AD": 0, "Low": 0.4, "Intermediate": 0.7, "High": 1.0})
    n, confounding = len(adnc), config.confounding
    # Where nothing is planted, the share of affected nuclei must not differ between the classes either.
    planted = config.effect > 0 or config.interaction > 0
    share = np.array([AFFECTED[level if planted else "Intermediate"] for level in adnc])
    mean_nuclei, sd_nuclei = np.array([NUCLEI[level] for level in adnc]).T
    # With no confounding, the number of nuclei does not depend on the class.
    mean_nuclei = 7.3 + (mean_nuclei - 7.3) * confounding
    ages = rng.normal(87 + 2 * confounding * (severity - 0.5), 7, n).clip(65, 102).round()
    e4_rate = (0.5 * confounding * severity).clip(0, 1) + 0.2 * max(0.0, 1 - confounding)
    e4, e2 = rng.random(n) < e4_rate, rng.random(n) < 0.15
    apoe = np.select([e4 & e2, e4 & (rng.random(n) < 0.2), e4, e2], ["2/4", "4/4", "3/4", "2/3"], "3/3")
    return pd.DataFrame(
        {
            "donor": [f"SIM.33.{i:03d}" for i in rng.permutation(n) + 1],
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
    """One row a nucleus, donors and types interleaved, each donor with at least 30 nuclei."""
    n, donors = config.nuclei, truth.donors
    few = min(30, n // len(donors))
    share = donors["weight"].to_numpy() / donors["weight"].sum()
    donor = np.repeat(np.arange(len(donors)), few)
    donor = np.concatenate([donor, rng.choice(len(donors), n - len(donor), p=share)])
    donor = rng.permutation(donor)
    other = (1 - config.oligodendrocytes) * np.array(list(OTHER_TYPES.values()))
    cell_type = rng.choice(1 + len(OTHER_TYPES), n, p=np.r_[config.oligodendrocytes, other])
    affected = rng.random(n) < donors["affected_share"].to_numpy()[donor]
    # Signs of the two modules: equal in affected oligodendrocytes, independent elsewhere.
    signs = rng.choice([-1.0, 1.0], size=(n, 2))
    signs[:, 1] = np.where(affected & (cell_type == 0), signs[:, 0], signs[:, 1])
    ln_depth = LN_DEPTH + donors["ln_depth"].to_numpy()[donor]
    return pd.DataFrame(
        {
            "donor": donor,
            "cell_type": cell_type,
            "affected": affected & (cell_type == 0),
            "sign_a": signs[:, 0],
            "sign_b": signs[:, 1],
            "ln_depth": ln_depth + rng.normal(0, LN_DEPTH_NUCLEUS_SD, n),
            "library": rng.integers(0, donors["libraries"].to_numpy()[donor]),
        }
    )
