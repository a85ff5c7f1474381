"""Configuration → featurizer and classifier, not yet fitted."""

import inspect
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch

from oligo_ad.components import component
from oligo_ad.config import Component, ModelConfig
from oligo_ad.inputs.featurizers import Featurizer
from oligo_ad.models.classifier import Classifier
from oligo_ad.models.pretrained import Pretrained

CPU = torch.device("cpu")


def make_featurizer(
    model: ModelConfig, pretrained: Pretrained | None, cache: Path | None = None, device: torch.device = CPU
) -> Featurizer:
    """The featurizer of a model."""
    made: Featurizer = _with(pretrained, component(model.featurizer, "model.featurizer"))()
    return made


def make_classifier(
    model: ModelConfig, fusion: Component, pretrained: Pretrained | None, n_ids: int, n_metadata: int
) -> Classifier:
    """A classifier of known sizes, untrained or with a pretrained network."""
    network = _with(pretrained, component(model.network, "model.network"))
    pool = component(model.pool, "model.pool")
    return Classifier(network, pool, component(fusion, "metadata.fusion"), n_ids, n_metadata)


def _with(pretrained: Pretrained | None, constructor: Callable[..., Any]) -> Callable[..., Any]:
    takes = "pretrained" in inspect.signature(constructor).parameters
    return partial(constructor, pretrained=pretrained) if takes else constructor
