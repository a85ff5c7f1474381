"""Batches of nuclei, and of bags of a donor's nuclei: in a known order, the same for any processes."""

import logging
from collections import Counter
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from oligo_ad.data.cohort import Cohort
from oligo_ad.inputs.batch import Batch, Tokens
from oligo_ad.inputs.featurizers import ExpressedPanel, StandardisedPanel
from oligo_ad.inputs.loader import (
    BagLoader,
    Donors,
    Draws,
    NucleusLoader,
    NucleusStore,
    Process,
    _storage_device,
)
from tests import builders

CPU = torch.device("cpu")
TRAIN = ("D00", "D01", "D02", "D05", "D06", "D07")
Make = Callable[..., NucleusLoader]
MakeBags = Callable[..., BagLoader]


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Cohort:
    """108 nuclei of nine donors."""
    return builders.cohort(builders.atlas(5, 4, nuclei=24, genes=40), tmp_path_factory.mktemp("loader"))


@pytest.fixture(scope="module")
def donors(cohort: Cohort) -> Donors:
    """Of donor d: label 1 for the first five, and metadata 2d and 2d + 1."""
    code = cohort.donors.index.get_indexer(cohort.cells["donor"])
    return Donors(code, builders.labels(cohort, 5).to_numpy(), np.arange(18.0).reshape(-1, 2))


@pytest.fixture(scope="module")
def make_store(cohort: Cohort, donors: Donors) -> Callable[..., NucleusStore]:
    featurizer = ExpressedPanel(n_genes=15).fit(cohort, TRAIN)
    tokens = featurizer.tokens(cohort)
    return lambda rank=0, of=1: NucleusStore(featurizer, tokens, donors, CPU, Process(rank, of))


@pytest.fixture(scope="module")
def loader(make_store: Callable[..., NucleusStore], donors: Donors) -> Make:
    return lambda rank=0, of=1: NucleusLoader(make_store(rank, of), donors, Draws())


@pytest.fixture(scope="module")
def bags(make_store: Callable[..., NucleusStore], donors: Donors) -> MakeBags:
    return lambda rank=0, of=1, size=5, n=3, how="nucleus": BagLoader(
        make_store(rank, of), donors, Draws(how, bag_size=size, bags=n)
    )


def samples_of(batches: list[Batch]) -> list[list[int]]:
    return [batch.index.tolist() for batch in batches]


@pytest.mark.parametrize(("free", "stored_on"), [(399, "cpu"), (400, "cuda")])
def test_nuclei_stay_on_the_gpu_if_they_take_at_most_half_of_what_is_free(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, free: int, stored_on: str
) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (free, 1000))
    with caplog.at_level(logging.INFO):
        assert _storage_device(200, torch.device("cuda")).type == stored_on
    assert ("too large for cuda" in caplog.text) == (stored_on == "cpu")


# A nucleus is a sample


def test_a_batch_holds_what_belongs_to_its_nuclei(loader: Make, donors: Donors) -> None:
    rows = np.arange(20, 60)
    (batch, *_) = loader().shuffled(rows, 8, seed=0, epoch=0)
    index = batch.index.numpy()
    own = donors.of_nucleus[index]
    assert set(index) <= set(rows)
    assert batch.sample.tolist() == list(range(8))
    assert batch.label.tolist() == donors.label[own].tolist()
    assert batch.metadata.tolist() == [[2.0 * d, 2.0 * d + 1] for d in own]
    dtypes = {name: part.dtype for name, part in batch._asdict().items()}
    assert {name for name, dtype in dtypes.items() if dtype == torch.float32} == {
        "values",
        "metadata",
        "label",
    }
    assert {name for name, dtype in dtypes.items() if dtype == torch.int64} == {"gene_ids", "sample", "index"}
    assert batch.mask.sum(dim=1).max() == batch.mask.shape[1]


def many_lengths(padded: bool) -> tuple[NucleusLoader, np.ndarray]:
    """20,000 nuclei whose lengths vary as those of real nuclei do, and these lengths."""
    length = np.random.default_rng(0).lognormal(5.7, 0.3, 20_000).astype(int)
    offsets = np.concatenate([[0], np.cumsum(length)])
    featurizer = ExpressedPanel() if padded else StandardisedPanel()
    # Only lengths matter here: every nucleus reads the same few values.
    tokens = Tokens(torch.from_numpy(offsets), torch.zeros(1), torch.zeros(1))
    of_one = Donors(length * 0, np.zeros(1), np.zeros((1, 0)))
    store = NucleusStore(featurizer, tokens, of_one, CPU, Process())
    return NucleusLoader(store, of_one, Draws()), length


