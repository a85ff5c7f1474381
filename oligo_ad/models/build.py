"""Configuration → featurizer and classifier, not yet fitted."""

from pathlib import Path

import torch

from oligo_ad.components import component
from oligo_ad.config import Component, ModelConfig
from oligo_ad.inputs.featurizers import Featurizer
from oligo_ad.models.adapt import adapt
from oligo_ad.models.classifier import Classifier, Network
from oligo_ad.models.pretrained import Pretrained
from oligo_ad.models.views import View

CPU = torch.device("cpu")


def make_featurizer(
    model: ModelConfig, pretrained: Pretrained | None, cache: Path | None = None, device: torch.device = CPU
) -> Featurizer:
    """The featurizer of a model.

    Args:
        model: which featurizer, with which options.
        pretrained: the pretrained model, if there is one.
        cache: the folder for what it computes and others can use; None: nothing is kept.
        device: where it computes.
    """
    given = {"pretrained": pretrained} if pretrained else {}
    made: Featurizer = component(model.featurizer, "model.featurizer")(cache=cache, device=device, **given)
    return made


def make_views(model: ModelConfig) -> dict[str, View]:
    """What is combined with the network of a model, by name."""
    return {name: component(node, f"model.views.{name}")() for name, node in model.views.items()}


def make_classifier(
    model: ModelConfig, fusion: Component, pretrained: Pretrained | None, n_ids: int, n_metadata: int
) -> Classifier:
    """A classifier of known sizes, untrained or with a pretrained network."""
    given = {"pretrained": pretrained} if pretrained else {}
    network = component(model.network, "model.network")
    pool, made_fusion = component(model.pool, "model.pool"), component(fusion, "metadata.fusion")

    def adapted(n_ids: int) -> Network:
        made: Network = network(n_ids=n_ids, **given)
        adapt(made, model.adapt)
        return made

    return Classifier(adapted, pool, made_fusion, n_ids, n_metadata)
