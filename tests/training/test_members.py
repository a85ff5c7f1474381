"""Several networks: who is left out of which, that they differ, and that their mean is what predicts."""

from collections.abc import Callable

import numpy as np
import pytest
import torch

from oligo_ad.inputs.loader import BagLoader, NucleusLoader
from oligo_ad.models.classifier import Committee
from oligo_ad.training.fit import Samples, fit
from oligo_ad.training.fold_model import FoldModel, prepare_model
from oligo_ad.training.machine import make_accelerator, seed_everything
from oligo_ad.training.members import Trained
from oligo_ad.training.predict import predict
from tests import builders

Make = Callable[..., FoldModel]


@pytest.fixture(scope="module")
def make(tmp_path_factory: pytest.TempPathFactory) -> Make:
    folder = tmp_path_factory.mktemp("members")
    adata = builders.atlas(12, 9, nuclei=48, effect=0.5)
    few = adata.obs["Donor ID"].str.endswith(("0", "2", "4")) & (np.arange(adata.n_obs) >= 12 * 21)
    path = builders.write(adata[~few], folder)  # 24 nuclei of a donor, of some only six

    def made(*overrides: str) -> FoldModel:
        words = ("model=mlp", "model.network.hidden=[8]", *overrides)
        config = builders.configuration(f"data.path={path}", f"cache.dir={folder / 'cache'}", *words)
        contrast = builders.compared(path, *words)
        accelerator, _ = make_accelerator(config, folder)
        seed_everything(config.seed, 1)
        return prepare_model(config, contrast, contrast.folds[0], None, accelerator)

    return made


def train(model: FoldModel) -> Trained:
    return model.fit("", lambda epoch: None)


def alone(model: FoldModel, member: torch.nn.Module, samples: np.ndarray) -> np.ndarray:
    return predict(member, model.loader, samples, 64, model.accelerator)


def test_each_known_donor_is_left_out_by_one_member_and_no_test_donor_is_in_any(make: Make) -> None:
    model = make("fit.members=3")
    donor = model.loader.donor
    left = [set(donor[part.validation]) for part in model.plan]
    learned = [set(donor[part.train]) for part in model.plan]
    ids = model.contrast.cohort.donors.index
    known = set(ids.get_indexer(list(model.fold.development)))
    assert set.union(*left) == known
    assert sum(map(len, left)) == len(known)
    for own, others in zip(left, learned, strict=True):
        assert own | others == known
        assert not own & others
        assert len(set(model.label[np.isin(donor, list(own))])) == 2
    assert set(donor[model.samples["train"]]) == set(donor[model.samples["validation"]]) == known


def test_the_logit_of_a_known_donor_is_of_the_member_that_left_it_out(make: Make) -> None:
    model = make("fit.members=3", "fit.keep=last")
    trained = train(model)
    assert isinstance(trained.model, Committee)
    for member, part in zip(trained.model.members, model.plan, strict=True):
        assert trained.held_out[part.validation] == pytest.approx(alone(model, member, part.validation))
    assert np.isnan(trained.held_out[model.samples["test"]]).all()
    validated = model.logits(trained, "validation")
    assert validated.tolist() == trained.held_out[model.samples["validation"]].tolist()


def test_test_donors_get_the_mean_logit_of_members_that_differ(make: Make) -> None:
    model = make("fit.members=3")
    trained = train(model)
    each = [alone(model, member, model.samples["test"]) for member in trained.model.members]
    assert len({tuple(own) for own in each}) == 3
    assert model.logits(trained, "test") == pytest.approx(np.mean(each, axis=0), abs=1e-5)


