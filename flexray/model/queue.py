"""Queues: what a team is promised, may use at most, and how it counts beside others. Amounts are integers.

The names follow Kueue and KAI: *quota* is guaranteed, *limit* caps, what is used above the
quota is *borrowed* and can be *reclaimed*; *weight* and *priority* divide what nobody is
promised or nobody asks for.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Decimal
from fnmatch import fnmatchcase

from flexray.errors import UsageError
from flexray.model.request import DEFAULT_QUEUE

ROOT_QUEUE = "root"
"""The queue above all others: the whole pool. It needs no description, and may have one."""

_MEASURES = ("devices", "compute")
_LARGEST = 10**9
_LISTED = 12


@dataclass(frozen=True, slots=True)
class QueueAmount:
    """What a queue is promised, or capped at; every part that is given holds.

    Attributes:
        devices: thousandths of devices of any type, or None.
        compute: thousandths of the compute of an ``nvidia/A100-80GB`` (share x the type's speed), or None.
        types: (device type or pattern, thousandths of such devices), in the order they are written. A quota that gives
            only types promises nothing else; beside ``devices`` or ``compute`` they are part of those. A limit that
            gives types leaves the others alone.
    """

    devices: int | None = None
    compute: int | None = None
    types: tuple[tuple[str, int], ...] = ()

    def __post_init__(self) -> None:
        amounts = [a for a in (self.devices, self.compute, *(n for _, n in self.types)) if a is not None]
        if any(type(amount) is not int or amount < 0 for amount in amounts) or not amounts:
            raise UsageError(f"an amount of a queue is whole thousandths from 0 in at least one measure, got {self}")

    def describe(self) -> str:
        """For messages, as a user writes it: ``10``, ``{compute: 2.5}``, ``{nvidia/T4: 4}``."""
        named = [(name, getattr(self, name)) for name in _MEASURES if getattr(self, name) is not None]
        parts = [*named, *self.types]
        if parts == named[:1] and self.devices is not None:
            return f"{self.devices / 1000:g}"
        return "{" + ", ".join(f"{name}: {amount / 1000:g}" for name, amount in parts) + "}"


@dataclass(frozen=True, slots=True)
class Queue:
    """A line of requests, or a group of such lines.

    Attributes:
        name: unique in the pool.
        parent: the queue it is a part of.
        quota: guaranteed whenever asked for. None promises nothing; of a queue with children, what they are promised.
        limit: used at most; an ancestor's limit binds too. None is no cap.
        weight: thousandths; how what is left is divided among siblings of one priority. A weight of 0 takes of it
            only what nobody else wants.
        priority: among siblings the higher takes first of what is left; it never touches a quota.
        priorities: lowest and highest priority its requests may have; None is open.
        types: device types (or patterns) its requests may use; () is any. Those of ancestors bind too.
        half_life: seconds after which use counts half against the queue; None takes the parent's, and where none has
            one, the past does not count.
    """

    name: str
    parent: str = ROOT_QUEUE
    quota: QueueAmount | None = None
    limit: QueueAmount | None = None
    weight: int = 1000
    priority: int = 0
    priorities: tuple[int | None, int | None] = (None, None)
    types: tuple[str, ...] = ()
    half_life: float | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name.strip():
            raise UsageError(f"name={self.name!r}: a queue needs a name")
        if self.name != ROOT_QUEUE and self.name == self.parent:
            raise UsageError(f"queue {self.name!r} cannot be its own parent")
        if type(self.weight) is not int or not 0 <= self.weight <= _LARGEST:
            raise UsageError(f"queue {self.name!r}: weight={self.weight!r} must be whole thousandths from 0")
        lowest, highest = self.priorities
        if lowest is not None and highest is not None and lowest > highest:
            raise UsageError(f"queue {self.name!r}: priorities from {lowest} to {highest} leave none")
        if self.half_life is not None and not 0 < self.half_life < float("inf"):
            raise UsageError(f"queue {self.name!r}: half_life={self.half_life!r} must be seconds above 0")

    def allows_priority(self, priority: int) -> bool:
        """Whether a request of that priority may wait here."""
        lowest, highest = self.priorities
        return (lowest is None or priority >= lowest) and (highest is None or priority <= highest)

    def allows_type(self, name: str) -> bool:
        """Whether its own list has a device type of that name; ancestors have lists of their own."""
        return not self.types or any(fnmatchcase(name, pattern) for pattern in self.types)


def tree_problem(queues: Sequence[Queue]) -> tuple[int, str, str] | None:
    """Why some queues are no tree under ``root``: the position of one at fault, its field, and a message; or None."""
    names = [queue.name for queue in queues]
    parents = {queue.name: queue.parent for queue in queues if queue.name != ROOT_QUEUE}
    for place, queue in enumerate(queues):
        if queue.name in names[:place]:
            return place, "name", f"queue {queue.name!r} is there twice"
        if queue.name != ROOT_QUEUE and queue.parent not in {ROOT_QUEUE, *names}:
            known = [ROOT_QUEUE, *names]
            return (
                place,
                "parent",
                f"queue {queue.name!r}: unknown parent {queue.parent!r}.{nearest(queue.parent, known)}",
            )
    for place, queue in enumerate(queues):
        path = [queue.name]
        while path[-1] in parents:
            path.append(parents[path[-1]])
            if path[-1] in path[:-1]:
                circle = " -> ".join(path[path.index(path[-1]) :])
                message = f"queue {queue.name!r} is below itself: {circle}. One of them needs another parent"
                return place, "parent", message
    return None


def leaves_of(queues: Iterable[Queue]) -> tuple[frozenset[str], str]:
    """The queues in which requests wait under a configuration, and the one where those go whose queue is gone."""
    given = list(queues)
    names = {ROOT_QUEUE, DEFAULT_QUEUE, *(queue.name for queue in given)}
    parents = {queue.name: queue.parent for queue in given}
    groups = {parents.get(name, ROOT_QUEUE) for name in names if name != ROOT_QUEUE}
    leaves = frozenset(names - groups)
    return leaves, DEFAULT_QUEUE if DEFAULT_QUEUE in leaves else min(leaves)


def nearest(name: str, known: Iterable[str]) -> str:
    """`` Did you mean 'x'? Known: x, y``, or only what is known."""
    names = list(known)
    near = difflib.get_close_matches(name, names, n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    return f"{hint} Known: {', '.join(names[:_LISTED])}" + (", ..." if len(names) > _LISTED else "")


def parse_thousandths(value: object, what: str) -> int:
    """A number as users write it (2.5) as whole thousandths, rounded half-up. Raises UsageError."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= _LARGEST:
        raise UsageError(f"{what} must be a number from 0 to {_LARGEST}, got {value!r}")
    amount = int((Decimal(str(value)) * 1000).quantize(Decimal(1), rounding=ROUND_HALF_UP))
    if value and not amount:
        raise UsageError(f"{what}={value!r} is below 0.001, the smallest amount; write 0 for none")
    return amount


def parse_queue_amount(value: object, what: str = "quota") -> QueueAmount:
    """A quota or a limit as users write it.

    ``10`` is ten devices of any type; ``{"nvidia/T4": 4}`` four of a type (or pattern); ``{"compute": 2.5}`` the
    compute of two and a half ``nvidia/A100-80GB``. Raises UsageError for anything else.
    """
    if not isinstance(value, Mapping):
        return QueueAmount(devices=parse_thousandths(value, what))
    if not value:
        raise UsageError(f"{what} is empty; write a number of devices, {{compute: n}} or {{device type: n}}")
    found: dict[str, int] = {}
    for key, number in value.items():
        if not isinstance(key, str) or not key:
            raise UsageError(f"{what}: {key!r} is neither a device type nor compute nor devices")
        near = difflib.get_close_matches(key.lower(), _MEASURES, n=1, cutoff=0.75)
        if near and key not in _MEASURES and "/" not in key:
            raise UsageError(f"{what}: unknown measure {key!r}. Did you mean {near[0]!r}?")
        found[key] = parse_thousandths(number, f"{what}.{key}")
    types = tuple((key, number) for key, number in found.items() if key not in _MEASURES)
    return QueueAmount(found.get("devices"), found.get("compute"), types)
