"""From a `_target_` in the configuration to a constructor with its options filled in.

Hydra would call anything that a `_target_` names. Here it may name the project's own featurizers,
networks, fusions and schedules, and PyTorch's optimizers; its options are checked against the
signature of what it names. A new component needs no entry anywhere: being in its folder is enough.
"""

import importlib
import inspect
from collections.abc import Callable, Mapping
from functools import partial, wraps
from typing import Any, get_type_hints

import hydra.utils
import torch
from pydantic import ConfigDict, TypeAdapter, ValidationError

from oligo_ad.checking import explain
from oligo_ad.errors import UserError, listing, nearest

HOMES = ("oligo_ad.inputs.", "oligo_ad.models.", "oligo_ad.training.schedule")


def component(node: Mapping[str, Any], where: str) -> Callable[..., Any]:
    """The constructor that `node` names, with its options filled in; sizes are passed at the call.

    Args:
        node: `_target_`, `_partial_: true` and options.
        where: its place in the configuration, for messages.

    Raises:
        UserError: the target is foreign or unknown, or an option is unknown or of the wrong type.
    """
    constructor = _resolve(node.get("_target_"), where)
    options = {key: value for key, value in node.items() if key not in ("_target_", "_partial_")}
    signature = inspect.signature(constructor).parameters
    hints = get_type_hints(
        constructor.__init__ if inspect.isclass(constructor) else constructor, include_extras=True
    )
    for name, value in options.items():
        if name not in signature:
            raise UserError(
                f"{where}.{name}: {node['_target_']} has no such option.{nearest(name, signature)} "
                f"It has {listing(signature)}."
            )
        options[name] = _checked(value, hints.get(name, Any), f"{where}.{name}")
    checked = {"_target_": node["_target_"], "_partial_": True, "_recursive_": False, **options}
    made: partial[Any] = hydra.utils.instantiate(checked, _convert_="all")

    @wraps(made.func)
    def construct(*sizes: Any, **named_sizes: Any) -> Any:
        try:
            return made(*sizes, **named_sizes)
        except ValueError as error:
            given = ", ".join(f"{where}.{name}={value}" for name, value in options.items())
            raise UserError(f"{given}: {error}.") from error

    return construct


def _resolve(target: object, where: str) -> Callable[..., Any]:
    allowed = f"{where}._target_={target} is not allowed: it must name a class of oligo_ad"
    if not isinstance(target, str) or not target.startswith((*HOMES, "torch.optim.")):
        raise UserError(f"{allowed} or an optimizer of torch.optim.")
    module, _, name = target.rpartition(".")
    try:
        home = importlib.import_module(module)
    except ModuleNotFoundError:
        raise UserError(f"{where}._target_={target} is not allowed: there is no module {module}.") from None
    if (found := getattr(home, name, None)) is None:
        hint = nearest(name, (word for word in dir(home) if not word.startswith("_")))
        raise UserError(f"{where}._target_={target}: {module} has no '{name}'.{hint}")
    own = getattr(found, "__module__", "").startswith(HOMES) and callable(found)
    optimizer = inspect.isclass(found) and issubclass(found, torch.optim.Optimizer)
    if own == optimizer or optimizer != (where == "fit.optimizer"):
        raise UserError(f"{allowed} or an optimizer of torch.optim.")
    result: Callable[..., Any] = found
    return result


def _checked(value: Any, hint: Any, where: str) -> Any:
    if isinstance(value, Mapping) and "_target_" in value:
        raise UserError(f"{where}: a component inside a component is not allowed.")
    try:
        adapter = TypeAdapter(hint, config=ConfigDict(arbitrary_types_allowed=True))
        return adapter.validate_python(value)
    except ValidationError as error:
        raise UserError("\n".join(explain(error, under=where))) from None
