"""A confounder is compared with the label, and within a class with the score, where the class fools none."""

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import mannwhitneyu, permutation_test, spearmanr
from sklearn.metrics import roc_auc_score

from oligo_ad.results.confounders import confounders_of, holm, sentence, separating, table
from oligo_ad.results.evaluation import Evaluation
from oligo_ad.results.subgroups import subgroups_of
from oligo_ad.results.subgroups import table as subgroup_table
from tests.results.test_plots import NAMES, result

EVALUATION = result(24, 16)
OWN = EVALUATION.donor_table.set_index("donor")
LABEL, SCORE = OWN["label"], OWN["model"]
RNG = np.random.default_rng(0)
COLUMNS = pd.DataFrame(
    {
        "label itself": LABEL.astype(float),
        "nothing": RNG.normal(size=len(LABEL)),
        "score": SCORE,
        "class and nothing else": LABEL + 0.3 * RNG.normal(size=len(LABEL)),
        "all unknown": np.nan,
        "known of some": np.where(np.arange(len(LABEL)) % 3, RNG.normal(size=len(LABEL)), np.nan),
    }
)


def found(columns: pd.DataFrame = COLUMNS, evaluation: Evaluation = EVALUATION) -> dict[str, Any]:
    return {one.name: one for one in confounders_of(evaluation, columns)}


def test_each_column_is_scored_against_the_label_and_within_each_class() -> None:
    for name, one in found().items():
        known = COLUMNS[name].notna()
        assert one.known == known.sum()
        if not one.known:
            continue
        assert one.auroc == pytest.approx(roc_auc_score(LABEL[known], COLUMNS.loc[known, name]))
        assert one.interval.low <= one.auroc <= one.interval.high
        for value, own in enumerate(one.within):
            of = known & (value == LABEL)
            assert own.n == of.sum()
            if name != "label itself":
                assert own.rho == pytest.approx(spearmanr(SCORE[of], COLUMNS.loc[of, name]).statistic)


def test_a_column_that_only_differs_between_classes_is_not_followed_by_the_score() -> None:
    one = found()["class and nothing else"]
    assert one.differs
    assert not one.is_followed
    assert abs(spearmanr(SCORE, COLUMNS["class and nothing else"]).statistic) > 0.3  # over both classes
    assert found()["score"].is_followed
    assert np.isnan(found()["label itself"].within[0].rho)


def test_the_most_different_come_first_and_the_sentence_names_what_does_both() -> None:
    ordered = confounders_of(EVALUATION, COLUMNS)
    assert ordered[0].name == "label itself"
    assert ordered[-1].name == "all unknown"
    both = COLUMNS[["nothing"]].assign(both=SCORE + 2 * LABEL)
    assert "Both holds of both: it may carry part" in sentence(confounders_of(EVALUATION, both))
    assert "Both holds of none" in sentence(confounders_of(EVALUATION, COLUMNS[["nothing"]]))
    assert "Of 0 columns" in sentence([])


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_corrects_as_it_should(p: list[float]) -> None:
    names = [str(n) for n in range(len(p))]
    adjusted = holm(dict(zip(names, p, strict=True)) | {"unknown": float("nan")})
    assert np.isnan(adjusted["unknown"])
    order = np.argsort(p, kind="stable")
    expected, largest = {}, 0.0
    for place, n in enumerate(order):
        largest = max(largest, min(1.0, p[n] * (len(p) - place)))
        expected[str(n)] = largest
    assert {n: adjusted[n] for n in names} == pytest.approx(expected)


def test_one_column_alone_has_the_p_of_mann_and_whitney() -> None:
    one = found(COLUMNS[["nothing"]])["nothing"]
    values = [COLUMNS["nothing"][value == LABEL] for value in (1, 0)]
    assert one.p == pytest.approx(mannwhitneyu(*values).pvalue)


def test_neither_the_order_of_donors_nor_a_rising_transform_changes_anything() -> None:
    plain = found()["nothing"]
    other = found(np.exp(COLUMNS[["nothing"]]).sample(frac=1, random_state=1))["nothing"]
    assert (other.auroc, other.interval) == (plain.auroc, plain.interval)
    for own, before in zip(other.within, plain.within, strict=True):
        assert own == pytest.approx(before)


def test_the_table_says_what_is_not_known() -> None:
    text = table(confounders_of(EVALUATION, COLUMNS), NAMES)
    assert "one level per donor" in text.loc["all unknown", "AUROC against the label"]
    assert text.loc["score", "in words"] == ("differs, and is followed" if found()["score"].differs else "")
    assert text.loc["label itself", "larger in"] == "High"
    assert text.notna().all(axis=None)
    assert table([], NAMES).empty


def test_what_is_known_in_one_class_only_is_said_and_leaves_the_others_in_order() -> None:
    one_class = pd.Series(RNG.normal(size=len(LABEL)), LABEL.index).where(LABEL == 1)
    columns = pd.DataFrame({"nothing": COLUMNS["nothing"], "PMI": one_class, "label": LABEL})
    ordered = confounders_of(EVALUATION, columns)
    assert [one.name for one in ordered] == ["PMI", "label", "nothing"]
    text = table(ordered, NAMES)
    assert text.loc["PMI", "AUROC against the label"] == "known in one class only"
    assert "nan" not in text.to_string()
    assert text["in words"].tolist() == ["cannot be told from the label"] * 2 + [""]
    assert "No result can be told from PMI, label" in sentence(ordered)


