"""Speed of making batches of a dense panel, against other loaders; 100,000 nuclei x 2,000 genes in memory.

    python benchmarks/batches.py                  batches of 512, with their labels
    python benchmarks/batches.py --batch 128
    python benchmarks/batches.py --step           share of an MLP's training step that making a batch takes

The values are random, 18 % of them nonzero. annbatch is compared where it is installed (Python ≥ 3.12).
"""

import argparse
import statistics
import time
import warnings
from collections.abc import Callable, Iterator
from importlib.util import find_spec

import anndata as ad
import numpy as np
import pandas as pd
import scipy.sparse as sp
import torch
from side_by_side import Job, main
from torch.nn.functional import binary_cross_entropy_with_logits

from oligo_ad.inputs.featurizers import StandardisedPanel, ragged
from oligo_ad.inputs.loader import Donors, Draws, NucleusLoader, NucleusStore, Process
from oligo_ad.models.mlp import MLP

CELLS, GENES, DENSITY = 100_000, 2_000, 0.18
LABEL = (np.arange(CELLS) % 2).astype(np.float32)
TAKEN = 50_000  # nuclei that are timed
STEPS = 60

Batches = Iterator[tuple[torch.Tensor, torch.Tensor]]


def panel() -> sp.csr_matrix:
    """Nuclei by genes, float32; 2,000 different nuclei, repeated."""
    some = sp.random_array((2_000, GENES), density=DENSITY, format="csr", dtype=np.float32, rng=0)
    return sp.csr_matrix(sp.vstack([some] * (CELLS // some.shape[0]), format="csr"))


def our_loader() -> NucleusLoader:
    """Our loader, with mean 0 and SD 1: values stay comparable, and the work is the same."""
    learned = {"mean": torch.zeros(GENES), "sd": torch.ones(GENES)}
    featurizer = StandardisedPanel(clip=1e9).restore([str(gene) for gene in range(GENES)], learned)
    # As many donors as nuclei, so that each has the label that is compared.
    donors = Donors(np.arange(CELLS), LABEL, np.empty((CELLS, 0)))
    store = NucleusStore(featurizer, ragged(panel()), donors, torch.device("cpu"), Process())
    return NucleusLoader(store, donors, Draws())


def oligo_ad(options: argparse.Namespace) -> Job:
    loader, rows = our_loader(), np.arange(CELLS)
    return _timed(lambda: ((b.values, b.label) for b in loader.shuffled(rows, options.batch, 0, 0)))


def anndata_of_panel() -> ad.AnnData:
    names = np.arange(CELLS).astype(str)
    return ad.AnnData(panel(), obs=pd.DataFrame({"label": LABEL}, index=names))


def annloader(options: argparse.Namespace) -> Job:
    from anndata.experimental import AnnLoader

    warnings.simplefilter("ignore", FutureWarning)  # it is deprecated, and widely used
    loader = AnnLoader(anndata_of_panel(), batch_size=options.batch, shuffle=True)
    return _timed(lambda: ((batch.X, batch.obs["label"]) for batch in loader))


def annbatch(options: argparse.Namespace) -> Job:
    """annbatch in memory, in its default chunks of 512 neighbours: shuffled less than the others."""
    from annbatch import Loader as AnnBatch

    loader = AnnBatch(shuffle=True, batch_size=options.batch, to="torch").add_adata(anndata_of_panel())

    def batches() -> Batches:
        for batch in loader:
            yield batch["X"].to_dense(), torch.from_numpy(batch["obs"]["label"].to_numpy())

    return _timed(batches)


def per_cell(options: argparse.Namespace) -> Job:
    """A PyTorch Dataset that makes one nucleus dense at a time, as most projects do."""
    values = panel()

    class Cells(torch.utils.data.Dataset[tuple[torch.Tensor, float]]):
        def __len__(self) -> int:
            return CELLS

        def __getitem__(self, i: int) -> tuple[torch.Tensor, float]:
            return torch.from_numpy(values[i].toarray()[0]), LABEL[i]

    loader = torch.utils.data.DataLoader(Cells(), batch_size=options.batch, shuffle=True)
    return _timed(lambda: iter(loader))


def dense_half(options: argparse.Namespace) -> Job:
    """Rows of a dense matrix of half precision: 400 MB instead of 220."""
    dense, label = torch.from_numpy(panel().toarray()).half(), torch.from_numpy(LABEL)

    def batches() -> Batches:
        for rows in torch.randperm(CELLS).split(options.batch):
            yield dense.index_select(0, rows).float(), label[rows]

    return _timed(batches)


def _timed(batches: Callable[[], Batches]) -> Job:
    """A job that takes `TAKEN` nuclei from a loader, after a first batch for warming up."""
    next(iter(batches()))

    def take() -> torch.Tensor:
        seen = 0
        for values, label in batches():  # noqa: B007 the last values are the result
            seen += len(label)
            if seen >= TAKEN:
                break
        return values

    return Job(take, lambda values: f"{tuple(values.shape)} {values.dtype} {values.mean():.1f}")


def share_of_step(options: argparse.Namespace) -> str:
    """Median milliseconds of making a batch and of training the default MLP on it."""
    loader, network = our_loader(), MLP(GENES, dropout=0.5)
    head = torch.nn.Linear(network.size, 1)
    optimizer = torch.optim.AdamW([*network.parameters(), *head.parameters()], fused=True)
    making, training = [], []
    batches = loader.shuffled(np.arange(CELLS), options.batch, 0, 0)
    for _ in range(STEPS):
        started = time.perf_counter()
        batch = next(batches)
        made = time.perf_counter()
        binary_cross_entropy_with_logits(head(network(batch))[:, 0], batch.label).backward()
        optimizer.step()
        optimizer.zero_grad()
        making.append(made - started)
        training.append(time.perf_counter() - made)
    made, trained = (1e3 * statistics.median(times[5:]) for times in (making, training))
    share = made / (made + trained)
    return f"batch {options.batch}: {made:.2f} ms to make, {trained:.2f} ms to train: {share:.1%} of a step"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--batch", type=int, default=512)
    parser.add_argument("--threads", type=int, default=1, help="of PyTorch")
    parser.add_argument("--step", action="store_true", help="share of a training step instead")
    options, _ = parser.parse_known_args()
    torch.set_num_threads(options.threads)
    if options.step:
        print(share_of_step(options))
    else:
        variants = {"AnnLoader": annloader, "per cell": per_cell, "dense, half": dense_half}
        if find_spec("annbatch"):
            variants["annbatch"] = annbatch
        main(variants | {"oligo_ad": oligo_ad}, parser)
