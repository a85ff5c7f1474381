"""model.safetensors: whole, or refused; and no code in it is run."""

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from oligo_ad.data.covariates import Coding
from oligo_ad.models.build import make_classifier, make_featurizer
from oligo_ad.training import checkpoint as module
from oligo_ad.training.checkpoint import Bundle, Usage, load_bundle, save_bundle
from tests.builders import answer, assert_says, atlas, cohort, configuration


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    config = configuration("model.network.hidden=[8]")
    made = cohort(atlas(), tmp_path)
    featurizer = make_featurizer(config.model, None).fit(made, tuple(made.donors.index))
    fusion = config.metadata.fusion
    nothing = pd.Series(dtype=float)
    bundle = Bundle(
        classifier=make_classifier(config.model, fusion, None, featurizer.n_ids, 0),
        readers=None,
        featurizer=featurizer,
        genes=pd.DataFrame({"name": featurizer.gene_names, "symbol": None, "ensembl": "ENSG00000000001"}),
        covariates=(),
        coding=Coding(nothing, nothing, ()),
        usage=Usage(("Not AD", "High"), 0.25, "mean", None, 64, 16),
        model=config.model,
        fusion=fusion,
        pretrained=None,
    )
    path = tmp_path / "model.safetensors"
    save_bundle(bundle, path)
    again = load_bundle(path)
    assert again.featurizer.gene_names == featurizer.gene_names
    assert again.usage == bundle.usage
    assert not any(part.training for part in again.classifier.modules())
    pd.testing.assert_frame_equal(again.genes, bundle.genes, check_dtype=False)
    return path


def edited(path: Path, old: str, new: str) -> None:
    """Exchange a word of the description inside, keeping the tensors."""
    with safe_open(path, "pt") as file:
        about = file.metadata()["oligo_ad"]
    assert old in about
    save_file(load_file(path), path, metadata={"oligo_ad": about.replace(old, new)})


def test_a_write_that_breaks_off_leaves_the_checkpoint_that_was_there(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle, before = load_bundle(checkpoint), checkpoint.read_bytes()

    def broken(tensors: dict[str, torch.Tensor], path: Path, metadata: dict[str, str]) -> None:
        Path(path).write_bytes(before[:100])
        raise OSError("No space left on device")

    monkeypatch.setattr(module, "save_file", broken)
    with pytest.raises(OSError, match="No space"):
        save_bundle(bundle, checkpoint)
    assert checkpoint.read_bytes() == before
    assert not [file for file in checkpoint.parent.iterdir() if "model" in file.name and file != checkpoint]


def test_a_checkpoint_with_a_flipped_byte_is_refused(checkpoint: Path) -> None:
    content = bytearray(checkpoint.read_bytes())
    content[-5] ^= 1
    checkpoint.write_bytes(content)
    assert_says(answer(load_bundle, checkpoint), str(checkpoint), "its tensors changed")


@pytest.mark.parametrize("keep", [0, 20, 2_000, -1])
def test_a_truncated_checkpoint_is_refused(checkpoint: Path, keep: int) -> None:
    checkpoint.write_bytes(checkpoint.read_bytes()[:keep])
    assert_says(answer(load_bundle, checkpoint), str(checkpoint), "no model.safetensors of a run")


def test_a_missing_checkpoint_is_told(tmp_path: Path) -> None:
    assert_says(answer(load_bundle, tmp_path / "none.safetensors"), "none.safetensors", "No such file")


def test_a_foreign_checkpoint_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "other.safetensors"
    save_file({"weight": torch.zeros(3)}, path, metadata={"format": "pt"})
    assert_says(answer(load_bundle, path), str(path), "no model.safetensors of a run")


class Code:
    """Creates a file when it is unpickled."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.trace,)


def test_a_pickled_checkpoint_is_refused_and_its_code_not_run(tmp_path: Path) -> None:
    path, trace = tmp_path / "model.safetensors", tmp_path / "called"
    torch.save(Code(trace), path)
    assert_says(answer(load_bundle, path), str(path), "no model.safetensors of a run")
    assert not trace.exists()


def test_a_checkpoint_that_names_foreign_code_is_refused(checkpoint: Path) -> None:
    edited(checkpoint, "oligo_ad.models.mlp.MLP", "os.system")
    assert_says(answer(load_bundle, checkpoint), "model.network._target_=os.system is not allowed")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"hidden": [8]', '"hidden": [9]'),
        ('"gene_names": ["GENE', '"gene_names": ["ONE", "GENE'),
        ('"gene_names"', '"names"'),
        ('"featurizer"', '"featurizers"'),
    ],
    ids=["another architecture", "another panel", "no panel", "no featurizer"],
)
def test_a_checkpoint_that_does_not_fit_itself_is_refused(checkpoint: Path, old: str, new: str) -> None:
    edited(checkpoint, old, new)
    assert str(checkpoint) in answer(load_bundle, checkpoint)
