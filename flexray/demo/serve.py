"""The two ways of serving six models on two devices: whole devices that swap models, and slices that keep all six.

Both ways run the same server class as real flexray actors, get the same requests one by
one at the same times, and load the same files.
"""

from __future__ import annotations

import asyncio
import importlib
import pickle
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import flexray as flex
from flexray.demo.measure import Answer, Hold, Side
from flexray.demo.models import Trained
from flexray.demo.stream import Arrival

Share = float | tuple[float, float]
"""Of a device; with a second number, how far it may use what others leave idle."""
SLICE_SHARE = 0.33
"""Of a device, for each of the three models on it."""


class ModelServer:
    """One model in a process of its own. Times are CLOCK_MONOTONIC, which processes of a machine share."""

    def __init__(self, module: str, path: str, example: Any) -> None:
        started = time.monotonic()
        importlib.import_module(module)
        imported = time.monotonic()
        with Path(path).open("rb") as file:
            self._model: Any = pickle.load(file)
        self._model.predict([example])  # what the first call sets up belongs to the load
        #: when it started, when it had imported its libraries, and when it could answer.
        self.times = (started, imported, time.monotonic())

    def ready(self) -> tuple[str, float, float, float]:
        """The device it is on; when it started, when it had imported its libraries, and when it could answer."""
        return flex.current().device.id, *self.times

    def predict(self, image: Any) -> tuple[int, float, float]:
        """The digit in an image, and when the model's call began and ended."""
        began = time.monotonic()
        label = int(self._model.predict([image])[0])
        return label, began, time.monotonic()


@dataclass
class Resident:
    """A server that is up: its handle, and its Hold in the making (its times are still on the monotonic clock)."""

    handle: Any
    hold: Hold


class Way:
    """What both ways share: loading a model, asking it, and the clock of the stream."""

    def __init__(self, trained: Trained, share: Share, answered: Callable[[], None]) -> None:
        self._trained = {model.name: model for model in trained.models}
        self._images = trained.images
        self._holds_share = share[0] if isinstance(share, tuple) else share
        self._server = flex.actor(accelerator=share)(ModelServer)
        self._answered = answered
        self._answers: list[Answer] = []
        self._holds: list[Hold] = []
        self._start = 0.0

    async def _load(self, name: str) -> Resident:
        asked = time.monotonic()
        model = self._trained[name]
        handle = self._server.remote(model.module, str(model.path), self._images[0])
        device, started, imported, ready = await handle.ready.remote()  # unbounded: a model of the demo
        return Resident(handle, Hold(name, device, self._holds_share, asked, started, imported, ready, 0.0))

    def _release(self, resident: Resident) -> None:
        self._stop(resident.handle)
        self._holds.append(replace(resident.hold, left=time.monotonic()))

    def _stop(self, handle: Any) -> None:
        """Nobody needs what this was made for any more."""
        handle.stop()

    async def _ask(self, resident: Resident, arrival: Arrival) -> None:
        label, began, ended = await resident.handle.predict.remote(self._images[arrival.image])  # unbounded: likewise
        times = (began - self._start, ended - self._start, time.monotonic() - self._start)
        hold = resident.hold
        self._answers.append(Answer(arrival.number, hold.model, hold.device, label, arrival.at, *times))
        self._answered()

    async def _play(self, stream: Sequence[Arrival], arrived: Callable[[Arrival], None]) -> None:
        """Hand over each request when it is due, counted from now."""
        self._start = time.monotonic()
        for arrival in stream:
            await asyncio.sleep(max(0.0, self._start + arrival.at - time.monotonic()))
            arrived(arrival)

    def _side(self, title: str) -> Side:
        holds = tuple(hold.counted_from(self._start) for hold in self._holds)
        devices = tuple(sorted({hold.device for hold in holds}))
        return Side(title, devices, tuple(sorted(self._answers, key=lambda answer: answer.number)), holds)


class Slices(Way):
    """All models resident, each on a share of a device."""

    def __init__(
        self, trained: Trained, answered: Callable[[], None], loaded: Callable[[], None], share: Share = SLICE_SHARE
    ) -> None:
        super().__init__(trained, share, answered)
        self._loaded = loaded

    async def serve(self, stream: Sequence[Arrival]) -> Side:
        """Load all models, then send each request to its model when it arrives."""
        loads = [asyncio.ensure_future(self._load_and_tell(name)) for name in self._trained]
        residents = {resident.hold.model: resident for resident in await asyncio.gather(*loads)}
        asked: list[asyncio.Task[None]] = []

        def arrived(arrival: Arrival) -> None:
            asked.append(asyncio.ensure_future(self._ask(residents[arrival.model], arrival)))

        await self._play(stream, arrived)
        await asyncio.gather(*asked)
        for resident in residents.values():
            self._release(resident)
        return self._side("slices")

    async def _load_and_tell(self, name: str) -> Resident:
        resident = await self._load(name)
        self._loaded()
        return resident


class WholeDevices(Way):
    """The usual way: a model has a whole device, and another one that is asked for has to be swapped in.

    As good as that gets: devices begin with a model loaded; a model stays while nobody
    else waits; a device whose model has nothing left to do takes the model with the
    oldest waiting request; and a model answers all that wait for it, and what arrives
    meanwhile, before it leaves.
    """

    def __init__(self, trained: Trained, answered: Callable[[], None], devices: int) -> None:
        super().__init__(trained, 1, answered)
        self._waiting: Mapping[str, deque[Arrival]] = {name: deque() for name in self._trained}
        self._first = list(self._trained)[:devices]
        self._taken = set(self._first)
        self._news = asyncio.Condition()
        self._all_arrived = False

    async def serve(self, stream: Sequence[Arrival]) -> Side:
        """Load one model per device, then play the stream while each device looks after itself."""
        residents = await asyncio.gather(*(self._load(name) for name in self._first))
        workers = [asyncio.ensure_future(self._look_after(resident)) for resident in residents]
        tellers: list[asyncio.Task[None]] = []

        def arrived(arrival: Arrival) -> None:
            self._waiting[arrival.model].append(arrival)
            tellers.append(asyncio.ensure_future(self._tell()))

        await self._play(stream, arrived)
        self._all_arrived = True
        await asyncio.gather(*tellers, self._tell())
        await asyncio.gather(*workers)
        return self._side("whole devices")

    async def _look_after(self, resident: Resident) -> None:
        """One device, from its first model to the last request it can help with."""
        while True:
            name = resident.hold.model
            while waiting := self._waiting[name]:
                batch = [waiting.popleft() for _ in range(len(waiting))]
                await asyncio.gather(*(self._ask(resident, arrival) for arrival in batch))
            following = self._longest_waiting()
            if following is not None:
                self._taken = (self._taken - {name}) | {following}
                self._release(resident)
                resident = await self._load(following)
            elif self._all_arrived:
                self._release(resident)
                return
            else:
                await self._news_for(name)

    async def _news_for(self, name: str) -> None:
        """Return when the device that has this model may have something to do, or no more will come."""

        def something() -> bool:
            return self._all_arrived or bool(self._waiting[name]) or self._longest_waiting() is not None

        async with self._news:
            await self._news.wait_for(something)  # unbounded: the next event of the demo

    def _longest_waiting(self) -> str | None:
        """The model with the oldest waiting request, of those that no device has or is loading."""
        heads = [(queue[0].at, name) for name, queue in self._waiting.items() if queue and name not in self._taken]
        return min(heads)[1] if heads else None

    async def _tell(self) -> None:
        async with self._news:
            self._news.notify_all()
