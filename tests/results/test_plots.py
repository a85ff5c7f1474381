"""Pictures show the numbers that they are drawn from: each is read back from its figure."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex
from sklearn import metrics as sk

from oligo_ad.config import EvaluationConfig
from oligo_ad.data.split import Fold
from oligo_ad.facts import Epoch
from oligo_ad.results import plots
from oligo_ad.results.calibration import Line, calibrate, reliability
from oligo_ad.results.evaluation import Evaluation, evaluate
from oligo_ad.results.influence import influence_table
from oligo_ad.results.permutation import PermutationTest
from tests.builders import configuration, history

NAMES = ("Not AD", "High")
CONFIG: EvaluationConfig = configuration().evaluation


def result(n_positive: int = 9, n_negative: int = 6) -> Evaluation:
    """Three nuclei of each donor, whose scores lean a little to the label; a threshold that errs."""
    rng = np.random.default_rng(0)
    donors = [f"D{n:02d}" for n in range(n_positive + n_negative)]
    label = pd.Series([1] * n_positive + [0] * n_negative, donors)
    table = pd.DataFrame({"fold": 1, "donor": np.repeat(donors, 3)})
    table["barcode"] = [f"nucleus-{n}" for n in range(len(table))]
    table["logit"] = rng.normal(label[table["donor"]] - 0.5, 0.8)
    rival = pd.DataFrame({"fold": 1, "donor": donors, "rival": rng.random(len(donors))})
    both = pd.concat([table.assign(part=part) for part in ("test", "train")])
    facts = pd.DataFrame({"label": label, "nuclei": np.arange(1, len(donors) + 1) * 100})
    return evaluate(both, [history(Fold(1, (), (), ()), 0.6)], rival, facts, CONFIG)


def test_each_donor_is_a_dot_at_its_score_in_the_row_and_colour_of_its_class() -> None:
    evaluation = result()
    (axes,) = plots.donor_scores(evaluation, NAMES).axes
    table = evaluation.donor_table
    for value, colour, dots in zip((0, 1), (plots.NEGATIVE, plots.POSITIVE), axes.collections, strict=True):
        scores, heights = np.asarray(dots.get_offsets()).T
        assert scores.tolist() == table["model"][table["label"] == value].tolist()
        assert (np.abs(heights - value) < 0.5).all()
        assert to_hex(dots.get_facecolor()[0]).upper() == colour
        assert (np.diff(dots.get_sizes()) > 0).all()  # these donors have more and more nuclei
    assert [label.get_text() for label in axes.get_yticklabels()] == ["Not AD\n6 donors", "High\n9 donors"]
    assert axes.lines[-1].get_xdata()[0] == pytest.approx(0.6)


@pytest.mark.parametrize("sizes", [(9, 6), (6, 9)])
def test_the_area_under_each_curve_is_the_score_beside_it(sizes: tuple[int, int]) -> None:
    evaluation = result(*sizes)
    roc, pr = plots.curves(evaluation, NAMES).axes
    for name, of_roc, of_pr in zip(evaluation.predictors, roc.lines, pr.lines, strict=False):
        pooled = evaluation.donors[name].pooled
        assert sk.auc(of_roc.get_xdata(), of_roc.get_ydata()) == pytest.approx(pooled["auroc"])
        recall, precision = np.asarray(of_pr.get_data())
        assert -np.sum(np.diff(recall) * precision[:-1]) == pytest.approx(pooled["auprc_minority"])
        assert of_roc.get_label() == f"{name} {pooled['auroc']:.2f}"
    rarer = int(sizes[0] < sizes[1])
    assert pr.get_title().endswith(NAMES[rarer])
    assert pr.lines[-1].get_ydata()[0] == pytest.approx(min(sizes) / sum(sizes))


def test_learning_curves_are_those_of_the_history_with_a_dot_at_the_epoch_kept() -> None:
    epochs = [Epoch(n, 1 / n, 2 + n, 0.5 + n / 10, 0.6 + n / 10, 1.0, 1e-3, 9.0) for n in (1, 2, 3)]
    loss, auroc = plots.learning_curves([epochs], [2]).axes
    training, validation, kept = (np.asarray(line.get_ydata()).tolist() for line in loss.lines[:3])
    assert training == [epoch.train_loss for epoch in epochs]
    assert validation == [epoch.loss for epoch in epochs]
    assert (loss.lines[2].get_xdata()[0], kept) == (2, [4])
    assert np.asarray(auroc.lines[0].get_ydata()).tolist() == [epoch.cell_auroc for epoch in epochs]
    assert np.asarray(auroc.lines[1].get_ydata()).tolist() == [epoch.donor_auroc for epoch in epochs]
    colours = {
        text.get_text(): handle.get_color()
        for axes in (loss, auroc)
        for text, handle in zip(axes.get_legend().get_texts(), axes.get_legend().get_lines(), strict=True)
    }
    assert colours == {
        "training": loss.lines[0].get_color(), "validation": loss.lines[1].get_color(),
        "validation nuclei": auroc.lines[0].get_color(), "validation donors": auroc.lines[1].get_color(),
    }  # fmt: skip


def test_reliability_is_the_share_of_positives_among_samples_of_like_probability() -> None:
    evaluation = result()
    calibrated = calibrate(evaluation.donor_table, {1: Line(1.0, 0.7, 0.6)}, None)
    of_donors, of_nuclei = plots.reliability(evaluation, calibrated).axes
    found = np.asarray(of_nuclei.lines[0].get_data()).T
    table = evaluation.cell_table
    of_tenth = table.groupby(pd.qcut(table["model"], 10), observed=True)
    assert found == pytest.approx(of_tenth[["model", "label"]].mean().to_numpy())
    bins = reliability(calibrated.donors, "probability")
    dots = np.asarray(of_donors.lines[0].get_data()).T
    assert dots == pytest.approx(bins[["predicted", "observed"]].to_numpy())
    assert [text.get_text() for text in of_donors.texts] == [f" {n}" for n in bins["donors"]]


def test_a_dot_without_each_donor_lies_at_the_headline_without_it() -> None:
    evaluation = result()
    found = influence_table(evaluation.donor_table, "model", evaluation.headline)
    (axes,) = plots.influence(found, evaluation.headline, NAMES).axes
    for value, dots in enumerate(axes.collections):
        without, heights = np.asarray(dots.get_offsets()).T
        assert without.tolist() == found["without"][found["label"] == value].tolist()
        assert (np.abs(heights - value) < 0.5).all()
    assert axes.lines[0].get_xdata()[0] == evaluation.headline


def test_permuted_aurocs_are_counted_beside_the_true_one() -> None:
    evaluation = result()
    null = pd.DataFrame({"model": np.linspace(0.2, 0.8, 50), "rival": np.nan})
    tested = replace(evaluation, tests={"model": PermutationTest(50, 0.3, 0.5, 0.1)})
    (axes,) = plots.permuted(null, tested).axes
    assert sum(bar.get_height() for bar in axes.patches) == 50
    assert axes.lines[0].get_xdata()[0] == evaluation.headline


def test_the_confusion_picture_counts_by_true_and_called_class() -> None:
    evaluation = result()
    donors, nuclei = plots.confusion(evaluation, NAMES).axes
    for axes, table in ((donors, evaluation.donor_table), (nuclei, evaluation.cell_table)):
        expected = sk.confusion_matrix(table["label"], table["model"] >= 0.6)
        shown = {tuple(map(int, text.get_position()))[::-1]: text.get_text() for text in axes.texts}
        assert {place: int(text.split("\n")[0]) for place, text in shown.items()} == dict(
            np.ndenumerate(expected)
        )
        shares = np.asarray(axes.images[0].get_array())
        assert shares == pytest.approx(expected / expected.sum(axis=1, keepdims=True))
        assert (axes.get_xlabel(), axes.get_ylabel()) == ("called", "truth")
        assert expected[0, 1] != expected[1, 0]