def lengths_of_batches(padded: bool, monkeypatch: pytest.MonkeyPatch) -> list[np.ndarray]:
    loader, length = many_lengths(padded)
    monkeypatch.setattr(loader, "_own", lambda rows, epoch: length[rows.numpy()])
    return list(loader.shuffled(np.arange(len(length)), 32, 0, 1))  # type: ignore[arg-type]


def test_padding_is_at_most_two_percent_where_batches_are_padded(monkeypatch: pytest.MonkeyPatch) -> None:
    batches = lengths_of_batches(True, monkeypatch)
    needed, made = sum(b.sum() for b in batches), sum(b.max() * len(b) for b in batches)
    assert made / needed <= 1.02
    mixed = lengths_of_batches(False, monkeypatch)
    assert sum(b.max() * len(b) for b in mixed) / sum(b.sum() for b in mixed) > 1.5


def test_long_and_short_batches_come_in_any_order(monkeypatch: pytest.MonkeyPatch) -> None:
    means = [batch.mean() for batch in lengths_of_batches(True, monkeypatch)]
    assert abs(np.corrcoef(means[:-1], means[1:])[0, 1]) < 0.2


def test_the_order_is_a_function_of_seed_and_epoch(loader: Make) -> None:
    rows = np.arange(5, 70)

    def order(seed: int, epoch: int) -> list[list[int]]:
        return samples_of(list(loader().shuffled(rows, 16, seed, epoch)))

    assert order(0, 1) == order(0, 1)
    orders = [order(seed, epoch) for seed in range(3) for epoch in range(3)]
    assert all(one != other for i, one in enumerate(orders) for other in orders[:i])


def test_the_global_random_state_is_neither_used_nor_changed(loader: Make, bags: MakeBags) -> None:
    for one, samples in ((loader(), np.arange(64)), (bags(), np.arange(8))):
        torch.manual_seed(1)
        first = [batch.sample.tolist() + batch.index.tolist() for batch in one.shuffled(samples, 4, 0, 0)]
        drawn = torch.rand(1)
        torch.manual_seed(1)
        assert torch.rand(1) == drawn
        torch.manual_seed(2)
        again = [batch.sample.tolist() + batch.index.tolist() for batch in one.shuffled(samples, 4, 0, 0)]
        assert again == first


def test_an_epoch_shows_no_nucleus_twice_and_leaves_out_less_than_a_batch(loader: Make) -> None:
    rows = np.arange(3, 73)
    batches = samples_of(list(loader().shuffled(rows, 16, 0, 0)))
    seen = [nucleus for batch in batches for nucleus in batch]
    assert [len(batch) for batch in batches] == [16] * 4
    assert loader().epoch_size(rows) == 70
    assert len(set(seen)) == len(seen)
    assert set(seen) <= set(rows.tolist())


