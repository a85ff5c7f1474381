"""Leaks pass unit tests: here whole runs are watched, and each watch is shown to catch its bug.

Every check is a function that raises AssertionError; it is called on the program as it is, and again
with the bug seeded that it is there for.
"""

from collections.abc import Callable
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest

from oligo_ad import tasks
from oligo_ad.config import Config
from oligo_ad.data import covariates
from oligo_ad.data.split import make_folds
from oligo_ad.inputs.featurizers import StandardisedPanel
from oligo_ad.inputs.loader import NucleusLoader
from oligo_ad.models.classifier import Classifier
from oligo_ad.results import report
from oligo_ad.training import fit as fitting
from oligo_ad.training import fold_model, members
from tests.builders import atlas, configuration, write

Run = Callable[[ad.AnnData, str], Path]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run on an atlas, without pictures; returns the run directory."""
    monkeypatch.setattr(report, "draw", lambda run: {})

    def start(adata: ad.AnnData, name: str) -> Path:
        folder = tmp_path / name
        tasks.run(settings(write(adata, tmp_path, f"{name}.h5ad"), tmp_path), folder)
        return folder

    return start


def settings(path: Path, cache: Path) -> Config:
    return configuration(
        f"data.path={path}",
        f"cache.dir={cache / 'cache'}",
        "metadata=on",
        "model.network.hidden=[32,16]",
        "metadata.columns=[age,sex]",
        "evaluation.baselines=false",
    )


def cells(folder: Path) -> pd.DataFrame:
    return pd.read_parquet(folder / "cells.parquet")


def test_donors(adata: ad.AnnData) -> set[str]:
    label = adata.obs.groupby("Donor ID", observed=True)["ADNC"].first().eq("High").astype(int)
    label.index = label.index.astype(str)
    return set(make_folds(label, configuration().split)[0].test)


test_donors.__test__ = False  # type: ignore[attr-defined]  # a helper, in spite of its name


def check_that_a_ruined_test_donor_changes_nothing_else(run: Run) -> None:
    healthy = atlas(seed=1)
    victim = sorted(test_donors(healthy))[0]
    ruined = healthy.copy()
    own = (ruined.obs["Donor ID"] == victim).to_numpy()
    dense = ruined.X.toarray()
    dense[own] = np.random.default_rng(0).poisson(300, dense[own].shape)
    ruined.X = type(healthy.X)(dense)
    ruined.obs.loc[own, "Age at Death"] = 5.0
    before, after = run(healthy, "healthy"), run(ruined, "ruined")
    columns = ["barcode", "model"]
    others = [table[table["donor"] != victim][columns] for table in (cells(before), cells(after))]
    assert len(others[0]) > 0
    pd.testing.assert_frame_equal(*others, check_exact=True)
    models = [(folder / "folds/1/model.safetensors").read_bytes() for folder in (before, after)]
    assert models[0] == models[1]


def check_that_predictions_cover_exactly_the_test_donors(run: Run) -> None:
    adata = atlas(seed=2)
    table = cells(run(adata, "covered"))
    assert set(table["donor"]) == test_donors(adata)
    oligo = adata.obs[adata.obs["Subclass"] == "Oligodendrocyte"]
    expected = oligo.index[oligo["Donor ID"].isin(test_donors(adata))]
    assert sorted(table["barcode"]) == sorted(expected)


def check_that_fitting_never_sees_a_test_donor(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    adata, seen = atlas(seed=3), set()
    ids = np.unique(adata.obs["Donor ID"].astype(str))
    panel_fit, standardise, shuffled = (
        StandardisedPanel.fit,
        fold_model.fit_coding,
        NucleusLoader.shuffled,
    )

    def spy_on_panel(self, cohort, train):  # type: ignore[no-untyped-def]
        seen.update(train)
        return panel_fit(self, cohort, train)

    def spy_on_metadata(values, train):  # type: ignore[no-untyped-def]
        seen.update(train)
        return standardise(values, train)

    def spy_on_batches(self, rows, *order, **named):  # type: ignore[no-untyped-def]
        for batch in shuffled(self, rows, *order, **named):
            seen.update(ids[self.donor[batch.index.numpy()]])
            yield batch

    monkeypatch.setattr(StandardisedPanel, "fit", spy_on_panel)
    monkeypatch.setattr(fold_model, "fit_coding", spy_on_metadata)
    monkeypatch.setattr(NucleusLoader, "shuffled", spy_on_batches)
    run(adata, "watched")
    assert seen
    assert not seen & test_donors(adata)


def check_that_the_best_epoch_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept: list[tuple[fitting.Fitted, dict[str, float]]] = []
    original = members.fit

    def spy(classifier, loader, samples, config, seed, accelerator, *how):  # type: ignore[no-untyped-def]
        fitted = original(classifier, loader, samples, config, seed, accelerator, *how)
        again = fitting._validate(fitted.model, loader, samples, 16, fitted.pos_weight, accelerator)
        kept.append((fitted, again))
        return fitted

    monkeypatch.setattr(members, "fit", spy)
    path = write(atlas(seed=4), tmp_path)
    overrides = ("fit.epochs=6", "fit.patience=6", "fit.optimizer.lr=0.01", f"cache.dir={tmp_path / 'c'}")
    tasks.run(configuration(f"data.path={path}", "evaluation.baselines=false", *overrides), tmp_path / "best")
    fitted, again = kept[0]
    losses = [epoch.loss for epoch in fitted.history]
    assert fitted.best_epoch == int(np.argmin(losses)) + 1 < len(losses)
    assert again["loss"] == pytest.approx(min(losses), rel=1e-6)


def test_a_ruined_test_donor_changes_no_weight_and_no_other_prediction(run: Run) -> None:
    check_that_a_ruined_test_donor_changes_nothing_else(run)


def test_predictions_cover_exactly_the_test_donors(run: Run) -> None:
    check_that_predictions_cover_exactly_the_test_donors(run)


def test_fitting_never_sees_a_test_donor(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    check_that_fitting_never_sees_a_test_donor(run, monkeypatch)


def test_the_best_epoch_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check_that_the_best_epoch_is_kept(tmp_path, monkeypatch)


def test_a_featurizer_fitted_on_all_nuclei_is_caught(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    honest = StandardisedPanel.fit
    monkeypatch.setattr(
        StandardisedPanel,
        "fit",
        lambda self, cohort, train: honest(self, cohort, tuple(cohort.donors.index)),
    )
    with pytest.raises(AssertionError):
        check_that_a_ruined_test_donor_changes_nothing_else(run)


def test_training_on_test_donors_is_caught(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    honest = NucleusLoader.samples_of
    monkeypatch.setattr(
        NucleusLoader,
        "samples_of",
        lambda self, donors: (
            np.arange(len(self.donor)) if 2 * len(donors) > self.donor.max() + 1 else honest(self, donors)
        ),
    )
    with pytest.raises(AssertionError):
        check_that_fitting_never_sees_a_test_donor(run, monkeypatch)


def test_metadata_fitted_on_all_donors_are_caught(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        fold_model,
        "fit_coding",
        lambda values, train: covariates.fit_coding(values, tuple(values.index)),
    )
    with pytest.raises(AssertionError):
        check_that_a_ruined_test_donor_changes_nothing_else(run)


def test_scoring_training_nuclei_is_caught(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    honest = fold_model.prediction_table

    def confused(cohort, loader, samples, logit):  # type: ignore[no-untyped-def]
        return honest(cohort, loader, (7 * samples) % len(cohort.cells), logit)

    monkeypatch.setattr(fold_model, "prediction_table", confused)
    with pytest.raises(AssertionError):
        check_that_predictions_cover_exactly_the_test_donors(run)


def test_keeping_the_last_epoch_is_caught(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Classifier, "load_state_dict", lambda self, state: None)
    with pytest.raises(AssertionError):
        check_that_the_best_epoch_is_kept(tmp_path, monkeypatch)
