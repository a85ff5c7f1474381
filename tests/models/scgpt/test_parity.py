"""Our scGPT is the published one: vectors, gradients, bins and tokens of the package scgpt 0.2.4."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks.published_scgpt import (
    FULL,
    PACKAGE_FOLDER,
    SMALL,
    cells,
    published,
    published_model,
    saved,
    vector,
    vocabulary,
)
from oligo_ad.draws import draw, nucleus_keys, stream, uniform
from oligo_ad.models.build import make_classifier
from oligo_ad.models.scgpt.checkpoint import read_folder
from oligo_ad.models.scgpt.network import ScGPT
from oligo_ad.models.scgpt.tokens import BinnedGenes, bin_values
from tests.builders import atlas, configuration, counts, log_values, read, write

if PACKAGE_FOLDER is None:
    pytest.skip("needs the published package: pip install --no-deps scgpt==0.2.4", allow_module_level=True)


def both(sizes: tuple[int, int, int, int], folder: Path) -> tuple[Any, ScGPT]:
    """The package's model, and ours from the folder that it wrote."""
    theirs = published_model(sizes)
    pretrained = read_folder(str(saved(theirs, sizes, folder)), True)
    return theirs, ScGPT(len(pretrained.vocabulary), pretrained, dropout=0.0)


@pytest.mark.parametrize("lengths", [[20, 20, 20], [1, 7, 33, 20]], ids=["no padding", "padding"])
def test_the_vector_of_a_cell_is_that_of_the_package(lengths: list[int], tmp_path: Path) -> None:
    theirs, ours = both(SMALL, tmp_path)
    batch = cells(lengths)
    for model in (theirs.train(), ours.train()), (theirs.eval(), ours.eval()):
        torch.testing.assert_close(model[1](batch), vector(model[0], batch), rtol=0, atol=2e-6)
    exact = ours.double()(batch._replace(values=batch.values.double()))
    wanted = vector(theirs.double(), batch._replace(values=batch.values.double()))
    torch.testing.assert_close(exact, wanted, rtol=0, atol=1e-13)


def test_the_gradient_of_every_weight_is_that_of_the_package(tmp_path: Path) -> None:
    theirs, ours = both(SMALL, tmp_path)
    batch = cells([1, 7, 33, 20])
    direction = torch.randn(4, SMALL[0], generator=torch.Generator().manual_seed(2))
    (vector(theirs.train(), batch) * direction).sum().backward()
    (ours.train()(batch) * direction).sum().backward()
    wanted = dict(theirs.named_parameters())
    for name, parameter in ours.named_parameters():
        torch.testing.assert_close(parameter.grad, wanted[name].grad, rtol=1e-5, atol=1e-5)
        assert parameter.grad is not None
        assert parameter.grad.abs().max() > 1e-6, name


@pytest.mark.slow
def test_the_published_size_agrees_too(tmp_path: Path) -> None:
    theirs, ours = both(FULL, tmp_path)
    n_backbone = sum(parameter.numel() for parameter in ours.parameters())
    stored = torch.load(tmp_path / "best_model.pt", weights_only=True)
    assert sum(tensor.numel() for tensor in stored.values()) == 51_330_049
    assert n_backbone == 50_278_400
    batch = cells([160, 64])
    found, wanted = ours.eval()(batch), vector(theirs.eval(), batch)
    torch.testing.assert_close(found, wanted, rtol=0, atol=2e-6)
    wanted.square().sum().backward()
    found.square().sum().backward()
    theirs_of = dict(theirs.named_parameters())
    for name, parameter in ours.named_parameters():
        torch.testing.assert_close(parameter.grad, theirs_of[name].grad, rtol=1e-4, atol=1e-5)


def test_bins_are_those_of_the_package_under_the_same_draws(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cohort = read(write(atlas(nuclei=12, genes=120), tmp_path))
    preprocess = published("preprocess")
    ids = np.arange(120, dtype=np.int32)
    keys = nucleus_keys(cohort.cells["barcode"])
    raw, logged = counts(cohort).astype(np.float64), log_values(cohort).astype(np.float64)
    for cell, key in enumerate(keys):
        own = raw[cell].nonzero()[0]
        offsets = np.array([0, len(own)])
        ours = bin_values(offsets, raw[cell][own], ids[own], keys[cell : cell + 1], stream(3, 0), 51)
        drawn = uniform(draw(key[None], stream(3, 0), own.astype(np.int64)))
        monkeypatch.setattr(np.random, "rand", lambda n, drawn=drawn: drawn)
        for values in (raw[cell], logged[cell]):
            theirs = preprocess.binning(values, 51)
            np.testing.assert_array_equal(ours, theirs[own])


@pytest.mark.parametrize("cls_value", [0.0, -2.0])
def test_tokens_are_those_of_the_package(cls_value: float, tmp_path: Path) -> None:
    ids_of = vocabulary()
    names = sorted(ids_of, key=lambda token: ids_of[token])[500:560]
    adata = atlas(nuclei=4)
    adata.var_names = names
    cohort = read(write(adata, tmp_path))
    pretrained = read_folder(str(saved(published_model(SMALL), SMALL, tmp_path)), True)
    featurizer = BinnedGenes(pretrained, cls_value=cls_value).fit(cohort, tuple(cohort.donors.index))
    tokens = featurizer.tokens(cohort)
    binned = np.zeros_like(counts(cohort))
    for cell in range(len(binned)):
        places = slice(tokens.offsets[cell], tokens.offsets[cell + 1])
        binned[cell, tokens.gene_ids[places] - 500] = tokens.values[places]
    rows = torch.arange(len(binned))
    ids, values, mask = featurizer.pack(tokens, rows, int(tokens.offsets.diff().max()), epoch=0)
    tokenizer = published("tokenizer.gene_tokenizer")
    theirs = tokenizer.tokenize_and_pad_batch(
        binned, np.arange(500, 560), max_len=61, vocab=vocabulary(), pad_token="<pad>", pad_value=-2,
        append_cls=True, include_zero_gene=False,
    )  # fmt: skip
    theirs["values"][:, 0] = cls_value  # the package has 0 there, except in embedding code
    torch.testing.assert_close(ids, theirs["genes"])
    torch.testing.assert_close(values, theirs["values"])
    assert mask.equal(ids != vocabulary()["<pad>"])


def test_a_classifier_made_from_the_folder_holds_the_weights_of_the_package(tmp_path: Path) -> None:
    model = published_model(SMALL)
    config = configuration("model=scgpt", f"model.checkpoint={saved(model, SMALL, tmp_path)}")
    pretrained = read_folder(config.model.checkpoint, True)
    classifier = make_classifier(
        config.model, config.metadata.fusion, pretrained, len(pretrained.vocabulary), 0
    )
    stored = dict(model.named_parameters())
    for name, parameter in classifier.network.named_parameters():
        assert parameter.equal(stored[name]), name
