"""A verdict claims what the permutation test and the intervals allow, and nothing that one of them denies."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oligo_ad.results.evaluation import Difference, Evaluation
from oligo_ad.results.intervals import Interval
from oligo_ad.results.permutation import PermutationTest
from oligo_ad.results.verdict import ALPHA, Claim, added_value, claim, verdict
from tests.results.test_plots import NAMES, result

APART, CHANCE = "are told apart by", "are not shown to be told apart"
UNTESTED, TOO_FEW = "was not tested", "are too few to say"
BETTER, NOT_BETTER, WORSE = "does better", "is not shown to do better", "does worse"
PLAIN, SMALL = result(), result(n_negative=4)


def found(
    p: float | None = None,
    interval: tuple[float, float] = (0.4, 0.9),
    gain: tuple[float, float] = (-0.1, 0.1),
    evaluation: Evaluation = PLAIN,
) -> Evaluation:
    """A result with this p value (None: not tested), this interval, and this one of its gain."""
    model = replace(evaluation.donors["model"], auroc=Interval(*interval))
    return replace(
        evaluation,
        donors=evaluation.donors | {"model": model},
        comparator="rival",
        differences={"rival": Difference(sum(gain) / 2, Interval(*gain))},
        tests={} if p is None else {"model": PermutationTest(200, p, 0.5, 0.1)},
    )


def said(evaluation: Evaluation) -> list[str]:
    text = verdict(evaluation, "mlp", NAMES)
    return [claim for claim in (APART, CHANCE, UNTESTED, TOO_FEW, BETTER, NOT_BETTER, WORSE) if claim in text]


INTERVALS = st.tuples(st.floats(0, 1), st.floats(0, 1)).map(sorted).map(tuple)
GAINS = st.tuples(st.floats(-1, 1), st.floats(-1, 1)).map(sorted).map(tuple)


@given(st.none() | st.floats(0.001, 1), INTERVALS, GAINS, st.sampled_from([PLAIN, SMALL]))
def test_verdict_p_and_intervals_never_contradict_each_other(
    p: float | None, interval: tuple[float, float], gain: tuple[float, float], evaluation: Evaluation
) -> None:
    evaluation = found(p, interval, gain, evaluation)
    claims, few = said(evaluation), evaluation.smallest_class < 5
    assert (APART in claims) == (p is not None and p <= ALPHA and not few)
    assert (CHANCE in claims) == (p is not None and p > ALPHA and not few)
    assert (UNTESTED in claims) == (p is None and not few)
    assert (TOO_FEW in claims) == few
    if BETTER in claims:
        assert gain[0] > 0
        assert APART in claims or UNTESTED in claims
    if WORSE in claims:
        assert gain[1] < 0
    assert few or len(claims) == 2


def test_a_small_p_beside_an_interval_that_includes_one_half_says_what_is_uncertain() -> None:
    text = verdict(found(0.005, (0.45, 0.9)), "mlp", NAMES)
    assert "told apart by mlp: donor AUROC" in text
    assert "p = 0.005, 200 permutations" in text
    assert "How well is uncertain: the interval includes 0.5" in text
    assert "uncertain" not in verdict(found(0.005, (0.55, 0.9)), "mlp", NAMES)


@pytest.mark.parametrize(
    ("interval", "place"),
    [((0.51, 0.9), "lies above 0.5"), ((0.4, 0.6), "includes 0.5"), ((0.1, 0.4), "lies below 0.5")],
)
def test_without_a_test_nothing_is_claimed_beyond_the_interval(
    interval: tuple[float, float], place: str
) -> None:
    text = verdict(found(None, interval), "mlp", NAMES)
    assert text.startswith("Whether mlp tells High from Not AD donors was not tested")
    assert f"The interval {place}; it is no test." in text
    assert f"{interval[0]:.3f} to {interval[1]:.3f}" in text


def test_the_test_decides_where_the_interval_says_otherwise() -> None:
    assert "but the test decides" in verdict(found(0.2, (0.51, 0.9)), "mlp", NAMES)
    assert "the wrong way round" in verdict(found(1.0, (0.1, 0.4)), "mlp", NAMES)


def test_a_p_of_exactly_the_level_is_a_claim() -> None:
    assert claim(found(ALPHA)) is Claim.APART


def test_the_gain_is_over_the_comparator_named_beforehand_however_well_others_do() -> None:
    evaluation = found(0.01, gain=(0.1, 0.3))
    text = verdict(evaluation, "mlp", NAMES)
    other = evaluation.donors["rival"].mean_over_folds["auroc"]
    assert f"named beforehand, rival, reaches {other:.3f}: difference +0.200 (+0.100 to +0.300)" in text
    alone = verdict(replace(evaluation, comparator=None), "mlp", NAMES)
    assert "comparator" not in alone


def test_added_value_is_told_over_covariates_with_and_without_expression() -> None:
    of = {
        name: Difference(0.1 * n, Interval(0, 1))
        for n, name in enumerate(("covariates", "depth", "covariates+pseudobulk", "ensemble"), 1)
    }
    evaluation = replace(
        found(), differences=of, expression_over_covariates=Difference(0.7, Interval(0.5, 0.9))
    )
    told = added_value(evaluation, "mlp")
    assert told[0] == "mlp against covariates: +0.100 (+0.000 to +1.000)."
    assert told[1] == "mlp against covariates+pseudobulk: +0.300 (+0.000 to +1.000)."
    assert "against these alone: +0.700 (+0.500 to +0.900)" in told[2]
    assert "ensemble with pseudobulk: +0.400" in told[3]
    assert added_value(replace(evaluation, differences={}, expression_over_covariates=None), "mlp") == []


@pytest.mark.parametrize(
    ("p", "gain", "said"),
    [
        (None, (-0.1, 0.2), "is not shown to do better than a regression on axes: +0.050"),
        (None, (0.02, 0.2), "It does better than a regression on axes: +0.110"),
        (0.5, (0.02, 0.2), "is not shown to do better than a regression on axes"),
    ],
)
def test_a_network_that_a_regression_on_axes_equals_says_so(
    p: float | None, gain: tuple[float, float], said: str
) -> None:
    evaluation = found(p)
    own = {"axes": Difference(sum(gain) / 2, Interval(*gain))}
    text = verdict(replace(evaluation, differences=evaluation.differences | own), "mlp", NAMES)
    assert said in text
    few = found(p, evaluation=SMALL)
    assert "axes" not in verdict(replace(few, differences=few.differences | own), "mlp", NAMES)


def test_where_axes_are_the_comparator_they_are_named_once() -> None:
    plain = found()
    evaluation = replace(
        plain,
        donors=plain.donors | {"axes": plain.donors["rival"]},
        comparator="axes",
        differences={"axes": Difference(0.1, Interval(-0.1, 0.3))},
    )
    assert verdict(evaluation, "mlp", NAMES).count("axes") == 1
