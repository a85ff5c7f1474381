"""Views and their combination: linear, of each donor by itself, and weighed by what donors left out show."""

import numpy as np
import pandas as pd
import pytest

from oligo_ad.baselines import pls
from oligo_ad.baselines.linear import coordinates, inner_folds, logistic, regress, standardised
from oligo_ad.baselines.pls import partial_least_squares
from oligo_ad.baselines.views import pseudobulk_of
from oligo_ad.data.cohort import Cohort
from oligo_ad.inputs.axes import Axes
from oligo_ad.inputs.featurizers import StandardisedPanel
from oligo_ad.models.combination import combine, fit_readers, restored
from oligo_ad.models.views import PLS, AxisMoments, Known, Linear
from oligo_ad.scores import aurocs
from tests import builders


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Cohort:
    return builders.cohort(builders.atlas(effect=0.4, nuclei=40), tmp_path_factory.mktemp("views"))


@pytest.fixture(scope="module")
def known(cohort: Cohort) -> Known:
    """All but the last donor of either class."""
    label = builders.labels(cohort)
    donors = tuple(cohort.donors.index[[*range(8), *range(9, 14)]])
    own = label[list(donors)].to_numpy().astype(float)
    held_out = inner_folds(own, 0)
    assert held_out is not None
    return Known(donors, own, held_out)


@pytest.fixture(autouse=True)
def few_genes(monkeypatch: pytest.MonkeyPatch) -> None:
    """PLS chooses among them."""
    monkeypatch.setattr(pls, "GENES", 20)


@pytest.fixture(scope="module")
def axes(cohort: Cohort, known: Known) -> Axes:
    return Axes(n_genes=50, n_axes=3).fit(cohort, known.donors)


@pytest.mark.parametrize("view", [PLS, AxisMoments])
def test_a_view_is_the_fit_in_coordinates(view: type, cohort: Cohort, known: Known, axes: Axes) -> None:
    made = view()
    inner = made.fit(cohort, axes, known)
    own = cohort.donors.index.get_indexer(list(known.donors))
    if view is PLS:
        names = cohort.genes["name"].to_list()
        blocks = [pseudobulk_of(cohort)[:, [names.index(name) for name in made.gene_names]]]
    else:
        blocks = list(axes.spread(cohort))
    x = coordinates([standardised(block, own) for block in blocks], own)
    label = builders.labels(cohort).to_numpy()
    fit = partial_least_squares if view is PLS else regress
    expected = fit(x, label, own, np.arange(len(label)), known.held_out)
    found = made.logits(cohort, axes)
    assert found.to_numpy() == pytest.approx(np.log(expected.test / (1 - expected.test)), abs=1e-6)
    assert inner == pytest.approx(np.log(expected.inner / (1 - expected.inner)))


def test_blocks_of_any_size_find_the_way_back_to_features() -> None:
    rng = np.random.default_rng(0)
    blocks, own = [5 * rng.normal(size=(20, 3)) + 1, rng.normal(size=(20, 30))], np.arange(4, 20)
    label = np.arange(20) % 2
    inner = inner_folds(label[own].astype(float), 0)
    assert inner is not None
    made = Linear(regress)
    made.fit(blocks, own, label[own].astype(float), inner)
    x = coordinates([standardised(block, own) for block in blocks], own)
    expected = regress(x, label, own, np.arange(20), inner)
    assert made.logits(blocks) == pytest.approx(np.log(expected.test / (1 - expected.test)), abs=1e-6)


@pytest.mark.parametrize("view", [PLS, AxisMoments])
def test_a_view_reads_each_donor_by_itself(view: type, cohort: Cohort, known: Known, axes: Axes) -> None:
    made = view()
    made.fit(cohort, axes, known)
    whole = made.logits(cohort, axes)
    for donor in ("D03", "D14"):
        assert made.logits(cohort.of([donor]), axes)[donor] == whole[donor]


@pytest.mark.parametrize("view", [PLS, AxisMoments])
def test_what_a_view_has_learned_is_restored(view: type, cohort: Cohort, known: Known, axes: Axes) -> None:
    made = view()
    made.fit(cohort, axes, known)
    again = view().restore(made.gene_names, made.state())
    assert again.logits(cohort, axes).equals(made.logits(cohort, axes))


