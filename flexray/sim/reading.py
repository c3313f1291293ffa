"""Reading YAML strictly, and saying what was wrong, what was expected and what to do."""

from __future__ import annotations

import difflib
from collections.abc import Hashable, Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml  # type: ignore[import-untyped]
from pydantic import BaseModel, ValidationError

from flexray.errors import UsageError

Model = TypeVar("Model", bound=BaseModel)


#: pydantic adds these to the location of an error inside a choice of types.
_UNION_TAGS = {"float", "list[float]", "dict[str,float]"}


class _Loader(yaml.SafeLoader):  # type: ignore[misc]
    """YAML whose mappings may have lists as keys, and no key twice."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Hashable, Any]:
        self.flatten_mapping(node)
        found: dict[Hashable, Any] = {}
        for key_node, value_node in node.value:
            key = self.construct_object(key_node, deep=True)
            if isinstance(key, list):
                key = ", ".join(map(str, key))
            if not isinstance(key, Hashable):
                raise yaml.constructor.ConstructorError(None, None, f"{key!r} cannot be a key", key_node.start_mark)
            if key in found:
                raise yaml.constructor.ConstructorError(None, None, f"the key {key!r} is there twice", node.start_mark)
            found[key] = self.construct_object(value_node, deep=deep)
        return found


# SafeLoader builds mappings lazily through a method of its own; this one goes through ``construct_mapping`` above.
_Loader.add_constructor("tag:yaml.org,2002:map", lambda loader, node: loader.construct_mapping(node, deep=True))


def read_yaml(path: Path) -> Any:
    """The content of a YAML (or JSON) file. Raises UsageError with file, line and column."""
    try:
        return yaml.load(path.read_text(encoding="utf-8"), _Loader)
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"cannot read {path}: {error}") from None
    except (yaml.YAMLError, RecursionError) as error:
        raise UsageError(f"{path} is not YAML: {' '.join(str(error).split())}") from None


def validate(model: type[Model], data: object, source: str) -> Model:
    """Data as a model. Raises UsageError with one part per wrong field, and the nearest key for an unknown one."""
    if not isinstance(data, dict):
        known = ", ".join(_keys(model))
        found = "empty" if data is None else f"of the type {type(data).__name__}"
        raise UsageError(f"{source} must be a mapping with the keys {known}; it is {found}")
    try:
        return model.model_validate(data)
    except ValidationError as error:
        lines = [_line(model, data, dict(one)) for one in error.errors()[:10]]
        raise UsageError(f"{source}: {'; '.join(lines)}") from None


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """`` Did you mean 'x'? Known: x, y.``, or only what is known."""
    names = list(known)
    near = difflib.get_close_matches(name, names, n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    shown = ", ".join(names[:12]) + (", ..." if len(names) > 12 else "")
    return f"{hint} Known: {shown or 'none'}"


def _line(model: type[BaseModel], data: object, error: dict[str, Any]) -> str:
    place = tuple(part for part in error["loc"] if part not in _UNION_TAGS)
    where = _path(place) + _name_of(data, place)
    if error["type"] == "extra_forbidden":
        owner = _model_at(model, place[:-1])
        return f"{where}: unknown key.{did_you_mean(str(place[-1]), _keys(owner))}"
    message = str(error["msg"]).removeprefix("Value error, ")
    if error["type"] == "missing":
        return f"{where}: is missing"
    if error["type"] == "string_type" and isinstance(error.get("input"), (bool, int, float)):
        return f"{where}: must be a text; YAML reads it as {error['input']!r}, so put it in quotes"
    given = repr(error.get("input"))
    shown = given if len(given) <= 60 else given[:57] + "..."
    return f"{where}: {message}" + ("" if error["type"] == "value_error" else f" (got {shown})")


def _path(place: Sequence[object]) -> str:
    text = ""
    for part in place:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else str(part)
    return text or "the file"


def _name_of(data: Any, place: Sequence[object]) -> str:
    """`` (id r)`` where the item at fault has an id or a name."""
    if len(place) < 2 or not isinstance(place[1], int):
        return ""
    try:
        item = data[place[0]][place[1]]
        name = item.get("id", item.get("name"))
    except (KeyError, IndexError, AttributeError, TypeError):
        return ""
    return f" ({name})" if isinstance(name, str) else ""


def _keys(model: type[BaseModel]) -> list[str]:
    return [field.alias or name for name, field in model.model_fields.items()]


def _model_at(model: type[BaseModel], place: Sequence[object]) -> type[BaseModel]:
    """The model that a location inside a model leads to."""
    for part in place:
        if isinstance(part, int):
            continue
        field = next((f for name, f in model.model_fields.items() if part in (name, f.alias)), None)
        inner = None if field is None else _first_model(field.annotation)
        if inner is None:
            return model
        model = inner
    return model


def _first_model(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for part in getattr(annotation, "__args__", ()):
        found = _first_model(part)
        if found is not None:
            return found
    return None
