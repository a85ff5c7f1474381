"""From predictions to scores, by hand: donor scores, thresholds, baselines, and what is scored at all."""

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from oligo_ad.config import EvaluationConfig
from oligo_ad.data.split import Fold
from oligo_ad.facts import FoldHistory
from oligo_ad.results import intervals
from oligo_ad.results.evaluation import Evaluation, evaluate
from oligo_ad.results.intervals import HeldOut
from tests.builders import configuration, history

CONFIG = configuration().evaluation
# Probabilities of nuclei by donor; P… are positive. By mean P1 is right and P2 wrong, by fraction it is the
# other way round: one nucleus is certain, or two are just above one half.
NUCLEI = {"P1": [0.99, 0.45, 0.45], "P2": [0.55, 0.55, 0.1], "N1": [0.52, 0.52, 0.49], "N2": [0.2, 0.3, 0.1]}
DONORS = pd.DataFrame({"label": [1, 1, 0, 0], "nuclei": [30, 40, 50, 60]}, index=["P1", "P2", "N1", "N2"])


def logit(probability: float) -> float:
    return float(np.log(probability / (1 - probability)))


def predictions(nuclei: dict[str, list[float]], part: str = "test", fold: int = 1) -> pd.DataFrame:
    """A row a nucleus."""
    rows = [
        {"fold": fold, "seed": 0, "part": part, "donor": donor, "barcode": f"{donor}-{n}", "logit": logit(p)}
        for donor, own in nuclei.items()
        for n, p in enumerate(own)
    ]
    return pd.DataFrame(rows)


def of_donors(probability: dict[str, float], part: str = "test", fold: int = 1) -> pd.DataFrame:
    """A row a donor: a model that predicts donors."""
    return predictions({donor: [p] for donor, p in probability.items()}, part, fold).assign(barcode=None)


TRAINING = predictions({"P2": [0.9, 0.8], "N2": [0.6, 0.85]}, "train")


def folds(*thresholds: float) -> list[FoldHistory]:
    """Folds 1, 2, … of which nothing but the threshold matters."""
    nobody = Fold(1, (), (), ())
    return [history(replace(nobody, number=n), threshold) for n, threshold in enumerate(thresholds, 1)]


def scored(
    *tables: pd.DataFrame,
    baselines: pd.DataFrame | None = None,
    thresholds: tuple[float, ...] = (0.5,),
    donors: pd.DataFrame = DONORS,
    **changed: Any,
) -> Evaluation:
    config: EvaluationConfig = replace(CONFIG, **changed)
    every = pd.concat([*tables, TRAINING], ignore_index=True)
    return evaluate(every, folds(*thresholds), baselines, donors, config)


def scores_of(evaluation: Evaluation, column: str = "model") -> dict[str, float]:
    return {str(donor): score for donor, score in evaluation.donor_table.set_index("donor")[column].items()}


def cohort(n_positive: int, n_negative: int) -> tuple[pd.DataFrame, dict[str, list[float]]]:
    """As many donors beside those of `DONORS`, and one probability of each."""
    names = [f"D{n:02d}" for n in range(n_positive + n_negative)]
    many = pd.DataFrame({"label": [1] * n_positive + [0] * n_negative, "nuclei": 9}, index=names)
    drawn = np.random.default_rng(0).uniform(0.2, 0.8, len(names))
    return pd.concat([many, DONORS]), {name: [float(p)] for name, p in zip(names, drawn, strict=True)}


def baseline(fold: int = 1, **probability: dict[str, float]) -> pd.DataFrame:
    table = pd.DataFrame(probability).rename_axis("donor").reset_index()
    table.insert(0, "fold", fold)
    return table


# Donor scores


