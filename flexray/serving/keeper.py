"""Keeps one model on a slice: makes it again when the slice is lost, and moves it before its device is emptied.

start ──> seated ──slice lost──> none, requests wait ──> seated
             └────has to leave──> another is made ──> requests go there, the old one finishes and ends
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, Callable
from typing import Any

from flexray.errors import FlexrayError, LeaseLost, MemoryLimitExceeded
from flexray.serving.seat import Seat, has_ended

#: How often the slice is looked at, and how long after a failed start the next is tried.
_LOOK_SECONDS, _AGAIN_SECONDS = 0.25, 1.0
#: How often the pool is asked why there is no slice in place of a lost one: it costs the scheduler a replay.
_EXPLAIN_SECONDS = 10.0


class Keeper:
    """One model, wherever it is. ``make`` asks for a slice with the model on it.

    Args:
        retries: how often a request runs again when its slice is lost.
        recover_seconds: how long requests wait for a slice in place of a lost one, and ``trouble`` says nothing.
    """

    def __init__(self, make: Callable[[], Seat], retries: int, recover_seconds: float) -> None:
        self._make, self._retries, self._recover_seconds = make, retries, recover_seconds
        self._seat: Seat | None = None
        self._coming: Seat | None = None
        self._leaving: set[Seat] = set()
        self._there, self._news = asyncio.Event(), asyncio.Event()
        self._lost_at = time.monotonic()
        self._why = ""
        self._tasks: set[asyncio.Task[None]] = set()
        #: called with each new seat before requests go there.
        self.prepare: Callable[[Seat], Any] | None = None

    async def start(self) -> None:
        """Wait until the model is there; keep it from then on. Raises what its loader raised, or Infeasible."""
        try:
            await self._begin()
        except BaseException:
            self.close()
            raise
        self._spawn(self._watch())

    async def call(self, method: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Call a method of the model. Raises what it raises; LeaseLost when slices are lost too often or too long."""
        attempt = 0
        while True:
            seat = await self._present()
            try:
                return await seat.call(method, args, kwargs)
            except FlexrayError as error:
                if not self._goes_on(seat, error, attempt):
                    raise
            attempt += 1

    async def stream(self, method: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> AsyncGenerator[Any, None]:
        """The items of a generator method; begun again on another slice only before the first of them."""
        attempt, begun = 0, False
        while True:
            seat = await self._present()
            try:
                async with contextlib.aclosing(seat.stream(method, args, kwargs)) as items:
                    async for item in items:
                        begun = True
                        yield item
                return
            except FlexrayError as error:
                if not self._goes_on(seat, error, attempt) or begun:
                    raise
            attempt += 1

    @contextlib.asynccontextmanager
    async def holding(self) -> AsyncGenerator[Seat, None]:
        """The model's slice, for calls that belong together: it is not given back between them. Nothing is repeated."""
        seat = await self._present()
        with seat.busy():
            try:
                yield seat
            except FlexrayError as error:
                self._goes_on(seat, error, self._retries)
                raise

    @property
    def seated(self) -> bool:
        """Whether the model is on a slice now."""
        return self._seat is not None

    @property
    def trouble(self) -> str:
        """Why there has been no slice for longer than ``recover_seconds``; "" otherwise."""
        if self._seat is not None or time.monotonic() - self._lost_at <= self._recover_seconds:
            return ""
        return f"no slice for {time.monotonic() - self._lost_at:.0f} s: {self._why}"

    def close(self) -> None:
        """Give every slice back."""
        for task in self._tasks:
            task.cancel()
        for seat in {self._seat, self._coming, *self._leaving}:
            if seat is not None:
                seat.stop()
        self._seat = self._coming = None

    # -- requests ------------------------------------------------------------------------------

    async def _present(self) -> Seat:
        while self._seat is None:
            left = self._lost_at + self._recover_seconds - time.monotonic()
            try:
                await asyncio.wait_for(self._there.wait(), max(0.0, left))
            except asyncio.TimeoutError:
                raise LeaseLost(f"the model lost its slice, and has had {self.trouble or self._why}") from None
        return self._seat

    def _goes_on(self, seat: Seat, error: FlexrayError, attempt: int) -> bool:
        """Take in a failure; whether the request may run again."""
        if not has_ended(error):
            return False
        self._lose(seat, str(error))
        return attempt < self._retries and not isinstance(error, MemoryLimitExceeded)

    def _lose(self, seat: Seat, why: str) -> None:
        if self._seat is seat:
            self._seat, self._why, self._lost_at = None, why, time.monotonic()
            self._there.clear()
            self._news.set()

    # -- slices --------------------------------------------------------------------------------

    async def _watch(self) -> None:
        while True:
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._news.wait(), _LOOK_SECONDS)
            self._news.clear()
            seat = self._seat
            if seat is not None:
                found = seat.standing
                if found.state == "lost":
                    self._lose(seat, found.reason)
                elif found.state != "leaving":
                    continue
            await self._renew(seat)

    async def _renew(self, old: Seat | None) -> None:
        """Have the model on another slice, however long that takes; then the old one may end."""
        while True:
            try:
                await self._begin()
                break
            except FlexrayError as error:
                self._why = str(error)
            except Exception as error:  # the model's loader, or what prepares it
                self._why = f"{type(error).__name__}: {error}"
            await asyncio.sleep(_AGAIN_SECONDS)
        if old is not None:
            self._leaving.add(old)
            self._spawn(self._finish(old))

    async def _begin(self) -> None:
        seat = self._coming = self._make()
        try:
            await self._arrives(seat)
            if self.prepare is not None:
                await self.prepare(seat)
        except BaseException:
            seat.stop()
            raise
        finally:
            self._coming = None
        self._seat, self._why = seat, ""
        self._there.set()

    async def _arrives(self, seat: Seat) -> None:
        """Wait for a seat, and now and then note why it is not there; the old one may be lost meanwhile."""
        arrival, explained = asyncio.ensure_future(seat.ready()), 0.0
        try:
            while not (await asyncio.wait((arrival,), timeout=_AGAIN_SECONDS))[0]:
                old, now = self._seat, time.monotonic()
                if old is not None and (found := old.standing).state == "lost":
                    self._lose(old, found.reason)
                elif old is None and self._why and now - explained >= _EXPLAIN_SECONDS:
                    self._why, explained = await seat.explain(), now
            await arrival  # unbounded: it is done, and raises what went wrong
        finally:
            arrival.cancel()

    async def _finish(self, seat: Seat) -> None:
        await seat.idle()
        self._leaving.discard(seat)
        seat.stop()

    def _spawn(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
