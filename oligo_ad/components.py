"""Components: a `_target_` in the configuration becomes a constructor with its options filled in.

Hydra would call anything that a `_target_` names. Here it may name the project's own featurizers,
networks, pools, fusions and schedules, and PyTorch's optimizers; its options are checked against the
signature of what it names. A new component needs no entry anywhere: being in its folder is enough.

An option that is annotated `Constructor` takes a component, one level deep: so a featurizer can hold a
featurizer and a network.
"""

import importlib
import inspect
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, get_type_hints

import hydra.utils
import torch
from pydantic import ConfigDict, TypeAdapter, ValidationError

from oligo_ad.checking import explain
from oligo_ad.errors import UserError, listing, nearest

ALLOWED_MODULES = ("oligo_ad.inputs.", "oligo_ad.models.", "oligo_ad.training.schedule")
# Parameters that the run fills in where a signature has them. No configuration sets these.
GIVEN = ("pretrained", "n_ids", "size", "n_metadata", "cache", "device")


@dataclass(frozen=True)
class Constructor:
    """A component of the configuration, checked but not made yet.

    `options` are those of the configuration, `inner` the components among them. `given`: what the run fills
    in, each value only where the signature has it.
    """

    where: str
    target: str
    make: Callable[..., Any]
    options: Mapping[str, Any]
    inner: Mapping[str, "Constructor"]
    given: Mapping[str, Any] = field(default_factory=dict)

    def __call__(self, *parts: Any, **given: Any) -> Any:
        """Make it.

        Raises:
            UserError: an option has an impossible value, or a required argument is missing.
        """
        known = {**self.given, **given}
        inner = {name: replace(constructor, given=known) for name, constructor in self.inner.items()}
        signature = inspect.signature(self.make)
        named = {name: value for name, value in known.items() if name in signature.parameters}
        try:
            signature.bind(*parts, **inner, **named)
        except TypeError as error:
            raise UserError(f"{self.where}: {self.target} cannot be used here: {error}.") from None
        try:
            return self.make(*parts, **inner, **named)
        except ValueError as error:
            options = ", ".join(f"{self.where}.{name}={value}" for name, value in self.options.items())
            raise UserError(f"{options}: {error}.") from error

    def described(self) -> str:
        """The target and its options as text; equal components give equal text."""
        return json.dumps([self.target, self.options], sort_keys=True, default=str)


def component(node: Mapping[str, Any], where: str) -> Constructor:
    """The constructor that `node` names, with its options filled in; the rest is passed at the call.

    Args:
        node: `_target_` and options.
        where: its place in the configuration, for messages.

    Raises:
        UserError: the target is foreign or unknown, or an option is unknown, missing or of the wrong type.
    """
    return _component(node, where, inside=False)


def _component(node: Mapping[str, Any], where: str, inside: bool) -> Constructor:
    target = node.get("_target_")
    constructor = _resolve(target, where)
    of_class = inspect.isclass(constructor)
    hints = get_type_hints(constructor.__init__ if of_class else constructor, include_extras=True)
    settable = [name for name in inspect.signature(constructor).parameters if name not in GIVEN]
    options: dict[str, Any] = {}
    inner: dict[str, Constructor] = {}
    for name, value in node.items():
        here = f"{where}.{name}"
        if name == "_target_":
            continue
        if name not in settable:
            raise UserError(
                f"{here}: {target} has no such option.{nearest(name, settable)} It has {listing(settable)}."
            )
        if hints.get(name) is Constructor:
            inner[name] = _inner(value, here, inside)
        else:
            options[name] = _checked(value, hints.get(name, Any), here)
    if missing := [name for name in settable if hints.get(name) is Constructor and name not in inner]:
        raise UserError(f"{where}.{missing[0]}: {target} needs one: give it a _target_.")
    plain = {"_target_": target, "_partial_": True, "_recursive_": False, **options}
    made = hydra.utils.instantiate(plain, _convert_="all")
    return Constructor(where, str(target), made, options, inner)


def _inner(value: Any, where: str, inside: bool) -> Constructor:
    if not isinstance(value, Mapping):
        raise UserError(f"{where}={value}: a component is needed here, with a _target_.")
    if inside:
        raise UserError(f"{where}: components can be nested one level deep only, and this is the second.")
    return _component(value, where, inside=True)


def _resolve(target: object, where: str) -> Callable[..., Any]:
    allowed = f"{where}._target_={target} is not allowed: it must name a class of oligo_ad"
    if not isinstance(target, str) or not target.startswith((*ALLOWED_MODULES, "torch.optim.")):
        raise UserError(f"{allowed} or an optimizer of torch.optim.")
    module_name, _, name = target.rpartition(".")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError:
        message = f"{where}._target_={target} is not allowed: there is no module {module_name}."
        raise UserError(message) from None
    if (found := getattr(module, name, None)) is None:
        hint = nearest(name, (word for word in dir(module) if not word.startswith("_")))
        raise UserError(f"{where}._target_={target}: {module_name} has no '{name}'.{hint}")
    home = getattr(found, "__module__", None) or ""  # None of what is compiled
    own = home.startswith(ALLOWED_MODULES) and callable(found)
    optimizer = inspect.isclass(found) and issubclass(found, torch.optim.Optimizer)
    if own == optimizer or optimizer != (where == "fit.optimizer"):
        raise UserError(f"{allowed} or an optimizer of torch.optim.")
    result: Callable[..., Any] = found
    return result


def _checked(value: Any, hint: Any, where: str) -> Any:
    if isinstance(value, Mapping) and "_target_" in value:
        raise UserError(f"{where}: this option takes a value, not a component.")
    try:
        adapter = TypeAdapter(hint, config=ConfigDict(arbitrary_types_allowed=True))
        return adapter.validate_python(value)
    except ValidationError as error:
        raise UserError("\n".join(explain(error, under=where))) from None
