"""The reader of scGPT's checkpoints: the folder as downloaded → Pretrained.

The folder holds args.json (how the model was made), vocab.json (the id of each token) and best_model.pt
(the weights), or *.safetensors in place of the last. The package's own loader skips what does not match;
this one logs what it reads and leaves out, and refuses a file that would leave a part of the model random.
"""

import json
import logging
import pickle
import re
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from oligo_ad.errors import UserError, listing
from oligo_ad.inputs.vocabulary import census_tokens
from oligo_ad.models.pretrained import Pretrained
from oligo_ad.models.scgpt.network import ScGPT
from oligo_ad.models.scgpt.tokens import CLS, PAD

log = logging.getLogger(__name__)


class Setting(NamedTuple):
    """A number of args.json: our name of it, its value in the published whole-human model, its bounds."""

    name: str
    published: float
    least: float
    most: float


SETTINGS = {
    "embsize": Setting("width", 512, 1, 1 << 14),
    "nheads": Setting("heads", 8, 1, 1 << 10),
    "nlayers": Setting("layers", 12, 1, 1 << 10),
    "d_hid": Setting("feedforward", 512, 1, 1 << 16),
    "dropout": Setting("dropout", 0.2, 0.0, 0.99),
    "n_bins": Setting("n_bins", 51, 3, 256),
    "pad_value": Setting("pad_value", -2, -100, 100),
}
# Parts of a checkpoint that no nucleus's vector depends on.
UNUSED = {
    "decoder": "predicts expression",
    "mvc_decoder": "predicts expression",
    "flag_encoder": "marks the genes to predict",
    "cls_decoder": "the head of another task",
    "grad_reverse_discriminator": "removed batch effects in training",
    "batch_encoder": "read by the decoders only",
}
WHERE = """model=scgpt fine-tunes a checkpoint: add model.checkpoint=/path/to/scGPT_human.
The folder holds args.json, vocab.json and best_model.pt (about 200 MB); the scGPT project's README (GitHub:
bowang-lab/scGPT, "Pretrained scGPT Model Zoo", whole-human) links to its download. Or ask for random
weights with model.pretrained=false: every output is then marked."""


def read_folder(checkpoint: str | None, pretrained: bool | None) -> Pretrained:
    """Vocabulary, architecture and weights of a checkpoint.

    Args:
        checkpoint: the folder. None, with `pretrained` false: the published sizes, and a vocabulary of
            the genes of the CELLxGENE census.
        pretrained: false leaves the weights out.

    Raises:
        UserError: something is missing, damaged, or would not be the model that was trained.
    """
    if checkpoint is None:
        if pretrained is not False:
            raise UserError(WHERE)
        published = {setting.name: setting.published for setting in SETTINGS.values()}
        return _random(published, [PAD, CLS, *census_tokens()])
    folder = Path(checkpoint).expanduser()
    if not folder.is_dir():
        raise UserError(f"model.checkpoint={checkpoint} is no folder. {WHERE}")
    settings = _settings(folder / "args.json")
    vocabulary = _vocabulary(folder / "vocab.json")
    if pretrained is False:
        return _random(settings, vocabulary)
    return _with_weights(folder, settings, vocabulary)


def _random(settings: dict[str, float], vocabulary: list[str]) -> Pretrained:
    origin = {
        "weights": "RANDOM, as model.pretrained=false asks",
        "vocabulary": f"{len(vocabulary):,} tokens",
    }
    return Pretrained(tuple(vocabulary), settings, None, origin)


def _with_weights(folder: Path, settings: dict[str, float], vocabulary: list[str]) -> Pretrained:
    file, stored = _tensors(folder)
    tensors = {_our_name(name): tensor for name, tensor in stored.items()}
    if len(tensors) < len(stored):
        raise UserError(f"{file} holds some weights twice, in two spellings: which are meant is not clear.")
    with torch.device("meta"):
        backbone = ScGPT(len(vocabulary), Pretrained(tuple(vocabulary), settings)).state_dict()
    _check(file, tensors, {name: tuple(tensor.shape) for name, tensor in backbone.items()})
    left = _left(file, [name for name in tensors if name not in backbone])
    weights = {name: tensors[name].float() for name in backbone}
    origin = {
        "checkpoint": str(folder),
        "weights": f"{len(weights)} of {len(stored)} tensors of {file.name}, "
        f"{sum(tensor.numel() for tensor in weights.values()):,} parameters: the whole backbone",
        "left out": "; ".join(left) or "nothing",
        "vocabulary": f"{len(vocabulary):,} tokens",
    }
    for name, fact in origin.items():
        log.info("scGPT %s: %s", name, fact)
    return Pretrained(tuple(vocabulary), settings, weights, origin)


