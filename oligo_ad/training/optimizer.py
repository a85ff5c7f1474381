"""The optimizer of a classifier: which parameters are trained, and at which learning rates."""

from typing import Any

from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from oligo_ad.components import component
from oligo_ad.config import FitConfig
from oligo_ad.errors import UserError
from oligo_ad.models.classifier import Classifier


def make_optimizer(classifier: Classifier, config: FitConfig, steps: int) -> tuple[Optimizer, LambdaLR]:
    """The optimizer, and its learning rate over that many optimizer steps."""
    groups = parameter_groups(classifier, float(config.optimizer["lr"]), config.layer_decay)
    optimizer = component(config.optimizer, "fit.optimizer")(groups)
    return optimizer, component(config.schedule, "fit.schedule")(optimizer, steps)


def parameter_groups(classifier: Classifier, lr: float, decay: float) -> list[dict[str, Any]]:
    """Trained parameters by learning rate; the rate of a layer is `decay` times that of the layer above it.

    Head and fusion come first, at the full rate; layers are the `stages` of the network, if it has any
    (Howard 2018; layer-wise as in Clark 2020).

    Raises:
        UserError: a decay, and a network that is not made of stages.
    """
    stages = classifier.network.stages
    if decay != 1 and not stages:
        raise UserError(f"fit.layer_decay={decay}: the network has no stages. Leave it out.")
    parts = [*reversed(stages), classifier]
    rates = [lr * decay ** (1 + place) for place in range(len(stages))] + [lr]
    groups, seen = [], set[nn.Parameter]()
    for part, rate in zip(parts, rates, strict=True):
        own = [p for p in part.parameters() if p.requires_grad and p not in seen]
        seen.update(own)
        groups.append({"params": own, "lr": rate})
    return [group for group in reversed(groups) if group["params"]]
