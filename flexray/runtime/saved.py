"""What of the core outlives the scheduler's process: queues, cordons, speeds, and what queues have used.

Requests, leases and slices are not among it: their sessions and nodes know them better than any record could.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from flexray.config import PoolConfig
from flexray.core.scheduler import Scheduler
from flexray.model.events import Event, HistoryRestored, QueuesConfigured, SpeedsRestored
from flexray.model.queue import Queue
from flexray.queue_file import parse_queues, plain_queue
from flexray.runtime import cordoning
from flexray.runtime.kept import COMPANY, CORDONS, HISTORY, QUEUES, SPEEDS, Kept

_SAVE_SECONDS = 5.0


class Saved:
    """The records of a core. ``apply`` feeds it; ``queues`` are those that somebody has configured."""

    def __init__(self, kept: Kept, core: Scheduler, apply: Callable[[Event], None], config: PoolConfig) -> None:
        self._kept, self._core, self._apply = kept, core, apply
        self._observations, self._saved_at = 0, time.monotonic()
        self._restore_speeds()
        self.queues = self._restore_queues(config)
        for event in kept.read(CORDONS, cordoning.from_rows) or ():
            apply(event)
        self._cordons = dict(core.state.cordons.by_device)
        history = kept.read(HISTORY, _history)
        if history:
            apply(HistoryRestored(history))

    def set_queues(self, queues: tuple[Queue, ...]) -> None:
        """Other queues from now on."""
        self.queues = queues
        self._kept.write(QUEUES, [(plain_queue(queue),) for queue in queues])
        self._apply(QueuesConfigured(queues))

    def save_cordons(self) -> None:
        """Also when one has followed its device to another id."""
        cordons = self._core.state.cordons.by_device
        if cordons != self._cordons:
            self._kept.write(CORDONS, cordoning.rows(cordons))
            self._cordons = dict(cordons)

    def save_now_and_then(self, now: float) -> None:
        """What was learnt and used, if it has changed and some time has passed."""
        self.save_cordons()
        if time.monotonic() - self._saved_at < _SAVE_SECONDS:
            return
        self._saved_at, pool = time.monotonic(), self._core.state.pool
        if pool.speeds.observations != self._observations:
            self._kept.write(SPEEDS, pool.speeds.rows())
            self._kept.write(COMPANY, pool.company.rows())
            self._observations = pool.speeds.observations
        history = self._core.state.sharing.history(now)
        if history:
            self._kept.write(HISTORY, history)

    def forget(self) -> None:
        """The pool is stopped; what was learnt of run times stays for the next one of this cluster."""
        for key in (QUEUES, CORDONS, HISTORY):
            self._kept.forget(key)

    def _restore_queues(self, config: PoolConfig) -> tuple[Queue, ...]:
        """Those that were set while an earlier incarnation ran, else those of the configuration."""
        own = self._kept.read(QUEUES, lambda rows: parse_queues({"queues": [row[0] for row in rows]}))
        queues = own or parse_queues({"queues": config.queues})
        if queues:
            self._apply(QueuesConfigured(queues))
        return queues

    def _restore_speeds(self) -> None:
        speeds, company = self._kept.read(SPEEDS, _speeds), self._kept.read(COMPANY, _company)
        if speeds:
            self._apply(SpeedsRestored(speeds, company or ()))


def _history(rows: list[Any]) -> tuple[tuple[str, float, float], ...]:
    return tuple((str(queue), float(use), float(at)) for queue, use, at in rows)


def _speeds(rows: list[Any]) -> tuple[tuple[str, str, float, float], ...]:
    return tuple((str(c), str(t), float(w), float(m)) for c, t, w, m in rows)


def _company(rows: list[Any]) -> tuple[tuple[str, str, str, float, float, float], ...]:
    return tuple((str(c), str(t), str(b), float(x), float(y), float(z)) for c, t, b, x, y, z in rows)
