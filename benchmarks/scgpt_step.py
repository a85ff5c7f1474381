"""Speed of scGPT against the package scgpt 0.2.4: published size, the same weights and batch, on a CPU.

    pip install --no-deps scgpt==0.2.4
    python benchmarks/scgpt_step.py                      a training step: 8 nuclei of 128 to 1,200 genes
    python benchmarks/scgpt_step.py --evaluate           their vectors
    python benchmarks/scgpt_step.py --shortest 600 --longest 630    nuclei of like length, as our batches are

The package computes its decoder of expression too, which its forward pass cannot leave out. Both train
every weight with Adam and dropout 0.2; `no attention dropout` is our default, with dropout 0.2 elsewhere.
The result that must agree is the sum of the nuclei's vectors, without dropout.
"""

import argparse
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from published_scgpt import FULL, cells, published_model, saved, vector
from side_by_side import Job, main
from torch import Tensor, nn

from oligo_ad.inputs.batch import Batch
from oligo_ad.models.scgpt.checkpoint import read_folder
from oligo_ad.models.scgpt.network import ScGPT


def batch(options: argparse.Namespace) -> Batch:
    generator = torch.Generator().manual_seed(3)
    shape = (options.batch,)
    return cells(torch.randint(options.shortest, options.longest + 1, shape, generator=generator).tolist())


def job(model: nn.Module, vectors: Callable[[Any, Batch], Tensor], options: argparse.Namespace) -> Job:
    """One training step or one evaluation, after one for warming up."""
    torch.set_num_threads(options.threads)
    own = batch(options)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.0)
    with torch.no_grad():
        without_dropout = vectors(model.eval(), own)

    def step() -> Tensor:
        vectors(model.train(), own).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
        return without_dropout

    if options.evaluate:
        return Job(lambda: _evaluated(model, vectors, own), _shown)
    step()
    return Job(step, _shown)


@torch.no_grad()
def _evaluated(model: nn.Module, vectors: Callable[[Any, Batch], Tensor], own: Batch) -> Tensor:
    return vectors(model.eval(), own)


def _shown(vectors_BD: Tensor) -> str:
    return f"{vectors_BD.abs().sum():.2f}"


def package(options: argparse.Namespace) -> Job:
    return job(published_model(FULL, dropout=0.2), vector, options)


def ours(options: argparse.Namespace, **how: float) -> Job:
    with tempfile.TemporaryDirectory() as folder:
        pretrained = read_folder(str(saved(published_model(FULL), FULL, Path(folder))), True)
        network = ScGPT(len(pretrained.vocabulary), pretrained, **how)
    return job(network, lambda model, own: model(own), options)


def same_dropout(options: argparse.Namespace) -> Job:
    return ours(options, attention_dropout=0.2)


def no_attention_dropout(options: argparse.Namespace) -> Job:
    return ours(options)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--evaluate", action="store_true")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--shortest", type=int, default=128)
    parser.add_argument("--longest", type=int, default=1200)
    parser.add_argument("--threads", type=int, default=2)
    variants = {
        "scgpt 0.2.4": package,
        "oligo_ad, the same dropout": same_dropout,
        "oligo_ad, no attention dropout": no_attention_dropout,
    }
    main(variants, parser)