@pytest.mark.parametrize("view", [PLS, AxisMoments])
def test_a_donor_that_is_not_known_moves_nothing(
    view: type, cohort: Cohort, known: Known, axes: Axes
) -> None:
    made, other = view(), view()
    changed = builders.counts(cohort)
    own = (cohort.cells["donor"] == "D14").to_numpy()
    changed[own] = np.random.default_rng(0).poisson(300, changed[own].shape)
    changed[np.ix_(own, changed.mean(0) > np.median(changed.mean(0)))] = 0  # what others express most
    ruined = builders.exchanged(cohort, changed)
    assert made.fit(cohort, axes, known).tolist() == other.fit(ruined, axes, known).tolist()
    assert all(made.state()[name].equal(value) for name, value in other.state().items())
    first, second = made.logits(cohort, axes), other.logits(ruined, axes)
    assert first.drop("D14").equals(second.drop("D14"))
    assert first["D14"] != second["D14"]


def test_moments_need_axes(cohort: Cohort, known: Known) -> None:
    panel = StandardisedPanel(genes="all").fit(cohort, known.donors)
    assert "oligo_ad.inputs.axes.Axes" in builders.answer(AxisMoments().fit, cohort, panel, known)


# Combination


def logits(seed: int, strength: list[float], n: int = 40) -> tuple[np.ndarray, np.ndarray]:
    """Logits of readers that see so much, in units of their own, and labels."""
    rng = np.random.default_rng(seed)
    label = (np.arange(n) % 4 > 0).astype(int)
    size = np.array([1.0, 5.0, 0.2])[: len(strength), None]
    return size * (np.array(strength)[:, None] * label + rng.normal(size=(len(strength), n))), label


def test_a_reader_that_ranks_better_weighs_more_whatever_its_scale() -> None:
    made, label = logits(0, [0.0, 1.0, 3.0])
    found = combine(made, label)
    assert found.auroc.tolist() == aurocs(label, made).tolist()
    assert found.weight.sum() == pytest.approx(1)
    expected = np.maximum(found.auroc - 0.5, 0.02) ** 4
    assert found.weight == pytest.approx(expected / expected.sum())
    assert found.weight[2] > found.weight[1] > found.weight[0]
    assert combine(made * [[100], [1], [1]] + 7, label).weight == pytest.approx(found.weight)


def test_a_reader_that_ranks_the_wrong_way_round_is_not_turned_round() -> None:
    made, label = logits(0, [-3.0, 2.0])
    found = combine(made, label)
    assert 0 < found.weight[0] < 0.01


def test_the_combined_logit_is_that_of_a_regression_on_the_weighted_mean() -> None:
    made, label = logits(1, [1.0, 2.0, 1.0])
    found = combine(made, label)
    mean = sum(
        weight * (row - row.mean()) / row.std() for weight, row in zip(found.weight, made, strict=True)
    )
    slope, intercept = logistic(mean, label.astype(float))
    assert found.logits(made) == pytest.approx(slope * mean + intercept)
    assert slope > 0


def test_readers_that_agree_are_combined_to_the_same_order() -> None:
    made, label = logits(2, [1.0])
    both = combine(np.concatenate([made, 3 * made + 1]), label).logits(np.concatenate([made, 3 * made + 1]))
    assert np.argsort(both).tolist() == np.argsort(made[0]).tolist()


def test_a_combination_is_restored() -> None:
    made, label = logits(3, [1.0, 2.0])
    found = combine(made, label)
    assert restored(found.state()).logits(made).tolist() == found.logits(made).tolist()


def test_a_reader_that_knows_nothing_leaves_finite_logits() -> None:
    made, label = logits(4, [1.0, 2.0])
    made[0] = 0.3
    assert np.isfinite(combine(made, label).logits(made)).all()


def test_readers_give_left_out_logits_of_known_donors_and_logits_of_any(
    cohort: Cohort, known: Known, axes: Axes
) -> None:
    rng = np.random.default_rng(0)
    network = rng.normal(size=len(known.donors))
    readers, held_out = fit_readers({"pls": PLS(), "axes": AxisMoments()}, network, cohort, axes, known)
    assert readers.names == ("network", "pls", "axes")
    left_out = np.stack([network, *(view().fit(cohort, axes, known) for view in (PLS, AxisMoments))])
    assert held_out == pytest.approx(combine(left_out, known.label).logits(left_out))
    given = pd.Series([0.5, -1.0], ["D14", "D02"])
    found = readers.logits(given, cohort, axes)
    assert found.index.tolist() == ["D14", "D02"]
    parts = [given, *(view.logits(cohort, axes)[given.index] for view in readers.views.values())]
    assert found.to_numpy() == pytest.approx(readers.combination.logits(np.stack(parts)))
