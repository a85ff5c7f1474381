"""A checkpoint of scGPT is read whole, in every spelling, or refused in words; no code in it is run."""

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from oligo_ad.inputs.vocabulary import census_tokens
from oligo_ad.models.pretrained import Pretrained, read_pretrained
from oligo_ad.models.scgpt.checkpoint import read_folder
from oligo_ad.models.scgpt.network import ScGPT
from tests.builders import answer, assert_says, configuration, scgpt_folder

TOKENS = [f"GENE{i}" for i in range(12)]
Stored = dict[str, Tensor]
LAYER_0 = "transformer_encoder.layers.0."


def stored_in(folder: Path) -> Stored:
    found: Stored = torch.load(folder / "best_model.pt", weights_only=True)
    return found


def restored(folder: Path, change: Callable[[Stored], Any]) -> Path:
    """A new checkpoint, whose best_model.pt holds what `change` makes of its tensors."""
    scgpt_folder(folder, TOKENS)
    torch.save(change(stored_in(folder)), folder / "best_model.pt")
    return folder


def rewritten(folder: Path, name: str, change: Callable[[dict[str, Any]], Any]) -> Path:
    """A new checkpoint, whose `name` holds what `change` makes of its content."""
    scgpt_folder(folder, TOKENS)
    (folder / name).write_text(json.dumps(change(json.loads((folder / name).read_text()))))
    return folder


def weights_of(folder: Path) -> Stored:
    weights = read_folder(str(folder), True).weights
    assert weights is not None
    return weights


def assert_refused(folder: Path, name: str, *words: str) -> None:
    """The file is blamed by its path."""
    assert_says(answer(read_folder, str(folder), True), str(folder / name), *words)


# What is read


@pytest.mark.parametrize("prefix", ["", "module."])
@pytest.mark.parametrize("spelling", ["Wqkv.", "_impl.Wqkv.", "in_proj_", "_impl.in_proj_"])
def test_every_spelling_of_the_names_gives_the_same_weights(
    tmp_path: Path, prefix: str, spelling: str
) -> None:
    def respelt(stored: Stored) -> Stored:
        names = {name: prefix + name.replace("self_attn.Wqkv.", f"self_attn.{spelling}") for name in stored}
        return {names[name]: tensor for name, tensor in stored.items()}

    folder = restored(tmp_path, respelt)
    assert any(spelling in name for name in stored_in(folder))
    stored = stored_in(scgpt_folder(tmp_path / "as published", TOKENS))
    weights = read_folder(str(folder), True).weights
    assert weights is not None
    wanted = {
        name.replace("Wqkv.", "in_proj_"): tensor
        for name, tensor in stored.items()
        if name.startswith(("encoder.", "value_encoder.", "transformer_encoder."))
    }
    assert weights.keys() == wanted.keys()
    assert all(torch.equal(weights[name], tensor) for name, tensor in wanted.items())


def test_the_network_gets_the_weights(tmp_path: Path) -> None:
    pretrained = read_folder(str(scgpt_folder(tmp_path, TOKENS)), True)
    assert pretrained.weights is not None
    network = ScGPT(len(pretrained.vocabulary), pretrained).state_dict()
    assert network.keys() == pretrained.weights.keys()
    assert all(torch.equal(network[name], tensor) for name, tensor in pretrained.weights.items())


def test_vocabulary_and_settings_are_those_of_the_files(tmp_path: Path) -> None:
    folder = scgpt_folder(tmp_path, TOKENS, dropout=0.3, n_bins=11, pad_value=-7, max_seq_len=1200)
    found = read_folder(str(folder), None)
    assert found.vocabulary == (*TOKENS, "<pad>", "<cls>", "<eoc>")
    assert found.settings == {
        "width": 32,
        "heads": 4,
        "layers": 2,
        "feedforward": 32,
        "dropout": 0.3,
        "n_bins": 11,
        "pad_value": -7,
    }


