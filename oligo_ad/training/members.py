"""The members of a model: networks that are trained on different parts of the known donors, and averaged.

One member has validation donors, which choose its epoch. Several divide the known donors into as many inner
folds, and each is trained without one of them: so every known donor has a logit from a network that has not
seen it, and together the members have learned from all.
"""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from itertools import zip_longest

import numpy as np
from accelerate import Accelerator
from torch import nn

from oligo_ad.config import FitConfig
from oligo_ad.facts import Epoch
from oligo_ad.inputs.loader import Loader
from oligo_ad.models.classifier import Classifier, Committee
from oligo_ad.models.combination import Readers
from oligo_ad.training.fit import EVALUATION_BATCH, Samples, fit
from oligo_ad.training.predict import predict

APART = 7919  # between the seeds of two members


@dataclass(frozen=True)
class Trained:
    """The trained members, and how they were trained.

    `model`: gives their mean logit. `history`: means over members. `held_out` [samples of the loader]: logits
    by a member that was not trained on the sample's donor, NaN where there is none. `readers`: what the
    network is combined with.
    """

    model: nn.Module
    history: tuple[Epoch, ...]
    best_epoch: int
    pos_weight: float
    held_out: np.ndarray
    readers: Readers | None = None


def fit_members(
    classifiers: Sequence[Classifier],
    loader: Loader,
    parts: Sequence[Samples],
    config: FitConfig,
    seed: int,
    accelerator: Accelerator,
    name: str,
    watch: Callable[[Epoch], None],
) -> Trained:
    """Train each classifier on a part of its own, and with `fit.refit` again on all known samples.

    Args:
        classifiers: the members, untrained; of one model.
        loader: batches of this process.
        parts: training and validation samples of each member.
        config, seed, accelerator, name: as of `fit`.
        watch: called after each epoch of one member; for several, when all are trained, with their means.

    Raises:
        UserError: as `fit`.
    """
    held_out = np.full(len(parts[0].label), np.nan)
    alone = len(classifiers) == 1
    models, fitted = [], []
    for number, (classifier, samples) in enumerate(zip(classifiers, parts, strict=True)):
        own = f"{name}member_{number + 1}/" if not alone else name
        given = (config, seed + APART * number, accelerator)
        untrained = copy.deepcopy(classifier.state_dict()) if config.refit else {}
        found = fit(classifier, loader, samples, *given, own, watch if alone else _nothing)
        size = EVALUATION_BATCH * config.batch_size
        held_out[samples.validation] = predict(found.model, loader, samples.validation, size, accelerator)
        fitted.append(found)
        if config.refit:
            classifier.load_state_dict(untrained)
            known = np.union1d(samples.train, samples.validation)
            everyone = Samples(known, known[:0], samples.label)
            found = fit(classifier, loader, everyone, *given, f"{own}refit/", epochs=found.best_epoch)
        models.append(found.model)
    history = tuple(_mean(epochs) for epochs in zip_longest(*(one.history for one in fitted)))
    if not alone:
        for epoch in history:
            watch(epoch)
    best_epoch = round(float(np.mean([one.best_epoch for one in fitted])))
    model = models[0] if alone else Committee([accelerator.unwrap_model(one) for one in models])
    return Trained(model, history, best_epoch, fitted[0].pos_weight, held_out)


def _nothing(epoch: Epoch) -> None:
    """Nobody watches a single one of several members."""


def _mean(epochs: tuple[Epoch | None, ...]) -> Epoch:
    """The mean over the members that were trained so long."""
    found = [epoch for epoch in epochs if epoch]
    names = [part.name for part in fields(Epoch) if part.name != "epoch"]
    means = {name: float(np.mean([getattr(one, name) for one in found])) for name in names}
    return Epoch(epoch=found[0].epoch, **means)
