"""Each alarm rings on a result made for it, and a good result rings none."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from oligo_ad.data.cohort import Cohort
from oligo_ad.data.split import Fold, make_folds
from oligo_ad.results.alarms import alarms
from oligo_ad.results.evaluation import Difference, Evaluation, evaluate
from oligo_ad.results.intervals import Interval
from oligo_ad.results.permutation import PermutationTest
from tests import builders

SPLIT = builders.configuration("split=cv", "split.folds=3").split
EVALUATION = builders.configuration().evaluation


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Cohort:
    """24 positive and 9 negative donors of ten nuclei, which differ in nothing."""
    adata = builders.atlas(24, 9, nuclei=20, genes=5)
    return builders.cohort(adata, tmp_path_factory.mktemp("alarms"))


def weak_signal(label: np.ndarray, shift: float) -> np.ndarray:
    """Probabilities of nuclei that lean to their label, the more the larger `shift`."""
    logit = shift * (2 * label - 1) + np.random.default_rng(0).normal(0, 1, len(label))
    return 1 / (1 + np.exp(-logit))


def result(
    cohort: Cohort,
    test: np.ndarray,
    train: np.ndarray | None = None,
    threshold: float = 0.5,
    baseline: np.ndarray | None = None,
    folds: list[Fold] | None = None,
    label_derived: tuple[str, ...] = (),
    n_positive: int = 24,
) -> Evaluation:
    """What a model is worth that gives these probabilities to all nuclei of the cohort.

    `baseline` [donors]: what a baseline gives to the donors, in the order of the cohort.
    """
    label = builders.labels(cohort, n_positive)
    folds = folds or make_folds(label, SPLIT)
    parts = {"test": test, "train": test if train is None else train}
    predictions = [
        cohort.cells.iloc[rows][["donor", "barcode"]].assign(
            fold=fold.number, part=part, logit=np.log(given[rows] / (1 - given[rows]))
        )
        for fold in folds
        for part, given in parts.items()
        for rows in [cohort.rows_of(getattr(fold, part))]
    ]
    scored = pd.Series(
        np.full(len(cohort.donors), 0.5) if baseline is None else baseline, cohort.donors.index
    )
    tables = [
        pd.DataFrame({"fold": fold.number, "donor": fold.test, "rival": scored[list(fold.test)].to_numpy()})
        for fold in folds
    ]
    histories = [builders.history(fold, threshold) for fold in folds]
    donors = cohort.donors[["nuclei"]].assign(label=label)
    given = pd.concat(predictions, ignore_index=True)
    return evaluate(given, histories, pd.concat(tables), donors, EVALUATION, label_derived)


def label_of_nuclei(cohort: Cohort) -> np.ndarray:
    return builders.labels(cohort, 24)[cohort.cells["donor"]].to_numpy()


def good(cohort: Cohort) -> np.ndarray:
    return weak_signal(label_of_nuclei(cohort), 1.0)


def test_a_good_result_rings_no_alarm(cohort: Cohort) -> None:
    evaluation = result(cohort, good(cohort))
    assert alarms(evaluation) == []
    assert evaluation.headline > 0.9
    assert evaluation.differences["rival"].value == pytest.approx(evaluation.headline - 0.5)


def meaningless(cohort: Cohort) -> np.ndarray:
    return np.random.default_rng(4).random(len(cohort.cells))


def remembers(cohort: Cohort) -> Evaluation:
    return result(cohort, meaningless(cohort), train=weak_signal(label_of_nuclei(cohort), 3.0))


def contradicts(cohort: Cohort) -> Evaluation:
    """Most pairs of donors are in the right order, but only three negatives pass the threshold."""
    label = builders.labels(cohort, 24)
    score = label.map({1: 0.4, 0: 0.1})
    score[label.index[label == 0][:3]] = 0.9
    return result(cohort, score[cohort.cells["donor"]].to_numpy())


def few_donors(cohort: Cohort) -> Evaluation:
    (fold,) = make_folds(builders.labels(cohort, 24), replace(SPLIT, kind="holdout", test_fraction=0.4))
    return result(cohort, good(cohort), folds=[fold])


CONSTRUCTED: dict[str, tuple[Callable[[Cohort], Evaluation], str]] = {
    "label-derived metadata": (
        lambda c: result(c, good(c), label_derived=("Braak",)),
        "give the label away were used: Braak",
    ),
    "all nuclei called 1": (lambda c: result(c, good(c), threshold=0.0), "All test nuclei are called 1"),
    "all nuclei called 0": (lambda c: result(c, good(c), threshold=1.0), "All test nuclei are called 0"),
    "all donors called 1": (lambda c: result(c, good(c), threshold=0.1), "All test donors are called 1"),
    "all donors called 0": (lambda c: result(c, good(c), threshold=0.9), "All test donors are called 0"),
    "no better than the commoner class": (
        lambda c: result(c, good(c), threshold=0.9),
        "not above that of always naming the commoner class",
    ),
    "no better than the commoner class, the negative one": (
        lambda c: result(c, good(c) * 0.5, n_positive=9, threshold=0.7),
        "not above that of always naming the commoner class (0.727)",
    ),
    "contradiction": (contradicts, "contradict each other"),
    "train far above test": (remembers, "remembers its donors"),
    "chance": (
        lambda c: result(c, meaningless(c)),
        "The interval of the donor AUROC includes 0.5, and no test was made",
    ),
    "chance, tested": (
        lambda c: replace(result(c, good(c)), tests={"model": PermutationTest(200, 0.3, 0.5, 0.1)}),
        "Chance may explain this result: with permuted labels p = 0.300",
    ),
    "few donors": (few_donors, "one donor moves every number"),
    "a baseline does better": (
        lambda c: result(c, good(c), baseline=builders.labels(c, 24).to_numpy(float)),
        "As good or better: rival",
    ),
}


@pytest.mark.parametrize("case", CONSTRUCTED)
def test_an_alarm_rings_where_it_should(cohort: Cohort, case: str) -> None:
    construct, said = CONSTRUCTED[case]
    assert [alarm for alarm in alarms(construct(cohort)) if said in alarm]


def test_an_interval_that_includes_one_half_is_no_alarm_beside_a_test_that_tells_them_apart(
    cohort: Cohort,
) -> None:
    evaluation = replace(
        result(cohort, meaningless(cohort)), tests={"model": PermutationTest(200, 0.01, 0.5, 0.1)}
    )
    assert not [alarm for alarm in alarms(evaluation) if "chance" in alarm.lower()]


def test_the_gravest_alarm_comes_first(cohort: Cohort) -> None:
    first, *others = alarms(replace(few_donors(cohort), label_derived=("Braak",)))
    assert first.startswith("Metadata columns that give the label away")
    assert others


def test_a_doubt_about_expression_is_an_alarm(cohort: Cohort) -> None:
    given = weak_signal(builders.labels(cohort, 24)[cohort.cells["donor"]].to_numpy(), 1.0)
    plain = result(cohort, given)
    doubted = alarms(replace(plain, doubt="X may be anything"))
    assert set(doubted) - set(alarms(plain)) == {
        "Expression is uncertain: X may be anything. Every score depends on it."
    }


@pytest.mark.parametrize(
    ("axes", "said"), [(0, "along no axis"), (1, "along 1 axis"), (2, None), (None, None)]
)
def test_axes_that_chance_explains_are_told(cohort: Cohort, axes: int | None, said: str | None) -> None:
    label = builders.labels(cohort, 24).loc[cohort.cells["donor"]].to_numpy()
    found = alarms(replace(result(cohort, weak_signal(label, 2.0)), axes=axes))
    assert [alarm for alarm in found if "axis" in alarm] == (
        [] if said is None else [next(alarm for alarm in found if said in alarm)]
    )


def test_the_network_of_a_combination_is_no_rival(cohort: Cohort) -> None:
    label = builders.labels(cohort, 24).loc[cohort.cells["donor"]].to_numpy()
    good = result(cohort, weak_signal(label, 2.0))
    own = Difference(-0.1, Interval(-0.2, 0.0))
    both = alarms(replace(good, differences={"network": own, "axes": own}))
    assert [alarm for alarm in both if "As good" in alarm] == ["As good or better: axes."]
