"""Ends calls that run longer than they may: asked first, then stopped with their slice.

One thread looks at all running calls that have a timeout. A timer each would cost more
than a small call does.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Generic, Protocol, TypeVar

_LOOK_SECONDS = 0.02


class Watched(Protocol):
    """What the watchdog needs of a call."""

    timeout: float | None
    started: float | None
    timed_out: bool


W = TypeVar("W", bound=Watched)


class Watchdog(Generic[W]):
    """Looks at calls between ``add`` and ``discard``.

    Args:
        ask: asks a call to stop, once, when its timeout has passed.
        give_up: called when it goes on for ``grace`` seconds more.
        grace: seconds.
    """

    def __init__(self, ask: Callable[[W], None], give_up: Callable[[W], None], grace: float) -> None:
        self._ask, self._give_up, self._grace = ask, give_up, grace
        self._calls: dict[int, W] = {}
        self._some = threading.Event()
        self._thread: threading.Thread | None = None

    def add(self, call: W) -> None:
        """Look after a call that has a timeout and has just started."""
        self._calls[id(call)] = call
        if not self._some.is_set():
            self._some.set()
        if self._thread is None:
            self._thread = threading.Thread(target=self._main, name="flexray-watchdog", daemon=True)
            self._thread.start()

    def discard(self, call: W) -> None:
        """The call is over."""
        self._calls.pop(id(call), None)

    def _main(self) -> None:
        while True:
            self._some.wait()  # unbounded: a thread of the process, until there is something to do
            self._some.clear()
            while self._calls:
                self._look(time.perf_counter())
                time.sleep(_LOOK_SECONDS)

    def _look(self, now: float) -> None:
        for call in list(self._calls.values()):
            assert call.timeout is not None and call.started is not None
            ran = now - call.started
            if not call.timed_out and ran >= call.timeout:
                call.timed_out = True
                self._ask(call)
            elif call.timed_out and ran >= call.timeout + self._grace:
                self.discard(call)
                self._give_up(call)
