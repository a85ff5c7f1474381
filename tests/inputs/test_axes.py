"""Axes are the directions that were planted, of training donors alone; a donor's input is its own affair."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.stats import skew

from oligo_ad.data.axes import Found, best_expressed, bounds_by_donor, find_axes, spread_of
from oligo_ad.data.cohort import Cohort
from oligo_ad.errors import UserError
from oligo_ad.facts import ABOVE_CHANCE
from oligo_ad.inputs.axes import Axes
from tests import builders

GENES, NUCLEI, PLANTED = 150, 40, 2


def counts(seed: int = 0, planted: float = 0.2) -> tuple[np.ndarray, np.ndarray]:
    """Counts of nuclei of 15 donors, 40 each, donor after donor, and the programs in which nuclei differ."""
    rng = np.random.default_rng(seed)
    programs = rng.normal(size=(PLANTED, GENES))
    of_donor = np.repeat(rng.normal(size=(15, GENES)), NUCLEI, axis=0)  # larger than what is planted
    of_nucleus = planted * rng.normal(size=(15 * NUCLEI, PLANTED)) @ programs
    return rng.poisson(np.exp(1.5 + 0.5 * of_donor + of_nucleus)).astype(float), programs


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Cohort:
    return builders.cohort(builders.atlas(nuclei=2 * NUCLEI, genes=GENES), tmp_path_factory.mktemp("axes"))


@pytest.fixture(scope="module")
def cohort(plain: Cohort) -> Cohort:
    return builders.exchanged(plain, counts()[0])


def train_of(cohort: Cohort) -> tuple[str, ...]:
    return tuple(cohort.donors.index[:10])


def find(cohort: Cohort, donors: tuple[str, ...] | None = None) -> Found:
    return find_axes(cohort, donors or train_of(cohort), GENES, NUCLEI, None)


def values(featurizer: Axes, cohort: Cohort) -> np.ndarray:
    tokens = featurizer.tokens(cohort)
    return featurizer.pack(tokens, torch.arange(len(cohort.cells)), 1, 0).values.numpy()


def spoiled(cohort: Cohort, donor: str) -> Cohort:
    changed = builders.counts(cohort)
    own = (cohort.cells["donor"] == donor).to_numpy()
    changed[own] = np.random.default_rng(9).poisson(300, changed[own].shape)
    return builders.exchanged(cohort, changed)


@pytest.mark.parametrize("seed", range(4))
def test_as_many_axes_are_found_as_were_planted_and_they_span_the_same(plain: Cohort, seed: int) -> None:
    made, programs = counts(seed)
    found = find(builders.exchanged(plain, made))
    assert found.above == PLANTED == found.loading.shape[1]
    logs = np.log1p(made)
    wanted = (logs - logs.reshape(15, NUCLEI, -1).mean(1).repeat(NUCLEI, 0))[: 10 * NUCLEI]
    position = wanted @ found.loading
    planted = wanted @ programs.T
    unexplained = np.linalg.lstsq(position, planted, rcond=None)[1] / (planted**2).sum(0)
    assert unexplained.max() < 0.2


@pytest.mark.parametrize("seed", range(4))
def test_where_nuclei_of_a_donor_do_not_differ_no_axis_is_above_chance(plain: Cohort, seed: int) -> None:
    nothing = builders.exchanged(plain, counts(seed, planted=0.0)[0])
    featurizer = Axes().fit(nothing, train_of(nothing))
    assert featurizer.facts()[ABOVE_CHANCE] == "0"
    assert featurizer.loading_GK.shape[1] == 2


def test_only_training_donors_shape_the_axes(cohort: Cohort) -> None:
    first, second = (
        Axes(own_mean=True).fit(one, train_of(cohort)) for one in (cohort, spoiled(cohort, "D12"))
    )
    assert all(torch.equal(first.state()[name], value) for name, value in second.state().items())
    assert first.gene_names == second.gene_names


def test_the_input_of_a_nucleus_depends_on_its_own_donor_alone(cohort: Cohort) -> None:
    featurizer = Axes(own_mean=True).fit(cohort, train_of(cohort))
    whole = values(featurizer, cohort)
    other = values(featurizer, spoiled(cohort, "D12"))
    own = (cohort.cells["donor"] == "D12").to_numpy()
    assert np.array_equal(whole[~own], other[~own])
    assert not np.array_equal(whole[own], other[own])
    alone = cohort.of(["D03"])
    assert np.array_equal(values(featurizer, alone), whole[cohort.rows_of(["D03"])])


def test_values_lie_around_their_donor_in_its_own_units(cohort: Cohort) -> None:
    featurizer = Axes(own_mean=True).fit(cohort, train_of(cohort))
    found, k = values(featurizer, cohort), PLANTED
    by_donor = found.reshape(15, NUCLEI, -1)
    assert by_donor[..., :k].mean(1) == pytest.approx(np.zeros((15, k)), abs=1e-5)
    assert by_donor[:10, :, :k].var(1).mean(0) == pytest.approx(np.ones(k), rel=1e-2)
    assert (by_donor[..., k:] == by_donor[:, :1, k:]).all()
    means = by_donor[:10, 0, k:]
    assert means.mean(0) == pytest.approx(np.zeros(k), abs=1e-4)
    assert means.std(0) == pytest.approx(np.ones(k), rel=1e-4)
    assert featurizer.names_of_ids() == [
        "axis 1",
        "axis 2",
        "donor's mean on axis 1",
        "donor's mean on axis 2",
    ]
    assert featurizer.n_ids == found.shape[1] == 4


def test_a_donor_with_many_nuclei_weighs_no_more(plain: Cohort) -> None:
    """A donor of its own kind bends the axes no further when its nuclei come ten times."""
    made, _ = counts()
    rng = np.random.default_rng(1)
    own = slice(0, NUCLEI)
    made[own] = rng.poisson(np.exp(1.5 + rng.normal(size=(NUCLEI, 1)) @ rng.normal(size=(1, GENES))))
    once = builders.exchanged(plain, made)
    chosen = np.r_[np.tile(np.arange(NUCLEI), 10), np.arange(NUCLEI, len(made))]
    cells = once.cells.iloc[chosen].reset_index(drop=True)
    donors = once.donors.assign(nuclei=np.r_[10 * NUCLEI, np.full(14, NUCLEI)])
    often = builders.exchanged(replace(once, cells=cells, donors=donors), made[chosen])
    first, second = (find_axes(one, train_of(once), GENES, 10 * NUCLEI, 3) for one in (once, often))
    assert second.loading == pytest.approx(first.loading, abs=1e-3)


def test_the_best_expressed_genes_are_those_of_the_mean_over_donors(cohort: Cohort) -> None:
    made = builders.counts(cohort)
    rate = 1e4 * made / made.sum(1, keepdims=True)
    mean = rate.reshape(15, NUCLEI, -1).mean(1)[:10].mean(0)
    assert best_expressed(cohort, train_of(cohort), 20).tolist() == sorted(np.argsort(-mean)[:20].tolist())


def test_spread_is_mean_log_variance_and_skewness_of_each_donor(cohort: Cohort) -> None:
    position = np.random.default_rng(0).gamma(2.0, size=(len(cohort.cells), 3))
    bounds = bounds_by_donor(cohort)
    found = spread_of(position, bounds)
    assert bounds.tolist() == [[NUCLEI * i, NUCLEI * (i + 1)] for i in range(15)]
    for donor, (first, last) in enumerate(bounds):
        own = position[first:last]
        assert found.mean[donor] == pytest.approx(own.mean(0))
        assert found.log_variance[donor] == pytest.approx(np.log(own.var(0)), abs=0.01)
        assert found.skewness[donor] == pytest.approx(skew(own), abs=0.02)


def test_what_is_restored_gives_the_same_values(cohort: Cohort) -> None:
    first = Axes(own_mean=True).fit(cohort, train_of(cohort))
    again = Axes(own_mean=True).restore(first.gene_names, first.state())
    assert np.array_equal(values(first, cohort), values(again, cohort))
    with pytest.raises(ValueError, match="do not fit"):
        Axes().restore(first.gene_names[:-1], first.state())


def test_genes_in_another_order_in_the_file_change_no_bit(cohort: Cohort) -> None:
    """The cohort's order is the same, only what is stored has another one."""
    order = np.random.default_rng(0).permutation(GENES)
    matrix = builders.exchanged(cohort, builders.counts(cohort)[:, order]).matrix
    stored = replace(cohort, matrix=matrix.reordered(np.argsort(order)))
    assert np.array_equal(builders.counts(stored), builders.counts(cohort))
    first, second = (Axes().fit(one, train_of(cohort)) for one in (cohort, stored))
    assert np.array_equal(values(first, cohort), values(second, stored))


def test_axes_are_remembered_for_the_same_cohort_and_donors_only(cohort: Cohort) -> None:
    assert find(cohort) is find(cohort)
    assert find(cohort) is find(cohort.of(train_of(cohort)))
    assert find(cohort) is not find(cohort, tuple(cohort.donors.index[1:11]))
    assert find(spoiled(cohort, "D03")) is not find(cohort)


def test_a_given_number_of_axes_is_kept_whatever_chance_explains(cohort: Cohort) -> None:
    featurizer = Axes(n_axes=17).fit(cohort, train_of(cohort))
    assert featurizer.n_ids == 17
    assert featurizer.facts()[ABOVE_CHANCE] == str(PLANTED)


def test_two_nuclei_have_no_axes(cohort: Cohort) -> None:
    assert "too few for axes" in builders.answer(find_axes, cohort, ("D00",), GENES, 2, None)
    with pytest.raises(UserError):
        find_axes(cohort, ("D00",), 2, NUCLEI, None)