def test_levels_that_each_belong_to_one_class_separate_the_classes_together() -> None:
    batch = pd.Series([f"{label}{n % 3}" for n, label in enumerate(LABEL)], LABEL.index)
    pure = pd.get_dummies(batch, prefix="batch", prefix_sep="=", dtype=float)
    assert separating(LABEL, pure) == set(pure)
    assert all(0 < roc_auc_score(LABEL, pure[name]) < 1 for name in pure)
    mixed = pd.get_dummies(batch.mask(batch == "00", "11"), prefix="batch", prefix_sep="=", dtype=float)
    assert separating(LABEL, mixed) == set()
    assert separating(LABEL, pure.drop(columns="batch=00")) == set()  # some donors are in no level
    assert separating(LABEL, COLUMNS) == {"label itself", "class and nothing else"}


def test_among_few_donors_p_is_that_of_all_their_orders() -> None:
    few = result(7, 5)
    own = few.donor_table.set_index("donor")
    column = pd.Series(RNG.integers(0, 4, len(own)), own.index, dtype=float)
    (one,) = confounders_of(few, column.to_frame("column"))
    for value, correlation in enumerate(one.within):
        of = own["label"] == value
        exact = permutation_test(
            (own["model"][of],),
            lambda score, of=of: abs(spearmanr(score, column[of]).statistic),
            permutation_type="pairings",
            alternative="greater",
            n_resamples=np.inf,
        )
        assert correlation.p == pytest.approx(exact.pvalue)
    assert min(own.p for own in one.within) >= 2 / 5040


def test_donors_that_no_fold_tested_count_against_the_label_and_not_for_the_score() -> None:
    everyone = pd.concat([LABEL, pd.Series([0, 1, 0], ["E1", "E2", "E3"])])
    column = pd.Series(np.random.default_rng(1).normal(size=len(everyone)), everyone.index)
    (one,) = confounders_of(EVALUATION, column.to_frame("column"), everyone)
    (plain,) = confounders_of(EVALUATION, column.to_frame("column"))
    assert one.known == len(everyone)
    assert one.auroc == pytest.approx(roc_auc_score(everyone, column))
    assert one.within == plain.within


def test_repeats_of_a_donor_are_one_donor() -> None:
    again = EVALUATION.donor_table.assign(fold=2)
    twice = replace(EVALUATION, donor_table=pd.concat([EVALUATION.donor_table, again]))
    for name, one in found(evaluation=twice).items():
        assert repr(one) == repr(found()[name])


def test_a_column_that_the_model_is_given_is_named() -> None:
    given = confounders_of(EVALUATION, COLUMNS[["nothing", "score"]], inputs=["nothing"])
    words = table(given, NAMES)["in words"]
    assert "the model is given it" in words["nothing"]
    assert "given" not in words["score"]


# Subgroups


def test_the_headline_of_a_subgroup_is_that_of_its_donors() -> None:
    levels: dict[str, str | None] = {
        donor: ("a" if n % 2 else "b") if n % 5 else None for n, donor in enumerate(OWN.index)
    }
    groups = {one.level: one for one in subgroups_of(EVALUATION, {"sex": levels})}
    assert set(groups) == {"a", "b", "unknown"}
    for level, one in groups.items():
        of = pd.Series(levels).fillna("unknown").to_numpy() == level
        assert one.n == (int((LABEL[of] == 0).sum()), int((LABEL[of] == 1).sum()))
        if one.auroc is not None:
            assert one.auroc == pytest.approx(roc_auc_score(LABEL[of], SCORE[of]))
            assert one.interval is not None
            assert one.interval.low <= one.auroc <= one.interval.high


def test_a_subgroup_without_enough_donors_of_a_class_has_no_score() -> None:
    levels: dict[str, str | None] = {donor: str(LABEL[donor]) for donor in OWN.index}
    for one in subgroups_of(EVALUATION, {"apoe4": levels}):
        assert one.auroc is None
        assert 0 in one.n
    text = subgroup_table(subgroups_of(EVALUATION, {"apoe4": levels}), NAMES)
    assert text["AUROC"].tolist() == ["no High donor", "no Not AD donor"]
    assert text[f"{NAMES[0]} donors"].tolist() == ["16 (0 compared)", "0"]


def test_folds_that_lost_a_class_count_for_nothing() -> None:
    twice = pd.concat([EVALUATION.donor_table, EVALUATION.donor_table.assign(fold=2)])
    twice = twice[(twice["fold"] == 1) | (twice["label"] == 1)]
    evaluation = replace(EVALUATION, donor_table=twice)
    levels: dict[str, str | None] = dict.fromkeys(OWN.index, "all")
    (one,) = subgroups_of(evaluation, {"any": levels})
    assert one.auroc == pytest.approx(roc_auc_score(LABEL, SCORE))


def test_donors_that_met_none_of_the_other_class_do_not_make_a_subgroup() -> None:
    negative = LABEL.index[LABEL == 0]
    table = EVALUATION.donor_table
    alone = table["donor"].isin(negative[1:])
    evaluation = replace(EVALUATION, donor_table=table.assign(fold=np.where(alone, 2, 1)))
    (one,) = subgroups_of(evaluation, {"any": dict.fromkeys(OWN.index, "all")})
    assert (one.n, one.compared) == ((16, 24), (1, 24))
    assert one.auroc is None
    row = subgroup_table([one], NAMES).iloc[0]
    assert row[f"{NAMES[0]} donors"] == "16 (1 compared)"
    assert row["AUROC"] == "too few donors"
