"""A trained model on disk with everything needed to use it: one safetensors file, no pickle."""

import hashlib
import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from oligo_ad.config import MetadataConfig, ModelConfig
from oligo_ad.data.covariates import Standardiser
from oligo_ad.errors import UserError
from oligo_ad.inputs.featurizers import Featurizer
from oligo_ad.models.build import CPU, make_classifier, make_featurizer
from oligo_ad.models.classifier import Classifier
from oligo_ad.models.pretrained import Pretrained


@dataclass(frozen=True)
class Trained:
    """A classifier with the featurizer and metadata standardiser fitted beside it, and the pretrained model
    that it started from."""

    classifier: Classifier
    featurizer: Featurizer
    standardiser: Standardiser | None
    pretrained: Pretrained | None = None


def save_checkpoint(trained: Trained, model: ModelConfig, metadata: MetadataConfig, path: Path) -> None:
    """Write `path` whole or not at all."""
    tensors = {f"classifier.{k}": v for k, v in trained.classifier.state_dict().items()}
    tensors |= {f"featurizer.{k}": v for k, v in trained.featurizer.state().items()}
    known = trained.standardiser
    about = {
        # Whoever loads this may have no such folder, and needs none.
        "model": asdict(replace(model, checkpoint=None)),
        "metadata": asdict(metadata),
        "gene_names": trained.featurizer.gene_names,
        "pretrained": trained.pretrained
        and {"vocabulary": trained.pretrained.vocabulary, "settings": trained.pretrained.settings},
        "standardiser": known
        and {
            "mean": known.mean.to_dict(),
            "sd": known.sd.to_dict(),
            "with_unknown": known.with_unknown,
        },
    }
    partial = path.with_suffix(".partial")
    contiguous = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    # One entry: safetensors writes several in any order, and equal models should be equal files.
    described = json.dumps(about | {"digest": _digest(contiguous)})
    save_file(contiguous, partial, metadata={"oligo_ad": described})
    partial.rename(path)


def load_checkpoint(path: Path, cache: Path | None = None, device: torch.device = CPU) -> Trained:
    """What `save_checkpoint` wrote; `cache` and `device` are those of `make_featurizer`.

    Raises:
        UserError: the file is missing, damaged, or not one of ours.
    """
    try:
        with safe_open(path, "pt") as file:
            about = json.loads((file.metadata() or {})["oligo_ad"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 no mapping
            if about["digest"] != _digest(tensors):
                raise ValueError("its tensors changed since they were written")
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise UserError(f"{path} is no model.safetensors of a run: {error!r}.") from None
    try:
        return _assemble(about, tensors, cache, device)
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise UserError(f"{path} does not fit itself, it was changed: {error}.") from None


def _assemble(
    about: dict[str, Any], tensors: dict[str, torch.Tensor], cache: Path | None, device: torch.device
) -> Trained:
    model, metadata = ModelConfig(**about["model"]), MetadataConfig(**about["metadata"])
    started = about["pretrained"]
    pretrained = started and Pretrained(tuple(started["vocabulary"]), started["settings"])
    featurizer = make_featurizer(model, pretrained, cache, device)
    featurizer.restore(about["gene_names"], _part(tensors, "featurizer."))
    known = about["standardiser"]
    standardiser = known and Standardiser(
        pd.Series(known["mean"]), pd.Series(known["sd"]), tuple(known["with_unknown"])
    )
    n_metadata = len(known["mean"]) + len(known["with_unknown"]) if known else 0
    classifier = make_classifier(model, metadata, pretrained, featurizer.n_ids, n_metadata)
    classifier.load_state_dict(_part(tensors, "classifier."))
    return Trained(classifier.eval(), featurizer, standardiser, pretrained)


def _digest(tensors: dict[str, torch.Tensor]) -> str:
    """Of names and values: safetensors reads a flipped bit without a word."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(name.encode() + tensors[name].numpy().tobytes())
    return digest.hexdigest()


def _part(tensors: dict[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