@pytest.mark.parametrize("of", [2, 4])
def test_processes_together_see_exactly_the_batches_of_one(loader: Make, of: int) -> None:
    rows = np.arange(70)
    alone = samples_of(list(loader().shuffled(rows, 16, 3, 2)))
    each = [samples_of(list(loader(rank, of).shuffled(rows, 16, 3, 2))) for rank in range(of)]
    for whole, *parts in zip(alone, *each, strict=True):
        assert sorted(whole) == sorted(nucleus for part in parts for nucleus in part)
        assert {len(part) for part in parts} == {16 // of}


def evaluated(loader: NucleusLoader, rows: np.ndarray) -> list[list[int]]:
    parts = list(loader.whole(rows, 5))
    assert {len(part) for part in parts} == {1}
    return samples_of([batch for (batch,) in parts])


def test_evaluation_covers_each_nucleus_once_and_mixes_no_donors(loader: Make, donors: Donors) -> None:
    rows = np.arange(7, 100)
    batches = evaluated(loader(), rows)
    assert sorted(nucleus for batch in batches for nucleus in batch) == rows.tolist()
    assert all(len(set(donors.of_nucleus[batch])) == 1 for batch in batches)
    assert max(len(batch) for batch in batches) == 5


def test_processes_evaluate_as_many_each_and_repeat_only_the_last_nucleus(loader: Make) -> None:
    rows = np.arange(7, 100)
    alone = evaluated(loader(), rows)
    each = [evaluated(loader(rank, 2), rows) for rank in range(2)]
    for whole, first, second in zip(alone, *each, strict=True):
        assert len(first) == len(second)
        together = [nucleus for pair in zip(first, second, strict=True) for nucleus in pair]
        assert together == whole + whole[-1:] * (len(whole) % 2)


def test_a_nucleus_without_a_gene_of_the_panel_is_an_empty_set(cohort: Cohort, donors: Donors) -> None:
    counts = builders.counts(cohort)
    counts[0, cohort.genes["name"].isin([f"GENE{i}" for i in range(10)]).to_numpy()] = 0
    bare = builders.exchanged(cohort, counts)
    featurizer = ExpressedPanel().restore([f"GENE{i}" for i in range(10)], {})
    store = NucleusStore(
        featurizer, featurizer.tokens(bare), donors._replace(metadata=np.zeros((9, 0))), CPU, Process()
    )
    ((batch,),) = NucleusLoader(store, donors, Draws()).whole(np.array([0]), 4)
    assert batch.mask.tolist() == [[False]]
    assert batch.metadata.shape == (1, 0)


# A donor is a sample


def nuclei_of(batch: Batch) -> list[list[float]]:
    """What tells the nuclei of each bag apart: the sums of their values, however long the batch, sorted."""
    sums = batch.values.double().sum(1).round(decimals=6)
    return [sorted(sums[batch.sample == place].tolist()) for place in range(len(batch.index))]


def whole_bag(bags: BagLoader, donor: int) -> list[float]:
    (parts,) = bags.whole(np.array([donor]), 1000)
    return sorted(value for part in parts for value in nuclei_of(part)[0])


@settings(max_examples=25, deadline=None)
@given(
    donors=st.sets(st.integers(0, 8), min_size=2), size=st.integers(1, 15), n=st.integers(1, 4),
    seed=st.integers(0, 5), epoch=st.integers(0, 5), batch_size=st.integers(1, 6),
)  # fmt: skip
def test_bags_hold_nuclei_of_their_own_donor_and_every_donor_has_as_many(
    bags: MakeBags, donors: set[int], size: int, n: int, seed: int, epoch: int, batch_size: int
) -> None:
    loader = bags(size=size, n=n)
    samples = loader.samples_of(np.array(sorted(donors)))
    batches = list(loader.shuffled(samples, batch_size, seed, epoch))
    drawn = [donor for batch in batches for donor in batch.index.tolist()]
    n_whole = loader.epoch_size(samples) // batch_size * batch_size
    assert len(drawn) == n_whole
    assert all(abs(drawn.count(donor) - n) <= n for donor in donors)
    assert set(drawn) <= donors
    for batch in batches:
        for donor, bag in zip(batch.index.tolist(), nuclei_of(batch), strict=True):
            every = whole_bag(loader, donor)
            assert len(bag) == min(size, len(every))
            assert not Counter(bag) - Counter(every)
        assert batch.label.tolist() == [float(donor < 5) for donor in batch.index.tolist()]
        assert batch.metadata[:, 0].tolist() == [2.0 * donor for donor in batch.index.tolist()]


def test_a_bag_follows_from_seed_epoch_and_donor_alone(bags: MakeBags) -> None:
    def drawn(donors: list[int], seed: int, epoch: int) -> dict[int, list[list[float]]]:
        found: dict[int, list[list[float]]] = {}
        for batch in bags().shuffled(np.array(donors), 1, seed, epoch):
            found.setdefault(int(batch.index[0]), []).append(nuclei_of(batch)[0])
        return found

    alone, among = drawn([3], 0, 1), drawn([0, 3, 7, 8], 0, 1)
    assert sorted(alone[3]) == sorted(among[3])
    assert len({tuple(bag) for bag in alone[3]}) == 3
    assert sorted(drawn([3], 0, 2)[3]) != sorted(alone[3]) != sorted(drawn([3], 1, 1)[3])


def test_evaluation_takes_all_nuclei_of_a_donor_in_parts_that_do_not_mix_donors(bags: MakeBags) -> None:
    parts = list(bags(size=5).whole(np.array([1, 4, 6]), 1))
    assert [[part.index.tolist() for part in own] for own in parts] == [[[1]] * 3, [[4]] * 3, [[6]] * 3]
    assert [[len(part.sample) for part in own] for own in parts] == [[5, 5, 2]] * 3
    assert whole_bag(bags(), 4) == sorted(value for part in parts[1] for value in nuclei_of(part)[0])


def test_processes_together_draw_the_bags_of_one(bags: MakeBags) -> None:
    samples = np.arange(9)
    alone = list(bags().shuffled(samples, 4, 0, 0))
    each = [list(bags(rank, 2).shuffled(samples, 4, 0, 0)) for rank in range(2)]
    for whole, first, second in zip(alone, *each, strict=True):
        assert [first.index.tolist(), second.index.tolist()] == [
            whole.index.tolist()[::2],
            whole.index.tolist()[1::2],
        ]
        assert nuclei_of(first) + nuclei_of(second) == nuclei_of(whole)[::2] + nuclei_of(whole)[1::2]
    evaluated = [[own[0].index.item() for own in bags(rank, 2).whole(samples, 4)] for rank in range(2)]
    assert evaluated == [[0, 2, 4, 6, 8], [1, 3, 5, 7, 8]]
