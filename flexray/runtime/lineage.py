"""What finished calls were called with, kept for as long as their large results may be lost, within bounds."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import Any
from weakref import ReferenceType, ref

import ray
from ray.experimental.locations import get_local_object_locations

from flexray.runtime.call import Call, references_of

MOST_KEPT = 2**30
"""Bytes of arguments kept for finished calls, all of a client's together."""

#: What is counted for an object whose size only its owner knows.
_UNKNOWN = 2**20


class Lineage:
    """Finished calls that still have their arguments; the oldest lose theirs first. Used with the lock of the calls."""

    def __init__(self, most: int = MOST_KEPT) -> None:
        self._most = most
        self._calls: deque[tuple[ReferenceType[Call], int]] = deque()
        self._bytes = 0

    def add(self, call: Call) -> None:
        """A call is done and keeps its arguments."""
        size = sum(map(_size, references_in(call.slots))) + sum(len(s) for s in call.slots if isinstance(s, bytes))
        size += len(call.payload) if isinstance(call.payload, bytes) else 0
        self._calls.append((ref(call), size))
        self._bytes += size
        if self._bytes > self._most:
            self._let_go()

    def _let_go(self) -> None:
        """Forget the calls whose Future is gone; of the others the oldest, until half of the room is free again."""
        self._calls = deque(one for one in self._calls if (call := one[0]()) is not None and call.repeatable)
        self._bytes = sum(size for _, size in self._calls)
        if self._bytes <= self._most:
            return
        while self._bytes > self._most // 2:
            reference, size = self._calls.popleft()
            self._bytes -= size
            call = reference()
            if call is not None:
                call.forget_arguments()


def references_in(slots: Iterable[object]) -> list[Any]:
    """The ObjectRefs among what fills the placeholders of a call: given, or results of other calls."""
    found: list[Any] = []
    for slot in slots:
        if isinstance(slot, ray.ObjectRef):
            found.append(slot)
        elif isinstance(slot, Call):
            found.extend(references_of(*slot.outcome))
    return found


def _size(reference: Any) -> int:
    try:
        place = get_local_object_locations([reference]).get(reference)
    except Exception:  # nothing is known of it, or this client is being closed
        place = None
    return int((place or {}).get("object_size") or _UNKNOWN)
