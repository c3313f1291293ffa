"""Carries out what the store decides: loads, parks and stops replicas of many models, and finds them room."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, AsyncIterator, Coroutine
from typing import Any

from flexray import pool
from flexray.errors import FlexrayError, InvalidRequest, LeaseLost, ResizeRefused, StartFailed, WaitTimeout
from flexray.serving.declared import Model
from flexray.serving.seat import Seat, has_ended
from flexray.serving.store import Copy, Do, Room, State, Store

_LOOK_SECONDS = 0.2
#: How soon one that comes back looks again whether those in its room are idle.
_BUSY_SECONDS = 0.02
#: A load that has no slice after so long is looked up in the pool's line.
_LINE_SECONDS = 0.3
#: How often a request runs again when its replica's slice is lost.
_RETRIES = 3
_MIB = 2**20


class Shelf:
    """The replicas of many models, and the requests that wait for them. Lives on one event loop."""

    def __init__(self, models: list[Model]) -> None:
        self.store = Store({model.name: model for model in models})
        self._seats: dict[Copy, Seat] = {}
        self._news = asyncio.Event()
        self._changed = asyncio.Condition()
        self._tasks: set[asyncio.Task[None]] = set()
        self._spawn(self._tend())

    async def call(self, name: str, method: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Call a method of a model, loaded if need be. Raises WaitTimeout when it is not there in time."""
        self._arrived(name)
        attempt = 0
        while True:
            try:
                async with self._replica(name) as seat:
                    return await seat.call(method, args, kwargs)
            except LeaseLost as error:
                if not has_ended(error) or attempt == _RETRIES:
                    raise
            attempt += 1

    async def stream(
        self, name: str, method: str, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> AsyncGenerator[Any, None]:
        """The items of a generator method of a model. Never repeated."""
        self._arrived(name)
        async with (
            self._replica(name) as seat,
            contextlib.aclosing(seat.stream(method, args, kwargs)) as items,
        ):
            async for item in items:
                yield item

    def close(self) -> None:
        """Give every slice back."""
        for task in self._tasks:
            task.cancel()
        for seat in self._seats.values():
            seat.stop()

    def _arrived(self, name: str) -> None:
        if name not in self.store.models:
            raise InvalidRequest(f"there is no model {name!r}; there are {', '.join(self.store.models)}")
        self.store.arrived(name, time.monotonic())

    @contextlib.asynccontextmanager
    async def _replica(self, name: str) -> AsyncIterator[Seat]:
        copy = await self._find(name)
        copy.in_flight += 1
        try:
            yield self._seats[copy]
        except FlexrayError as error:
            if has_ended(error):
                self._drop(copy)
            raise
        finally:
            copy.in_flight -= 1
            copy.used_at = time.monotonic()
            await self._tell()

    async def _find(self, name: str) -> Copy:
        found = self.store.choose(name)
        if found is not None:
            return found
        model, record = self.store.models[name], self.store.records[name]
        deadline, failures = time.monotonic() + model.wait_seconds, record.failures
        record.waiting += 1
        self._news.set()
        try:
            async with self._changed:
                while (found := self.store.choose(name)) is None:
                    if record.failures > failures and not self.store.has(name):
                        raise StartFailed(f"model {name!r} could not be loaded: {record.failure}")
                    left = deadline - time.monotonic()
                    try:
                        await asyncio.wait_for(self._changed.wait(), max(0.0, left))
                    except asyncio.TimeoutError:
                        record.late += 1
                        raise WaitTimeout(await self._why_late(model)) from None
            return found
        finally:
            record.waiting -= 1

    async def _why_late(self, model: Model) -> str:
        copies = [c for c in self.store.copies if c.model is model]
        text = f"model {model.name!r} was not there within {model.wait_seconds:g} s"
        loading = next((c for c in copies if c.state is State.LOADING), None)
        if loading is not None:
            return f"{text}: {await self._seats[loading].explain()}"
        running = sum(c.in_flight for c in copies)
        return f"{text}: {running} requests run on {len(copies)} of at most {model.most} replicas; raise replicas="

    # -- replicas ------------------------------------------------------------------------------

    async def _tend(self) -> None:
        looked = 0.0
        while True:
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._news.wait(), _LOOK_SECONDS)
            self._news.clear()
            self._look()
            for what, copy in self.store.next_steps(time.monotonic()):
                self._carry_out(what, copy)
            if time.monotonic() - looked >= _LOOK_SECONDS:
                looked = time.monotonic()
                with contextlib.suppress(FlexrayError):  # the scheduler is away for a moment
                    await self._make_room()

    def _look(self) -> None:
        for copy, seat in list(self._seats.items()):
            found = seat.standing
            copy.in_line = found.state == "waiting"
            if found.state == "lost" and copy.state is not State.LOADING:
                self._drop(copy)
            elif found.state == "leaving":
                copy.leaving = True

    def _carry_out(self, what: Do, copy: Copy) -> None:
        if what is Do.LOAD:
            self._seats[copy] = copy.model.recipe.start(copy.model.args)
            self._spawn(self._load(copy))
        elif what is Do.STOP:
            self._drop(copy)
        elif what is Do.PARK:
            copy.state = State.PARKING
            self._spawn(self._park(copy))
        else:
            self._spawn(self._unpark(copy))

    def _drop(self, copy: Copy) -> None:
        self.store.gone(copy)
        seat = self._seats.pop(copy, None)
        if seat is not None:
            seat.stop()

    async def _load(self, copy: Copy) -> None:
        seat = self._seats[copy]
        try:
            facts = await seat.ready()
        except Exception as error:  # no slice for it, or what its loader raised
            if copy in self._seats:
                self.store.failed(copy, f"{type(error).__name__}: {error}", time.monotonic())
                self._drop(copy)
                await self._tell()
            return
        copy.device, copy.share, copy.memory = facts.device, facts.share, facts.memory // _MIB
        self.store.loaded(copy, seat.seconds, time.monotonic())
        await self._tell()

    async def _park(self, copy: Copy) -> None:
        seat = self._seats[copy]
        try:
            await seat.call("park", (), {})
            await self._resize(copy, copy.model.parked or {})
        except ResizeRefused:
            pass  # it has let go of its memory, if not of its share
        except Exception:
            self._drop(copy)
            return
        copy.state = State.PARKED
        self._news.set()

    async def _unpark(self, copy: Copy) -> None:
        seat, began = self._seats[copy], time.monotonic()
        try:
            await self._regain(copy)
            await seat.call("unpark", (), {})
        except Exception:  # its room is taken, or it is gone: another one is loaded, elsewhere if need be
            self._drop(copy)
            self._news.set()
            return
        self.store.unparked(copy, time.monotonic() - began, time.monotonic())
        await self._tell()

    async def _regain(self, copy: Copy) -> None:
        """Have its size again. Where others have it, idle ones are parked; busy ones are worth the wait of a load."""
        deadline = time.monotonic() + (self.store.records[copy.model.name].cold_seconds or 0.0)
        while True:
            try:
                return await self._resize(copy, copy.model.recipe.options)
            except ResizeRefused:
                if not self.store.beside(copy) or time.monotonic() > deadline:
                    raise
            idle = self.store.parks_for(copy, time.monotonic())
            if idle is not None:
                idle.state = State.PARKING
                await self._park(idle)
            else:
                await asyncio.sleep(_BUSY_SECONDS)

    async def _resize(self, copy: Copy, options: Any) -> None:
        size = {name: options[name] for name in ("gpu", "npu", "accelerator", "memory") if name in options}
        # What a slice may use beyond its own is not resized.
        size = {name: value[0] if isinstance(value, (tuple, list)) else value for name, value in size.items()}
        facts = await self._seats[copy].resize(size)
        copy.share, copy.memory = facts.share, facts.memory // _MIB

    # -- room ----------------------------------------------------------------------------------

    async def _make_room(self) -> None:
        """Stop idle replicas for a load that stands in line, one load at a time."""
        now = time.monotonic()
        waiting = {
            found.request: copy
            for copy, seat in self._seats.items()
            if copy.state is State.LOADING and now - copy.since > _LINE_SECONDS
            if (found := seat.standing).state == "waiting"
        }
        if not waiting:
            return
        picture = await asyncio.to_thread(pool)
        rooms = [
            Room(d.id, d.type, d.family, d.share_free, d.memory_free, d.memory)
            for d in picture.devices
            if d.state == "ready"
        ]
        in_line = [waiting[one.id] for one in picture.waiting if one.state == "queued" and one.id in waiting]
        for copy in in_line[:1]:
            for victim in self.store.victims(copy, rooms, time.monotonic()):
                self._drop(victim)

    async def _tell(self) -> None:
        """Those that wait look again; replicas are looked after."""
        self._news.set()
        async with self._changed:
            self._changed.notify_all()

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