def test_tokens_are_ordered_by_id_and_not_by_place_in_the_file(tmp_path: Path) -> None:
    def reversed_lines(ids: dict[str, int]) -> dict[str, int]:
        return dict(sorted(ids.items(), key=lambda pair: -pair[1]))

    folder = rewritten(tmp_path, "vocab.json", reversed_lines)
    assert read_folder(str(folder), True).vocabulary == (*TOKENS, "<pad>", "<cls>", "<eoc>")


def test_safetensors_are_read_in_place_of_best_model(tmp_path: Path) -> None:
    wanted = weights_of(scgpt_folder(tmp_path, TOKENS))
    save_file(stored_in(tmp_path), tmp_path / "model.safetensors")
    (tmp_path / "best_model.pt").unlink()
    found = read_folder(str(tmp_path), True)
    assert found.weights is not None
    assert all(torch.equal(found.weights[name], tensor) for name, tensor in wanted.items())
    assert_says(found.origin["weights"], "model.safetensors")


def test_what_was_read_and_what_left_out_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO"):
        found = read_folder(str(scgpt_folder(tmp_path, TOKENS)), True)
    assert found.weights is not None
    n = len(found.weights)
    parameters = f"{sum(tensor.numel() for tensor in found.weights.values()):,} parameters"
    assert found.origin["checkpoint"] == str(tmp_path)
    assert_says(found.origin["weights"], f"{n} of {n + 3} tensors of best_model.pt", parameters, "whole")
    assert found.origin["vocabulary"] == "15 tokens"
    assert_says(
        found.origin["left out"],
        "flag_encoder (1 tensors: marks the genes to predict)",
        "; mvc_decoder (1 tensors: predicts expression)",
    )
    assert found.origin["left out"].startswith("decoder (1 tensors: predicts expression); ")
    assert_says(caplog.text, *found.origin.values())


def test_nothing_left_out_is_told_too(tmp_path: Path) -> None:
    def backbone(stored: Stored) -> Stored:
        return {
            name: tensor for name, tensor in stored.items() if "decoder" not in name and "flag" not in name
        }

    assert read_folder(str(restored(tmp_path, backbone)), True).origin["left out"] == "nothing"


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_becomes_single(tmp_path: Path, dtype: torch.dtype) -> None:
    folder = restored(tmp_path, lambda stored: {name: tensor.to(dtype) for name, tensor in stored.items()})
    halves = stored_in(folder)
    weights = weights_of(folder)
    assert {tensor.dtype for tensor in weights.values()} == {torch.float32}
    for name, tensor in weights.items():
        assert torch.equal(tensor, halves[name.replace("in_proj_", "Wqkv.")].float())


def test_without_pretraining_the_folder_gives_sizes_and_genes_and_no_weights(tmp_path: Path) -> None:
    folder = scgpt_folder(tmp_path, TOKENS, n_bins=11)
    (folder / "best_model.pt").unlink()
    found = read_folder(str(folder), False)
    assert found.weights is None
    assert found.settings["width"] == 32
    assert found.settings["n_bins"] == 11
    assert found.vocabulary[:12] == tuple(TOKENS)
    assert_says(found.origin["weights"], "RANDOM", "model.pretrained=false")


def test_without_pretraining_and_folder_the_sizes_are_the_published_ones() -> None:
    found = read_folder(None, False)
    assert found.weights is None
    assert_says(found.origin["weights"], "RANDOM", "model.pretrained=false")
    assert found.settings == {
        "width": 512,
        "heads": 8,
        "layers": 12,
        "feedforward": 512,
        "dropout": 0.2,
        "n_bins": 51,
        "pad_value": -2,
    }
    assert set(found.vocabulary) == {"<pad>", "<cls>", *census_tokens()}
    assert len(set(found.vocabulary)) == len(found.vocabulary)


def test_a_configuration_names_the_reader(tmp_path: Path) -> None:
    folder = scgpt_folder(tmp_path, TOKENS)
    found = read_pretrained(configuration("model=scgpt", f"model.checkpoint={folder}").model)
    assert isinstance(found, Pretrained)
    assert found.vocabulary[:12] == tuple(TOKENS)
    assert found.weights is not None
    random = read_pretrained(
        configuration("model=scgpt", f"model.checkpoint={folder}", "model.pretrained=false").model
    )
    assert random is not None
    assert random.weights is None
    assert read_pretrained(configuration().model) is None


