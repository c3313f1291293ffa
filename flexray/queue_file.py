"""Queues from a file: YAML (``.yaml``, ``.yml``, ``.json``), or TOML (``.toml``) from Python 3.11.

    queues:
      - {name: research, quota: 10, weight: 3}
      - {name: vision, parent: research, quota: {nvidia/T4: 4}, limit: 20}
      - {name: prod, quota: {compute: 5}, priority: 1, priorities: [0, 100], types: ["nvidia/*"], half_life: 86400}

Read once at the edge; every error names the file, the line and the key.
"""

from __future__ import annotations

import importlib
import os
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import yaml  # type: ignore[import-untyped]
from pydantic import BaseModel, ConfigDict, Field, PlainValidator, ValidationError

from flexray.errors import UsageError
from flexray.model.queue import (
    ROOT_QUEUE,
    Queue,
    QueueAmount,
    nearest,
    parse_queue_amount,
    parse_thousandths,
    tree_problem,
)

_Place = tuple[int | str, ...]
_Lines = Callable[[_Place], int]
_SHOWN = 10

Amount = Annotated[QueueAmount, PlainValidator(parse_queue_amount)]
Weight = Annotated[int, PlainValidator(lambda value: parse_thousandths(value, "weight"))]
Name = Annotated[str, Field(min_length=1, max_length=200, pattern=r"\S")]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, use_attribute_docstrings=True)


class QueueEntry(_Part):
    """One queue of the file. A number is of devices of any type; ``{nvidia/T4: 4}`` of a type; ``{compute: 2.5}`` of
    the compute of an ``nvidia/A100-80GB``."""

    name: Name
    parent: Name = ROOT_QUEUE
    """The queue it is a part of; none for ``root``."""
    quota: Amount | None = None
    """Guaranteed."""
    limit: Amount | None = None
    """Used at most."""
    weight: Weight = 1000
    """How what is left is divided; 0 takes what nobody else wants."""
    priority: int = 0
    """Before its siblings of lower priority, of what is left."""
    priorities: Annotated[list[int | None], Field(min_length=2, max_length=2)] | None = None
    """Lowest and highest priority of its requests."""
    types: str | list[Name] = Field(default_factory=list)
    """Device types its requests may use, or patterns; all by default."""
    half_life: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    """Seconds after which use counts half against it; its parent's by default."""

    def queue(self) -> Queue:
        """As the core knows it. Raises UsageError."""
        types = (self.types,) if isinstance(self.types, str) else tuple(self.types)
        lowest, highest = self.priorities or (None, None)
        amounts = (self.quota, self.limit, self.weight, self.priority)
        return Queue(self.name, self.parent, *amounts, (lowest, highest), types, self.half_life)


class QueueFile(_Part):
    """The whole file."""

    queues: list[QueueEntry]


def load_queues(path: str | os.PathLike[str]) -> tuple[Queue, ...]:
    """The queues in a file, in its order. Raises UsageError with file, line and key of what is wrong."""
    place = Path(path)
    readers = {".yaml": _read_yaml, ".yml": _read_yaml, ".json": _read_yaml, ".toml": _read_toml}
    reader = readers.get(place.suffix.lower())
    if reader is None:
        raise UsageError(
            f"{place}: queues are read from {', '.join(readers)}, not from {place.suffix or 'no suffix'!r}"
        )
    try:
        text = place.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"cannot read the queues in {place}: {error}") from None
    data, lines = reader(text, str(place))
    return parse_queues(data, str(place), lines)


def parse_queues(data: object, source: str = "queues", lines: _Lines | None = None) -> tuple[Queue, ...]:
    """The queues in plain data, ``{"queues": [...]}``. Raises UsageError with a line for each wrong field."""
    if not isinstance(data, Mapping):
        found = "empty" if data is None else f"of the type {type(data).__name__}"
        raise UsageError(f"{source} must be a mapping with the key queues; it is {found}")
    at = lines if lines is not None else lambda place: 0
    try:
        entries = QueueFile.model_validate(dict(data)).queues
    except ValidationError as error:
        told = [_told(one, data, source, at) for one in error.errors()[:_SHOWN]]
        raise UsageError("\n".join(dict.fromkeys(told))) from None
    queues: list[Queue] = []
    for number, entry in enumerate(entries):
        try:
            queues.append(entry.queue())
        except UsageError as error:
            raise UsageError(f"{_where(source, at(('queues', number)))} {error}") from None
    problem = tree_problem(queues)
    if problem is not None:
        number, field, message = problem
        raise UsageError(f"{_where(source, at(('queues', number, field)))} {message}")
    return tuple(queues)


def plain_queue(queue: Queue) -> dict[str, Any]:
    """A queue as a user writes it; ``parse_queues`` of it gives it back."""
    fields: dict[str, Any] = {
        "name": queue.name,
        "parent": queue.parent,
        "quota": _plain_amount(queue.quota),
        "limit": _plain_amount(queue.limit),
        "weight": queue.weight / 1000,
        "priority": queue.priority,
        "priorities": list(queue.priorities),
        "types": list(queue.types),
        "half_life": queue.half_life,
    }
    defaults = {"parent": ROOT_QUEUE, "weight": 1, "priority": 0, "priorities": [None, None], "types": []}
    return {name: value for name, value in fields.items() if value is not None and value != defaults.get(name)}


