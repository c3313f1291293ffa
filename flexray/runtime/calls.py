"""The calls of a client: one lock, who waits for them, and what happens once they have an outcome.

One lock guards targets and calls. It is a condition: whoever waits for calls waits on
it. Callbacks of calls run after the lock was released.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from flexray.runtime.call import Call, Kind, Phase
from flexray.runtime.lineage import Lineage
from flexray.runtime.targets import Target


class Calls:
    """Changes of calls. ``flush`` runs at the end of each outermost step, with the lock held."""

    def __init__(self, flush: Callable[[], None]) -> None:
        self.mutex = threading.RLock()
        self.lock = threading.Condition(self.mutex)
        #: calls in all backlogs.
        self.waiting = 0
        self._flush = flush
        self._lineage = Lineage()
        self._callbacks: list[tuple[Callable[[Any], None], Call]] = []
        self._changed = False
        #: how many threads want to know of every change, not of a call they wait for.
        self._watching = 0
        self._depth = 0

    @contextmanager
    def step(self) -> Iterator[None]:
        """Hold the lock; on the way out wake waiters, send messages, and run callbacks without the lock."""
        callbacks: list[tuple[Callable[[Any], None], Call]] = []
        with self.mutex:
            self._depth += 1
            try:
                yield
            finally:
                self._depth -= 1
                if not self._depth:
                    if self._changed:
                        self._changed = False
                        self.lock.notify_all()
                    callbacks, self._callbacks = self._callbacks, []
                    self._flush()
        for callback, call in callbacks:
            callback(call)

    def wait_for(self, call: Call, timeout: float | None) -> None:
        """Sleep until the call is done or time has run out; may return early. Called with the lock held, once."""
        call.awaited = True
        self.lock.wait(timeout)

    def wait_change(self, timeout: float | None) -> None:
        """Sleep until some call is done or time has run out. Called with the lock held, once."""
        self._watching += 1
        try:
            self.lock.wait(timeout)
        finally:
            self._watching -= 1

    def changed(self) -> None:
        """Something that is no call's outcome has changed: wake whoever waits. Called inside ``step``."""
        self._changed = True

    def settle(self, call: Call, kind: Kind, outcome: Any) -> None:
        """Give a call its outcome. Called inside ``step``."""
        if call.phase is Phase.BACKLOG:
            self.waiting -= 1
        for callback in call.settle(kind, outcome):
            self._callbacks.append((callback, call))
        if call.repeatable:
            self._lineage.add(call)
        if call.awaited or self._watching:
            self._changed = True

    def put_back(self, calls: list[Call]) -> None:
        """Calls that were sent and did not run go back to the front of the backlog, in order."""
        for call in reversed(calls):
            call.phase, call.lease = Phase.BACKLOG, None
            call.target.backlog.appendleft(call)
            self.waiting += 1

    def fail_backlog(self, target: Target, error: BaseException) -> None:
        """Every waiting call of a target fails."""
        while target.backlog:
            call = target.backlog.popleft()
            if call.phase is Phase.BACKLOG:
                self.settle(call, Kind.ERROR, error)