# What is refused


@pytest.mark.parametrize("pretrained", [True, None])
def test_a_checkpoint_that_was_not_given_is_asked_for(pretrained: bool | None) -> None:
    said = "model.checkpoint=/path/to", "args.json, vocab.json and best_model.pt", "model.pretrained=false"
    assert_says(answer(read_folder, None, pretrained), *said)
    assert_says(answer(read_pretrained, configuration("model=scgpt").model), *said)


@pytest.mark.parametrize("pretrained", [True, False])
def test_a_missing_folder_is_told(tmp_path: Path, pretrained: bool) -> None:
    missing = str(tmp_path / "scGPT_human")
    said = answer(read_folder, missing, pretrained)
    assert_says(said, f"model.checkpoint={missing} is no folder", "model.checkpoint=/path/to")


def test_a_file_in_place_of_the_folder_is_told(tmp_path: Path) -> None:
    file = scgpt_folder(tmp_path, TOKENS) / "best_model.pt"
    assert_says(answer(read_folder, str(file), True), f"model.checkpoint={file} is no folder")


@pytest.mark.parametrize("name", ["args.json", "vocab.json", "best_model.pt"])
def test_a_missing_file_is_told(tmp_path: Path, name: str) -> None:
    (scgpt_folder(tmp_path, TOKENS) / name).unlink()
    assert_says(answer(read_folder, str(tmp_path), True), f"{tmp_path} has no {name}", "bowang-lab/scGPT")


@pytest.mark.parametrize("name", ["embsize", "nheads", "nlayers", "d_hid", "dropout", "n_bins", "pad_value"])
@pytest.mark.parametrize("value", [None, "many"])
def test_args_without_a_number_are_refused(tmp_path: Path, name: str, value: str | None) -> None:
    folder = rewritten(tmp_path, "args.json", lambda args: args | {name: value})
    assert_refused(folder, "args.json", f"{name}={value} (a number")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("n_bins", 300), ("n_bins", 1), ("nheads", 0), ("nheads", 5), ("embsize", -1), ("embsize", 1e30),
        ("embsize", 32.7), ("embsize", float("inf")), ("dropout", 1.5), ("dropout", float("nan")),
        ("nlayers", 10**9),
    ],
)  # fmt: skip
def test_args_that_no_model_can_have_are_refused(name: str, value: float, tmp_path: Path) -> None:
    folder = scgpt_folder(tmp_path / "checkpoint", ["A", "B"])
    args = json.loads((folder / "args.json").read_text()) | {name: value}
    (folder / "args.json").write_text(json.dumps(args))
    assert_refused(folder, "args.json", f"{name}={value}")


def test_args_without_a_key_are_refused(tmp_path: Path) -> None:
    folder = rewritten(tmp_path, "args.json", lambda args: {"n_bins": args["n_bins"], "lr": 1e-4})
    assert_refused(
        folder, "args.json", "not the args.json of scGPT", "embsize=None", "nheads=None", "nlayers=None"
    )


@pytest.mark.parametrize("name", ["args.json", "vocab.json"])
@pytest.mark.parametrize(
    "content", [b"", b"<!DOCTYPE html><title>404</title>", b'{"embsize": 32', bytes(range(256))]
)
def test_a_file_that_is_no_json_is_refused(tmp_path: Path, name: str, content: bytes) -> None:
    (scgpt_folder(tmp_path, TOKENS) / name).write_bytes(content)
    assert_refused(tmp_path, name, "cannot be read as JSON")


@pytest.mark.parametrize("name", ["args.json", "vocab.json"])
def test_a_list_is_refused(tmp_path: Path, name: str) -> None:
    assert_refused(rewritten(tmp_path, name, list), name, "holds a list, not names with values")


@pytest.mark.parametrize(
    ("name", "value"), [("input_emb_style", "category"), ("input_emb_style", "scaling"), ("pre_norm", True)]
)
def test_a_model_of_another_kind_is_refused(tmp_path: Path, name: str, value: object) -> None:
    folder = rewritten(tmp_path, "args.json", lambda args: args | {name: value})
    assert_refused(folder, "args.json", f"{name}={value}", "post-norm models of continuous values")


