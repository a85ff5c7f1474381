"""The SIMULATED atlas: an h5ad in the layout of the SEA-AD DREAM A9 file, with a planted truth.

Counts are negative binomial around oligodendrocyte profiles measured in SEA-AD. The parameters in
`genes.csv.gz` are rounded figures derived from the DESeq2 tables of the public repository
LASeeker/AD_Oligos (MIT), computed on SEA-AD data (Allen Institute for Brain Science, terms of use):
expression per million, fold change Braak VI against control (both regions, shrunk towards 0, only
genes with padj < .05), donor-to-donor SD (log2), and the sex that expresses a gene. Depth,
dispersion and nuclei per donor follow the same data; they are the constants of `truth.py` and
`counts.py`.

The planted disease signal has two parts, both in a share of each donor's nuclei (`affected`), unless
all of them are shifted:
marginal shifts of real AD genes, and an interaction: two gene modules that go up or down together in
affected nuclei and independently in others, so that no gene's mean, hence no linear model, shows it.
Further programs, unrelated to disease, may differ between nuclei and donors. `conf/data/simulation/` has
scenarios of them.
"""

from dataclasses import asdict
from pathlib import Path

import h5py
import numpy as np
from anndata.io import write_elem

from oligo_ad.config import SimulationConfig
from oligo_ad.simulation.counts import draw_counts
from oligo_ad.simulation.dream import CsrWriter, as_dream, write_frame
from oligo_ad.simulation.truth import draw_nuclei, plant


def write_atlas(path: Path, config: SimulationConfig) -> None:
    """Simulate `config.nuclei` nuclei, and those of extra donors, and write them to `path`, in blocks.

    The layout is that of the DREAM file: X is ln(1 + counts per 10,000), `layers/UMIs` the counts,
    both CSR with gzip; every obs column, those with a '/' in their name too. The truth is in obs
    columns and `uns` keys that begin with `SIMULATED`.
    """
    rng = np.random.default_rng(config.seed)
    truth = plant(config, rng)
    obs = draw_nuclei(config, truth, rng)
    with h5py.File(path, "w") as file:
        for key, value in {"encoding-type": "anndata", "encoding-version": "0.1.0"}.items():
            file.attrs[key] = value
        for group in ("layers", "obsm", "obsp", "varm", "varp"):
            write_elem(file, group, {})
        shape = (len(obs), len(truth.genes))
        writers = [CsrWriter(file, name, shape) for name in ("X", "layers/UMIs")]
        for counts in draw_counts(config, truth, obs):
            total = np.asarray(counts.sum(axis=1)).ravel()
            logged = counts.copy()
            logged.data = np.log1p(counts.data * np.repeat(1e4 / total, np.diff(counts.indptr)))
            for writer, block in zip(writers, (logged, counts), strict=True):
                writer.append(block.astype(np.float32))
        for writer in writers:
            writer.close()
        write_frame(file, "obs", as_dream(obs, truth.donors))
        var = truth.genes.set_index("symbol")[["ensembl"]].rename(columns={"ensembl": "gene_ids"})
        write_frame(file, "var", var.rename_axis("index"))
        parameters = {f"SIMULATED {name}": value for name, value in asdict(config).items()}
        parameters["SIMULATED affected"] = np.array(config.affected)
        write_elem(file, "uns", {"SIMULATED": "oligo_ad data=demo: no real donor"} | parameters)
