"""The numbers of a whole run follow from its predictions: computed again from what it has left on disk."""

import json

import numpy as np
import pandas as pd
import pytest
from safetensors.numpy import load_file
from sklearn import metrics as sk

from oligo_ad import tasks
from oligo_ad.baselines.predictors import MEANING
from oligo_ad.record import Record
from oligo_ad.results import report
from tests.builders import atlas, configuration, write

N_FOLDS = 3
# The others need an obs column of kinds of nuclei, a file of gene sets, and a model that combines views.
SCORED = [name for name in MEANING if name not in ("composition", "gene_sets", "network")]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Record:
    """Three folds whose thresholds are tuned; learning is so slow that weights stay as they were drawn."""
    folder = tmp_path_factory.mktemp("numbers")
    words = ("split=cv", f"split.folds={N_FOLDS}", "evaluation.threshold=validation", "seed=7")
    slow = ("fit.optimizer.lr=1e-30", "fit.optimizer.weight_decay=0", "fit.epochs=2", "fit.patience=2")
    path = write(atlas(12, 9, nuclei=16, effect=0.3), folder)
    config = configuration(f"data.path={path}", f"cache.dir={folder / 'cache'}", *words, *slow)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(report, "draw", lambda run: {})
        tasks.run(config, folder / "run")
    return Record(folder / "run")


def labels(run: Record) -> pd.Series:
    return run.facts.donor_table["label"]


def predicted(run: Record, part: str) -> pd.DataFrame:
    """Nuclei of a part, with their probability and the label of their donor."""
    table = run.predictions
    own = table[table["part"] == part]
    return own.assign(p=1 / (1 + np.exp(-own["logit"])), label=labels(run)[own["donor"]].to_numpy())


def test_labels_are_those_of_the_file(run: Record) -> None:
    assert labels(run).to_dict() == {f"D{n:02d}": int(n < 12) for n in range(21)}


def test_each_fold_is_tested_on_its_own_donors_and_together_they_are_all(run: Record) -> None:
    table = predicted(run, "test")
    assert sorted(table.groupby("fold")["donor"].unique().explode()) == labels(run).index.to_list()
    for fold, split in zip(
        run.folds, json.loads((run.folder / "split.json").read_text())["folds"], strict=True
    ):
        own = table[table["fold"] == split["number"]]
        assert sorted(own["donor"].unique()) == sorted(split["test"])
        assert fold.history.donors == {part: len(split[part]) for part in ("train", "validation", "test")}


def test_the_threshold_of_a_fold_is_the_best_for_its_validation_nuclei(run: Record) -> None:
    for history in run.histories:
        own = predicted(run, "validation").query(f"fold == {history.fold}")
        reached = sk.balanced_accuracy_score(own["label"], own["p"] >= history.threshold)
        cuts = [sk.balanced_accuracy_score(own["label"], own["p"] >= cut) for cut in own["p"]]
        assert reached == pytest.approx(max(cuts))
    assert len({history.threshold for history in run.histories}) == N_FOLDS


def test_classes_are_balanced_by_the_training_nuclei_of_each_fold(run: Record) -> None:
    for history in run.histories:
        label = predicted(run, "train").query(f"fold == {history.fold}")["label"]
        assert history.pos_weight == pytest.approx((label == 0).sum() / (label == 1).sum())
        losses = [epoch.loss for epoch in history.epochs]
        assert history.best_epoch == losses.index(min(losses)) + 1


def test_every_fold_begins_with_weights_of_its_own(run: Record) -> None:
    first = [load_file(fold.folder / "model.safetensors") for fold in run.folds]
    name = "classifier.network.layers.0.weight"
    drawn = {tuple(weights[name].ravel()[:20].tolist()) for weights in first}
    assert len(drawn) == N_FOLDS


def test_scores_and_gain_are_those_of_scikit_learn_on_the_predictions(run: Record) -> None:
    cells = predicted(run, "test")
    donors = cells.groupby(["fold", "donor"], as_index=False).agg(p=("p", "mean"), label=("label", "first"))
    threshold = {history.fold: history.threshold for history in run.histories}
    for level, table in (("donors", donors), ("cells", cells)):
        found = run.metrics[level]["model"]["mean_over_folds"]
        folds = [own for _, own in table.groupby("fold")]
        called = [own["p"] >= threshold[own["fold"].iloc[0]] for own in folds]
        expected = {
            "auroc": [sk.roc_auc_score(own["label"], own["p"]) for own in folds],
            "brier": [sk.brier_score_loss(own["label"], own["p"]) for own in folds],
            "balanced_accuracy": [
                sk.balanced_accuracy_score(own["label"], c) for own, c in zip(folds, called, strict=True)
            ],
        }
        for name, values in expected.items():
            assert found[name] == pytest.approx(np.mean(values))
    headline = run.metrics["headline"]
    assert headline["value"] == run.metrics["donors"]["model"]["mean_over_folds"]["auroc"]
    rivals = {name: run.metrics["donors"][name]["mean_over_folds"]["auroc"] for name in SCORED}
    assert headline["comparator"] == "pseudobulk"
    assert headline["gain"] == pytest.approx(headline["value"] - rivals["pseudobulk"])
    assert headline["gain_interval"]["low"] <= headline["gain"] <= headline["gain_interval"]["high"]


def test_every_baseline_scores_every_test_donor_in_every_fold(run: Record) -> None:
    for fold in run.folds:
        table = fold.baselines
        assert table is not None
        assert set(table) == {"fold", "donor", *SCORED}
        assert set(table["donor"]) == set(fold.predictions.query("part == 'test'")["donor"])
    assert set(run.metrics["donors"]) == {"model", *SCORED}
