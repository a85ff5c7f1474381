"""A trained model on disk with everything that prediction needs: one safetensors file, no pickle.

Neither the data nor the configuration nor the pretrained checkpoint that it came from is needed to use it,
and no path of the machine that trained it is in it.
"""

import hashlib
import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from oligo_ad.config import Component, ModelConfig
from oligo_ad.data.covariates import Coding
from oligo_ad.errors import UserError
from oligo_ad.inputs.featurizers import Featurizer
from oligo_ad.models.build import CPU, make_classifier, make_featurizer, make_views
from oligo_ad.models.classifier import Classifier, Committee
from oligo_ad.models.combination import Readers, restored
from oligo_ad.models.pretrained import Pretrained
from oligo_ad.storage.shelf import published


@dataclass(frozen=True)
class Usage:
    """How a trained model is used: batch sizes, and the meaning of its logits.

    `classes`: names of the negative and the positive class. `threshold`: probability from which a sample is
    called positive. `donor_score`: how a donor's score is computed from those of its nuclei.
    `calibration`: slope and intercept, which make the logit of a donor's score that of a probability at
    `prevalence`; None where none was fitted. It changes no call: the threshold is of scores as predicted.
    `batch_size`, `bag_size`: samples, and nuclei of a bag, at a time.
    """

    classes: tuple[str, str]
    threshold: float
    donor_score: str
    calibration: dict[str, float] | None
    batch_size: int
    bag_size: int


@dataclass(frozen=True)
class Bundle:
    """A trained model with all that prediction needs.

    `classifier`: one, or a committee of members. `readers`: what it is combined with. `genes`: name, symbol
    and Ensembl id of each gene that the featurizer reads. `covariates`: names of the donor columns that the
    model is given; `coding`: how these become inputs. `model`, `fusion`: its components, as configured.
    `pretrained`: the model it started from, without its weights.
    """

    classifier: Classifier | Committee
    readers: Readers | None
    featurizer: Featurizer
    genes: pd.DataFrame
    covariates: tuple[str, ...]
    coding: Coding
    usage: Usage
    model: ModelConfig
    fusion: Component
    pretrained: Pretrained | None


def save_bundle(bundle: Bundle, path: Path) -> None:
    """Write `path` whole or not at all."""
    tensors = {f"classifier.{k}": v for k, v in bundle.classifier.state_dict().items()}
    tensors |= {f"featurizer.{k}": v for k, v in bundle.featurizer.state().items()}
    coding, pretrained, readers = bundle.coding, bundle.pretrained, bundle.readers
    if readers:
        tensors |= {f"combination.{k}": v for k, v in readers.combination.state().items()}
        for name, view in readers.views.items():
            tensors |= {f"views.{name}.{k}": v for k, v in view.state().items()}
    about = {
        "members": len(bundle.classifier.members) if isinstance(bundle.classifier, Committee) else 1,
        "views": {name: view.gene_names for name, view in readers.views.items()} if readers else {},
        "model": asdict(replace(bundle.model, checkpoint=None)),
        "fusion": bundle.fusion,
        "gene_names": bundle.featurizer.gene_names,
        "genes": bundle.genes.astype(object).where(bundle.genes.notna(), None).to_dict("list"),
        "covariates": {
            "names": bundle.covariates,
            "mean": coding.mean.to_dict(),
            "sd": coding.sd.to_dict(),
            "with_unknown": coding.with_unknown,
        },
        "usage": asdict(bundle.usage),
        "pretrained": pretrained and {"vocabulary": pretrained.vocabulary, "settings": pretrained.settings},
    }
    contiguous = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    # One entry: safetensors writes several in any order, and equal models should be equal files.
    described = json.dumps(about | {"digest": _digest(contiguous)})
    with published(path) as staging:
        save_file(contiguous, staging, metadata={"oligo_ad": described})


def load_bundle(path: Path, cache: Path | None = None, device: torch.device = CPU) -> Bundle:
    """What `save_bundle` wrote; `cache` and `device` are those of `make_featurizer`.

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
        raise UserError(f"{path} was changed, its parts do not fit each other: {error}.") from None


def _assemble(
    about: dict[str, Any], tensors: dict[str, torch.Tensor], cache: Path | None, device: torch.device
) -> Bundle:
    model, found = ModelConfig(**about["model"]), about["pretrained"]
    pretrained = found and Pretrained(tuple(found["vocabulary"]), found["settings"])
    featurizer = make_featurizer(model, pretrained, cache, device)
    featurizer.restore(about["gene_names"], _part(tensors, "featurizer."))
    known = about["covariates"]
    coding = Coding(
        mean=pd.Series(known["mean"], dtype=float),
        sd=pd.Series(known["sd"], dtype=float),
        with_unknown=tuple(known["with_unknown"]),
    )
    sizes = (about["fusion"], pretrained, featurizer.n_ids, coding.size)
    made = [make_classifier(model, *sizes) for _ in range(about.get("members", 1))]
    classifier = Committee(made) if len(made) > 1 else made[0]
    classifier.load_state_dict(_part(tensors, "classifier."))
    usage = about["usage"]
    return Bundle(
        classifier=classifier.eval(),
        readers=_readers(model, about.get("views", {}), tensors),
        featurizer=featurizer,
        genes=pd.DataFrame(about["genes"], dtype=object),
        covariates=tuple(known["names"]),
        coding=coding,
        usage=Usage(**usage | {"classes": tuple(usage["classes"])}),
        model=model,
        fusion=about["fusion"],
        pretrained=pretrained,
    )


def _readers(
    model: ModelConfig, gene_names: dict[str, list[str]], tensors: dict[str, torch.Tensor]
) -> Readers | None:
    if not gene_names:
        return None
    views = make_views(model)
    for name, view in views.items():
        view.restore(gene_names[name], _part(tensors, f"views.{name}."))
    return Readers(views, restored(_part(tensors, "combination.")))


def _digest(tensors: dict[str, torch.Tensor]) -> str:
    """SHA-256 of names and values: safetensors does not notice a flipped bit."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(name.encode() + tensors[name].numpy().tobytes())
    return digest.hexdigest()


def _part(tensors: dict[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
