"""The client's one background thread: runs what is posted to it, in order, and what is due."""

from __future__ import annotations

import heapq
import itertools
import logging
import queue
import threading
import time
from collections.abc import Callable
from typing import Any

_log = logging.getLogger("flexray")


class Router:
    """A thread with an inbox and timers. A posted function that raises is logged and does not stop it."""

    def __init__(self) -> None:
        self._inbox: queue.SimpleQueue[tuple[Callable[..., None], tuple[Any, ...]] | None] = queue.SimpleQueue()
        self._timers: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self._thread = threading.Thread(target=self._main, name="flexray-router", daemon=True)
        self._thread.start()

    def post(self, function: Callable[..., None], *args: Any) -> None:
        """Run a function in the router thread, after what was posted before."""
        self._inbox.put((function, args))

    def later(self, seconds: float, function: Callable[[], None]) -> None:
        """Run a function in the router thread after a delay."""
        self.post(self._add_timer, time.monotonic() + seconds, function)

    def stop(self) -> None:
        """End the thread after what was posted before."""
        self._inbox.put(None)
        if threading.current_thread() is not self._thread:
            self._thread.join(5.0)

    def _add_timer(self, when: float, function: Callable[[], None]) -> None:
        heapq.heappush(self._timers, (when, next(self._order), function))

    def _main(self) -> None:
        while True:
            try:
                timeout = max(0.0, self._timers[0][0] - time.monotonic()) if self._timers else None
                posted = self._inbox.get(timeout=timeout)
                if posted is None:
                    return
                self._run(posted[0], posted[1])
            except queue.Empty:
                pass
            while self._timers and self._timers[0][0] <= time.monotonic():
                self._run(heapq.heappop(self._timers)[2], ())

    @staticmethod
    def _run(function: Callable[..., None], args: tuple[Any, ...]) -> None:
        try:
            function(*args)
        except Exception:
            _log.exception("flexray: an internal step failed; please report it")
