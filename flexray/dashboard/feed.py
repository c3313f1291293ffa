"""One look at the pool for all who watch: what the browsers are sent, from one version to the next."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import AsyncGenerator
from typing import Any

from flexray.dashboard import rows
from flexray.dashboard.past import Past, sample
from flexray.dashboard.source import Source
from flexray.errors import ClusterUnreachable, FlexrayError
from flexray.model.holding import Holding
from flexray.model.snapshot import Snapshot

LOOK_SECONDS = 1.0
"""Between two looks, while somebody watches."""
ALONE_SECONDS = 10.0
"""Between two looks while nobody does: so that the curves and the timeline have a past."""
_START_SECONDS = 10.0
_STARTS = 100
"""So many of the waiting requests have an estimated start: the first."""
_LOOK_PART, _START_PART = 4, 20
"""A look that took a second is followed by so many seconds of rest: the scheduler has other things to do. An
estimate copies the scheduler's state, which keeps it from its work."""
_KEPT = 16
"""Changes that are kept for who reads slowly; who is further behind is sent everything anew."""
_BEAT_SECONDS = 15.0
"""Something is sent so often, so that whoever is between keeps the connection open, and the dead are noticed."""

_log = logging.getLogger("flexray")


class Feed:
    """Looks at the pool, and tells who watches what changed."""

    def __init__(self, source: Source) -> None:
        self.past = Past()
        self._source = source
        self._snapshot: Snapshot | None = None
        self._looked = 0.0
        self._took = 0.0
        self._demand: list[dict[str, Any]] = []
        self._trouble = ""
        self._tables: rows.Tables = {}
        self._rest: dict[str, Any] = {}
        self._starts: dict[str, Any] = {}
        self._version = 0
        self._state: tuple[int, str] = (0, "")
        self._changes: deque[tuple[int, str]] = deque(maxlen=_KEPT)
        self._viewers = 0
        self._looking = asyncio.Lock()
        self._news = asyncio.Condition()
        self._wanted = asyncio.Event()

    # -- looking -------------------------------------------------------------------------------

    async def run(self) -> None:
        """Look again and again, until cancelled."""
        estimates = asyncio.create_task(self._estimate_now_and_then())
        try:
            await self._look_now_and_then()
        finally:
            estimates.cancel()

    async def _look_now_and_then(self) -> None:
        while True:
            try:
                await self.look()
            except FlexrayError:  # it is shown, and the next look may find the pool again
                pass
            self._wanted.clear()
            pause = LOOK_SECONDS if self._viewers else ALONE_SECONDS
            try:
                await asyncio.wait_for(self._wanted.wait(), max(pause, _LOOK_PART * self._took))
            except asyncio.TimeoutError:
                pass

    async def look(self) -> tuple[Snapshot, list[dict[str, Any]]]:
        """The pool as it was less than a second ago, and the demand of plain Ray work. Raises what the pool raises."""
        async with self._looking:
            if self._snapshot is not None and time.monotonic() - self._looked < LOOK_SECONDS / 2:
                return self._snapshot, self._demand
            begun = time.monotonic()
            try:
                snapshot, demand, ended = await asyncio.gather(
                    self._source.snapshot(), self._source.demand(), self._source.history(self.past.until)
                )
            except FlexrayError as error:
                await self._tell_trouble(str(error))
                raise
            except Exception as error:  # whatever it is: the page says so and looks again
                _log.exception("flexray dashboard: a look at the pool failed")
                await self._tell_trouble(f"a look at the pool failed: {error}")
                raise ClusterUnreachable(f"a look at the pool failed: {error}") from error
            self._looked = time.monotonic()
            self._took = self._looked - begun
            await self._take_in(snapshot, demand, self.past.add_holdings(ended))
            return snapshot, demand

    async def _take_in(self, snapshot: Snapshot, demand: list[dict[str, Any]], ended: list[Holding]) -> None:
        taken = sample(snapshot)
        self.past.add_sample(taken)
        after, rest = rows.tables(snapshot), {**rows.rest(snapshot), "ray_demand": demand, "trouble": ""}
        waiting = after["waiting"]
        rest["starts"] = {name: start for name, start in self._starts.items() if name in waiting}
        change = {
            "version": self._version + 1,
            "sample": taken,
            **({"ended": ended} if ended else {}),
            "tables": rows.difference(self._tables, after),
            **{name: value for name, value in rest.items() if self._rest.get(name) != value},
        }
        self._snapshot, self._demand, self._trouble = snapshot, demand, ""
        self._tables, self._rest = after, rest
        await self._publish(rows.text(change))

    async def _tell_trouble(self, message: str) -> None:
        self._looked = 0.0
        if message != self._trouble:
            self._trouble = message
            self._rest = {**self._rest, "trouble": message}
            await self._publish(rows.text({"version": self._version + 1, "trouble": message}))

    async def _publish(self, change: str) -> None:
        self._version += 1
        self._changes.append((self._version, change))
        async with self._news:
            self._news.notify_all()

    async def _estimate_now_and_then(self) -> None:
        while True:
            begun = time.monotonic()
            names = [name for name, _ in zip(self._tables.get("waiting", {}), range(_STARTS), strict=False)]
            if self._viewers and names:
                try:
                    found = await self._source.starts(names)
                except FlexrayError:  # the next look says what is wrong
                    found = {}
                except Exception:
                    _log.exception("flexray dashboard: no estimated starts")
                    found = {}
                now = self._snapshot.now if self._snapshot is not None else 0.0
                self._starts = {
                    name: {
                        "at": None if start.seconds is None else round(now + start.seconds),
                        "basis": start.basis,
                        "text": str(start),
                    }
                    for name, start in found.items()
                }
            pause = _START_SECONDS if names and self._viewers else LOOK_SECONDS
            await asyncio.sleep(max(pause, _START_PART * (time.monotonic() - begun)))

    # -- telling -------------------------------------------------------------------------------

    def _whole(self) -> str:
        """Everything, as one message; made once for all who need it."""
        if self._state[0] != self._version:
            parts = {name: list(found.values()) for name, found in self._tables.items()}
            whole = {"version": self._version, "columns": rows.COLUMNS, "rows": parts, **self._rest}
            self._state = (self._version, rows.text(whole))
        return self._state[1]

    async def watch(self) -> AsyncGenerator[tuple[str, str], None]:
        """What one who watches is sent: (``state`` or ``change`` or ``beat``, JSON). The first is everything."""
        self._viewers += 1
        self._wanted.set()
        try:
            if not self._version:
                async with self._news:
                    await self._news.wait_for(lambda: self._version > 0)  # unbounded: the first look ends in either way
            version = self._version
            yield "state", self._whole()
            while True:
                if not await self._newer_than(version):
                    yield "beat", ""
                    continue
                missed = [change for number, change in self._changes if number > version]
                behind = self._version - version
                version = self._version
                if len(missed) < behind:
                    yield "state", self._whole()
                for change in missed if len(missed) == behind else ():
                    yield "change", change
        finally:
            self._viewers -= 1

    async def _newer_than(self, version: int) -> bool:
        async with self._news:
            try:
                await asyncio.wait_for(self._news.wait_for(lambda: self._version > version), _BEAT_SECONDS)
            except asyncio.TimeoutError:
                return False
        return True
