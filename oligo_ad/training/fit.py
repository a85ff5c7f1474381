"""The one training loop, for every model. Legend of tensor names: see inputs/batch.py."""

import copy
import logging
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from itertools import islice
from typing import NamedTuple

import numpy as np
from accelerate import Accelerator
from sklearn.metrics import log_loss, roc_auc_score
from torch import nn
from tqdm import tqdm

from oligo_ad.config import FitConfig
from oligo_ad.errors import UserError
from oligo_ad.facts import Epoch
from oligo_ad.inputs.batch import Batch
from oligo_ad.inputs.loader import Loader, Sample
from oligo_ad.models.classifier import Classifier
from oligo_ad.scores import probability_of
from oligo_ad.training.predict import predict
from oligo_ad.training.step import Step, make_step

log = logging.getLogger(__name__)

EVALUATION_BATCH = 4  # times the training batch: without gradients there is room


class Samples(NamedTuple):
    """Training and validation samples, by places in the loader; `label` [samples of the loader].

    There may be no validation samples where all epochs are trained.
    """

    train: np.ndarray
    validation: np.ndarray
    label: np.ndarray


@dataclass(frozen=True)
class Fitted:
    """A trained model with the weights of the epoch that was kept, and the history of its training.

    `pos_weight`: how much more a positive sample counts than a negative one, by its weight in the loss or by
    being drawn more often.
    """

    model: nn.Module
    history: tuple[Epoch, ...]
    best_epoch: int
    pos_weight: float


def fit(
    classifier: Classifier,
    loader: Loader,
    samples: Samples,
    config: FitConfig,
    seed: int,
    accelerator: Accelerator,
    name: str,
    watch: Callable[[Epoch], None] = lambda epoch: None,
    epochs: int | None = None,
) -> Fitted:
    """Train until the epochs are over or validation donors stop improving; keep the best epoch.

    With `fit.keep=last` all epochs are trained, and validation donors decide nothing.

    Args:
        classifier: Batch → logit [S].
        loader: batches of this process.
        samples: those of the training and the validation donors.
        config: the loop's options.
        seed: of the order of samples.
        accelerator: device, precision and processes.
        name: prefix of logged values, empty or such as `fold_2/`.
        watch: called after each epoch; may raise to end the training.
        epochs: train so many, of the learning rates of `fit.epochs`, and keep the last.

    Raises:
        UserError: too few samples for one batch, or a loss that is not finite.
    """
    pos_weight = _pos_weight(samples, config)
    batch_size, per_epoch = _steps(loader.epoch_size(samples.train), config, accelerator)
    # Where classes are drawn alike, that is their weight already.
    loss_weight = pos_weight / (_balance(samples) if config.sampling == "donor" else 1)
    step = make_step(classifier, config, per_epoch * config.epochs, loss_weight, accelerator, name)
    keeps_last = bool(epochs) or config.keep == "last"
    best = _Best(accelerator.unwrap_model(step.model), config.monitor)
    history: list[Epoch] = []
    for number in range(1, (epochs or config.epochs) + 1):
        every = loader.shuffled(samples.train, batch_size, seed, number)
        n_batches = per_epoch * config.accumulate
        rate = _train_epoch(step, islice(every, n_batches), n_batches * batch_size, batch_size, number)
        validation = _validate(step.model, loader, samples, batch_size, pos_weight, accelerator)
        history.append(Epoch(epoch=number, **step.end_epoch(), **validation, nuclei_per_second=rate))
        _log(history[-1], loader.sample, accelerator, name)
        watch(history[-1])
        if keeps_last:
            continue
        best.compare(history[-1])
        if number - best.epoch >= config.patience:
            log.info("%sstopped: no better %s for %d epochs", name, config.monitor, config.patience)
            break
    if not keeps_last:
        best.restore()
    return Fitted(step.model, tuple(history), len(history) if keeps_last else best.epoch, pos_weight)


