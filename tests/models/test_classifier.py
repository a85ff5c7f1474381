"""Fusions, and samples that come in parts: what of a batch a logit depends on."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from oligo_ad.inputs.batch import Batch
from oligo_ad.models.classifier import Add, Classifier, Concatenate, Ignore
from oligo_ad.models.mlp import MLP
from oligo_ad.models.pool import Attention, Mean

N_GENES, N_METADATA = 6, 3


def classifier(pool: Callable[..., Any] = Mean, fusion: Callable[..., Any] = Concatenate) -> Classifier:
    torch.manual_seed(0)
    return Classifier(lambda n_ids: MLP(n_ids, hidden=(5,)), pool, fusion, N_GENES, N_METADATA).eval()


def bags(sizes: list[int], seed: int = 1) -> Batch:
    """A batch of as many samples, with so many nuclei each."""
    generator = torch.Generator().manual_seed(seed)
    n, samples = sum(sizes), torch.arange(len(sizes))
    return Batch(
        gene_ids=torch.arange(N_GENES).expand(n, -1),
        values=torch.randn(n, N_GENES, generator=generator),
        mask=torch.ones(n, N_GENES, dtype=torch.bool),
        sample=samples.repeat_interleave(torch.tensor(sizes)),
        metadata=torch.randn(len(sizes), N_METADATA, generator=generator),
        label=samples % 2.0,
        index=samples,
    )


def vectors(size: int = 4) -> tuple[Tensor, Tensor]:
    return torch.randn(5, size, generator=torch.Generator().manual_seed(0)), bags([1] * 5).metadata


def test_each_sample_is_joined_by_its_own_metadata() -> None:
    sample, metadata = vectors()
    concatenate, add, ignore = (
        fusion(size=4, n_metadata=N_METADATA) for fusion in (Concatenate, Add, Ignore)
    )
    for place in range(5):
        own = concatenate(sample, metadata)[place]
        assert own.tolist() == [*sample[place].tolist(), *metadata[place].tolist()]
        moved = metadata[place] @ add.project.weight.T + add.project.bias
        assert torch.allclose(add(sample, metadata)[place], sample[place] + moved)
    assert torch.equal(ignore(sample, metadata), sample)
    assert [fusion.size for fusion in (concatenate, add, ignore)] == [7, 4, 4]


@pytest.mark.parametrize("fusion", [Concatenate, Add])
def test_everything_between_genes_and_logit_is_trained(fusion: Callable[..., Any]) -> None:
    model = classifier(Attention, fusion).train()
    model(bags([4, 2, 3, 5])).square().sum().backward()
    still = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    # A bias before batch norm, or of all scores of a bag, changes nothing.
    assert set(still) <= {"network.layers.0.bias", "pool.score.bias"}


@pytest.mark.parametrize("pool", [Mean, Attention])
def test_a_bag_in_parts_has_the_logit_of_the_whole_bag(pool: Callable[..., Any]) -> None:
    model, whole = classifier(pool), bags([7, 4])
    cuts = [[0, 1, 7], [2, 3, 8, 9], [4, 5, 6, 10]]
    parts = [
        whole._replace(
            **{name: getattr(whole, name)[cut] for name in ("gene_ids", "values", "mask", "sample")}
        )
        for cut in cuts
    ]
    assert torch.allclose(model(*parts), model(whole), atol=1e-6)
    assert not torch.allclose(model(parts[0]), model(whole), atol=1e-2)
