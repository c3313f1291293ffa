"""Which engine answers a request: one of its model that serves, the one with the fewest requests.

What an engine has not begun to answer when it dies is asked of another one, or of the same once it is back. What it has
begun ends with an error, since the client has seen a part of it.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from flexray.errors import FlexrayError, LeaseLost, WaitTimeout
from flexray.serving.engine import Answer
from flexray.serving.keeper import Keeper
from flexray.serving.seat import has_ended

_LOOK_SECONDS, _UP_SECONDS, _AGAIN_SECONDS = 0.05, 20.0, 1.0


class EngineGone(Exception):
    """An engine does not answer; its slice is there still, and starts it again."""


@dataclass
class Replica:
    """One engine, as requests see it."""

    keeper: Keeper
    up: bool = True
    why: str = ""
    in_flight: int = 0


class Routes:
    """The engines of all models. Used on one event loop."""

    def __init__(self, replicas: Mapping[str, Sequence[Replica]], wait_seconds: Mapping[str, float]) -> None:
        self.replicas, self._wait_seconds = replicas, wait_seconds
        self._tasks: set[asyncio.Task[None]] = set()

    async def answer(self, model: str, *request: Any) -> AsyncGenerator[Answer, None]:
        """The parts of an answer. Raises WaitTimeout where no engine serves; LeaseLost when one dies in the middle."""
        until = time.monotonic() + self._wait_seconds[model]
        while True:
            replica, begun = await self._choose(model, until), False
            replica.in_flight += 1
            try:
                async with replica.keeper.holding() as seat, contextlib.aclosing(self._parts(seat, request)) as parts:
                    async for part in parts:
                        begun = True
                        yield part
                return
            except (EngineGone, FlexrayError) as error:
                if isinstance(error, FlexrayError) and not has_ended(error):
                    raise
                self._down(replica, str(error))
                if begun:
                    raise LeaseLost(f"an engine of {model!r} died in the middle of its answer: {error}") from error
            finally:
                replica.in_flight -= 1

    def close(self) -> None:
        """Give every slice back."""
        for task in self._tasks:
            task.cancel()
        for replicas in self.replicas.values():
            for replica in replicas:
                replica.keeper.close()

    async def _parts(self, seat: Any, request: tuple[Any, ...]) -> AsyncGenerator[Answer, None]:
        part = _there(await seat.call("ask", request, {}))
        try:
            yield part
            while part.ticket:
                part = _there(await seat.call("more", (part.ticket,), {}))
                yield part
        finally:
            if part.ticket:
                self._spawn(_drop(seat, part.ticket))

    async def _choose(self, model: str, until: float) -> Replica:
        """Wait for an engine that serves."""
        replicas = self.replicas[model]
        while True:
            there = [replica for replica in replicas if replica.up and replica.keeper.seated]
            if there:
                return min(there, key=lambda replica: replica.in_flight)
            if time.monotonic() >= until:
                reasons = {replica.keeper.trouble or replica.why or "it starts" for replica in replicas}
                raise WaitTimeout(f"no engine of {model!r} serves: {'; '.join(sorted(reasons))}")
            await asyncio.sleep(_LOOK_SECONDS)

    def _down(self, replica: Replica, why: str) -> None:
        replica.why = why
        if replica.up:
            replica.up = False
            self._spawn(self._until_up(replica))

    async def _until_up(self, replica: Replica) -> None:
        while not replica.up:
            try:
                replica.why = await replica.keeper.call("up", (_UP_SECONDS,), {})
                replica.up = not replica.why
            except FlexrayError as error:  # its slice is lost, and it is on its way to another
                replica.why = str(error)
                await asyncio.sleep(_AGAIN_SECONDS)

    def _spawn(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _there(part: Answer) -> Answer:
    if part.status == 0:
        raise EngineGone(part.data.decode(errors="replace"))
    return part


async def _drop(seat: Any, ticket: str) -> None:
    with contextlib.suppress(FlexrayError):  # its slice is gone, and the answer with it
        await seat.call("drop", (ticket,), {})