class _Best:
    """The weights of a model at its best epoch so far."""

    def __init__(self, model: nn.Module, monitor: str) -> None:
        self._model, self._monitor = model, monitor
        self._weights, self._value = copy.deepcopy(model.state_dict()), -np.inf
        self.epoch = 0

    def compare(self, epoch: Epoch) -> None:
        """Keep the weights as they are now, if this epoch is the best."""
        if (value := epoch.score(self._monitor)) > self._value:
            self._value, self.epoch = value, epoch.epoch
            self._weights = copy.deepcopy(self._model.state_dict())

    def restore(self) -> None:
        """Give the model the weights that were kept."""
        self._model.load_state_dict(self._weights)


def _train_epoch(step: Step, batches: Iterable[Batch], n_samples: int, batch_size: int, number: int) -> float:
    """Train on the batches of one epoch; returns nuclei per second, over all processes."""
    started, n_nuclei = time.perf_counter(), 0
    progress = tqdm(
        total=n_samples,
        desc=f"{step.name}epoch {number}/{step.config.epochs}",
        unit=" samples",
        disable=None if step.accelerator.is_main_process else True,
        leave=False,
    )
    step.model.train()
    with progress:
        for batch in batches:
            step(batch)
            n_nuclei += len(batch.sample)
            progress.update(batch_size)
    step.flush()
    return n_nuclei * step.accelerator.num_processes / (time.perf_counter() - started)


def donor_means(values: np.ndarray, donor: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The donors, sorted, and the mean of their samples' values."""
    donors, code = np.unique(donor, return_inverse=True)
    return donors, np.bincount(code, values) / np.bincount(code)


def _pos_weight(samples: Samples, config: FitConfig) -> float:
    if config.pos_weight != "auto":
        return float(config.pos_weight)
    return _balance(samples)


def _balance(samples: Samples) -> float:
    """Negative for each positive training sample."""
    positive = samples.label[samples.train].mean()
    return float((1 - positive) / positive)


def _steps(n_train: int, config: FitConfig, accelerator: Accelerator) -> tuple[int, int]:
    """Batch size (less than configured when there are fewer samples) and optimizer steps per epoch."""
    of = accelerator.num_processes
    batch_size = min(config.batch_size, n_train // config.accumulate // of * of)
    if batch_size < 2 * of:
        raise UserError(f"{n_train} training samples are too few for fit.accumulate={config.accumulate}.")
    return batch_size, n_train // batch_size // config.accumulate


def _validate(
    model: nn.Module,
    loader: Loader,
    samples: Samples,
    batch_size: int,
    pos_weight: float,
    accelerator: Accelerator,
) -> dict[str, float]:
    own = samples.validation
    if not len(own):
        return dict.fromkeys(("loss", "cell_auroc", "donor_auroc"), float("nan"))
    logit = predict(model, loader, own, EVALUATION_BATCH * batch_size, accelerator)
    label, probability = samples.label[own], probability_of(logit)
    if not np.isfinite(probability).all():
        raise UserError("the model predicts NaN for validation samples. Lower fit.optimizer.lr.")
    _, donor_score = donor_means(probability, loader.donor[own])
    _, donor_label = donor_means(label, loader.donor[own])
    weight = np.where(label == 1, pos_weight, 1.0)
    return {
        "loss": float(log_loss(label, probability, sample_weight=weight)),
        "cell_auroc": float(roc_auc_score(label, probability)),
        "donor_auroc": float(roc_auc_score(donor_label, donor_score)),
    }


def _log(epoch: Epoch, sample: Sample, accelerator: Accelerator, name: str) -> None:
    values = {f"{name}epoch/{key}": value for key, value in asdict(epoch).items() if key != "epoch"}
    accelerator.log(values, epoch.epoch)
    of_nuclei = f"cell AUROC {epoch.cell_auroc:.3f}, " if sample == "nucleus" else ""
    log.info(
        "%sepoch %d: train loss %.4f, validation loss %.4f, %sdonor AUROC %.3f, %.0f nuclei/s",
        name, epoch.epoch, epoch.train_loss, epoch.loss, of_nuclei, epoch.donor_auroc,
        epoch.nuclei_per_second,
    )  # fmt: skip
