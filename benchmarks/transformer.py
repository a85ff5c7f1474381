"""Speed of a training step of the transformer against PyTorch's own, with the same weights, on a CPU.

    python benchmarks/transformer.py                  80 % of 2,000 genes unexpressed, batch 16
    python benchmarks/transformer.py --zeros 0.0      all expressed: what remains is the CLS query
    python benchmarks/transformer.py --compile

Width 128, 8 heads, 3 pre-norm layers, feed-forward 256, no dropout, AdamW. The result that must agree is the
sum of the nuclei's vectors before the step.
"""

import argparse

import torch
from side_by_side import Job, main
from torch import Tensor, nn

from oligo_ad.inputs.batch import Batch, Inputs
from oligo_ad.models.transformer import Transformer

HEADS, LAYERS = 8, 3


def network(options: argparse.Namespace, **how: bool) -> Transformer:
    torch.manual_seed(0)
    return Transformer(options.genes, heads=HEADS, layers=LAYERS, dropout=0.0, **how)


def cells(dense_BG: Tensor) -> Batch:
    """A batch of the expressed genes; all nuclei have one length, nearly as in batches sorted by length."""
    ids_BL = dense_BG.nonzero()[:, 1].view(len(dense_BG), -1)
    return Batch.of_nuclei(Inputs(ids_BL, dense_BG.gather(1, ids_BL), torch.ones_like(ids_BL).bool()))


def values(options: argparse.Namespace) -> Tensor:
    """Nuclei by genes, with the same number of unexpressed genes in each nucleus."""
    generator = torch.Generator().manual_seed(1)
    dense_BG = torch.rand(options.batch, options.genes, generator=generator) + 0.1
    unexpressed = torch.rand(dense_BG.shape, generator=generator).argsort(dim=1)
    return dense_BG * (unexpressed >= round(options.zeros * options.genes))


class Reference(nn.Module):
    """`nn.TransformerEncoder` over CLS and every gene of the panel."""

    def __init__(self, like: Transformer) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(like.size, HEADS, 256, 0.0, batch_first=True, norm_first=True)
        self.encoder = nn.TransformerEncoder(layer, LAYERS, like.norm, enable_nested_tensor=False)
        self.encoder.layers.load_state_dict(like.blocks.state_dict())
        self.genes, self.cls = like.embedding.genes, like.embedding.cls

    def forward(self, dense_BG: Tensor) -> Tensor:
        gene_BGD = dense_BG[..., None] * self.genes.weight
        token_BTD = torch.cat([self.cls.expand(len(dense_BG), 1, -1), gene_BGD], 1)
        cell_BD: Tensor = self.encoder(token_BTD)[:, 0]
        return cell_BD


def job(model: nn.Module, batch: Batch | Tensor, options: argparse.Namespace) -> Job:
    """One training step, after one for warming up that leaves the weights as they are."""
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    torch.set_num_threads(options.threads)
    if options.compile:
        model.compile(fullgraph=True, dynamic=True)

    def step(learning_rate: float) -> Tensor:
        for group in optimizer.param_groups:
            group["lr"] = learning_rate
        cell_BD = model.train()(batch)
        (cell_BD**2).mean().backward()
        optimizer.step()
        optimizer.zero_grad()
        return cell_BD.detach()

    step(0.0)
    return Job(lambda: step(1e-4), lambda cell_BD: f"{cell_BD.abs().sum():.2f}")


def pytorch(options: argparse.Namespace) -> Job:
    return job(Reference(network(options)), values(options), options)


def plain(options: argparse.Namespace) -> Job:
    return job(network(options, merge_zeros=False), cells(values(options)), options)


def merged(options: argparse.Namespace) -> Job:
    return job(network(options), cells(values(options)), options)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--zeros", type=float, default=0.8)
    parser.add_argument("--genes", type=int, default=2000)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--compile", action="store_true")
    main({"nn.TransformerEncoder": pytorch, "merge_zeros=false": plain, "oligo_ad": merged}, parser)
