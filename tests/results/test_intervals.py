"""Laws of the intervals, small cases by hand, and how often they cover the truth."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm

from benchmarks.coverage import Fixed, Trained, measure
from oligo_ad.results import intervals, metrics
from oligo_ad.results.intervals import HeldOut, Interval

Scored = tuple[HeldOut, np.ndarray]
SCORED = {
    "auroc": intervals.auroc,
    "balanced accuracy": lambda held_out, score: intervals.balanced_accuracy(held_out, score > 0.5),
    "Brier": intervals.brier,
    "difference": lambda held_out, score: intervals.auroc_difference(held_out, score, 1 - score**2),
}
MIRRORED = [name for name in SCORED if name != "difference"]


@st.composite
def cross_validated(draw: st.DrawFn, scores: int = 20) -> Scored:
    """2 to 3 folds, once or twice over, with 1 to 4 donors of each class in a fold; scores with ties."""
    folds, repeats = draw(st.integers(1, 3)), draw(st.integers(1, 2))
    n1, n0 = (draw(st.integers(folds, 4 * folds)) for _ in range(2))
    rng = np.random.default_rng(draw(st.integers(0, 10**6)))
    label = np.repeat([1, 0], [n1, n0])
    place = [
        np.r_[rng.permutation(n1) % folds, rng.permutation(n0) % folds] + folds * r for r in range(repeats)
    ]
    score = rng.integers(0, scores + 1, repeats * len(label)) / scores
    donor = np.tile(np.arange(len(label)), repeats)
    return HeldOut(np.concatenate(place), donor, label[donor], trained=float(rng.integers(4, 60))), score


def holdout(score1: list[float], score0: list[float], trained: float = 38.0) -> Scored:
    label = np.repeat([1, 0], [len(score1), len(score0)])
    return HeldOut(np.zeros(len(label)), np.arange(len(label)), label, trained), np.array(score1 + score0)


def ends(interval: Interval) -> list[float]:
    return [interval.low, interval.high]


@pytest.mark.parametrize("name", SCORED)
@settings(max_examples=40, deadline=None)
@given(scored=cross_validated())
def test_an_interval_has_a_width_and_stays_in_its_bounds(name: str, scored: Scored) -> None:
    found = SCORED[name](*scored)
    lowest = -1 if name == "difference" else 0
    assert lowest <= found.low < found.high <= 1


@settings(max_examples=40, deadline=None)
@given(cross_validated())
def test_an_interval_holds_the_mean_over_folds(scored: Scored) -> None:
    held_out, score = scored
    by_fold = [
        metrics.score(held_out.label[own], score[own], 0.5)
        for own in (held_out.fold == fold for fold in np.unique(held_out.fold))
    ]
    for name, found in (
        ("auroc", intervals.auroc(held_out, score)),
        ("balanced_accuracy", intervals.balanced_accuracy(held_out, score >= 0.5)),
        ("brier", intervals.brier(held_out, score)),
    ):
        mean = np.mean([one[name] for one in by_fold])
        assert found.low - 1e-9 <= mean <= found.high + 1e-9


@pytest.mark.parametrize("name", MIRRORED)
@settings(max_examples=40, deadline=None)
@given(scored=cross_validated(scores=19))
def test_swapping_the_classes_and_the_scores_changes_nothing(name: str, scored: Scored) -> None:
    held_out, score = scored
    other = SCORED[name](replace(held_out, label=1 - held_out.label), 1 - score)
    assert ends(SCORED[name](held_out, score)) == pytest.approx(ends(other), abs=1e-7)


@settings(max_examples=40, deadline=None)
@given(cross_validated())
def test_swapping_the_classes_alone_mirrors_the_interval(scored: Scored) -> None:
    held_out, score = scored
    found = intervals.auroc(replace(held_out, label=1 - held_out.label), score)
    assert [1 - found.high, 1 - found.low] == pytest.approx(ends(intervals.auroc(held_out, score)), abs=1e-7)


@settings(max_examples=40, deadline=None)
@given(cross_validated())
def test_swapping_the_scores_mirrors_their_difference(scored: Scored) -> None:
    held_out, score = scored
    there, back = (
        intervals.auroc_difference(held_out, *pair)
        for pair in ((score, score**3 - score), (score**3 - score, score))
    )
    assert [-back.high, -back.low] == pytest.approx(ends(there), abs=1e-9)


@pytest.mark.parametrize("name", SCORED)
@settings(max_examples=40, deadline=None)
@given(scored=cross_validated(), seed=st.integers(0, 99))
def test_the_order_of_rows_and_the_names_of_donors_and_folds_do_not_matter(
    name: str, scored: Scored, seed: int
) -> None:
    held_out, score = scored
    rng = np.random.default_rng(seed)
    order, names = rng.permutation(len(score)), rng.permutation(100)
    other = HeldOut(
        names[held_out.fold[order]],
        names[held_out.donor[order]].astype(str),
        held_out.label[order],
        held_out.trained,
    )
    found = SCORED[name](other, score[order])
    assert ends(found) == pytest.approx(ends(SCORED[name](held_out, score)), abs=1e-7)


@settings(max_examples=40, deadline=None)
@given(cross_validated())
def test_only_the_order_of_scores_matters_to_an_auroc(scored: Scored) -> None:
    held_out, score = scored
    assert ends(intervals.auroc(held_out, np.exp(3 * score))) == ends(intervals.auroc(held_out, score))


@pytest.mark.parametrize("name", SCORED)
@settings(max_examples=40, deadline=None)
@given(scored=cross_validated())
def test_repeating_the_same_folds_adds_no_donor(name: str, scored: Scored) -> None:
    held_out, score = scored
    again = replace(
        held_out,
        fold=np.r_[held_out.fold, held_out.fold + 100],
        donor=np.tile(held_out.donor, 2),
        label=np.tile(held_out.label, 2),
    )
    found = SCORED[name](again, np.tile(score, 2))
    assert ends(found) == pytest.approx(ends(SCORED[name](held_out, score)), abs=1e-7)


@pytest.mark.parametrize("name", SCORED)
@settings(max_examples=40, deadline=None)
@given(scored=cross_validated())
def test_fewer_training_donors_never_narrow_an_interval(name: str, scored: Scored) -> None:
    held_out, score = scored
    few = SCORED[name](replace(held_out, trained=held_out.trained / 2), score)
    many = SCORED[name](held_out, score)
    assert few.low <= many.low + 1e-9
    assert many.high <= few.high + 1e-9


def test_the_auroc_of_a_holdout_has_the_limits_of_newcombe() -> None:
    """Method 5 of Newcombe 2006, from its formula; nothing trained, and 26 of 35 pairs in the right order."""
    one, zero = [0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.1], [0.75, 0.55, 0.3, 0.2, 0.05]
    found = intervals.auroc(*holdout(one, zero, trained=1e12))
    estimate = np.mean([o > z for o in one for z in zero])

    def far(a: float) -> float:
        n = (len(one) + len(zero)) / 2 - 1
        variance = a * (1 - a) * (1 + n * ((1 - a) / (2 - a) + a / (1 + a))) / (len(one) * len(zero))
        return abs(a - estimate) / np.sqrt(variance)

    assert [far(end) for end in ends(found)] == pytest.approx([norm.ppf(0.975)] * 2, rel=1e-6)


def test_a_perfect_ranking_of_ten_donors_is_no_certainty() -> None:
    found = intervals.auroc(*holdout([0.9] * 8, [0.1] * 2))
    assert found.high == 1.0
    assert 0.4 < found.low < 0.6  # one ranking in 45 is perfect by luck


def test_all_scores_equal_are_no_certainty_either() -> None:
    for found in (
        intervals.auroc(*holdout([0.8] * 39, [0.8] * 9)),
        intervals.balanced_accuracy(*holdout([1.0] * 39, [1.0] * 9)),
    ):
        assert found.low < 0.45 < 0.55 < found.high
    brier = intervals.brier(*holdout([0.8] * 39, [0.8] * 9))
    assert brier.high - brier.low > 0.05


def test_two_equal_scores_differ_by_nothing_or_little() -> None:
    held_out, score = holdout([0.9, 0.8, 0.3, *[0.7] * 36], [0.85, 0.4, *[0.1] * 7])
    found = intervals.auroc_difference(held_out, score, score)
    assert found.low == pytest.approx(-found.high)
    assert 0.01 < found.high < 0.05


def test_a_difference_is_paired() -> None:
    rng = np.random.default_rng(0)
    held_out, score = holdout(rng.normal(1, 1, 30).tolist(), rng.normal(0, 1, 20).tolist())
    near, other = score + rng.normal(0, 0.05, 50), rng.permuted(score)
    widths = [np.ptp(ends(intervals.auroc_difference(held_out, score, one))) for one in (near, other)]
    assert widths[0] < widths[1] / 2


def test_an_estimate_at_its_bound_reaches_the_bound() -> None:
    right, wrong = holdout([0.9] * 5, [0.1] * 4), holdout([0.1] * 5, [0.9] * 4)
    assert ends(intervals.auroc(*right))[1] == 1.0
    assert ends(intervals.auroc(*wrong))[0] == 0.0


def test_a_fold_without_one_of_the_classes_has_no_auroc() -> None:
    held_out, score = holdout([0.9, 0.3, 0.7], [0.5, 0.4])
    more = HeldOut(
        np.r_[held_out.fold, [1, 1]],
        np.r_[held_out.donor, [7, 8]],
        np.r_[held_out.label, [1, 1]],
        held_out.trained * 7 / 5,
    )
    assert ends(intervals.auroc(more, np.r_[score, [0.1, 0.2]])) == pytest.approx(
        ends(intervals.auroc(held_out, score)), abs=1e-6
    )


@pytest.mark.parametrize("of", [intervals.auroc, intervals.balanced_accuracy, intervals.brier])
def test_more_nuclei_of_a_donor_are_no_more_donors(of: Callable[[HeldOut, np.ndarray], Interval]) -> None:
    """Nuclei that all have their donor's score leave the interval as it is."""
    rng = np.random.default_rng(1)
    held_out, score = holdout(rng.random(20).tolist(), rng.random(10).tolist())
    value = score > 0.5 if of is intervals.balanced_accuracy else score
    rows = np.repeat(np.arange(30), 50)
    many = of(
        replace(held_out, fold=held_out.fold[rows], donor=held_out.donor[rows], label=held_out.label[rows]),
        value[rows],
    )
    assert np.ptp(ends(many)) == pytest.approx(np.ptp(ends(of(held_out, value))), rel=0.25)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("world", "repeats"),
    [
        (Fixed(0.9), 1),
        (Trained(0.5, factors=0, shrinkage=1.0), 1),
        (Trained(0.5, factors=4, shrinkage=1.0), 10),
        (Trained(0.75, factors=4, shrinkage=1.0), 10),
        (Trained(0.9, factors=0, shrinkage=1.0), 1),
    ],
    ids=str,
)
def test_intervals_cover_the_truth_in_at_least_93_of_100_cohorts(
    world: Fixed | Trained, repeats: int
) -> None:
    """Three Monte-Carlo standard errors are allowed for; `benchmarks/coverage.py` has the whole table."""
    cohorts = 400
    found = measure(world, repeats, cohorts, seed=11)
    allowed = 3 * np.sqrt(0.93 * 0.07 / cohorts)
    assert all(found[name].coverage >= 0.93 - allowed for name in found if name != "bootstrap")
    assert found["AUROC"].coverage > found["bootstrap"].coverage
