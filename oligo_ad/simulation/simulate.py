"""SIMULATED atlas: an h5ad in the layout of the SEA-AD DREAM A9 file, with a planted answer.

Counts are negative binomial around oligodendrocyte profiles measured in SEA-AD. The parameters in
`genes.csv.gz` are rounded figures derived from the DESeq2 tables of the public repository
LASeeker/AD_Oligos (MIT), computed on SEA-AD data (Allen Institute for Brain Science, terms of use):
expression per million, fold change Braak VI against control (both regions, shrunk towards 0, only
genes with padj < .05), donor-to-donor SD (log2), and the sex that expresses a gene. Depth,
dispersion and nuclei per donor follow the same data; they are the constants below.

The planted disease signal has two parts, both in a share of each donor's nuclei (`affected`):
marginal shifts of real AD genes, and an interaction: two gene modules that go up or down together in
affected nuclei and independently in others, so that no gene's mean, hence no linear model, tells.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import scipy.sparse as sp
from anndata.io import write_elem

from oligo_ad.config import SimulationConfig
from oligo_ad.progress import progress
from oligo_ad.threads import in_order

GENES = Path(__file__).with_name("genes.csv.gz")
DONORS = {"Not AD": 9, "Low": 12, "Intermediate": 21, "High": 39}
# Mean and SD over donors of ln(nuclei per donor); Low and Intermediate between the measured two.
NUCLEI = {"Not AD": (7.61, 0.88), "Low": (7.4, 0.9), "Intermediate": (7.2, 1.0), "High": (7.01, 1.05)}
# Mean share of affected nuclei in a donor, and the concentration of its Beta distribution.
AFFECTED = {"Not AD": 0.20, "Low": 0.28, "Intermediate": 0.38, "High": 0.55}
CONCENTRATION = 12.0
OTHER_TYPES = {"L2/3 IT": 0.4, "Astrocyte": 0.2, "Microglia-PVM": 0.15, "OPC": 0.15, "Vip": 0.1}
LN_DEPTH, LN_DEPTH_DONOR_SD, LN_DEPTH_NUCLEUS_SD = np.log(6000.0), 0.18, 0.22
DISPERSION_MEANS = np.array([0.03, 0.1, 0.3, 1.0, 3.0])  # dispersion by mean count, log-linear
DISPERSIONS = np.array([1.1, 0.8, 0.5, 0.33, 0.26])
PROGRAMS = 6  # of donor-to-donor variation
MODULE_GENES, MODULE_LOG2 = 60, 1.0  # each of the two interacting modules goes up or down by this
# Per-cell means below this are drawn as Poisson: there a dispersion near 1 changes nothing.
POISSON_BELOW = 0.02
# The published fold changes are means over all nuclei of a donor; affected nuclei carry them whole.
AFFECTED_FOLD = 2.0
BLOCK, DRAWERS = 500, 2  # nuclei drawn and written at once, and the threads that draw them


@dataclass(frozen=True)
class Truth:
    """What was planted: log2 effects per gene, and per donor everything the counts depend on."""

    genes: pd.DataFrame
    donors: pd.DataFrame
    donor_log2: np.ndarray  # [donors, genes] donor random effects, sex genes included
    type_log2: np.ndarray  # [cell types, genes]; row 0, oligodendrocytes, is 0
    modules: np.ndarray  # [2, genes] bool


def write_atlas(path: Path, config: SimulationConfig) -> None:
    """Simulate `config.nuclei` nuclei and write them to `path`, in blocks: memory stays flat.

    The layout is that of the DREAM file: X is ln(1 + counts per 10,000), `layers/UMIs` the counts,
    both CSR with gzip; every obs column, those with a '/' in their name too. The truth is in obs
    columns and `uns` keys that begin with `SIMULATED`.
    """
    rng = np.random.default_rng(config.seed)
    truth = _plant(config, rng)
    obs = _nuclei(config, truth, rng)
    with h5py.File(path, "w") as file:
        for key, value in {"encoding-type": "anndata", "encoding-version": "0.1.0"}.items():
            file.attrs[key] = value
        for group in ("layers", "obsm", "obsp", "varm", "varp"):
            write_elem(file, group, {})
        shape = (len(obs), len(truth.genes))
        writers = [_CsrWriter(file, name, shape) for name in ("X", "layers/UMIs")]
        for counts in _draw(config, truth, obs):
            total = np.asarray(counts.sum(axis=1)).ravel()
            logged = counts.copy()
            logged.data = np.log1p(counts.data * np.repeat(1e4 / total, np.diff(counts.indptr)))
            for writer, block in zip(writers, (logged, counts), strict=True):
                writer.append(block.astype(np.float32))
        for writer in writers:
            writer.close()
        _write_frame(file, "obs", _as_dream(obs, truth.donors))
        var = truth.genes.set_index("symbol")[["ensembl"]].rename(columns={"ensembl": "gene_ids"})
        _write_frame(file, "var", var.rename_axis("index"))
        uns = {"SIMULATED": "oligo_ad data=demo: no real donor", "SIMULATED seed": config.seed}
        write_elem(file, "uns", uns | {"SIMULATED effect": config.effect})


def _plant(config: SimulationConfig, rng: np.random.Generator) -> Truth:
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
    adnc = np.repeat(list(DONORS), list(DONORS.values()))
    severity = pd.Series(adnc).map({"Not AD": 0, "Low": 0.4, "Intermediate": 0.7, "High": 1.0})
    n, confounding = len(adnc), config.confounding
    # Where nothing is planted, the state that leaves no trace must not tell the classes apart either.
    planted = config.effect > 0 or config.interaction > 0
    share = np.array([AFFECTED[level if planted else "Intermediate"] for level in adnc])
    mean_nuclei, sd_nuclei = np.array([NUCLEI[level] for level in adnc]).T
    # With no confounding, the number of nuclei tells nothing either.
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


def _nuclei(config: SimulationConfig, truth: Truth, rng: np.random.Generator) -> pd.DataFrame:
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


def _draw(config: SimulationConfig, truth: Truth, obs: pd.DataFrame) -> Iterator[sp.csr_matrix]:
    """Counts of `BLOCK` nuclei after another, drawn by threads ahead of the writer."""

    def draw(start: int) -> sp.csr_matrix:
        return _draw_block(config, truth, obs.iloc[start : start + BLOCK], start)

    with progress("simulating", len(obs), "nuclei") as advance:
        for counts in in_order(draw, range(0, len(obs), BLOCK), DRAWERS):
            yield counts
            advance(counts.shape[0])


def _draw_block(config: SimulationConfig, truth: Truth, block: pd.DataFrame, start: int) -> sp.csr_matrix:
    """Counts of one block; its draws depend on (seed, start) alone, whatever thread runs it."""
    rng = np.random.default_rng([config.seed, 1, start])
    oligo = block["cell_type"].to_numpy() == 0
    disease = config.effect * AFFECTED_FOLD * truth.genes["log2_fold_change"].to_numpy()
    together = truth.modules * (MODULE_LOG2 * config.interaction)
    log2_rate = np.log2(truth.genes["per_million"].to_numpy()) + truth.donor_log2[block["donor"]]
    log2_rate += truth.type_log2[block["cell_type"]]
    log2_rate += np.outer(block["affected"], disease)
    log2_rate += (block[["sign_a", "sign_b"]].to_numpy() * oligo[:, None]) @ together
    rate = np.exp2(log2_rate).astype(np.float32)
    depth = np.exp(block["ln_depth"].to_numpy()) / rate.sum(axis=1)
    return _negative_binomial(rate * depth[:, None].astype(np.float32), rng)


def _negative_binomial(mean: np.ndarray, rng: np.random.Generator) -> sp.csr_matrix:
    """Counts with the given means [nuclei, genes] and the dispersions measured at those means."""
    over = mean.mean(axis=0) >= POISSON_BELOW
    dense = mean[:, over]
    dispersion = np.interp(np.log(dense.mean(axis=0)), np.log(DISPERSION_MEANS), DISPERSIONS)
    shape = (1 / dispersion).astype(np.float32)
    gamma = rng.standard_gamma(np.broadcast_to(shape, dense.shape), dtype=np.float32) / shape
    counts = np.zeros(mean.shape, np.int32)
    counts[:, over] = rng.poisson(dense * gamma)
    # Rare genes: as many draws as there are counts, instead of one draw for each gene and nucleus.
    rare_ids, rare = np.flatnonzero(~over), mean[:, ~over]
    for row, total in enumerate(rng.poisson(rare.sum(axis=1, dtype=np.float64))):
        cumulative = np.cumsum(rare[row], dtype=np.float64)
        drawn = np.searchsorted(cumulative, rng.random(total) * cumulative[-1]) if total else []
        np.add.at(counts[row], rare_ids[drawn] if total else [], 1)
    return sp.csr_matrix(counts)


class _CsrWriter:
    """Appends CSR blocks to an AnnData sparse matrix on disk."""

    def __init__(self, file: h5py.File, name: str, shape: tuple[int, int]) -> None:
        self.group = file.create_group(name)
        self.group.attrs.update({"encoding-type": "csr_matrix", "encoding-version": "0.1.0"})
        self.group.attrs["shape"] = np.array(shape)
        options = {"chunks": (1 << 18,), "maxshape": (None,), "compression": "gzip"}
        self.data = self.group.create_dataset("data", (0,), np.float32, compression_opts=1, **options)
        self.indices = self.group.create_dataset("indices", (0,), np.int32, compression_opts=1, **options)
        self.indptr = [np.zeros(1, np.int64)]

    def append(self, block: sp.csr_matrix) -> None:
        end = self.data.shape[0]
        for dataset, values in ((self.data, block.data), (self.indices, block.indices)):
            dataset.resize(end + len(values), axis=0)
            dataset[end:] = values
        self.indptr.append(block.indptr[1:].astype(np.int64) + end)

    def close(self) -> None:
        self.group.create_dataset("indptr", data=np.concatenate(self.indptr))


def _as_dream(obs: pd.DataFrame, donors: pd.DataFrame) -> pd.DataFrame:
    """The nuclei under the column names and levels of the DREAM file, plus the planted truth."""
    of = donors.iloc[obs["donor"]].reset_index(drop=True)
    severity = of["severity"].to_numpy()
    stage = np.digitize(severity, [0.2, 0.5, 0.9])
    oligo = obs["cell_type"].to_numpy() == 0
    subclass = np.array(["Oligodendrocyte", *OTHER_TYPES])[obs["cell_type"]]
    library = np.char.add(of["donor"].to_numpy(str), np.char.add("_L", obs["library"].to_numpy(str)))
    neurons = np.isin(subclass, ["L2/3 IT", "Vip"])
    columns = {
        "ADNC": of["adnc"],
        "APOE Genotype": of["apoe"],
        "Age at Death": of["age"],
        "Braak": np.array(["Braak II", "Braak III", "Braak IV", "Braak VI"])[stage],
        "CERAD": np.array(["Absent", "Sparse", "Moderate", "Frequent"])[stage],
        "Class": np.where(neurons, "Neuronal: Glutamatergic", "Non-neuronal and Non-neural"),
        "Cognitive Status": np.where(severity > 0.6, "Dementia", "No dementia"),
        "Donor ID": of["donor"],
        "Highest Lewy Body Disease": "Not Identified (olfactory bulb not assessed)",
        "Hispanic/Latino": "No",
        "LATE": np.where(severity > 0.9, "LATE Stage 2", "Not Identified"),
        "Method": np.where(of["multiome"], "3' 10x Multiome", "3' 10x v3.1"),
        "PMI": of["pmi"],
        "Race (choice=American Indian/ Alaska Native)": "Unchecked",
        "Race (choice=Asian)": "Unchecked",
        "Race (choice=Black/ African American)": "Unchecked",
        "Race (choice=Native Hawaiian or Pacific Islander)": "Unchecked",
        "Race (choice=Other)": "Unchecked",
        "Race (choice=Unknown or unreported)": "Unchecked",
        "Race (choice=White)": "Checked",
        "Sex": of["sex"],
        "Subclass": subclass,
        "Supertype": np.where(oligo, "Oligo_2", np.char.add(subclass, "_1")),
        "Thal": np.array(["Thal 0", "Thal 1", "Thal 3", "Thal 5"])[stage],
        "Years of education": of["education"],
        "exp_component_name": library,
        "library_prep": library,
        "percent 6e10 positive area": 6 * severity,
        "percent AT8 positive area": 9 * severity**2,
        "percent GFAP positive area": 5.0,
        "percent NeuN positive area": 3 - severity,
        "percent aSyn positive area": 0.1,
        "percent pTDP43 positive area": 0.1,
        "SIMULATED affected": obs["affected"].to_numpy(),
    }
    names = [f"{donor}-{i}" for i, donor in enumerate(of["donor"])]
    frame = pd.DataFrame(
        {name: np.asarray(values) for name, values in columns.items() if np.ndim(values)}
        | {name: value for name, value in columns.items() if not np.ndim(value)},
        index=pd.Index(names, name="index"),
    )[list(columns)]
    text = [name for name in frame if frame[name].dtype == object]
    return frame.astype(dict.fromkeys(text, "category"))


def _write_frame(file: h5py.File, name: str, frame: pd.DataFrame) -> None:
    """A dataframe element. Written by column, since AnnData refuses new names with a '/'."""
    group = file.create_group(name)
    index = frame.index.name
    write_elem(group, index, frame.index.to_numpy(object))
    for column in frame.columns:
        parent, _, leaf = column.rpartition("/")
        values = frame[column]
        encoded = values.array if isinstance(values.dtype, pd.CategoricalDtype) else values.to_numpy()
        write_elem(group.require_group(parent) if parent else group, leaf, encoded)
    group.attrs.update({"encoding-type": "dataframe", "encoding-version": "0.2.0", "_index": index})
    group.attrs["column-order"] = np.array(list(frame.columns), dtype=h5py.string_dtype())
