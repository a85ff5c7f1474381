"""What a `_target_` becomes: one level of nesting, and what the run gives by name."""

import importlib
import pkgutil
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import yaml

import oligo_ad.inputs
import oligo_ad.models.scgpt
from oligo_ad.components import GIVEN, _resolve, component
from oligo_ad.models.classifier import Add, Ignore
from oligo_ad.models.frozen import Frozen
from oligo_ad.models.mlp import MLP
from tests.builders import CONF, answer, assert_says

CPU = torch.device("cpu")
PANEL = {"_target_": "oligo_ad.inputs.featurizers.StandardisedPanel", "n_genes": 7}
NETWORK = {"_target_": "oligo_ad.models.mlp.MLP", "hidden": [4]}
FROZEN = {"_target_": "oligo_ad.models.frozen.Frozen", "featurizer": PANEL, "network": NETWORK}


def nodes(node: Any) -> list[dict[str, Any]]:
    """A mapping and every mapping inside it."""
    if not isinstance(node, dict):
        return []
    return [node, *(inner for value in node.values() for inner in nodes(value))]


def test_no_configuration_says_what_the_run_gives_or_how_components_are_made() -> None:
    found = [inner for file in CONF.rglob("*.yaml") for inner in nodes(yaml.safe_load(file.read_text()))]
    components = [node for node in found if "_target_" in node]
    assert len(components) > 10
    assert not {name for node in components for name in node} & {"_partial_", *GIVEN}


def test_a_constructor_takes_of_what_is_given_what_its_signature_asks_for() -> None:
    given = {"size": 3, "n_metadata": 2, "n_ids": 5, "pretrained": None, "cache": None, "device": CPU}
    made = [
        component({"_target_": f"oligo_ad.models.{name}"}, "metadata.fusion")(**given)
        for name in ("classifier.Add", "classifier.Ignore", "mlp.MLP")
    ]
    assert [type(one) for one in made] == [Add, Ignore, MLP]
    assert made[2].layers[0].in_features == 5


def test_a_component_in_a_component_is_given_the_same(tmp_path: Path) -> None:
    frozen = component(FROZEN, "model.featurizer")(cache=tmp_path, device=CPU)
    assert isinstance(frozen, Frozen)
    assert frozen._input.n_genes == 7  # type: ignore[attr-defined]
    assert frozen._make_network(n_ids=6).layers[0].in_features == 6


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"network": {"_target_": "os.system"}}, ["model.featurizer.network._target_=os.system", "allowed"]),
        ({"network": {"_target_": "torch.optim.Adam"}}, ["model.featurizer.network._target_", "allowed"]),
        ({"network": NETWORK | {"hiden": []}}, ["model.featurizer.network.hiden", "Did you mean 'hidden'?"]),
        ({"network": NETWORK | {"dropout": "x"}}, ["model.featurizer.network.dropout=x", "valid number"]),
        ({"network": 3}, ["model.featurizer.network=3", "_target_"]),
        ({"network": FROZEN}, ["model.featurizer.network.featurizer", "one level deep"]),
        ({"network": NETWORK | {"hidden": NETWORK}}, ["model.featurizer.network.hidden", "not a component"]),
        ({"batch_size": NETWORK}, ["model.featurizer.batch_size", "not a component"]),
    ],
)
def test_a_component_in_a_component_is_checked_as_any_other(change: dict[str, Any], words: list[str]) -> None:
    assert_says(answer(component, FROZEN | change, "model.featurizer"), *words)


def test_a_missing_component_is_named() -> None:
    node = {name: value for name, value in FROZEN.items() if name != "network"}
    assert_says(answer(component, node, "model.featurizer"), "model.featurizer.network", "_target_")


@pytest.mark.parametrize("name", ["cache", "device", "pretrained", "_partial_", "_args_", "_recursive_"])
def test_what_is_given_cannot_be_configured(name: str) -> None:
    message = answer(component, FROZEN | {name: "/tmp"}, "model.featurizer")
    assert_says(message, f"model.featurizer.{name}", "no such option", "batch_size")
    assert "It has featurizer, network, batch_size, seed." in message


def test_what_is_needed_and_not_given_is_named() -> None:
    scgpt = component({"_target_": "oligo_ad.models.scgpt.network.ScGPT"}, "model.network")
    assert_says(answer(lambda: scgpt(n_ids=3)), "model.network", "ScGPT", "pretrained")


def test_an_impossible_value_inside_is_named_where_it_stands() -> None:
    node = FROZEN | {"network": NETWORK | {"dropout": 7.0}}
    frozen = component(node, "model.featurizer")(cache=None, device=CPU)
    message = answer(lambda: frozen._make_network(n_ids=3))
    assert_says(message, "model.featurizer.network.dropout=7.0")


def names_in_reach() -> list[str]:
    """Every name in a module of a folder that components come from, and in those of PyTorch's optimizers."""
    folders = (oligo_ad.inputs, oligo_ad.models, oligo_ad.models.scgpt, torch.optim)
    modules = [
        importlib.import_module(found.name)
        for folder in folders
        for found in pkgutil.iter_modules(folder.__path__, f"{folder.__name__}.")
    ]
    modules = [module for module in modules if "._" not in module.__name__] + [torch.optim]
    return [f"{module.__name__}.{name}" for module in modules for name in vars(module)]


def test_what_a_module_has_only_imported_is_no_component_and_neither_is_what_cannot_be_one() -> None:
    reached = names_in_reach()
    assert {
        "oligo_ad.models.frozen.Path",
        "oligo_ad.models.build.component",
        "torch.optim.lr_scheduler.StepLR",
    } <= {*reached}
    for where in ("model.network", "fit.optimizer"):
        for target in reached:
            module, _, name = target.rpartition(".")
            found = getattr(sys.modules[module], name)
            home = getattr(found, "__module__", None) or ""
            ours = callable(found) and home.startswith(("oligo_ad.inputs.", "oligo_ad.models."))
            optimizer = isinstance(found, type) and issubclass(found, torch.optim.Optimizer)
            if not (optimizer if where == "fit.optimizer" else ours):
                assert target in answer(_resolve, target, where)


def test_what_is_compiled_and_has_no_module_is_refused_in_the_same_words(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    compiled = SimpleNamespace(__module__=None)
    monkeypatch.setattr(oligo_ad.models.mlp, "compiled", compiled, raising=False)
    assert_says(answer(_resolve, "oligo_ad.models.mlp.compiled", "model.network"), "is not allowed")