def _settings(file: Path) -> dict[str, float]:
    """The architecture, by our names."""
    args = _json(file)
    wrong = [
        f"{name}={args.get(name)} (a number from {of.least} to {of.most})"
        for name, of in SETTINGS.items()
        if not isinstance(args.get(name), type(of.published) | int) or not of.least <= args[name] <= of.most
    ]
    if wrong:
        raise UserError(f"{file} is not the args.json of scGPT: {listing(wrong)}.")
    if args["embsize"] % args["nheads"]:
        raise UserError(f"{file}: embsize={args['embsize']} is not a multiple of nheads={args['nheads']}.")
    style = args.get("input_emb_style", "continuous")
    if style != "continuous" or args.get("pre_norm", False):
        raise UserError(
            f"{file}: input_emb_style={style}, pre_norm={args.get('pre_norm', False)}. Only post-norm models "
            "of continuous values are read, such as the published ones."
        )
    return {setting.name: args[theirs] for theirs, setting in SETTINGS.items()}


def _vocabulary(file: Path) -> list[str]:
    """The tokens in the order of their ids."""
    ids = _json(file)
    if sorted(map(str, ids.values())) != sorted(map(str, range(len(ids)))):
        raise UserError(f"{file} is no vocabulary: its {len(ids):,} ids are not 0 to {len(ids) - 1:,}.")
    if missing := [token for token in (PAD, CLS) if token not in ids]:
        raise UserError(
            f"{file} is not the vocabulary of a checkpoint: it has no {' and no '.join(missing)}."
        )
    return sorted(ids, key=lambda token: int(ids[token]))


def _json(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text())
    except FileNotFoundError:
        raise UserError(f"{file.parent} has no {file.name}. {WHERE}") from None
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{file} cannot be read as JSON: {error}.") from None
    if not isinstance(content, dict):
        raise UserError(f"{file} holds a {type(content).__name__}, not names with values.")
    return content


def _tensors(folder: Path) -> tuple[Path, dict[str, Tensor]]:
    """The file of the weights, and its tensors. No code in it is ever run."""
    files = [folder / "best_model.pt", *sorted(folder.glob("*.safetensors"))]
    file = next((file for file in files if file.exists()), None)
    if len(files) > 2 and file != files[0]:
        raise UserError(f"{folder} holds several *.safetensors: leave the one that is meant.")
    if file is None:
        raise UserError(f"{folder} has no best_model.pt and no *.safetensors. {WHERE}")
    try:
        if file.suffix == ".safetensors":
            return file, load_file(file)
        stored = torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise UserError(
            f"{file} holds Python objects beside tensors, or is no checkpoint. Such objects can run code, so "
            "they are never read. Save the bare state_dict, or convert it to safetensors."
        ) from None
    except (OSError, RuntimeError, ValueError, EOFError, SafetensorError) as error:
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise UserError(f"{file} cannot be read, it may be truncated: {reason}.") from None
    if not isinstance(stored, dict) or not all(_is_weight(name, part) for name, part in stored.items()):
        raise UserError(f"{file} holds no state_dict: a flat mapping of names to dense tensors is read.")
    return file, stored


def _is_weight(name: object, part: object) -> bool:
    dense = isinstance(part, Tensor) and part.layout == torch.strided and part.is_floating_point()
    return isinstance(name, str) and dense


def _our_name(name: str) -> str:
    """A parameter's name in PyTorch's spelling; checkpoints spell those of attention in several ways."""
    name = name.removeprefix("module.").replace(".self_attn._impl.", ".self_attn.")
    return re.sub(r"\.self_attn\.Wqkv\.(weight|bias)$", r".self_attn.in_proj_\1", name)


def _check(file: Path, tensors: dict[str, Tensor], wanted: dict[str, tuple[int, ...]]) -> None:
    """Refuse an incomplete backbone, and one of other sizes than args.json and vocab.json declare."""
    if missing := sorted(wanted.keys() - tensors.keys()):
        raise UserError(
            f"{file} lacks {len(missing)} of the {len(wanted)} tensors of the backbone: {listing(missing)}. "
            "With those random, the model would not be the pretrained one."
        )
    for name, shape in wanted.items():
        if tuple(tensors[name].shape) != shape:
            raise UserError(
                f"{file}: {name} has shape {list(tensors[name].shape)}; args.json and vocab.json ask for "
                f"{list(shape)}. The three files are not of one checkpoint."
            )
        if not tensors[name].isfinite().all():
            raise UserError(f"{file}: {name} holds NaN or infinity.")


def _left(file: Path, names: list[str]) -> list[str]:
    """What is left out, and why.

    Raises:
        UserError: something that the vector of a nucleus would depend on.
    """
    parts: dict[str, int] = {}
    for name in names:
        parts[name.split(".")[0]] = parts.get(name.split(".")[0], 0) + 1
    if strange := sorted(parts.keys() - UNUSED.keys()):
        raise UserError(
            f"{file} holds parts that this forward pass does not have: "
            f"{listing([name for name in names if name.split('.')[0] in strange])}. "
            "Without them the model would not be the pretrained one."
        )
    return [f"{part} ({n} tensors: {UNUSED[part]})" for part, n in sorted(parts.items())]
