"""Alarms: what is wrong or weak about a result, found in the result itself."""

from collections.abc import Iterator

from oligo_ad.baselines.predictors import ENSEMBLE, NETWORK
from oligo_ad.errors import listing
from oligo_ad.results.evaluation import FEW_DONORS, MODEL, Evaluation
from oligo_ad.results.verdict import ALPHA

# What is called 0 or 1, by whether that is true.
CALLED = {0: ("true_negative", "false_negative"), 1: ("true_positive", "false_positive")}
FEW_AXES = 1
FAR_ABOVE = 0.25  # training donor AUROC above test: more than a few donors explain


def alarms(evaluation: Evaluation) -> list[str]:
    """One sentence for each thing that is wrong or weak, the gravest first."""
    return [
        *_of_metadata(evaluation),
        *_of_expression(evaluation),
        *_of_axes(evaluation),
        *_of_calls(evaluation),
        *_of_ranking(evaluation),
    ]


def _of_metadata(evaluation: Evaluation) -> Iterator[str]:
    if evaluation.label_derived:
        yield (
            f"Metadata columns that give the label away were used: {', '.join(evaluation.label_derived)}. "
            "The scores say nothing about expression."
        )


def _of_expression(evaluation: Evaluation) -> Iterator[str]:
    if evaluation.doubt:
        yield f"Expression is uncertain: {evaluation.doubt}. Every score depends on it."


def _of_axes(evaluation: Evaluation) -> Iterator[str]:
    if evaluation.axes is not None and evaluation.axes <= FEW_AXES:
        yield (
            f"Nuclei of a donor differ along {evaluation.axes or 'no'} axis more than chance explains: a "
            "model of axes has little to read. More nuclei, or deeper ones, may show more."
        )


def _of_calls(evaluation: Evaluation) -> Iterator[str]:
    """Of what the threshold makes of the scores."""
    part = evaluation.part
    levels = {"nuclei": evaluation.cells[MODEL].pooled} if evaluation.cells else {}
    levels |= {"donors": evaluation.donors[MODEL].pooled}
    for what, scores in levels.items():
        for called, outcomes in CALLED.items():
            if sum(scores[outcome] for outcome in outcomes) == 0:
                other = 1 - called
                yield f"All {part} {what} are called {other}: F1 and accuracy mean nothing here."
    what, scores = next(iter(levels.items()))
    common = max(scores["prevalence"], 1 - scores["prevalence"])
    if scores["accuracy"] <= common:
        yield (
            f"Accuracy over {part} {what} ({scores['accuracy']:.3f}) is not above that of always naming the "
            f"commoner class ({common:.3f})."
        )


def _of_ranking(evaluation: Evaluation) -> Iterator[str]:
    """Of the order in which the scores put donors."""
    donors, part = evaluation.donors[MODEL], evaluation.part
    mean, train = donors.mean_over_folds, evaluation.training_donors["auroc"]
    if (mean["auroc"] - 0.5) * (mean["balanced_accuracy"] - 0.5) < 0 and abs(mean["auroc"] - 0.5) > 0.1:
        yield (
            f"Donor AUROC ({mean['auroc']:.3f}) and balanced accuracy ({mean['balanced_accuracy']:.3f}) "
            "contradict each other: scores rank donors one way and the threshold calls them the other."
        )
    if train - mean["auroc"] > FAR_ABOVE:
        yield (
            f"Donor AUROC is {train:.3f} on training donors and {mean['auroc']:.3f} on {part} donors: the "
            "model remembers its donors."
        )
    if (test := evaluation.tests.get(MODEL)) and test.p > ALPHA:
        yield f"Chance may explain this result: with permuted labels p = {test.p:.3f}."
    elif not test and donors.auroc.low <= 0.5 <= donors.auroc.high:
        yield ("The interval of the donor AUROC includes 0.5, and no test was made: chance may explain this.")
    if evaluation.smallest_class < FEW_DONORS:
        yield (
            f"The smaller class has {evaluation.smallest_class} {part} donors in all: one donor moves every "
            "number. Use split=cv."
        )
    rivals = {name: of for name, of in evaluation.differences.items() if name not in (ENSEMBLE, NETWORK)}
    if better := [name for name, of in rivals.items() if of.value <= 0]:
        yield f"As good or better: {listing(better)}."
