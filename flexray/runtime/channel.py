"""Items of a generator on their way from the thread that runs it to the actor call that streams them."""

from __future__ import annotations

import asyncio
import inspect
import queue
import threading
from collections.abc import Callable, Iterator
from typing import Any

from flexray.runtime.packing import pack_error

_AHEAD = 16
_LOOK_SECONDS = 0.1
_READER_LOOK_SECONDS = 0.5


class Channel:
    """A bounded queue that its reader can close. An item is (True, value) or (False, packed error)."""

    def __init__(self) -> None:
        self.items: queue.Queue[tuple[bool, Any] | None] = queue.Queue(_AHEAD)
        self.closed = threading.Event()

    def __iter__(self) -> Iterator[tuple[bool, Any]]:
        while True:
            try:
                item = self.items.get(timeout=_READER_LOOK_SECONDS)
            except queue.Empty:
                if self.closed.is_set():
                    return
                continue
            if item is None:
                return
            yield item

    def put(self, item: tuple[bool, Any] | None) -> bool:
        """Add an item, waiting for room. False when the reader has gone."""
        while not self.closed.is_set():
            try:
                self.items.put(item, timeout=_LOOK_SECONDS)
                return True
            except queue.Full:
                continue
        return False

    async def put_async(self, item: tuple[bool, Any] | None) -> bool:
        """As ``put``, without blocking an event loop."""
        while not self.closed.is_set():
            try:
                self.items.put_nowait(item)
                return True
            except queue.Full:
                await asyncio.sleep(0.002)
        return False


class Pump:
    """Calls a generator function and moves its items into a channel, where user code runs."""

    def __init__(self, call: Callable[[], Any], channel: Channel) -> None:
        self._call, self._channel = call, channel

    def __call__(self) -> Any:
        """None when all is moved, or a coroutine that moves an async generator's items."""
        try:
            source = self._call()
            if inspect.isasyncgen(source):
                return self._drain_async(source)
            for item in source:
                if not self._channel.put((True, item)):
                    break
        except BaseException as error:
            self._channel.put((False, pack_error(error)))
        self._channel.put(None)
        return None

    async def _drain_async(self, source: Any) -> None:
        try:
            async for item in source:
                if not await self._channel.put_async((True, item)):
                    break
        except BaseException as error:
            await self._channel.put_async((False, pack_error(error)))
        await self._channel.put_async(None)
