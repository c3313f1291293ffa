"""One model on one slice, as the process that serves it sees it."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from flexray.errors import FlexrayError, LeaseLost, MemoryLimitExceeded, TaskError
from flexray.serving.host import Facts, host_class
from flexray.tasks import actor, standing

#: What says which slice a model gets.
SLICE_OPTIONS = ("gpu", "npu", "accelerator", "memory", "types", "queue", "priority", "cpus", "timeout", "request")
#: What a call raises whose slice has ended; unless the model's own code raised it.
_ENDED = (LeaseLost, MemoryLimitExceeded)


@dataclass(frozen=True)
class Recipe:
    """What a seat is made from: who makes the model, on what slice."""

    loader: Callable[..., Any]
    options: Mapping[str, Any] = field(default_factory=dict)

    def start(self, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None) -> Seat:
        """Ask for a slice; the model is made there with these arguments."""
        return Seat(actor(**self.options)(host_class(self.loader)).remote(self.loader, args, dict(kwargs or {})))


class Seat:
    """A model on a slice of its own, or on its way there. Made and used on one event loop."""

    def __init__(self, handle: Any) -> None:
        self._handle = handle
        self._first = handle.facts.remote()
        self.asked = time.monotonic()
        #: from asking for the slice until the model was there.
        self.seconds = 0.0
        self.facts: Facts | None = None
        self.in_flight = 0
        self._idle = asyncio.Event()
        self._idle.set()

    async def ready(self) -> Facts:
        """Wait until the model is there. Raises what its loader raised, or why there is no slice for it."""
        self.facts = await self._first  # unbounded: who waits for the model has a limit
        self.seconds = time.monotonic() - self.asked
        return self.facts

    async def call(self, method: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Call a method of the model; cancelled there when it is cancelled here."""
        with self.busy():
            future = self._handle.call.remote(method, args, kwargs)
            try:
                return await future  # unbounded: the request's own limit
            except asyncio.CancelledError:
                asyncio.get_running_loop().run_in_executor(None, _cancel, future)  # it waits for the slice's answer
                raise

    async def stream(self, method: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> AsyncGenerator[Any, None]:
        """The items of a generator method of the model."""
        with self.busy():
            async for item in self._handle.stream.stream(method, args, kwargs):
                yield item

    async def resize(self, size: Mapping[str, Any]) -> Facts:
        """Give the slice another size; returns where the model is then. Raises ResizeRefused."""
        await asyncio.to_thread(lambda: self._handle.resize(**size))
        self.facts = await self._handle.facts.remote()  # unbounded: a look, behind what runs there
        return self.facts

    @property
    def standing(self) -> Any:
        """Whether it waits, starts, is ready, has to leave or is lost; see ``tasks.standing``."""
        return standing(self._handle)

    async def explain(self) -> str:
        """Why it is not there yet, in words."""
        return str(await asyncio.to_thread(self._first.explain))

    async def idle(self) -> None:
        """Wait until nothing runs on it."""
        await self._idle.wait()  # unbounded: until the last request on it is done, or its slice ends

    def stop(self) -> None:
        """Give the slice back."""
        self._handle.stop()

    @contextlib.contextmanager
    def busy(self) -> Iterator[None]:
        """While something needs it."""
        self.in_flight += 1
        self._idle.clear()
        try:
            yield
        finally:
            self.in_flight -= 1
            if not self.in_flight:
                self._idle.set()


def _cancel(future: Any) -> None:
    with contextlib.suppress(FlexrayError):  # its slice is gone, and the call with it
        future.cancel()


def has_ended(error: BaseException) -> bool:
    """Whether an error says that the slice is gone, and not that the model's own code failed."""
    return isinstance(error, _ENDED) and not isinstance(error, TaskError)