def test_members_see_other_batches_even_of_the_same_donors(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    seeds, honest = [], NucleusLoader.shuffled

    def spy(self, samples, batch_size, seed, epoch):  # type: ignore[no-untyped-def]
        seeds.append(seed)
        return honest(self, samples, batch_size, seed, epoch)

    monkeypatch.setattr(NucleusLoader, "shuffled", spy)
    train(make("fit.members=3", "fit.epochs=1"))
    assert len(set(seeds)) == 3


def test_the_last_epoch_is_kept_where_that_is_asked_for(make: Make) -> None:
    long = ("fit.epochs=12", "fit.optimizer.lr=0.05", "fit.patience=1")
    best, last = train(make(*long)), train(make(*long, "fit.keep=last"))
    assert len(last.history) == last.best_epoch == 12
    assert len(best.history) < 12


def test_a_refit_learns_from_validation_donors_too_for_as_many_epochs(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = make("fit.refit=true", "fit.epochs=12", "fit.patience=1", "fit.optimizer.lr=0.05")
    seen, honest = [], NucleusLoader.shuffled

    def spy(self, samples, batch_size, seed, epoch):  # type: ignore[no-untyped-def]
        seen.append((set(self.donor[samples]), epoch))
        return honest(self, samples, batch_size, seed, epoch)

    monkeypatch.setattr(NucleusLoader, "shuffled", spy)
    trained = train(model)
    first, second = (
        set(model.loader.donor[model.plan[0].train]),
        set(model.loader.donor[model.samples["train"]]),
    )
    n_first = len(trained.history)
    assert trained.best_epoch < 12
    assert [donors for donors, _ in seen] == [first] * n_first + [second] * trained.best_epoch
    assert second > first
    donor = model.loader.donor
    assert second == first | set(donor[model.plan[0].validation])
    assert [epoch for _, epoch in seen[n_first:]] == list(range(1, trained.best_epoch + 1))
    # What decided, and what validation donors are scored by, is the first training.
    validation = model.samples["validation"]
    assert trained.held_out[validation] != pytest.approx(alone(model, trained.model, validation))


def test_a_refit_begins_with_the_weights_that_the_network_began_with(make: Make) -> None:
    words = ("fit.refit=true", "fit.epochs=3", "model.network.dropout=0")
    refitted, other = train(make(*words)), make(*words)
    known = other.samples["train"]
    everyone = Samples(known, known[:0], other.label)
    epochs = refitted.best_epoch
    again = fit(
        other.members[0], other.loader, everyone, other.config.fit, 0, other.accelerator, "", epochs=epochs
    )
    for name, weight in refitted.model.state_dict().items():
        assert torch.equal(weight, again.model.state_dict()[name]), name


def test_more_members_than_donors_of_a_class_are_refused_with_what_to_type(make: Make) -> None:
    message = builders.answer(make, "fit.members=9")
    builders.assert_says(message, "fit.members=9", "development donors of a class", "Use fit.members=7 or")


def test_views_need_bags_and_members(make: Make) -> None:
    views = "+model.views.pls._target_=oligo_ad.models.views.PLS"
    for words in ((views, "fit.members=3"), (views, "pool=mean")):
        builders.assert_says(builders.answer(make, *words), "pool=moments", "fit.members=5")


# What an epoch draws


def drawn(model: FoldModel) -> np.ndarray:
    batches = model.loader.shuffled(model.samples["train"], 16, 0, 1)
    return np.concatenate([batch.index.numpy() for batch in batches])


def test_by_donor_classes_and_donors_of_a_class_are_drawn_alike(make: Make) -> None:
    model = make("fit.sampling=donor", "fit.nuclei=4800")
    assert isinstance(model.loader, NucleusLoader)
    samples = drawn(model)
    assert len(samples) == 4800
    assert model.label[samples].mean() == 0.5
    donors, count = np.unique(model.loader.donor[samples], return_counts=True)
    assert set(donors) == set(model.loader.donor[model.samples["train"]])
    label = np.array([model.label[model.loader.donor == donor][0] for donor in donors])
    for value in (0, 1):
        own = count[label == value]
        assert own == pytest.approx(np.full(len(own), 2400 / len(own)), rel=0.2)


def test_bags_by_donor_hold_as_many_of_either_class_in_each_batch(make: Make) -> None:
    model = make("fit.sampling=donor", "pool=mean", "fit.bags=10", "fit.bag_size=5")
    assert isinstance(model.loader, BagLoader)
    batches = list(model.loader.shuffled(model.samples["train"], 8, 0, 1))
    assert {float(batch.label.mean()) for batch in batches} == {0.5}
    count = np.bincount(np.concatenate([batch.index.numpy() for batch in batches]))
    for value in (0, 1):
        own = count[model.samples["train"]][model.label[model.samples["train"]] == value]
        assert own.max() - own.min() <= 2


def test_where_classes_are_drawn_alike_the_loss_does_not_weigh_them_again(make: Make) -> None:
    one_step = ("fit.epochs=1", "fit.batch_size=60", "fit.nuclei=60", "fit.sampling=donor")
    model = make(*one_step, "model.network.dropout=0")
    batch = next(model.loader.shuffled(model.samples["train"], 60, 0, 1))
    model.members[0].train()
    logit = model.members[0](batch).detach()
    loss = torch.nn.functional.binary_cross_entropy_with_logits(logit, batch.label)
    trained = train(model)
    assert trained.history[0].train_loss == pytest.approx(float(loss), rel=1e-5)
    label = model.label[model.samples["train"]]
    assert trained.pos_weight == pytest.approx((1 - label).sum() / label.sum())