@pytest.mark.parametrize("place", [3, 99, -1, 0.5, None])
def test_a_vocabulary_with_a_gap_is_refused(tmp_path: Path, place: object) -> None:
    folder = rewritten(tmp_path, "vocab.json", lambda ids: ids | {"GENE7": place})
    assert_refused(folder, "vocab.json", "its 15 ids are not 0 to 14")


@pytest.mark.parametrize("token", ["<cls>", "<pad>"])
def test_a_vocabulary_without_a_special_token_is_refused(tmp_path: Path, token: str) -> None:
    folder = rewritten(
        tmp_path, "vocab.json", lambda ids: {"OTHER" if name == token else name: i for name, i in ids.items()}
    )
    assert_refused(folder, "vocab.json", f"it has no {token}.")


def test_a_vocabulary_larger_than_the_embedding_is_refused(tmp_path: Path) -> None:
    folder = rewritten(tmp_path, "vocab.json", lambda ids: ids | {"ONE MORE": len(ids)})
    shapes = "has shape [15, 32]", "ask for [16, 32]"
    assert_refused(folder, "best_model.pt", "encoder.embedding.weight", *shapes, "not of one checkpoint")


def test_every_tensor_of_the_backbone_is_needed(tmp_path: Path) -> None:
    stored = stored_in(scgpt_folder(tmp_path, TOKENS))
    backbone = [name for name in stored if "decoder" not in name and "flag" not in name]
    assert len(backbone) == 33
    for lost in backbone:
        folder = restored(tmp_path, lambda stored, lost=lost: {n: t for n, t in stored.items() if n != lost})
        name = lost.replace("Wqkv.", "in_proj_")
        assert_refused(folder, "best_model.pt", f"lacks 1 of the 33 tensors of the backbone: {name}.")


def test_a_missing_layer_is_told(tmp_path: Path) -> None:
    folder = restored(tmp_path, lambda stored: {n: t for n, t in stored.items() if LAYER_0 not in n})
    assert_refused(
        folder, "best_model.pt", "lacks 12 of the 33 tensors", LAYER_0, "not be the pretrained one"
    )


def test_args_that_ask_for_more_layers_are_refused(tmp_path: Path) -> None:
    folder = rewritten(tmp_path, "args.json", lambda args: args | {"nlayers": 3})
    assert_refused(folder, "best_model.pt", "lacks 12 of the 45 tensors", "transformer_encoder.layers.2.")


def test_args_that_ask_for_fewer_layers_are_refused(tmp_path: Path) -> None:
    folder = rewritten(tmp_path, "args.json", lambda args: args | {"nlayers": 1})
    said = "does not have", "transformer_encoder.layers.1.self_attn", "not be the pretrained one"
    assert_refused(folder, "best_model.pt", *said)


@pytest.mark.parametrize(("name", "value"), [("embsize", 64), ("d_hid", 48)])
def test_args_of_other_sizes_are_refused(tmp_path: Path, name: str, value: int) -> None:
    folder = rewritten(tmp_path, "args.json", lambda args: args | {name: value})
    assert_refused(folder, "best_model.pt", "has shape [", str(value), "not of one checkpoint")


def test_a_tensor_of_another_shape_is_refused(tmp_path: Path) -> None:
    name = f"{LAYER_0}self_attn.Wqkv.weight"
    folder = restored(tmp_path, lambda stored: stored | {name: stored[name].T})
    said = f"{LAYER_0}self_attn.in_proj_weight", "[32, 96]", "[96, 32]"
    assert_refused(folder, "best_model.pt", *said)


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
@pytest.mark.parametrize("name", ["encoder.embedding.weight", f"{LAYER_0}norm2.bias"])
def test_a_weight_that_is_no_number_is_refused(tmp_path: Path, name: str, value: float) -> None:
    def spoilt(stored: Stored) -> Stored:
        stored[name].view(-1)[-1] = value
        return stored

    assert_refused(restored(tmp_path, spoilt), "best_model.pt", name, "NaN or infinity")


