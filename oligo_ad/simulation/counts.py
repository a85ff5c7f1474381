"""The counts of a simulated atlas: negative binomial around the expected profile of each nucleus."""

from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import pandas as pd
import scipy.sparse as sp

from oligo_ad.config import SimulationConfig
from oligo_ad.progress import progress
from oligo_ad.simulation.truth import Truth, state_columns
from oligo_ad.threads import in_order

DISPERSION_MEANS = np.array([0.03, 0.1, 0.3, 1.0, 3.0])  # dispersion by mean count, log-linear
DISPERSIONS = np.array([1.1, 0.8, 0.5, 0.33, 0.26])
MODULE_LOG2 = 1.0  # each of the two interacting modules goes up or down by this
# Means per nucleus below this are drawn as Poisson: there a dispersion near 1 changes nothing.
POISSON_BELOW = 0.02
# The published fold changes are means over all nuclei of a donor; affected nuclei carry them whole.
AFFECTED_FOLD = 2.0
BLOCK, THREADS = 500, 2  # nuclei drawn and written at once, and the threads that draw them


def draw_counts(config: SimulationConfig, truth: Truth, obs: pd.DataFrame) -> Iterator[sp.csr_matrix]:
    """Counts of all nuclei in blocks of `BLOCK`, drawn by threads in advance of the writer."""
    # No block holds nuclei of the cohort and of extra donors: the cohort's counts are the same without those.
    starts = [*range(0, config.nuclei, BLOCK), *range(config.nuclei, len(obs), BLOCK)]

    def draw(block: tuple[int, int]) -> sp.csr_matrix:
        start, end = block
        return _draw_block(config, truth, obs.iloc[start:end], start)

    with progress("simulating", len(obs), "nuclei") as advance:
        for counts in in_order(draw, pairwise([*starts, len(obs)]), THREADS):
            yield counts
            advance(counts.shape[0])


def _draw_block(config: SimulationConfig, truth: Truth, block: pd.DataFrame, start: int) -> sp.csr_matrix:
    """Counts of one block; its draws depend on (seed, start) alone, not on the thread."""
    rng = np.random.default_rng([config.seed, 1, start])
    oligo = block["cell_type"].to_numpy() == 0
    disease = config.effect * AFFECTED_FOLD * truth.genes["log2_fold_change"].to_numpy()
    together = truth.modules * (MODULE_LOG2 * config.interaction)
    log2_rate = np.log2(truth.genes["per_million"].to_numpy()) + truth.donor_log2[block["donor"]]
    log2_rate += truth.type_log2[block["cell_type"]]
    log2_rate += np.outer(block["affected"], disease)
    log2_rate += block[state_columns(config)].to_numpy(float) @ truth.state_log2
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