@pytest.mark.parametrize(
    ("how", "wanted"),
    [
        ("mean", {"P1": 0.63, "P2": 0.4, "N1": 0.51, "N2": 0.2}),
        ("fraction", {"P1": 1 / 3, "P2": 2 / 3, "N1": 2 / 3, "N2": 0.0}),
        (
            "mean_logit",  # the geometric mean of the odds
            {
                donor: 1 / (1 + np.prod([(1 - p) / p for p in own]) ** (1 / 3))
                for donor, own in NUCLEI.items()
            },
        ),
    ],
)
def test_donors_are_scored_from_their_nuclei_in_the_way_that_is_asked_for(
    how: str, wanted: dict[str, float]
) -> None:
    found = scored(predictions(NUCLEI), donor_score=how)
    assert scores_of(found) == pytest.approx(wanted)
    label = DONORS["label"]
    assert found.headline == pytest.approx(roc_auc_score(label, [wanted[donor] for donor in DONORS.index]))
    called = {donor: score >= 0.5 for donor, score in wanted.items()}
    pooled = found.donors["model"].pooled
    assert pooled["true_positive"] == called["P1"] + called["P2"]
    assert pooled["false_positive"] == called["N1"] + called["N2"]


def test_the_three_ways_disagree_here() -> None:
    """Or the test above would not tell them apart."""
    ways = [scored(predictions(NUCLEI), donor_score=how) for how in ("mean", "fraction", "mean_logit")]
    assert [found.headline for found in ways] == [0.75, 0.625, 0.75]
    assert len({scores_of(found)["P1"] for found in ways}) == 3


def test_scores_of_nuclei_do_not_depend_on_how_donors_are_scored() -> None:
    mean, fraction = (scored(predictions(NUCLEI), donor_score=how) for how in ("mean", "fraction"))
    assert mean.cells == fraction.cells
    label = [DONORS["label"][donor] for donor, own in NUCLEI.items() for _ in own]
    expected = roc_auc_score(label, [p for own in NUCLEI.values() for p in own])
    assert mean.cells["model"].mean_over_folds["auroc"] == pytest.approx(expected)
    assert len(mean.cell_table) == 12
    assert mean.cell_table["label"].tolist() == label


@pytest.mark.parametrize("how", ["mean", "fraction", "mean_logit"])
def test_a_model_that_predicts_donors_gives_their_scores_itself(how: str) -> None:
    probability = {"P1": 0.6, "P2": 0.45, "N1": 0.55, "N2": 0.3}
    training = of_donors({"P1": 0.9, "N1": 0.2}, "train")
    every = pd.concat([of_donors(probability), training], ignore_index=True)
    found = evaluate(every, folds(0.5), None, DONORS, replace(CONFIG, donor_score=how))
    assert scores_of(found) == pytest.approx(probability)
    assert found.headline == 0.75
    assert found.cells == found.training_cells == {}
    assert found.cell_table.empty
    assert found.training_donors["auroc"] == 1.0


def test_donors_come_with_their_label_and_all_of_their_nuclei() -> None:
    found = scored(predictions(NUCLEI)).donor_table.set_index("donor")
    assert found["label"].to_dict() == DONORS["label"].to_dict()
    assert found["nuclei"].to_dict() == DONORS["nuclei"].to_dict()


def test_training_donors_are_scored_apart_and_in_the_same_way() -> None:
    found = scored(predictions(NUCLEI), donor_score="fraction")
    assert found.training_donors["auroc"] == 0.5  # all nuclei of both are above one half
    assert found.headline == 0.625
    by_mean = scored(predictions(NUCLEI))
    assert by_mean.training_donors["auroc"] == 1.0
    assert by_mean.training_cells["auroc"] == 0.75  # of four pairs, (.8, .85) is wrong


# Folds and their thresholds

TWO_FOLDS = (
    predictions({"P1": [0.6, 0.6], "N1": [0.4, 0.4]}, fold=1),
    predictions({"P2": [0.6, 0.6], "N2": [0.4, 0.4]}, fold=2),
)


def test_each_fold_is_called_by_its_own_threshold() -> None:
    found = scored(*TWO_FOLDS, thresholds=(0.3, 0.7))
    assert found.donor_table.set_index("donor")["threshold"].to_dict() == {
        "P1": 0.3, "N1": 0.3, "P2": 0.7, "N2": 0.7,
    }  # fmt: skip
    for scores in (found.donors["model"].pooled, found.cells["model"].pooled):
        # In the first fold everything is called positive, in the second nothing.
        outcomes = ("true_positive", "false_positive", "true_negative", "false_negative")
        assert len({scores[outcome] for outcome in outcomes}) == 1
    assert found.headline == 1.0
    assert scored(*TWO_FOLDS, thresholds=(0.5, 0.5)).donors["model"].pooled["accuracy"] == 1.0


