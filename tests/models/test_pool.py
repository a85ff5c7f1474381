"""Vectors of nuclei become vectors of samples, as computed by hand."""

import copy

import pytest
import torch
from torch import Tensor, nn

from oligo_ad.models.pool import Attention, Each, Mean, Moments, sum_by_sample

VECTORS = torch.tensor([[1.0, 2.0], [3.0, 6.0], [5.0, -1.0], [0.0, 4.0], [2.0, 2.0]])
SAMPLE = torch.tensor([0, 0, 1, 0, 1])


def attention(**weights: list[float]) -> Attention:
    """A pool whose score of a nucleus is tanh(first entry) x sigmoid(second entry)."""
    pool = Attention(size=2, hidden=1)
    with torch.no_grad():
        for layer, weight in ((pool.value, [[1.0, 0.0]]), (pool.gate, [[0.0, 1.0]]), (pool.score, [[1.0]])):
            layer.weight.copy_(torch.tensor(weight))
            layer.bias.zero_()
    return pool


def by_hand(vectors: Tensor) -> Tensor:
    """The attention of one bag."""
    score = vectors[:, 0].tanh() * vectors[:, 1].sigmoid()
    weight = score.exp() / score.exp().sum()
    return (weight[:, None] * vectors).sum(0)


def test_each_leaves_every_vector_as_it_is() -> None:
    assert Each(2)(VECTORS, torch.arange(5), 5) is VECTORS


def test_a_mean_is_of_the_nuclei_of_its_sample() -> None:
    pooled = Mean(2)(VECTORS, SAMPLE, 2)
    torch.testing.assert_close(pooled, torch.tensor([[4 / 3, 4.0], [3.5, 0.5]]))


def test_moments_are_mean_and_deviation_of_the_nuclei_of_their_sample() -> None:
    pooled = Moments(2)(VECTORS, SAMPLE, 2)
    bags = [VECTORS[[0, 1, 3]], VECTORS[[2, 4]]]
    expected = torch.stack([torch.cat([bag.mean(0), bag.std(0, correction=0)]) for bag in bags])
    torch.testing.assert_close(pooled, expected, rtol=1e-5, atol=1e-5)
    assert Moments(2).size == 4


def test_nuclei_that_are_all_alike_have_a_slope_and_no_deviation_to_speak_of() -> None:
    alike = torch.ones(5, 2, requires_grad=True)
    pooled = Moments(2)(alike, SAMPLE, 2)
    assert pooled[:, 2:].max() < 2e-3
    pooled.sum().backward()
    assert torch.isfinite(alike.grad).all()


def test_attention_weighs_nuclei_as_computed_by_hand_and_weights_sum_to_one() -> None:
    pool = attention()
    pooled = pool(VECTORS, SAMPLE, 2)
    expected = torch.stack([by_hand(VECTORS[[0, 1, 3]]), by_hand(VECTORS[[2, 4]])])
    torch.testing.assert_close(pooled, expected)
    weights = pool.weights(VECTORS, SAMPLE, 2)
    torch.testing.assert_close(sum_by_sample(weights, SAMPLE, 2), torch.ones(2))


pools = pytest.mark.parametrize("pool", [Mean(2), Attention(2, hidden=4)], ids=["mean", "attention"])
all_pools = pytest.mark.parametrize(
    "pool", [Mean(2), Moments(2), Attention(2, hidden=4)], ids=["mean", "moments", "attention"]
)


@all_pools
def test_the_order_of_nuclei_in_a_bag_changes_nothing(pool: nn.Module) -> None:
    order = torch.tensor([4, 3, 1, 0, 2])
    torch.testing.assert_close(
        pool(VECTORS[order], SAMPLE[order], 2), pool(VECTORS, SAMPLE, 2), rtol=1e-6, atol=1e-6
    )


@pools
def test_a_bag_of_one_is_its_nucleus(pool: nn.Module) -> None:
    torch.testing.assert_close(pool(VECTORS, torch.arange(5), 5), VECTORS)


@all_pools
def test_a_bag_knows_nothing_of_the_other_bags(pool: nn.Module) -> None:
    changed = VECTORS.clone()
    changed[SAMPLE == 1] *= 1000
    assert torch.equal(pool(changed, SAMPLE, 2)[0], pool(VECTORS, SAMPLE, 2)[0])


@all_pools
def test_scores_of_any_size_and_half_precision_overflow_nothing(pool: nn.Module) -> None:
    for vectors in (VECTORS * 1e6, VECTORS.to(torch.bfloat16).float()):
        assert torch.isfinite(pool(vectors, SAMPLE, 2)).all()


@pools
@pytest.mark.parametrize("far", [1e2, 1e6])
def test_a_bag_is_pooled_however_far_the_scores_of_another_lie(pool: nn.Module, far: float) -> None:
    """No weight of it underflows, as it would beside the largest score of the batch."""
    steep = copy.deepcopy(pool)
    if isinstance(steep, Attention):
        nn.init.constant_(steep.score.weight, far)
    pooled = steep(VECTORS, SAMPLE, 2)
    bags = [VECTORS[bag == SAMPLE] for bag in range(2)]
    alone = [steep(bag, torch.zeros(len(bag), dtype=torch.int64), 1) for bag in bags]
    torch.testing.assert_close(pooled, torch.cat(alone))


@pools
def test_gradients_reach_every_nucleus(pool: nn.Module) -> None:
    vectors = VECTORS.clone().requires_grad_()
    pool(vectors, SAMPLE, 2).square().sum().backward()
    assert vectors.grad is not None
    assert (vectors.grad.abs().sum(1) > 0).all()
