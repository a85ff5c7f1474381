"""An optimizer step, and what it leaves to be read later. Legend of tensor names: see inputs/batch.py."""

from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits
from torch.optim.lr_scheduler import LambdaLR

from oligo_ad.config import FitConfig
from oligo_ad.errors import UserError
from oligo_ad.inputs.batch import Batch
from oligo_ad.models.classifier import Classifier
from oligo_ad.training.optimizer import make_optimizer


def make_step(
    classifier: Classifier,
    config: FitConfig,
    steps: int,
    pos_weight: float,
    accelerator: Accelerator,
    name: str,
) -> "Step":
    """The optimizer step of a classifier, over so many of them, on this machine."""
    optimizer, schedule = make_optimizer(classifier, config, steps)
    if config.compile:
        # In place: names of parameters and the checkpoint stay. A graph break would be an error.
        classifier.compile(fullgraph=True, dynamic=True)
    model, optimizer = accelerator.prepare(classifier, optimizer)
    return Step(model, optimizer, schedule, config, pos_weight, accelerator, name)


class Step:
    """Runs optimizer steps; their losses stay on the device until `flush` reads them."""

    def __init__(
        self,
        model: nn.Module,
        optimizer: Any,
        schedule: LambdaLR,
        config: FitConfig,
        pos_weight: float,
        accelerator: Accelerator,
        name: str,
    ) -> None:
        self.model, self.optimizer, self.schedule = model, optimizer, schedule
        self.config, self.accelerator, self.name = config, accelerator, name
        self.pos_weight = torch.tensor(pos_weight, device=accelerator.device)
        self.n = 0
        self._waiting: list[tuple[Tensor, Tensor, float]] = []
        self._epoch: list[tuple[float, float]] = []

    def __call__(self, batch: Batch) -> None:
        with self.accelerator.accumulate(self.model):
            logit_S = self.model(batch)
            loss = binary_cross_entropy_with_logits(logit_S, batch.label, pos_weight=self.pos_weight)
            self.accelerator.backward(loss)
            if self.accelerator.sync_gradients:
                norm = self._clip()
            self.optimizer.step()
            self.optimizer.zero_grad()
        if self.accelerator.sync_gradients:
            self.n += 1
            self._waiting.append((loss.detach(), norm, float(self.schedule.get_last_lr()[0])))
            # Stepped here, not by Accelerate, which would step once for every process.
            self.schedule.step()
            if len(self._waiting) >= self.config.log_every:
                self.flush()

    def flush(self) -> None:
        """Read waiting losses from the device, log them, and stop at the first that is not finite."""
        if not self._waiting:
            return
        waiting_losses, waiting_norms, rates = zip(*self._waiting, strict=True)
        losses = self.accelerator.reduce(torch.stack(waiting_losses), "mean").tolist()
        norms = torch.stack(waiting_norms).tolist()
        first = self.n - len(rates) + 1
        for number, (loss, norm, rate) in enumerate(zip(losses, norms, rates, strict=True), first):
            if not np.isfinite(loss):
                raise UserError(
                    f"the loss became {loss} at optimizer step {number} ({self.name or 'this run'}). "
                    "Lower fit.optimizer.lr, or use precision=bf16 or fp32 instead of fp16."
                )
            self._epoch.append((loss, norm))
            values = {"loss": loss, "gradient_norm": norm, "learning_rate": rate}
            self.accelerator.log({f"{self.name}step/{key}": value for key, value in values.items()}, number)
        self._waiting.clear()

    def end_epoch(self) -> dict[str, float]:
        """Means over the epoch, and the learning rate at its end."""
        loss, norm = np.mean(self._epoch, axis=0).tolist()
        self._epoch.clear()
        rate = float(self.schedule.get_last_lr()[0])
        return {"train_loss": loss, "gradient_norm": norm, "learning_rate": rate}

    def _clip(self) -> Tensor:
        """Gradient norm before clipping, on the device."""
        limit = self.config.clip or torch.inf
        norm: Tensor = self.accelerator.clip_grad_norm_(self.model.parameters(), limit)
        return norm.detach()
