"""Nothing of a test donor gets into axes, views, weights or networks; each watch catches its bug."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import pytest

from oligo_ad import tasks
from oligo_ad.data.contrast import Contrast
from oligo_ad.data.split import Fold
from oligo_ad.inputs.axes import Axes
from oligo_ad.models import combination
from oligo_ad.models.views import PLS, AxisMoments, Known
from oligo_ad.record import Record
from oligo_ad.results import report
from oligo_ad.training import fold_model
from oligo_ad.training.fold_model import FoldModel, prepare_model
from oligo_ad.training.machine import make_accelerator, seed_everything
from tests.builders import atlas, compared, configuration, write

WORDS = (
    "model=donor",
    "model.featurizer.nuclei=6",
    "fit.members=3",
    "fit.epochs=1",
    "fit.bags=2",
    "fit.batch_size=8",
)
Fitted = dict[str, Any]
Fit = Callable[..., Fitted]


@pytest.fixture
def fit(tmp_path: Path) -> Fit:
    """Fit the model of the first fold; returns all that was learned, and the logits of test donors."""

    def fitted(
        adata: ad.AnnData, name: str, change: Callable[[Contrast], Contrast] = lambda one: one
    ) -> Fitted:
        path = write(adata, tmp_path, f"{name}.h5ad")
        contrast = change(compared(path, *WORDS))
        config = configuration(f"data.path={path}", f"cache.dir={tmp_path / 'cache'}", *WORDS)
        seed_everything(0, 1)
        fold = contrast.folds[0]
        model = prepare_model(config, contrast, fold, None, make_accelerator(config, tmp_path)[0])
        return learned(model, fold)

    return fitted


def learned(model: FoldModel, fold: Fold) -> Fitted:
    trained = model.fit("", lambda epoch: None)
    readers = trained.readers
    assert readers
    tensors = dict(trained.model.state_dict()) | model.featurizer.state() | readers.combination.state()
    for name, view in readers.views.items():
        tensors |= {f"{name}.{key}": value for key, value in view.state().items()}
    ids = model.contrast.cohort.donors.index
    test = pd.Series(model.logits(trained, "test"), ids[model.samples["test"]])
    return {name: value.tolist() for name, value in tensors.items()} | {
        "genes": model.featurizer.gene_names,
        "genes of views": [view.gene_names for view in readers.views.values()],
        "left out": trained.held_out[model.samples["validation"]].tolist(),
        "test": test.to_dict(),
    }


def healthy() -> ad.AnnData:
    return atlas(n_positive=12, n_negative=10, nuclei=16, effect=0.3, seed=1)


def victim(fold: Fold) -> str:
    return sorted(fold.test)[0]


def first_fold(tmp_path: Path) -> Fold:
    return compared(write(healthy(), tmp_path, "first.h5ad"), *WORDS).folds[0]


def check_that_a_ruined_test_donor_changes_only_itself(fit: Fit, tmp_path: Path) -> None:
    donor = victim(first_fold(tmp_path))
    ruined = healthy()
    own = (ruined.obs["Donor ID"] == donor).to_numpy()
    dense = ruined.X.toarray()
    dense[own] = np.random.default_rng(0).poisson(300, dense[own].shape)
    ruined.X = type(ruined.X)(dense)
    before, after = fit(healthy(), "healthy"), fit(ruined, "ruined")
    assert before["test"].pop(donor) != after["test"].pop(donor)
    assert before == after


def check_that_labels_of_test_donors_are_not_read(fit: Fit) -> None:
    def flipped(contrast: Contrast) -> Contrast:
        label = contrast.labels.of_donor.copy()
        test = list(contrast.folds[0].test)
        label[test] = 1 - label[test]
        return replace(contrast, labels=replace(contrast.labels, of_donor=label))

    assert fit(healthy(), "honest") == fit(healthy(), "flipped", flipped)


def test_a_ruined_test_donor_changes_only_itself(fit: Fit, tmp_path: Path) -> None:
    check_that_a_ruined_test_donor_changes_only_itself(fit, tmp_path)


def test_labels_of_test_donors_are_not_read(fit: Fit) -> None:
    check_that_labels_of_test_donors_are_not_read(fit)


# Each bug is caught


def test_axes_of_all_donors_are_caught(fit: Fit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    honest = Axes.fit
    everybody = lambda self, cohort, train: honest(self, cohort, tuple(cohort.donors.index))  # noqa: E731
    monkeypatch.setattr(Axes, "fit", everybody)
    with pytest.raises(AssertionError):
        check_that_a_ruined_test_donor_changes_only_itself(fit, tmp_path)


@pytest.mark.parametrize("view", [PLS, AxisMoments])
def test_a_view_of_all_donors_is_caught(
    fit: Fit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, view: type
) -> None:
    honest, label = view.fit, pd.Series(dtype=float)  # type: ignore[attr-defined]

    def everybody(self, cohort, featurizer, known):  # type: ignore[no-untyped-def]
        missing = tuple(cohort.donors.index.difference(list(known.donors)))
        more = Known(
            known.donors + missing,
            np.r_[known.label, label[list(missing)].to_numpy()],
            np.r_[known.held_out, np.zeros(len(missing), int)],
        )
        return honest(self, cohort, featurizer, more)[: len(known.donors)]

    seen = fold_model.prepare_model

    def prepare(config, contrast, *rest):  # type: ignore[no-untyped-def]
        nonlocal label
        label = contrast.labels.of_donor.astype(float)
        return seen(config, contrast, *rest)

    monkeypatch.setattr(view, "fit", everybody)
    monkeypatch.setitem(globals(), "prepare_model", prepare)
    with pytest.raises(AssertionError):
        check_that_a_ruined_test_donor_changes_only_itself(fit, tmp_path)
    with pytest.raises(AssertionError):
        check_that_labels_of_test_donors_are_not_read(fit)


def test_weights_learned_with_test_donors_are_caught(fit: Fit, monkeypatch: pytest.MonkeyPatch) -> None:
    honest, whole = combination.combine, fold_model.fit_readers
    labels: list[pd.Series] = []

    def fit_with_test(views, network, cohort, featurizer, known):  # type: ignore[no-untyped-def]
        readers, held_out = whole(views, network, cohort, featurizer, known)
        own = labels[-1][list(cohort.donors.index)].to_numpy()
        of_all = np.stack([view.logits(cohort, featurizer).to_numpy() for view in views.values()])
        found = honest(np.concatenate([of_all[:1], of_all]), own)
        return replace(readers, combination=readers.combination._replace(weight=found.weight)), held_out

    def prepare(config, contrast, *rest):  # type: ignore[no-untyped-def]
        labels.append(contrast.labels.of_donor)
        return fold_model.prepare_model(config, contrast, *rest)

    monkeypatch.setattr(fold_model, "fit_readers", fit_with_test)
    monkeypatch.setitem(globals(), "prepare_model", prepare)
    with pytest.raises(AssertionError):
        check_that_labels_of_test_donors_are_not_read(fit)


def test_a_network_that_is_trained_on_a_test_donor_is_caught(
    fit: Fit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    test = first_fold(tmp_path).test
    honest = Known.folds.fget  # type: ignore[attr-defined]
    monkeypatch.setattr(
        Known, "folds", property(lambda self: [(own + test, left) for own, left in honest(self)])
    )
    with pytest.raises(AssertionError):
        check_that_a_ruined_test_donor_changes_only_itself(fit, tmp_path)
    with pytest.raises(AssertionError):
        check_that_labels_of_test_donors_are_not_read(fit)


def test_a_donor_that_is_centred_with_others_is_caught(
    fit: Fit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = Axes.tokens

    def together(self, cohort):  # type: ignore[no-untyped-def]
        tokens = honest(self, cohort)
        values = tokens.values.view(-1, self.n_ids)
        return tokens._replace(values=(values - values.mean(0)).flatten())

    monkeypatch.setattr(Axes, "tokens", together)
    with pytest.raises(AssertionError):
        check_that_a_ruined_test_donor_changes_only_itself(fit, tmp_path)


def test_a_run_tells_what_is_combined_and_whom_it_learned_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(report, "draw", lambda run: {})
    path = write(healthy(), tmp_path)
    words = (*WORDS, "evaluation.threshold=validation", "evaluation.calibration=platt")
    config = configuration(f"data.path={path}", f"cache.dir={tmp_path / 'cache'}", *words)
    tasks.run(config, tmp_path / "run")
    record = Record(tmp_path / "run")
    (history,) = record.histories
    weights = {name: reader.weight for name, reader in history.readers.items()}
    assert list(weights) == ["network", "pls", "axes"]
    assert sum(weights.values()) == pytest.approx(1)
    page = (tmp_path / "run/report.html").read_text()
    for name, reader in history.readers.items():
        assert f"{reader.auroc:.3f}, weight {reader.weight:.2f}" in page, name
    for said in (
        "What is combined",
        "donor, its network alone",
        "3 members, each without another inner fold of the known donors",
        "nothing: the last (1 of 1)",
        "known donors, each left out by one member",
        "drawn alike",
    ):
        assert said in page, said
    table = record.predictions
    development = set(table[table["part"] == "train"]["donor"])
    assert not development & set(table[table["part"] == "test"]["donor"])
    assert set(table[table["part"] == "validation"]["donor"]) == development
    assert record.baselines is not None
    assert record.baselines["network"].between(0, 1).all()
    assert record.metrics["headline"]["trained_donors"] == len(development)
