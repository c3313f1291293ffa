"""Events and commands as lines of the journal: compact JSON, without the fields that have their default value.

This runs for every decision, so what writes a type is made once, from its fields.
"""

from __future__ import annotations

import dataclasses
import json
import types
from collections.abc import Callable, Iterable
from enum import Enum
from functools import cache
from json.encoder import encode_basestring_ascii as quoted
from typing import Any, NewType, Union, get_args, get_origin, get_type_hints

from flexray.model.commands import Command
from flexray.model.events import Event

Writer = Callable[[Any], str]
_rest = json.JSONEncoder(separators=(",", ":")).encode


def event_line(now: float, event: Event) -> str:
    """An event as the core takes notice of it: ``{"now": seconds, "event": {"kind": ...}}``, without a line's end."""
    return f'{{"now":{_number(now)},"event":{message_text(event)}}}'


def commands_line(now: float, commands: Iterable[Command]) -> str:
    """What a cycle decided: ``{"now": seconds, "commands": [...]}``, without a line's end."""
    return f'{{"now":{_number(now)},"commands":[{",".join(map(message_text, commands))}]}}'


def message_text(message: Event | Command) -> str:
    """One event or command as a JSON object with its ``kind``."""
    cls: type = type(message)
    inner = _writer(cls)(message)[1:]
    return f'{{"kind":"{cls.__name__}"{"," if len(inner) > 1 else ""}{inner}'


def _number(value: float) -> str:
    return repr(value) if value - value == 0 else _rest(value)  # infinity and nan have names of their own


_PLAIN: dict[object, Writer] = {
    str: quoted,
    bool: {True: "true", False: "false"}.__getitem__,
    int: int.__repr__,
    float: _number,
}


@cache
def _writer(hint: Any) -> Writer:
    """What writes values of a type."""
    while isinstance(hint, NewType):
        hint = hint.__supertype__
    if hint in _PLAIN:
        return _PLAIN[hint]
    origin, args = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        kinds = [arg for arg in args if arg is not type(None)]
        if all(isinstance(kind, type) and issubclass(kind, Enum) for kind in kinds):
            return {None: "null", **{one: quoted(one.value) for kind in kinds for one in kind}}.__getitem__
        inner = _writer(kinds[0])
        return lambda value: "null" if value is None else inner(value)
    if origin is tuple and len(args) == 2 and args[1] is Ellipsis:
        item = _writer(args[0])
        return lambda value: f"[{','.join(map(item, value))}]"
    if origin is tuple:
        return _several(tuple(map(_writer, args)))
    if isinstance(hint, type) and issubclass(hint, tuple):
        return _several(tuple(map(_writer, get_type_hints(hint).values())))
    if isinstance(hint, type) and issubclass(hint, Enum):
        return {member: quoted(member.value) for member in hint}.__getitem__
    return _object(hint) if dataclasses.is_dataclass(hint) and isinstance(hint, type) else _rest


def _several(writers: tuple[Writer, ...]) -> Writer:
    """What writes a tuple of so many values."""
    names: dict[str, Any] = {f"write_{number}": write for number, write in enumerate(writers)}
    parts = [f"{{write_{number}(value[{number}])}}" for number in range(len(writers))]
    exec(f"def write(value):\n    return f'[{','.join(parts)}]'", names)
    written: Writer = names["write"]
    return written


def _object(cls: type) -> Writer:
    """What writes a dataclass, made as source like the methods of dataclasses: a loop takes twice as long."""
    hints, names = get_type_hints(cls), dict[str, Any]()
    lines = ["def write(value):", "    text = ''"]
    for number, field in enumerate(dataclasses.fields(cls)):
        names[f"write_{number}"], names[f"default_{number}"] = _writer(hints[field.name]), field.default
        put = f"text += ',\"{field.name}\":' + write_{number}(here)"
        unlike = f"here is not default_{number} and here != default_{number}"
        lines += [f"    here = value.{field.name}", f"    if {unlike}: {put}"]
    exec("\n".join([*lines, "    return '{' + text[1:] + '}'"]), names)
    written: Writer = names["write"]
    return written
