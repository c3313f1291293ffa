"""The checkpoints of a client's calls: fetched while the calls run, kept for their next attempts.

The client owns what it fetches, so it outlives the slice; the bytes stay on the slice's node, in Ray's object store.
A copy follows to the client's own node, so that the call outlives the death of that node as well.
"""

from __future__ import annotations

import pickle
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from weakref import WeakSet

import ray

from flexray.model.events import LeaseCheckpointed
from flexray.runtime.call import Call
from flexray.runtime.calls import Calls
from flexray.runtime.leases import Leases
from flexray.runtime.targets import HeldLease

#: A slice whose calls run longer than this is asked for their checkpoints: one message that waits there.
_LONG_SECONDS = 0.25
#: The scheduler hears of a lease's checkpoints this often at most.
_TELL_SECONDS = 1.0
#: Bytes of copies on this node, all calls of the client together. What is larger stays on its slice's node alone.
MOST_COPIED = 2**30


@dataclass(slots=True)
class Kept:
    """A call's last checkpoint.

    Attributes:
        newest: a reference to it. None: its slice keeps it in the place that the request names.
        size: its bytes.
        local: whether they are on this node anyway.
        safe: the last one of which a copy has arrived here, with the copy: while that is held, so are its bytes.
        coming: the one of which a copy is on its way.
        copied: bytes of copies, here or on their way.
    """

    newest: Any = None
    size: int = 0
    local: bool = False
    safe: tuple[Any, Any] | None = None
    coming: Any = None
    copied: int = 0

    @property
    def filed(self) -> bool:
        """Whether it is in a place."""
        return self.newest is None

    @property
    def references(self) -> tuple[Any, ...]:
        """What the next attempt is given, best first."""
        safe = self.safe[0] if self.safe is not None else None
        return tuple(one for one in dict.fromkeys((self.newest, safe)) if one is not None)


class Keeping:
    """Asks slices for checkpoints and keeps them. Called inside ``Calls.step``, or opens a step of its own."""

    def __init__(self, calls: Calls, leases: Leases, post: Callable[..., None]) -> None:
        self._calls, self._leases, self._post = calls, leases, post
        self._with_copies: WeakSet[Call] = WeakSet()
        self._node: str | None = None

    def look(self, lease: HeldLease) -> None:
        """A lease is in use: ask for checkpoints if it has been for long. Small tasks store none."""
        long = time.monotonic() - lease.last_heard > _LONG_SECONDS
        stores = not lease.target.actor and (lease.member is None or not lease.member.rank)
        if long and stores and not lease.watched and not lease.broken:
            self._ask(lease, 0)

    def _ask(self, lease: HeldLease, taken: int) -> None:
        lease.watched = True
        refs = lease.handle.next_checkpoint.options(num_returns=2).remote(lease.token, taken)
        refs[0]._on_completed(lambda answer: self._post(self._answered, lease, refs, answer))

    def _answered(self, lease: HeldLease, refs: list[Any], answer: Any) -> None:
        with self._calls.step():
            lease.watched = False
            if not isinstance(answer, bytes):
                return  # the slice has ended: others hear why
            if not answer:
                if lease.in_flight and not lease.broken:
                    self._ask(lease, 0)
                return
            serial, number, size = pickle.loads(answer)
            call = lease.in_flight.get(number)
            if call is not None:
                self._keep(lease, call, size, refs[1])
                self._tell(lease)
            self._ask(lease, serial)  # which tells the task to go on

    def _tell(self, lease: HeldLease) -> None:
        """The scheduler weighs what stopping a lease would lose; it need not hear of every one of many."""
        if time.monotonic() - lease.safe_told_at >= _TELL_SECONDS:
            lease.safe_told_at = time.monotonic()
            self._leases.session.tell(LeaseCheckpointed(lease.id))

    def _keep(self, lease: HeldLease, call: Call, size: int, state: Any) -> None:
        kept = call.kept = call.kept or Kept()
        if lease.target.request.checkpoint_place is not None:
            return
        kept.newest, kept.size, kept.local = state, size, lease.node == self._own_node()
        self._copy(call, kept)

    def _copy(self, call: Call, kept: Kept) -> None:
        """Have a copy of the newest brought here, one after the other."""
        if kept.local or kept.coming is not None or self._copied() + kept.size > MOST_COPIED:
            return
        state, size = kept.newest, kept.size
        kept.coming, kept.copied = state, kept.copied + size
        self._with_copies.add(call)
        state._on_completed(lambda value: self._post(self._arrived, call, state, size, value))

    def _arrived(self, call: Call, state: Any, size: int, value: Any) -> None:
        """A copy is here, or it was lost on its way."""
        with self._calls.step():
            kept = call.kept
            if kept is None:
                return
            kept.coming = None
            if isinstance(value, list):
                kept.safe, kept.copied = (state, value), size
            else:
                kept.copied -= size
            if kept.newest is not state:
                self._copy(call, kept)

    def _copied(self) -> int:
        kept = {id(call.kept): call.kept for call in self._with_copies}  # calls of a gang's attempts have one together
        return sum(one.copied for one in kept.values() if one is not None)

    def _own_node(self) -> str:
        if self._node is None:
            self._node = ray.get_runtime_context().get_node_id()
        return self._node
