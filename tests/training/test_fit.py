"""The training loop: which epoch is kept, when it stops, and what its options do to a step."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import log_loss, roc_auc_score
from torch.nn.functional import binary_cross_entropy_with_logits
from torch.optim.optimizer import register_optimizer_step_pre_hook

from oligo_ad.config import Config
from oligo_ad.data.contrast import Contrast
from oligo_ad.inputs.batch import Batch
from oligo_ad.scores import probability_of
from oligo_ad.training import step
from oligo_ad.training.fit import donor_means
from oligo_ad.training.fold_model import FoldModel, prepare_model
from oligo_ad.training.machine import make_accelerator, seed_everything
from oligo_ad.training.members import Trained
from oligo_ad.training.predict import predict
from oligo_ad.training.schedule import warmup_cosine
from tests import builders
from tests.builders import answer, atlas, configuration, contrast

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


def train(model: FoldModel) -> Trained:
    return model.fit("", lambda epoch: None)


def weights(model: torch.nn.Module) -> torch.Tensor:
    return torch.nn.utils.parameters_to_vector(model.parameters()).detach().clone()


# Which epoch is kept


LONG = ("fit.epochs=12", "fit.optimizer.lr=0.02", "seed=2")


def by_monitor(make: Callable[..., FoldModel], monitor: str, patience: int = 12) -> tuple[FoldModel, Trained]:
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


def validated(model: FoldModel, fitted: Trained) -> dict[str, float]:
    """What the kept weights reach on validation donors, by scikit-learn."""
    own = model.samples["validation"]
    label, donor = model.label[own], model.loader.donor[own]
    probability = probability_of(model.logits(fitted, "validation"))
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
        before = weights(model.members[0])
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
    before = predict(model.members[0], model.loader, model.samples["train"], 64, model.accelerator)
    probability = probability_of(before)
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


@pytest.mark.parametrize("clip", ["null", "0.01"])
def test_a_step_in_parts_is_the_step_of_the_whole(make: Callable[..., FoldModel], clip: str) -> None:
    ends = []
    for parts in (1, 2, 4):
        model = make(*ONE_STEP, f"fit.accumulate={parts}", f"fit.clip={clip}")
        assert len(model.samples["train"]) % 4 == 0
        fitted = train(model)
        ends.append((weights(fitted.model), fitted.history[0].gradient_norm))
    for moved, norm in ends[1:]:
        assert torch.allclose(moved, ends[0][0], atol=1e-6)
        assert norm == pytest.approx(ends[0][1], rel=1e-4)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("log_every", [1, 1000])
def test_a_loss_that_is_no_number_stops_the_training_and_names_its_step(
    make: Callable[..., FoldModel], value: float, log_every: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    losses: list[torch.Tensor] = []

    def broken(*given: torch.Tensor, **named: torch.Tensor) -> torch.Tensor:
        losses.append(binary_cross_entropy_with_logits(*given, **named))
        return losses[-1] + (value if len(losses) == 3 else 0)

    monkeypatch.setattr(step, "binary_cross_entropy_with_logits", broken)
    message = answer(train, make(f"fit.log_every={log_every}", "fit.epochs=3"))
    assert f"the loss became {value} at optimizer step 3" in message


@pytest.mark.parametrize("parts", [1, 2])
def test_each_step_is_taken_and_logged_at_the_rate_of_the_schedule_which_ends_with_the_last(
    make: Callable[..., FoldModel], parts: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    shape = (f"fit.batch_size={16 // parts}", f"fit.accumulate={parts}")
    model = make("fit.epochs=3", "fit.patience=3", "fit.optimizer.lr=0.01", *shape)
    taken: list[float] = []
    logged: list[float] = []
    monkeypatch.setattr(
        model.accelerator,
        "log",
        lambda values, step: logged.extend([values["step/learning_rate"]] if "step/loss" in values else []),
    )
    hook = register_optimizer_step_pre_hook(lambda own, *_: taken.append(own.param_groups[0]["lr"]))
    fitted = train(model)
    hook.remove()
    n_steps = 3 * (len(model.samples["train"]) // 16)
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.01)
    schedule = warmup_cosine(optimizer, n_steps)
    for rate in taken:
        assert rate == pytest.approx(schedule.get_last_lr()[0])
        optimizer.step()
        schedule.step()
    assert logged == taken
    assert len(taken) == n_steps
    assert fitted.history[-1].learning_rate == pytest.approx(0, abs=1e-12)


def test_every_epoch_and_seed_shows_training_samples_alone_in_an_order_of_its_own(
    make: Callable[..., FoldModel],
) -> None:
    orders = []
    for seed in ("seed=0", "seed=0", "seed=1"):
        model = make("fit.epochs=3", "fit.patience=3", "split.seed=5", seed)
        seen: list[tuple[int, ...]] = []
        modes: list[tuple[bool, bool]] = []

        def watch(
            module: torch.nn.Module,
            batches: tuple[Batch, ...],
            seen: list[tuple[int, ...]] = seen,
            modes: list[tuple[bool, bool]] = modes,
        ) -> None:
            modes.append((module.training, torch.is_grad_enabled()))
            seen.extend([tuple(batches[0].index.tolist())] if module.training else [])

        model.members[0].register_forward_pre_hook(watch)
        train(model)
        # Dropout and batch norm go with gradients, in every epoch.
        assert set(modes) == {(True, True), (False, False)}
        per_epoch = len(model.samples["train"]) // 16
        assert len(seen) == 3 * per_epoch
        assert {sample for batch in seen for sample in batch} <= set(model.samples["train"])
        orders += [seen[first : first + per_epoch] for first in range(0, len(seen), per_epoch)]
    assert orders[:3] == orders[3:6]
    assert len({tuple(order) for order in orders}) == 6


def test_everything_is_fitted_on_training_donors_alone(donors: Contrast, tmp_path: Path) -> None:
    """Panel, its mean and SD, and the coding of covariates: not on validation donors either."""
    words = ("model.featurizer.genes=hvg", "model.featurizer.n_genes=10", "metadata=on")
    config = configuration("model.network.hidden=[]", *words)
    accelerator, _ = make_accelerator(config, tmp_path)
    covariates = replace(donors.covariates, values=donors.cohort.donors[["nuclei"]].astype(float))
    (fold,) = donors.folds

    def fitted(ruined: tuple[str, ...]) -> list[list[float] | list[str]]:
        counts, values = builders.counts(donors.cohort), covariates.values.copy()
        counts[donors.cohort.rows_of(ruined)] += np.arange(counts.shape[1])[::-1] * 50
        values.loc[list(ruined)] = 1e6
        other = replace(
            donors,
            cohort=builders.exchanged(donors.cohort, counts),
            covariates=replace(covariates, values=values),
        )
        model = prepare_model(config, other, fold, None, accelerator)
        state = [part.tolist() for part in model.featurizer.state().values()]
        return [model.featurizer.gene_names, *state, model.coding.mean.to_list(), model.coding.sd.to_list()]

    plain = fitted(())
    assert fitted(fold.validation[:1]) == fitted(fold.test[:1]) == plain
    assert not [part for part, other in zip(plain, fitted(fold.train[:1]), strict=True) if part == other]


@given(st.lists(st.tuples(st.integers(0, 5), st.floats(-9, 9)), min_size=1, max_size=30))
def test_a_donor_is_the_mean_of_its_samples_however_many_there_are(pairs: list[tuple[int, float]]) -> None:
    donor, values = (np.array(column) for column in zip(*pairs, strict=True))
    ids, means = donor_means(values, donor)
    assert ids.tolist() == sorted(set(donor.tolist()))
    assert means == pytest.approx([values[donor == one].mean() for one in ids])


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
