"""The published package scgpt 0.2.4, for comparison: its model, its checkpoints and its input.

Only the package's code of model and input is loaded: its __init__ imports much that classifying nuclei does
not need. So `pip install --no-deps scgpt==0.2.4` suffices.
"""

import importlib
import importlib.util
import json
import logging
import sys
import warnings
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from oligo_ad.inputs.batch import Batch, Inputs

FOUND = importlib.util.find_spec("scgpt")
LOCATIONS = FOUND.submodule_search_locations if FOUND else None
PACKAGE_FOLDER = Path(LOCATIONS[0]) if LOCATIONS else None
# Width, heads, feed-forward, layers.
SMALL, FULL = (48, 4, 40, 3), (512, 8, 512, 12)


def _package_folder() -> Path:
    if PACKAGE_FOLDER is None:
        raise ImportError("the published package is not installed: pip install --no-deps scgpt==0.2.4")
    return PACKAGE_FOLDER


def published(module: str) -> Any:
    """A module of the package, without any __init__ of it, and without torchtext."""
    folder = _package_folder()
    bare = {name: ModuleType(name) for name in ("scgpt", "scgpt.model", "scgpt.tokenizer", "torchtext")}
    vocab = bare["torchtext.vocab"] = ModuleType("torchtext.vocab")
    for name, stand_in in bare.items():
        stand_in.__path__ = [str(folder / name.removeprefix("scgpt").replace(".", "/").strip("/"))]
    bare["scgpt"].__dict__["logger"] = logging.getLogger("scgpt")
    vocab.__dict__["Vocab"] = dict
    sys.modules |= {name: stand_in for name, stand_in in bare.items() if name not in sys.modules}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # flash-attn is not installed
        return importlib.import_module(f"scgpt.{module}")


def vocabulary() -> dict[str, int]:
    """The shipped names with the special tokens of the published checkpoint: 60,697."""
    names = json.loads((_package_folder() / "tokenizer" / "default_census_vocab.json").read_text())
    return names | {token: len(names) + i for i, token in enumerate(("<pad>", "<cls>", "<eoc>"))}


def published_model(sizes: tuple[int, int, int, int], dropout: float = 0.0) -> Any:
    """The package's own model, with random weights of some size in every tensor."""
    width, heads, feedforward, layers = sizes
    torch.manual_seed(0)
    model = published("model.model").TransformerModel(
        len(vocabulary()), width, heads, feedforward, layers, vocab=vocabulary(), dropout=dropout,
        pad_token="<pad>", pad_value=-2, do_mvc=True, use_fast_transformer=False, n_cls=2,
    )  # fmt: skip
    for name, parameter in model.named_parameters():
        if parameter.dim() == 1:
            nn.init.normal_(parameter, mean=float("norm" in name and "weight" in name), std=0.1)
    return model


def saved(model: Any, sizes: tuple[int, int, int, int], folder: Path) -> Path:
    """The folder in the published format: flash-attention's names, a flag encoder, no head."""
    width, heads, feedforward, layers = sizes
    stored = {
        name.replace("in_proj_", "Wqkv."): tensor
        for name, tensor in model.state_dict().items()
        if not name.startswith("cls_decoder")
    }
    stored["flag_encoder.weight"] = torch.zeros(2, width)
    torch.save(stored, folder / "best_model.pt")
    (folder / "vocab.json").write_text(json.dumps(vocabulary()))
    args = {
        "embsize": width, "nheads": heads, "d_hid": feedforward, "nlayers": layers, "n_layers_cls": 3,
        "dropout": 0.2, "n_bins": 51, "max_seq_len": 1200, "pad_token": "<pad>", "pad_value": -2,
        "mask_value": -1, "input_style": "binned", "input_emb_style": "continuous", "fast_transformer": True,
    }  # fmt: skip
    (folder / "args.json").write_text(json.dumps(args))
    return folder


def cells(lengths: list[int]) -> Batch:
    """A batch of random tokens and bins, padded as the package pads."""
    generator = torch.Generator().manual_seed(1)
    shape = (len(lengths), max(lengths))
    mask = torch.arange(shape[1]) < torch.tensor(lengths)[:, None]
    ids = torch.randint(60694, shape, generator=generator).masked_fill(~mask, vocabulary()["<pad>"])
    ids[:, 0] = vocabulary()["<cls>"]
    values = torch.randint(1, 51, shape, generator=generator).float().masked_fill(~mask, -2.0)
    values[:, 0] = 0
    return Batch.of_nuclei(Inputs(ids, values, mask))


def vector(model: Any, batch: Batch) -> Tensor:
    """The vectors of nuclei by the package's model [nuclei, width]."""
    found: Tensor = model(batch.gene_ids, batch.values, ~batch.mask)["cell_emb"]
    return found