def test_only_the_models_threshold_is_tuned() -> None:
    simple = pd.concat(
        [
            baseline(1, simple={"P1": 0.6, "N1": 0.4}),
            baseline(2, simple={"P2": 0.6, "N2": 0.4}),
        ]
    )
    found = scored(*TWO_FOLDS, baselines=simple, thresholds=(0.3, 0.7))
    assert found.donors["model"].pooled["accuracy"] == 0.5
    assert found.donors["simple"].pooled["accuracy"] == 1.0
    assert found.cells["simple"].pooled["accuracy"] == 1.0


def test_repeats_of_the_same_donors_are_no_more_donors() -> None:
    donors, probability = cohort(8, 6)
    once = scored(predictions(probability), donors=donors)
    repeats = [predictions(probability, fold=fold) for fold in (1, 2, 3)]
    thrice = scored(*repeats, donors=donors, thresholds=(0.5, 0.5, 0.5))
    assert len(thrice.donor_table) == 3 * len(once.donor_table)
    assert thrice.headline == pytest.approx(once.headline)
    intervals = [vars(found.donors["model"].auroc) for found in (once, thrice)]
    assert intervals[1] == pytest.approx(intervals[0])
    assert thrice.smallest_class == once.smallest_class == 6


def test_the_fewer_donors_a_fold_was_trained_on_the_wider_the_intervals() -> None:
    donors, probability = cohort(12, 9)
    scores, few = predictions(probability), {"P1": 0.9, "N1": 0.2}
    validation = predictions({"P2": [0.8], "N2": [0.1]}, "validation")
    found = [
        evaluate(
            pd.concat([scores, predictions({d: [p] for d, p in few.items()}, "train"), *more]),
            folds(0.5),
            None,
            donors,
            CONFIG,
        )
        for more in ([], [validation])
    ]
    assert [one.trained for one in found] == [2, 4]
    narrow, wide = found[1].donors["model"].auroc, found[0].donors["model"].auroc
    assert wide.low < narrow.low < found[0].headline == found[1].headline < narrow.high < wide.high


def test_every_interval_is_of_its_own_predictor_and_threshold_on_the_rows_it_names() -> None:
    donors, probability = cohort(12, 9)
    parts = [{name: probability[name] * 2 for name in list(probability)[start::2]} for start in (0, 1)]
    rng = np.random.default_rng(1)
    rivals = pd.concat(
        baseline(fold, better={name: 0.2 * donors["label"][name] + 0.8 * rng.random() for name in own})
        for fold, own in enumerate(parts, 1)
    )
    tables = [predictions(own, fold=fold) for fold, own in enumerate(parts, 1)]
    found = scored(*tables, baselines=rivals, donors=donors, thresholds=(0.4, 0.55))
    for of, table in ((found.donors, found.donor_table), (found.cells, found.cell_table)):
        rows = HeldOut(*(table[name].to_numpy() for name in ("fold", "donor", "label")), found.trained)
        for name, threshold in (("model", table["threshold"].to_numpy()), ("better", 0.5)):
            given = table[name].to_numpy()
            assert of[name].auroc == intervals.auroc(rows, given)
            assert of[name].balanced_accuracy == intervals.balanced_accuracy(rows, given >= threshold)
            assert of[name].brier == intervals.brier(rows, given)
    table = found.donor_table
    rows = HeldOut(*(table[name].to_numpy() for name in ("fold", "donor", "label")), found.trained)
    both = (table[name].to_numpy() for name in ("model", "better"))
    assert found.differences["better"].interval == intervals.auroc_difference(rows, *both)


# Baselines and the truth


BETTER = {"P1": 0.9, "P2": 0.8, "N1": 0.7, "N2": 0.1}
USELESS = dict.fromkeys(NUCLEI, 1.0)


