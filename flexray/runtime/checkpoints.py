"""Checkpoints in a slice: what a running call stores and finds, and the desk where its client fetches them.

    checkpoint() ── waits at the desk ──> next_checkpoint, asked by the client ──> taken, which its next question says

The call waits until its client has the state, so nothing is copied but into Ray's object store.
"""

from __future__ import annotations

import itertools
import sys
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from contextvars import copy_context
from pickle import PickleBuffer
from typing import Any, NamedTuple, Protocol

import ray

from flexray.errors import Cancelled, Preempted, UsageError
from flexray.runtime.current import StopFlag
from flexray.runtime.folder import Folder
from flexray.runtime.frozen import Frozen, freeze, thaw, writable
from flexray.runtime.protocol import Token

_LOOK_SECONDS = 1.0

Holder = tuple[Any, int, int]


class Attempt(Protocol):
    """What runs: a call on this slice. ``checkpoints`` is there once it has asked for them."""

    flag: StopFlag
    giving_way: bool
    checkpoints: Checkpoints | None


class Offer(NamedTuple):
    """A checkpoint that waits for its client: ``parcel`` is what travels, None when it lies in its place."""

    serial: int
    call: int
    size: int
    parcel: list[Any] | None


class Desk:
    """Checkpoints on their way from the calls of a slice to the client that holds it."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._offers: dict[Holder, Offer] = {}
        self._serials = itertools.count(1)
        self._grant = (0, 0)

    def hand_over(self, holder: Holder, call: int, filed: bool, state: Frozen) -> None:
        """Wait until the client has it. Raises Cancelled when the slice is somebody else's meanwhile."""
        parcel = None if filed else [state.head, *map(PickleBuffer, state.buffers)]
        with self._changed:
            offer = self._offers[holder] = Offer(next(self._serials), call, state.size, parcel)
            self._changed.notify_all()
            while self._offers.get(holder) is offer:
                if holder[1:] < self._grant:
                    del self._offers[holder]
                    raise Cancelled("the slice has another holder now; nobody waits for this task any more")
                self._changed.wait(_LOOK_SECONDS)

    def next(self, holder: Holder, taken: int, longest: float, busy: Callable[[], bool]) -> Offer | None:
        """The holder's next checkpoint; it has the one numbered ``taken``. None when nothing of it runs any more."""
        deadline = time.monotonic() + longest
        with self._changed:
            offer = self._offers.get(holder)
            if offer is not None and offer.serial == taken:
                del self._offers[holder]
                self._changed.notify_all()
            while (offer := self._offers.get(holder)) is None:
                left = deadline - time.monotonic()
                if left <= 0 or holder[1:] < self._grant or not busy():
                    return None
                self._changed.wait(min(left, _LOOK_SECONDS))
            return offer

    def new_grant(self, grant: tuple[int, int]) -> None:
        """The slice was granted again: nobody fetches what calls under earlier grants store."""
        with self._changed:
            self._grant = grant
            self._changed.notify_all()


class Checkpoints:
    """Those of one running call.

    Args:
        found: references to the state of an earlier attempt, best first.
        folder: where they are kept instead, or None.
        hand_over: gives a state to the client; None where nobody could ever restore it.
        refusal: why the call has no checkpoints, or "".
    """

    def __init__(
        self,
        found: Sequence[Any],
        folder: Callable[[], Folder] | None,
        hand_over: Callable[[Frozen], None] | None,
        refusal: str = "",
    ) -> None:
        self._found, self._make_folder, self._hand_over, self._refusal = found, folder, hand_over, refusal
        self._storing = threading.Lock()
        self._calling_back = threading.Lock()
        self._last = time.monotonic()
        self._stored = False
        self._callbacks: list[Callable[[], None]] = []

    def checkpoint(self, state: Any, every: float, attempt: Attempt) -> None:
        """See ``Current.checkpoint``."""
        if self._refusal:
            raise UsageError(self._refusal)
        with self._storing:
            _end_if_cancelled(attempt)
            if attempt.giving_way or time.monotonic() - self._last >= every:
                self._store(state)
            if attempt.giving_way:  # perhaps only since it was stored
                raise Preempted("the task was asked to give way; its state is stored, and it goes on elsewhere")
            _end_if_cancelled(attempt)

    def _store(self, state: Any) -> None:
        if self._hand_over is not None:
            frozen = freeze(state)
            if self._make_folder is not None:
                self._make_folder().write(frozen)
            self._hand_over(frozen)
        self._found, self._stored, self._last = (), True, time.monotonic()

    def restored(self) -> Any:
        """See ``Current.restored``."""
        if self._stored:
            raise UsageError(
                "flex.current().restored is for the start of an attempt: this one has stored a checkpoint of its own"
            )
        if self._make_folder is not None:
            return self._make_folder().read()[1]
        for reference in self._found:
            try:
                head, *buffers = ray.get(reference)  # unbounded: Ray fails what is lost
            except ray.exceptions.RayError:
                continue
            return thaw(head, writable(buffers))
        if self._found:
            print("flexray: the last checkpoint was lost with its node; the task starts afresh", file=sys.stderr)
        return None

    def clear(self) -> None:
        """The call is done: delete what it has in its place."""
        if self._make_folder is not None:
            self._make_folder().remove()

    def close(self) -> None:
        """The attempt is over: let go of what it found, and tell nobody any more."""
        self._found, self._callbacks = (), []

    def on_yield(self, callback: Callable[[], None], flag: StopFlag) -> None:
        """Call back in a thread, once, when the attempt is asked to stop."""
        with self._calling_back:
            self._callbacks.append(_in_context(callback))
        if flag.raised:
            self.asked()

    def asked(self) -> None:
        """The attempt is asked to stop: call back who wants to know, also where it ends at once."""
        with self._calling_back:
            callbacks, self._callbacks = self._callbacks, []
        if callbacks:
            threading.Thread(target=_call_back, args=(callbacks,), name="flexray-on-yield", daemon=True).start()


def _call_back(callbacks: list[Callable[[], None]]) -> None:
    for callback in callbacks:
        try:
            callback()
        except BaseException:  # it is the user's, and the task goes on
            traceback.print_exc()


def _in_context(callback: Callable[[], None]) -> Callable[[], None]:
    context = copy_context()
    return lambda: context.run(callback)


def _end_if_cancelled(attempt: Attempt) -> None:
    if attempt.flag.raised and not attempt.giving_way:
        raise Cancelled("the task was cancelled, or ran past its timeout")


def folder_of(place: str | None, token: Token, call: int) -> Callable[[], Folder] | None:
    """What opens a call's folder. Sessions and their calls are numbered, so its name is the same in each attempt."""
    return (lambda: Folder(place, f"{token.session}-{call}")) if place else None
