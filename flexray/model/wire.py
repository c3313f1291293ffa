"""Events, commands and snapshots as plain JSON values and back.

The journal and the machine-readable outputs are made of these, so the encoding is
part of the interface: one object per dataclass, ``kind`` first where the type is open.
Outputs have every field; the journal leaves out those that have their default value.
"""

from __future__ import annotations

import dataclasses
import json
import types
from collections.abc import Mapping
from enum import Enum
from functools import cache
from typing import Any, NewType, TypeVar, Union, get_args, get_origin, get_type_hints

from flexray.errors import UsageError
from flexray.model.commands import COMMANDS, Command
from flexray.model.events import EVENTS, Event
from flexray.model.journal_lines import message_text

T = TypeVar("T")
_KINDS = {cls.__name__: cls for cls in (*EVENTS, *COMMANDS)}


def to_plain(value: object) -> Any:
    """Dataclasses become dicts, tuples lists, enums their values; everything else stays."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: to_plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, Mapping):
        return {key: to_plain(item) for key, item in value.items()}
    if isinstance(value, (tuple, list)):
        return [to_plain(item) for item in value]
    return value


def encode(message: Event | Command) -> dict[str, Any]:
    """One event or command as the JSON object with its ``kind`` that the journal holds."""
    plain: dict[str, Any] = json.loads(message_text(message))
    return plain


def decode(data: Mapping[str, Any]) -> Any:
    """The event or command that ``encode`` wrote. Raises UsageError for an unknown kind."""
    cls = _KINDS.get(data.get("kind", ""))
    if cls is None:
        raise UsageError(f"unknown record kind {data.get('kind')!r}; this journal is of another version")
    return from_plain(cls, {key: value for key, value in data.items() if key != "kind"})


def from_plain(cls: type[T], data: Mapping[str, Any]) -> T:
    """Rebuild a dataclass from ``to_plain`` of it."""
    kind: type = cls
    hints = _hints(kind)
    return cls(**{name: _convert(hints[name], value) for name, value in data.items()})


@cache
def _hints(kind: type) -> dict[str, Any]:
    return get_type_hints(kind)


def _convert(hint: Any, value: Any) -> Any:
    if isinstance(hint, NewType):
        return value
    origin = get_origin(hint)
    if origin in (Union, types.UnionType):
        if value is None:
            return None
        return _convert(next(arg for arg in get_args(hint) if _may_be(arg, value)), value)
    if origin is tuple:
        args = get_args(hint)
        if len(args) == 2 and args[1] is Ellipsis:
            return tuple(_convert(args[0], item) for item in value)
        return tuple(_convert(arg, item) for arg, item in zip(args, value, strict=True))
    if isinstance(hint, type):
        if issubclass(hint, Enum):
            return hint(value)
        if dataclasses.is_dataclass(hint):
            return from_plain(hint, value)
        if issubclass(hint, tuple) and hasattr(hint, "_fields"):
            return hint(*(_convert(kind, item) for kind, item in zip(_hints(hint).values(), value, strict=True)))
    return value


def _may_be(hint: Any, value: Any) -> bool:
    """Whether a part of a union can be meant by a plain value; enums are told apart by what values they have."""
    if isinstance(hint, type) and issubclass(hint, Enum):
        return value in [one.value for one in hint]
    return hint is not type(None)