def parse_amount_text(text: str) -> float | dict[str, float]:
    """``10``, ``nvidia/T4=4`` or ``compute=2.5,nvidia/A100*=2`` as plain data. Raises UsageError."""
    parts = [part.strip() for part in text.split(",")]
    try:
        if len(parts) == 1 and "=" not in text:
            return float(text)
        return {name.strip(): float(number) for name, _, number in (part.partition("=") for part in parts)}
    except ValueError:
        raise UsageError(f"{text!r} is no amount; write 10, nvidia/T4=4, or compute=2.5,nvidia/T4=4") from None


def _plain_amount(amount: QueueAmount | None) -> float | dict[str, float] | None:
    if amount is None:
        return None
    named = [("devices", amount.devices), ("compute", amount.compute), *amount.types]
    parts = {name: number / 1000 for name, number in named if number is not None}
    return parts["devices"] if list(parts) == ["devices"] else parts


def _told(error: Any, data: Mapping[str, Any], source: str, at: _Lines) -> str:
    """One error of pydantic as a line."""
    place: _Place = tuple(error["loc"])[:3]  # below that come the branch of a choice of types, and an item
    known = QueueEntry if len(place) > 1 else QueueFile
    where = _where(source, at(place)) + f" {_path(place)}{_name(data, place)}:"
    if error["type"] == "extra_forbidden":
        return f"{where} unknown key.{nearest(str(place[-1]), known.model_fields)}"
    if error["type"] == "missing":
        return f"{where} is missing"
    message = str(error["msg"]).removeprefix("Value error, ")
    return f"{where} {message}" + ("" if error["type"] == "value_error" else f" (got {error.get('input')!r:.60})")


def _where(source: str, line: int) -> str:
    return f"{source}:{line}:" if line else f"{source}:"


def _path(place: Sequence[object]) -> str:
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in place)
    return text.removeprefix(".") or "the file"


def _name(data: Any, place: Sequence[object]) -> str:
    """`` (research)`` where the queue at fault has a name."""
    try:
        name = data[place[0]][place[1]]["name"]
    except (KeyError, IndexError, TypeError):
        return ""
    return f" ({name})" if isinstance(name, str) else ""


# -- reading, with lines -----------------------------------------------------------------------------------------------


def _read_yaml(text: str, source: str) -> tuple[object, _Lines]:
    try:
        top = yaml.compose(text, yaml.SafeLoader)
        _refuse_doubles(top, source)
        data = yaml.safe_load(text)
    except (yaml.YAMLError, RecursionError) as error:
        raise UsageError(f"{source} is not YAML: {' '.join(str(error).split())}") from None

    def line(place: _Place) -> int:
        node, found = top, top.start_mark.line + 1
        for part in place:
            if isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
                node = node.value[part]
                found = node.start_mark.line + 1
                continue
            pairs = node.value if isinstance(node, yaml.MappingNode) else []
            pair = next(((key, value) for key, value in pairs if key.value == part), None)
            if pair is None:
                break
            node, found = pair[1], pair[0].start_mark.line + 1
        return int(found)

    return data, line


def _refuse_doubles(node: Any, source: str) -> None:
    """YAML lets a key be there twice and takes the last; here that is a mistake."""
    for child in node.value if isinstance(node, (yaml.MappingNode, yaml.SequenceNode)) else ():
        parts = child if isinstance(child, tuple) else (child,)
        for part in parts:
            _refuse_doubles(part, source)
    if isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in seen:
                    raise UsageError(f"{source}:{key.start_mark.line + 1}: the key {key.value!r} is there twice")
                seen.add(key.value)


def _read_toml(text: str, source: str) -> tuple[object, _Lines]:
    try:
        toml = importlib.import_module("tomllib")
    except ModuleNotFoundError:
        raise UsageError(f"{source}: reading TOML needs Python 3.11; write the queues as YAML") from None
    try:
        data = toml.loads(text)
    except toml.TOMLDecodeError as error:
        raise UsageError(f"{source} is not TOML: {error}") from None

    def line(place: _Place) -> int:
        """Of the key in the n-th ``[[queues]]``, or of that header."""
        heads = [n for n, row in enumerate(text.splitlines(), start=1) if re.match(r"\s*\[\[\s*queues\s*\]\]", row)]
        number = place[1] if len(place) > 1 and isinstance(place[1], int) else None
        if number is None or number >= len(heads):
            return 0
        end = heads[number + 1] if number + 1 < len(heads) else len(text.splitlines()) + 1
        for n, row in enumerate(text.splitlines()[heads[number] : end - 1], start=heads[number] + 1):
            key = str(place[2]) if len(place) > 2 else ""
            if key and re.match(rf"\s*(\[queues\.)?[\"']?{re.escape(key)}[\"']?\s*[\].=]", row):
                return n
        return heads[number]

    return data, line
