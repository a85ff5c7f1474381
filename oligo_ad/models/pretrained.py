"""A pretrained model, as its reader returns it and as its featurizer and network take it.

A further foundation model is three things and a YAML file: a reader (path, pretrained) → Pretrained, a
featurizer and a network that take one. `model.reader` names the reader.
"""

from dataclasses import dataclass, field

from torch import Tensor

from oligo_ad.components import component
from oligo_ad.config import ModelConfig


@dataclass(frozen=True)
class Pretrained:
    """A pretrained model in memory.

    `vocabulary` [ids]: the token of each id. `settings`: sizes and options of the model that featurizer
    and network need. `weights`: of the network, by parameter name; None where they are random, or are
    loaded from a bundle. `origin`: facts for the report.
    """

    vocabulary: tuple[str, ...]
    settings: dict[str, float]
    weights: dict[str, Tensor] | None = None
    origin: dict[str, str] = field(default_factory=dict)


def read_pretrained(model: ModelConfig) -> Pretrained | None:
    """The pretrained model that a configuration names; None for a model without one.

    Raises:
        UserError: there is no checkpoint, or it is not as published.
    """
    if model.reader is None:
        return None
    found: Pretrained = component(model.reader, "model.reader")(model.checkpoint, model.pretrained)
    return found
