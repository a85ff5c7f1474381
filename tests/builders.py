"""Small synthetic atlases and configurations, so that each test states only what matters to it."""

import json
import tempfile
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any, Literal

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import torch
from accelerate import Accelerator
from hydra import compose, initialize_config_dir

from oligo_ad import config
from oligo_ad.data.cache import load_cohort
from oligo_ad.data.cohort import Cohort, build
from oligo_ad.data.contrast import Contrast, open_contrast
from oligo_ad.data.split import Fold
from oligo_ad.data.sums import sum_by_donor
from oligo_ad.errors import UserError
from oligo_ad.facts import PARTS, Epoch, FoldHistory
from oligo_ad.models.pretrained import Pretrained
from oligo_ad.models.scgpt.checkpoint import SETTINGS
from oligo_ad.models.scgpt.network import ScGPT
from oligo_ad.record import Record
from oligo_ad.storage.atlas import open_atlas
from oligo_ad.storage.expression import TARGET
from oligo_ad.storage.matrix import NucleusMatrix
from oligo_ad.training.checkpoint import Bundle
from oligo_ad.training.predict import predict_cohort

CONF = Path(__file__).parent.parent / "conf"
# A network that is neither frozen nor added to.
AS_IT_IS = config.AdaptConfig(frozen_stages=None, lora_rank=None, lora_alpha=16.0, recompute=False)


def atlas(
    n_positive: int = 9,
    n_negative: int = 6,
    nuclei: int = 24,
    genes: int = 60,
    effect: float = 0.0,
    seed: int = 0,
    **obs: Any,
) -> ad.AnnData:
    """Counts of `nuclei` nuclei a donor, interleaved; half are Oligodendrocyte, half Astrocyte.

    `effect` shifts the log mean of the first five genes in positive donors. Further obs columns are
    given by donor (one value each) in `obs`.
    """
    rng = np.random.default_rng(seed)
    n_donors = n_positive + n_negative
    donor = np.tile(np.arange(n_donors), nuclei)
    positive = donor < n_positive
    rate = np.exp(rng.normal(0.5, 0.7, genes)) * np.ones((len(donor), 1))
    rate[:, :5] *= np.exp(effect * positive)[:, None]
    turn = np.arange(len(donor)) // n_donors
    frame = pd.DataFrame(
        {
            "Donor ID": pd.Categorical([f"D{i:02d}" for i in donor]),
            "ADNC": pd.Categorical(np.where(positive, "High", "Not AD")),
            "Subclass": pd.Categorical(np.where(turn % 2, "Astrocyte", "Oligodendrocyte")),
            "Age at Death": 70.0 + donor * 7 % n_donors,
            "Sex": pd.Categorical(np.where(donor % 2, "Male", "Female")),
            "APOE Genotype": pd.Categorical(np.array(["3/3", "3/4", "2/3"])[donor % 3]),
        },
        index=[f"nucleus-{i}" for i in range(len(donor))],
    )
    for name, values in obs.items():
        frame[name] = np.asarray(values, dtype=object)[donor]
    var = pd.DataFrame(index=[f"GENE{i}" for i in range(genes)])
    counts = sp.csr_matrix(rng.poisson(rate).astype(np.float32))
    return ad.AnnData(counts, obs=frame, var=var)


def arranged(adata: ad.AnnData, donor: str = "Donor ID") -> ad.AnnData:
    """The same nuclei and genes in the order of a cohort, for genes that have no Ensembl id."""
    order = pd.DataFrame({"donor": adata.obs[donor].astype(str), "barcode": adata.obs_names})
    rows = order.reset_index(drop=True).sort_values(["donor", "barcode"]).index
    return adata[rows, adata.var_names.argsort()]


def write(adata: ad.AnnData, folder: Path, name: str = "atlas.h5ad") -> Path:
    """Save as h5ad."""
    path = folder / name
    adata.write_h5ad(path)
    return path


@cache
def configuration(*overrides: str) -> config.Config:
    """The configuration of `python run.py data=sea_ad …`, small enough for a test."""
    small = (
        "data=sea_ad",
        "data.min_genes=1",
        "data.min_nuclei=2",
        "fit.epochs=2",
        "fit.batch_size=16",
        "fit.log_every=2",
        "tracker=none",
    )
    # The featurizer of a frozen network holds the one that chooses genes.
    inner = "featurizer." if "model=scgpt_frozen" in overrides else ""
    few = f"model.featurizer.{inner}n_genes=30"
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return config.read(compose("config", overrides=[*small, few, *overrides]))


def cohort(adata: ad.AnnData, folder: Path, *overrides: str) -> Cohort:
    """The cohort that `data=sea_ad` makes of an atlas, every donor of it, by way of a file."""
    return read(write(adata, folder), *overrides)


def read(path: Path, *overrides: str) -> Cohort:
    """The cohort that `data=sea_ad` makes of a file, built in a folder of its own beside it."""
    folder = Path(tempfile.mkdtemp(prefix="cohort", dir=path.parent))
    with open_atlas(path) as opened:
        return build(opened, configuration(*overrides).data, folder)


def load(path: Path, *overrides: str) -> Cohort:
    """The same by way of a cache beside the file."""
    return load_cohort(configuration(f"data.path={path}", *overrides).data, path.parent / "cache")


def contrast(adata: ad.AnnData, folder: Path, *overrides: str) -> Contrast:
    """Which donors of an atlas `data=sea_ad` compares, by way of a file and a cache beside it."""
    return compared(write(adata, folder), *overrides)


