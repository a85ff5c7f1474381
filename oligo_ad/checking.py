"""Checks of a configuration: plain values become a dataclass, a wrong field a message that names it."""

from dataclasses import fields, is_dataclass
from typing import Any, TypeVar, get_args

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import TypeAdapter, ValidationError

from oligo_ad.errors import UserError, nearest

Checked = TypeVar("Checked")


def plain(composed: DictConfig) -> dict[str, Any]:
    """A part of a composed configuration as plain values.

    Raises:
        UserError: an interpolation names a field that is not there.
    """
    try:
        values = OmegaConf.to_container(composed, resolve=True)
    except OmegaConfBaseException as error:
        raise UserError(f"{error.full_key}: {error.msg}") from None
    assert isinstance(values, dict)
    return {str(name): value for name, value in values.items()}


def checked(wanted: type[Checked], given: dict[str, Any], under: str = "") -> Checked:
    """An instance of a dataclass from plain values.

    Args:
        wanted: the dataclass.
        given: the value of each field.
        under: where these fields stand in the configuration, for messages.

    Raises:
        UserError: naming each field that is wrong, what was given and what is legal.
    """
    try:
        return TypeAdapter(wanted).validate_python(given)
    except ValidationError as error:
        raise UserError("\n".join(explain(error, under, wanted))) from None


def explain(error: ValidationError, under: str = "", root: type = object) -> list[str]:
    """One line for each wrong field: `fit.epochs=abc: should be a valid integer`.

    Args:
        error: what pydantic found wrong with the fields of `root`.
        under: where these fields stand in the configuration.
        root: the class of the fields; for a dataclass, a misspelt field is answered with the nearest name.
    """
    messages: dict[str, list[str]] = {}
    for found in error.errors():
        path, context = _path(found["loc"]), found.get("ctx", {})
        given = context.get("tag", found["input"])
        legal = context.get("expected", context.get("expected_tags", ""))
        legal = legal.replace("'", "").replace(" or ", ", ")
        hint = nearest(given, legal.split(", ")) if legal else ""
        if found["type"] == "unexpected_keyword_argument":
            hint = nearest(path[-1], _siblings(root, path))
        field = ".".join([*under.split("."), *path]).strip(".")
        messages.setdefault(f"{field}={given}", []).append(found["msg"].removeprefix("Input ") + "." + hint)
    return [f"{field}: {' Or it '.join(those)}" for field, those in messages.items()]


def _path(location: tuple[int | str, ...]) -> list[str]:
    """The field, without pydantic's tags for the members of a union."""
    tags = ("constrained-", "literal[", "is-instance[", "list[", "tuple[")
    types = ("float", "int", "str", "bool")
    parts = [str(part) for part in location]
    if parts[:1] == ["task"] and len(parts) > 2:
        del parts[1]  # the name of the task
    return [part for part in parts if part not in types and not part.startswith(tags)]


def _siblings(root: Any, path: list[str]) -> list[str]:
    """The fields that may stand where the last one of a path stands."""
    classes = _dataclasses(root)
    for part in path[:-1]:
        inside = [field.type for outer in classes for field in fields(outer) if field.name == part]
        classes = [found for kind in inside for found in _dataclasses(kind)]
    return [field.name for found in classes for field in fields(found)]


def _dataclasses(kind: Any) -> list[Any]:
    """The dataclasses that a type names: itself, or the members of a union."""
    if is_dataclass(kind):
        return [kind]
    return [found for inner in get_args(kind) for found in _dataclasses(inner)]
