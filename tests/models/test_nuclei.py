"""The network on axes: what is the donor's passes by, and nothing is learned over a batch."""

import pytest
import torch

from oligo_ad.inputs.batch import Batch, Inputs
from oligo_ad.models.nuclei import NucleusNet


def batch(values: torch.Tensor) -> Batch:
    ids = torch.arange(values.shape[1]).expand_as(values)
    return Batch.of_nuclei(Inputs(ids, values, torch.ones_like(values, dtype=torch.bool)))


@pytest.mark.parametrize(("own_mean", "size"), [(False, 5), (True, 8)])
def test_the_donors_values_stand_beside_the_vector_as_they_are(own_mean: bool, size: int) -> None:
    torch.manual_seed(0)
    network = NucleusNet(6, hidden=[7, 5], own_mean=own_mean).eval()
    values = torch.randn(4, 6)
    found = network(batch(values))
    assert found.shape == (4, network.size) == (4, size)
    if own_mean:
        assert torch.equal(found[:, 5:], values[:, 3:])
        other = values.clone()
        other[:, 3:] += 1
        assert torch.equal(network(batch(other))[:, :5], found[:, :5])


def test_each_nucleus_is_read_by_itself_in_training_too() -> None:
    network = NucleusNet(6, hidden=[8], dropout=0.0).train()
    values = torch.randn(5, 6)
    torch.testing.assert_close(network(batch(values))[:2], network(batch(values[:2])))


def test_without_hidden_layers_the_values_are_the_vector() -> None:
    values = torch.randn(3, 4)
    network = NucleusNet(4, hidden=[], own_mean=True)
    assert network.size == 4
    assert torch.equal(network(batch(values)), values)