def compared(path: Path, *overrides: str) -> Contrast:
    """The same of a file."""
    config = configuration(f"data.path={path}", *overrides)
    return open_contrast(config.data, config.split, config.metadata, path.parent / "cache")


def labels(cohort: Cohort, positive: int = 9) -> pd.Series:
    """1 for the first donors of an `atlas`, 0 for the others."""
    ids = cohort.donors.index
    return pd.Series((np.arange(len(ids)) < positive).astype(int), ids, name="label")


def history(fold: Fold, threshold: float = 0.5, **changed: Any) -> FoldHistory:
    """How a fold was trained, in one epoch of which nothing is told."""
    epoch = Epoch(1, 0.5, 0.5, 0.5, 0.5, 1.0, 1e-3, 100.0)
    given: dict[str, Any] = {
        "fold": fold.number,
        "seed": 0,
        "donors": {part: len(getattr(fold, part)) for part in PARTS},
        "pos_weight": 1.0,
        "best_epoch": 1,
        "threshold": threshold,
        "genes": ["GENE0"],
        "input": {"values": "counts", "fitted": "nothing"},
        "parameters": 1,
        "attention": [],
        "seconds": 1.0,
        "epochs": [epoch],
    }
    return FoldHistory(**given | changed)


def counts(cohort: Cohort) -> np.ndarray:
    """The whole matrix [cells, genes]."""
    return cohort.matrix.columns(np.arange(cohort.matrix.shape[1])).toarray()


def log_values(cohort: Cohort) -> np.ndarray:
    """Log values of every gene [cells, genes]."""
    return cohort.log_values(np.arange(cohort.matrix.shape[1])).toarray()


def exchanged(cohort: Cohort, values: np.ndarray, content: Literal["counts", "log"] = "counts") -> Cohort:
    """The same nuclei with other values, and all that follows from those."""
    rows = sp.csr_matrix(values, dtype=np.float32)
    indices, indptr = rows.indices.astype(np.uint16), rows.indptr.astype(np.int64)
    total = values.sum(axis=1, dtype=np.float64) if content == "counts" else np.full(len(values), np.nan)
    scale = TARGET / np.maximum(total, 1) if content == "counts" else None
    donor = cohort.donors.index.get_indexer(cohort.cells["donor"])
    matrix = NucleusMatrix(rows.data, indices, indptr[:-1], indptr[1:], np.arange(rows.shape[1]))
    return replace(
        cohort,
        matrix=matrix,
        cells=cohort.cells.assign(total=total, n_genes=np.diff(rows.indptr)),
        sums=sum_by_donor(matrix, donor, len(cohort.donors), scale),
        expression=replace(cohort.expression, content=content),
    )


def scgpt_folder(folder: Path, tokens: list[str], **args: Any) -> Path:
    """A small checkpoint of scGPT with random weights, its parts named as in the published one.

    Tensors that the vector of a cell does not depend on are in it too. `args` go into args.json.
    """
    published = {theirs: setting.published for theirs, setting in SETTINGS.items()}
    args = published | {"embsize": 32, "nheads": 4, "nlayers": 2, "d_hid": 32} | args
    vocabulary = (*tokens, "<pad>", "<cls>", "<eoc>")
    settings = {setting.name: args[theirs] for theirs, setting in SETTINGS.items()}
    torch.manual_seed(0)
    network = ScGPT(len(vocabulary), Pretrained(vocabulary, settings))
    stored = {
        # No two tensors are the same, as of norms just made they would be.
        name.replace(".self_attn.in_proj_", ".self_attn.Wqkv."): tensor + 0.1 * torch.randn_like(tensor)
        for name, tensor in network.state_dict().items()
    }
    for unused in ("decoder.fc.0.weight", "mvc_decoder.gene2query.weight", "flag_encoder.weight"):
        stored[unused] = torch.randn(2, network.size)
    folder.mkdir(exist_ok=True)
    torch.save(stored, folder / "best_model.pt")
    (folder / "vocab.json").write_text(json.dumps({token: i for i, token in enumerate(vocabulary)}))
    (folder / "args.json").write_text(json.dumps(args))
    return folder


def answer(mistake: Callable[..., Any], *given: Any) -> str:
    """What the user is told."""
    with pytest.raises(UserError) as told:
        mistake(*given)
    return str(told.value)


def assert_says(message: str, *words: str) -> None:
    """All the words are in the message."""
    silent = [word for word in words if word not in message]
    assert not silent, f"{silent} not in: {message}"


def assert_refused(path: Path, *words: str) -> None:
    """The file is blamed by name, and nothing is left in the cache."""
    message = answer(load, path)
    assert_says(message, path.name, *words)
    assert "Choose cache.dir" not in message
    assert {left.suffix for left in path.parent.glob("cache/*")} <= {".lock"}


def assert_predicts_as_in_its_run(bundle: Bundle, cohort: Cohort, folder: Path) -> None:
    """A model read from a file gives, to the bit, the logits that its run has written down."""
    name = "donor" if bundle.classifier.pool.sample == "donor" else "barcode"
    predicted = predict_cohort(bundle, cohort, Accelerator(cpu=True)).set_index(name)["logit"]
    record = Record(folder)
    stored = record.predictions.set_index(name)["logit"]
    if record.config.fit.members > 1:  # those of validation are of single members
        stored = stored[(record.predictions["part"] != "validation").to_numpy()]
    assert len(stored) > 0
    assert predicted[stored.index].equals(stored)