@pytest.mark.parametrize(
    "name", ["dsbn.bns.0.weight", "bn.running_mean", "encoder.extra.weight", f"{LAYER_0}norm3.weight"]
)
def test_a_part_that_the_vector_of_a_cell_would_depend_on_is_refused(tmp_path: Path, name: str) -> None:
    folder = restored(tmp_path, lambda stored: stored | {name: torch.ones(32)})
    assert_refused(folder, "best_model.pt", "does not have", name, "not be the pretrained one")


@pytest.mark.parametrize(
    "nested",
    [lambda stored: {"model": stored}, lambda stored: stored | {"epoch": 3}, list],
    ids=["nested", "a number beside", "a list"],
)
def test_what_is_no_flat_mapping_is_refused(tmp_path: Path, nested: Callable[[Stored], Any]) -> None:
    assert_refused(restored(tmp_path, nested), "best_model.pt", "no state_dict", "flat mapping of names")


@pytest.mark.parametrize("share", [0.01, 0.5, 0.99, 1.0])
def test_truncated_weights_are_refused(tmp_path: Path, share: float) -> None:
    file = scgpt_folder(tmp_path, TOKENS) / "best_model.pt"
    content = file.read_bytes()
    file.write_bytes(content[: int(len(content) * share) - 1])
    assert_refused(tmp_path, "best_model.pt", "cannot be read", "truncated")


@pytest.mark.parametrize(
    "content",
    [b"", b"\n", b"<!DOCTYPE html><title>404</title>" * 9, bytes(1000), b"PK\x03\x04" + bytes(99)],
    ids=["empty", "a line", "html", "zeros", "zip"],
)
def test_what_is_no_checkpoint_is_refused(tmp_path: Path, content: bytes) -> None:
    (scgpt_folder(tmp_path, TOKENS) / "best_model.pt").write_bytes(content)
    assert_refused(tmp_path, "best_model.pt")


def test_a_folder_in_place_of_the_weights_is_refused(tmp_path: Path) -> None:
    file = scgpt_folder(tmp_path, TOKENS) / "best_model.pt"
    file.unlink()
    file.mkdir()
    assert_refused(tmp_path, "best_model.pt", "cannot be read")


class Code:
    """Creates a file when it is unpickled."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.trace,)


def save_old(content: object, file: Path) -> None:
    torch.save(content, file, _use_new_zipfile_serialization=False)


def save_pickle(content: object, file: Path) -> None:
    file.write_bytes(pickle.dumps(content))


@pytest.mark.parametrize("save", [torch.save, save_old, save_pickle])
@pytest.mark.parametrize("alone", [True, False], ids=["alone", "beside tensors"])
def test_code_in_a_checkpoint_is_not_run(
    tmp_path: Path, save: Callable[[object, Path], None], alone: bool
) -> None:
    trace = tmp_path / "called"
    file = scgpt_folder(tmp_path, TOKENS) / "best_model.pt"
    save(Code(trace) if alone else stored_in(tmp_path) | {"hook": Code(trace)}, file)
    assert_refused(tmp_path, "best_model.pt")
    assert not trace.exists()
    if save is torch.save:
        assert_refused(tmp_path, "best_model.pt", "can run code", "never read", "safetensors")


@pytest.mark.parametrize("content", [b"", b"garbage" * 99, (99).to_bytes(8, "little") + b"{}" + bytes(200)])
def test_safetensors_that_are_none_are_refused(tmp_path: Path, content: bytes) -> None:
    (scgpt_folder(tmp_path, TOKENS) / "best_model.pt").unlink()
    (tmp_path / "model.safetensors").write_bytes(content)
    assert_refused(tmp_path, "model.safetensors", "cannot be read")


def test_truncated_safetensors_are_refused(tmp_path: Path) -> None:
    file = scgpt_folder(tmp_path, TOKENS) / "model.safetensors"
    save_file(stored_in(tmp_path), file)
    (tmp_path / "best_model.pt").unlink()
    file.write_bytes(file.read_bytes()[:-1])
    assert_refused(tmp_path, "model.safetensors", "cannot be read", "truncated")
