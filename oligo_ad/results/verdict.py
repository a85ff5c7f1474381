"""The verdict: what may be claimed of a result, and the sentences that claim it and no more.

Whether donors are told apart is decided by the permutation test alone, and nothing is claimed where none was
made. The interval says how well. So a small p may stand beside an interval that includes 0.5: the donors are
told apart, and how well is uncertain.
"""

from enum import Enum

from oligo_ad.baselines.predictors import ENSEMBLE
from oligo_ad.results.evaluation import (
    COVARIATES,
    FEW_DONORS,
    MODEL,
    WITH_EXPRESSION,
    Difference,
    Evaluation,
)
from oligo_ad.results.intervals import LEVEL, Interval
from oligo_ad.results.permutation import PermutationTest

ALPHA = 0.05
AXES = "axes"  # among the baselines


class Claim(Enum):
    """What may be said of whether a model tells donors of the two classes apart."""

    TOO_FEW = "there are too few donors to say"
    UNTESTED = "it was not tested"
    APART = "they are told apart"
    CHANCE = "they are not shown to be told apart"


def claim(evaluation: Evaluation) -> Claim:
    """What the donors and the permutation test allow to be said."""
    test = evaluation.tests.get(MODEL)
    if evaluation.smallest_class < FEW_DONORS:
        return Claim.TOO_FEW
    if test is None:
        return Claim.UNTESTED
    return Claim.APART if test.p <= ALPHA else Claim.CHANCE


def verdict(evaluation: Evaluation, model: str, classes: tuple[str, str]) -> str:
    """The result in a few sentences.

    Args:
        model: its name.
        classes: names of the negative and the positive class.
    """
    found, auroc = claim(evaluation), evaluation.donors[MODEL].auroc
    numbers = f"donor AUROC {evaluation.headline:.3f}, {LEVEL} % interval {shown(auroc)}"
    sentences = [f"{_opening(found, evaluation, model, classes)}: {numbers}{_of_test(evaluation)}."]
    sentences += [_of_interval(found, auroc)] if found is not Claim.TOO_FEW else []
    sentences += [_of_comparator(found, evaluation, model)] if evaluation.comparator else []
    sentences += [_of_axes(found, evaluation, model)]
    return " ".join(filter(None, sentences))


def _opening(found: Claim, evaluation: Evaluation, model: str, classes: tuple[str, str]) -> str:
    negative, positive = classes
    n = evaluation.smallest_class
    return {
        Claim.TOO_FEW: f"{n} {evaluation.part} donor{'s' * (n != 1)} in the smaller class are too few to say "
        f"whether {model} tells {positive} from {negative} donors",
        Claim.UNTESTED: f"Whether {model} tells {positive} from {negative} donors was not tested",
        Claim.APART: f"Held-out {positive} and {negative} donors are told apart by {model}",
        Claim.CHANCE: f"Held-out {positive} and {negative} donors are not shown to be told apart by {model}",
    }[found]


def _of_test(evaluation: Evaluation) -> str:
    test = evaluation.tests.get(MODEL)
    return f"; {tested(test)}" if test else ""


def _of_interval(found: Claim, auroc: Interval) -> str:
    """What the interval adds to the claim."""
    place = "lies above 0.5" if auroc.low > 0.5 else "lies below 0.5" if auroc.high < 0.5 else "includes 0.5"
    if found is Claim.UNTESTED:
        return f"The interval {place}; it is no test."
    if found is Claim.APART:
        return "How well is uncertain: the interval includes 0.5." if auroc.low <= 0.5 else ""
    if auroc.high < 0.5:
        return "They are ranked the wrong way round."
    return "Its interval lies above 0.5, but the test decides." if auroc.low > 0.5 else ""


def _of_comparator(found: Claim, evaluation: Evaluation, model: str) -> str:
    name = str(evaluation.comparator)
    difference = evaluation.differences[name]
    other = evaluation.donors[name].mean_over_folds["auroc"]
    text = f"The comparator named beforehand, {name}, reaches {other:.3f}: difference {signed(difference)}"
    low, high = difference.interval.low, difference.interval.high
    if found is Claim.TOO_FEW:
        return f"{text}."
    if high < 0:
        return f"{text}; {model} does worse."
    if low > 0 and found is not Claim.CHANCE:
        return f"{text}; {model} does better."
    return f"{text}; {model} is not shown to do better."


def _of_axes(found: Claim, evaluation: Evaluation, model: str) -> str:
    """Whether a network was needed: a regression on axes is as good on most grounds."""
    if AXES not in evaluation.differences or evaluation.comparator == AXES or found is Claim.TOO_FEW:
        return ""
    difference = evaluation.differences[AXES]
    if difference.interval.low > 0 and found is not Claim.CHANCE:
        return f"It does better than a regression on axes: {signed(difference)}."
    return f"It is not shown to do better than a regression on axes: {signed(difference)}."


def added_value(evaluation: Evaluation, model: str) -> list[str]:
    """What the model adds to each baseline, and what expression adds to age, sex and APOE alleles."""
    sentences = [
        f"{model} against {name}: {signed(difference)}."
        for name, difference in evaluation.differences.items()
        if name in (COVARIATES, WITH_EXPRESSION)
    ]
    if both := evaluation.expression_over_covariates:
        sentences.append(f"Pseudobulk expression beside the covariates, against these alone: {signed(both)}.")
    if ENSEMBLE in evaluation.differences:
        gain = evaluation.differences[ENSEMBLE]
        sentences.append(f"{model} alone against its {ENSEMBLE} with pseudobulk: {signed(gain)}.")
    return sentences


def tested(test: PermutationTest) -> str:
    """`permutation test: p = 0.005, 200 permutations`."""
    return f"permutation test: p = {test.p:.3f}, {test.n:,} permutations"


def signed(difference: Difference) -> str:
    """`+0.030 (-0.100 to +0.160)`."""
    return f"{difference.value:+.3f} ({shown(difference.interval, '+')})"


def shown(interval: Interval, sign: str = "") -> str:
    """`0.61 to 0.93`."""
    return f"{interval.low:{sign}.3f} to {interval.high:{sign}.3f}"
