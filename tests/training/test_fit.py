"""The training loop: which epoch is kept, when it stops, and what its options do to a step."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.metrics import log_loss, roc_auc_score

from oligo_ad.config import Config
from oligo_ad.data.contrast import Contrast
from oligo_ad.record import probability_of
from oligo_ad.training.fit import Fitted
from oligo_ad.training.fold_model import FoldModel, prepare_model
from oligo_ad.training.machine import make_accelerator, seed_everything
from tests.builders import atlas, configuration, contrast

# Plain steps of the full gradient, so that what a step did can be computed by hand.
ONE_STEP = (
    "fit.epochs=1",
    "fit.batch_size=100000",
    "fit.optimizer._target_=torch.optim.SGD",
    "fit.optimizer.lr=0.5",
    "fit.optimizer.weight_decay=0",
    "fit.schedule._target_=oligo_ad.training.schedule.constant",
)
MONITORS = ("loss", "cell_auroc", "donor_auroc")


@pytest.fixture(scope="module")
def donors(tmp_path_factory: pytest.TempPathFactory) -> Contrast:
    """Twelve positive and eight negative donors that differ in a few genes a little."""
    return contrast(
        atlas(12, 8, nuclei=16, genes=40, effect=0.15, seed=2), tmp_path_factory.mktemp("fit"),
        "split.validation_fraction=0.4",
    )  # fmt: skip


@pytest.fixture
def make(donors: Contrast, tmp_path: Path) -> Callable[..., FoldModel]:
    """The model of the only fold, which always begins with the same weights: a linear one."""

    def made(*overrides: str) -> FoldModel:
        accelerator, _ = make_accelerator(settings(*overrides), tmp_path)
        seed_everything(0, 1)
        return prepare_model(settings(*overrides), donors, donors.folds[0], None, accelerator)

    return made


def settings(*overrides: str) -> Config:
    return configuration("model.network.hidden=[]", "model.featurizer.genes=all", *overrides)


def train(model: FoldModel) -> Fitted:
    return model.fit("", lambda epoch: None)


def weights(model: torch.nn.Module) -> torch.Tensor:
    return torch.nn.utils.parameters_to_vector(model.parameters()).detach().clone()


# Which epoch is kept


LONG = ("fit.epochs=12", "fit.optimizer.lr=0.02", "seed=2")


def by_monitor(make: Callable[..., FoldModel], monitor: str, patience: int = 12) -> tuple[FoldModel, Fitted]:
    model = make(*LONG, f"fit.monitor={monitor}", f"fit.patience={patience}")
    return model, train(model)


@pytest.mark.parametrize("monitor", MONITORS)
def test_the_weights_that_are_kept_are_those_of_the_epoch_that_was_best_by_the_monitor(
    make: Callable[..., FoldModel], monitor: str
) -> None:
    model, fitted = by_monitor(make, monitor)
    reached = [getattr(epoch, monitor) for epoch in fitted.history]
    best = min(reached) if monitor == "loss" else max(reached)
    assert fitted.best_epoch == reached.index(best) + 1 < len(reached)
    assert validated(model, fitted)[monitor] == pytest.approx(best, rel=1e-6)


def test_monitors_disagree_about_the_best_epoch(make: Callable[..., FoldModel]) -> None:
    """Or the test above would not tell them apart; the training itself is the same."""
    fits = [by_monitor(make, monitor)[1] for monitor in MONITORS]
    assert len({fitted.best_epoch for fitted in fits}) == len(MONITORS)
    assert len({tuple(epoch.loss for epoch in fitted.history) for fitted in fits}) == 1


def validated(model: FoldModel, fitted: Fitted) -> dict[str, float]:
    """What the kept weights reach on validation donors, by scikit-learn."""
    own = model.samples["validation"]
    label, donor = model.label[own], model.loader.donor[own]
    probability = probability_of(model.logits(fitted.model, "validation"))
    ids = np.unique(donor)
    of_donors = [probability[donor == one].mean() for one in ids]
    weight = np.where(label == 1, fitted.pos_weight, 1.0)
    return {
        "loss": log_loss(label, probability, sample_weight=weight),
        "cell_auroc": roc_auc_score(label, probability),
        "donor_auroc": roc_auc_score([label[donor == one][0] for one in ids], of_donors),
    }


@pytest.mark.parametrize("monitor", MONITORS)
@pytest.mark.parametrize("patience", [1, 2])
def test_training_stops_after_so_many_epochs_without_a_better_one(
    make: Callable[..., FoldModel], monitor: str, patience: int
) -> None:
    whole, stopped = (by_monitor(make, monitor, n)[1] for n in (12, patience))
    sign = -1 if monitor == "loss" else 1
    values = [sign * getattr(epoch, monitor) for epoch in whole.history]
    leads = [values.index(max(values[: n + 1])) for n in range(12)]
    last = next(n for n in range(12) if n - leads[n] >= patience)
    assert last < 11
    assert len(stopped.history) == last + 1
    assert stopped.best_epoch == leads[last] + 1


# What a step does


def test_no_clip_leaves_the_gradient_and_a_clip_shortens_it_to_its_norm(
    make: Callable[..., FoldModel],
) -> None:
    moved, norms = {}, {}
    for clip in ("null", "0.01", "1000"):
        model = make(*ONE_STEP, f"fit.clip={clip}")
        before = weights(model.classifier)
        fitted = train(model)
        moved[clip] = weights(fitted.model) - before
        norms[clip] = fitted.history[0].gradient_norm
    assert norms["null"] == norms["0.01"] == norms["1000"] > 0.02
    assert torch.equal(moved["null"], moved["1000"])
    assert moved["null"].norm().item() == pytest.approx(0.5 * norms["null"], rel=1e-4)
    assert moved["0.01"].norm().item() == pytest.approx(0.5 * 0.01, rel=1e-3)
    assert torch.cosine_similarity(moved["null"], moved["0.01"], dim=0) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("given", ["auto", "1", "3.5"])
def test_positive_samples_weigh_what_is_asked_or_what_balances_the_classes(
    make: Callable[..., FoldModel], given: str
) -> None:
    model = make(*ONE_STEP, f"fit.pos_weight={given}")
    label = model.label[model.samples["train"]]
    n_positive, n_negative = int(label.sum()), int((1 - label).sum())
    assert n_positive != n_negative
    wanted = n_negative / n_positive if given == "auto" else float(given)
    probability = probability_of(model.logits(model.classifier, "train"))
    by_sample = -np.where(label == 1, wanted * np.log(probability), np.log(1 - probability))
    fitted = train(model)
    assert fitted.pos_weight == pytest.approx(wanted)
    assert fitted.history[0].train_loss == pytest.approx(by_sample.mean(), rel=1e-4)
    assert fitted.history[0].loss == pytest.approx(validated(model, fitted)["loss"], rel=1e-5)


def test_the_balance_of_classes_is_that_of_training_donors_alone(make: Callable[..., FoldModel]) -> None:
    model = make(*ONE_STEP)
    of_all = (model.label == 0).sum() / (model.label == 1).sum()
    train_label = model.label[model.samples["train"]]
    assert (train_label == 0).sum() / (train_label == 1).sum() != of_all
    assert train(model).pos_weight != pytest.approx(of_all)


@pytest.mark.parametrize("log_every", [1, 4, 1000])
def test_every_step_is_logged_however_seldom_losses_are_read(
    make: Callable[..., FoldModel], log_every: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = make("fit.epochs=3", f"fit.log_every={log_every}")
    logged: dict[int, float] = {}
    reads = []

    def log(values: dict[str, float], step: int) -> None:
        if "step/loss" in values:
            assert step not in logged
            logged[step] = values["step/loss"]

    reduce = model.accelerator.reduce
    monkeypatch.setattr(model.accelerator, "log", log)
    monkeypatch.setattr(
        model.accelerator, "reduce", lambda losses, how: reads.append(len(losses)) or reduce(losses, how)
    )
    fitted = train(model)
    per_epoch = len(model.samples["train"]) // 16
    assert list(logged) == list(range(1, 3 * per_epoch + 1))
    for number, epoch in enumerate(fitted.history):
        own = [logged[number * per_epoch + step] for step in range(1, per_epoch + 1)]
        assert epoch.train_loss == pytest.approx(np.mean(own))
    assert max(reads) == min(log_every, per_epoch)


# Bags


@pytest.mark.parametrize(("bags", "size"), [(1, 3), (4, 5)])
def test_an_epoch_shows_each_donor_as_many_bags_of_as_many_nuclei_as_asked_for(
    make: Callable[..., FoldModel], bags: int, size: int
) -> None:
    words = ("pool=mean", f"fit.bags={bags}", f"fit.bag_size={size}", "fit.batch_size=2", "fit.epochs=1")
    model = make(*words)
    seen: list[int] = []
    honest = model.loader.shuffled

    def spy(*order: object) -> object:
        for batch in honest(*order):
            assert batch.sample.bincount().tolist() == [size, size]
            seen.extend(batch.index.tolist())
            yield batch

    object.__setattr__(model.loader, "shuffled", spy)
    train(model)
    n_train = len(model.samples["train"])
    assert n_train == len(model.fold.train)
    assert len(seen) == bags * n_train // 2 * 2
    times = np.bincount(seen, minlength=20)[model.samples["train"]]
    assert times.max() == bags
    assert times.sum() == len(seen)