def test_baselines_are_scored_on_the_same_donors_and_the_gain_is_over_the_one_named_beforehand() -> None:
    shuffled = baseline(depth=USELESS, pseudobulk=BETTER).iloc[[2, 0, 3, 1]]
    found = scored(predictions(NUCLEI), baselines=shuffled)
    assert found.predictors == ["model", "depth", "pseudobulk"]
    assert scores_of(found, "pseudobulk") == BETTER
    assert found.donors["pseudobulk"].mean_over_folds["auroc"] == 1.0
    assert found.donors["depth"].mean_over_folds["auroc"] == 0.5
    other = scored(predictions(NUCLEI), baselines=shuffled, comparator="depth")
    assert (other.comparator, other.gain) == ("depth", pytest.approx(0.25))
    assert {name: of.value for name, of in found.differences.items()} == pytest.approx(
        {"depth": 0.25, "pseudobulk": -0.25}
    )
    assert found.comparator == "pseudobulk"
    assert found.gain == pytest.approx(0.75 - 1.0)
    assert found.gain_interval is not None
    assert found.gain_interval.low <= found.gain <= found.gain_interval.high


def test_nuclei_get_the_baseline_of_their_donor_in_their_fold() -> None:
    tables = [predictions(NUCLEI, fold=fold) for fold in (1, 2)]
    other = {donor: 1 - p for donor, p in BETTER.items()}
    both = pd.concat([baseline(1, simple=BETTER), baseline(2, simple=other)])
    found = scored(*tables, baselines=both, thresholds=(0.5, 0.5))
    for fold, wanted in ((1, BETTER), (2, other)):
        own = found.cell_table[found.cell_table["fold"] == fold]
        assert own.groupby("donor")["simple"].agg(["min", "max"]).stack().tolist() == [
            wanted[donor] for donor in sorted(wanted) for _ in range(2)
        ]
    assert len(found.cell_table) == 2 * 12


def test_the_model_is_never_its_own_baseline_and_without_any_the_gain_is_over_chance() -> None:
    found = scored(predictions(NUCLEI))
    assert found.predictors == ["model"]
    assert found.comparator is None
    assert found.gain_interval is None
    assert found.gain == pytest.approx(0.75 - 0.5)


def test_the_planted_truth_is_scored_and_is_no_baseline() -> None:
    nuclei = predictions(NUCLEI)
    truth = (nuclei["donor"].isin(["P1", "P2"]) & (nuclei["barcode"].str[-1] != "0")).astype(float)
    every = pd.concat([nuclei.assign(truth=truth), TRAINING.assign(truth=0.0)], ignore_index=True)
    simple = baseline(pseudobulk=USELESS)
    found = evaluate(every, folds(0.5), simple, DONORS, CONFIG)
    assert found.predictors == ["model", "pseudobulk", "oracle"]
    assert scores_of(found, "oracle") == pytest.approx({"P1": 2 / 3, "P2": 2 / 3, "N1": 0, "N2": 0})
    assert found.donors["oracle"].mean_over_folds["auroc"] == 1.0
    assert list(found.differences) == ["pseudobulk"]
    assert found.gain == pytest.approx(0.25)
    alone = evaluate(every, folds(0.5), None, DONORS, CONFIG)
    assert alone.comparator is None


# What is scored


def test_test_donors_are_scored_where_there_are_any_and_no_others() -> None:
    validation = predictions({"P2": [0.1], "N2": [0.9]}, "validation")
    found = scored(predictions({"P1": [0.9, 0.8], "N1": [0.2]}), validation)
    assert found.part == "test"
    assert set(found.donor_table["donor"]) == {"P1", "N1"}
    assert set(found.cell_table["donor"]) == {"P1", "N1"}
    assert found.headline == 1.0
    assert found.smallest_class == 1


def test_validation_donors_are_scored_where_no_donor_was_tested() -> None:
    found = scored(predictions({"P1": [0.4, 0.8], "N1": [0.7, 0.1]}, "validation"))
    assert found.part == "validation"
    assert scores_of(found) == pytest.approx({"P1": 0.6, "N1": 0.4})
    assert found.headline == 1.0


def test_a_calibrated_model_is_told_from_one_that_is_too_sure() -> None:
    probability = {"P1": [0.8] * 4 + [0.3], "N1": [0.8] + [0.3] * 4}
    wide = {donor: [1 / (1 + np.exp(-3 * logit(p))) for p in own] for donor, own in probability.items()}
    measured, too_sure = (scored(predictions(nuclei)).calibration for nuclei in (probability, wide))
    assert too_sure["slope"] == pytest.approx(measured["slope"] / 3, rel=1e-3)
    assert too_sure["intercept"] == pytest.approx(measured["intercept"], abs=1e-3)
