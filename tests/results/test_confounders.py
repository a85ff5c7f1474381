"""A confounder is compared with the label, and within a class with the score, where the class fools none."""

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import mannwhitneyu, spearmanr
from sklearn.metrics import roc_auc_score

from oligo_ad.results.confounders import confounders_of, holm, sentence, table
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
    assert "unknown, or another value" in text.loc["all unknown", "AUROC against the label"]
    assert text.loc["score", ""] == ("differs, and is followed" if found()["score"].differs else "")
    assert table([], NAMES).empty


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
    assert set(text["AUROC"]) == {"too few donors"}
    assert text[f"{NAMES[0]} donors"].tolist() == [16, 0]


def test_folds_that_lost_a_class_count_for_nothing() -> None:
    twice = pd.concat([EVALUATION.donor_table, EVALUATION.donor_table.assign(fold=2)])
    twice = twice[(twice["fold"] == 1) | (twice["label"] == 1)]
    evaluation = replace(EVALUATION, donor_table=twice)
    levels: dict[str, str | None] = dict.fromkeys(OWN.index, "all")
    (one,) = subgroups_of(evaluation, {"any": levels})
    assert one.auroc == pytest.approx(roc_auc_score(LABEL, SCORE))
