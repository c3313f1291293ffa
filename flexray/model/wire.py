"""Events, commands and snapshots as plain JSON values and back.

The journal and the machine-readable outputs are made of these, so the encoding is
part of the interface: one object per dataclass, ``kind`` first where the type is open.
Outputs have every field; the journal leaves out those that have their default value.
"""

from __future__ import annotations

import dataclasses
import json
import operator
import types
from collections.abc import Callable, Mapping, Sequence
from enum import Enum
from functools import cache
from typing import Any, NamedTuple, NewType, TypeVar, Union, get_args, get_origin, get_type_hints

from flexray.errors import UsageError
from flexray.model.commands import COMMANDS, Command
from flexray.model.events import EVENTS, Event

T = TypeVar("T")
_KINDS = {cls.__name__: cls for cls in (*EVENTS, *COMMANDS)}


_AS_THEY_ARE: frozenset[type] = frozenset({str, int, float, bool, type(None)})


class _Fields(NamedTuple):
    """The fields of a dataclass: names, defaults, what reads them all, and those that may need conversion."""

    names: tuple[str, ...]
    defaults: tuple[Any, ...]
    values: Callable[[object], tuple[Any, ...]]
    nested: tuple[str, ...]


@cache
def _fields(cls: type) -> _Fields | None:
    if not dataclasses.is_dataclass(cls):
        return None
    hints = _hints(cls)
    names, defaults = zip(*((f.name, f.default) for f in dataclasses.fields(cls)), strict=True)
    # attrgetter of one name gives no tuple; asked for twice it does, and zip drops the second
    values = operator.attrgetter(*names) if len(names) > 1 else operator.attrgetter(*names, *names)
    return _Fields(names, defaults, values, tuple(name for name in names if not _stays(hints[name])))


def _stays(hint: Any) -> bool:
    """Whether values of a field of this type are plain already."""
    while isinstance(hint, NewType):
        hint = hint.__supertype__
    if get_origin(hint) in (Union, types.UnionType):
        return all(map(_stays, get_args(hint)))
    return hint in _AS_THEY_ARE


def to_plain(value: object) -> Any:
    """Dataclasses become dicts, tuples lists, enums their values; everything else stays."""
    kind: type = type(value)
    if kind in _AS_THEY_ARE:
        return value
    fields = _fields(kind)
    if fields is not None:
        plain = dict(zip(fields.names, fields.values(value), strict=False))
        for name in fields.nested:
            plain[name] = to_plain(plain[name])
        return plain
    if isinstance(value, Enum):
        return value._value_  # ``value`` costs ten times as much, and this runs for every decision
    if isinstance(value, Mapping):
        return {key: to_plain(item) for key, item in value.items()}
    if isinstance(value, (tuple, list)):
        return [to_plain(item) for item in value]
    return value


def encode(message: Event | Command) -> dict[str, Any]:
    """One event or command as a JSON object with its ``kind``, for the journal."""
    return {"kind": type(message).__name__, **_sparse_of(type(message))(message)}


def _make_sparse(kind: type) -> Callable[[Any], Any]:
    """What does the same as ``to_plain`` for values of a type, without fields of dataclasses that have their default.

    Made once per type, because this runs for every decision.
    """
    if dataclasses.is_dataclass(kind):
        return _sparse_dataclass(kind)
    if issubclass(kind, Enum):
        return operator.attrgetter("_value_")
    return _sparse_items if issubclass(kind, (tuple, list)) else to_plain


_sparse_of: Callable[[type], Callable[[Any], Any]] = cache(_make_sparse)


def _sparse_items(items: Sequence[Any]) -> list[Any]:
    return [item if type(item) in _AS_THEY_ARE else _sparse_of(type(item))(item) for item in items]


def _sparse_dataclass(cls: type) -> Callable[[Any], dict[str, Any]]:
    fields = _fields(cls)
    assert fields is not None
    names, defaults, values, nested = fields

    def sparse(value: object) -> dict[str, Any]:
        plain = {
            name: here
            for name, here, default in zip(names, values(value), defaults, strict=False)
            if here is not default and here != default
        }
        for name in nested:
            if name in plain:
                inner = plain[name]
                plain[name] = _sparse_of(type(inner))(inner)
        return plain

    return sparse


#: One entry of the journal as a line of JSON, without the line's end.
journal_line: Callable[[dict[str, Any]], str] = json.JSONEncoder(separators=(",", ":"), check_circular=False).encode


def decode(data: Mapping[str, Any]) -> Any:
    """The event or command that ``encode`` wrote. Raises UsageError for an unknown kind."""
    cls = _KINDS.get(data.get("kind", ""))
    if cls is None:
        raise UsageError(f"unknown record kind {data.get('kind')!r}; this journal is of another version")
    return from_plain(cls, {key: value for key, value in data.items() if key != "kind"})


def from_plain(cls: type[T], data: Mapping[str, Any]) -> T:
    """Rebuild a dataclass from ``to_plain`` of it."""
    hints: dict[str, Any] = _hints(cls)  # type: ignore[arg-type]
    return cls(**{name: _convert(hints[name], value) for name, value in data.items()})


@cache
def _hints(cls: type) -> dict[str, Any]:
    return get_type_hints(cls)


def _convert(hint: Any, value: Any) -> Any:
    if isinstance(hint, NewType):
        return value
    origin = get_origin(hint)
    if origin in (Union, types.UnionType):
        if value is None:
            return None
        return _convert(next(arg for arg in get_args(hint) if arg is not type(None)), value)
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
            return hint(*value)
    return value
