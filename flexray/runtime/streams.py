"""Generators on slices: items as they are produced, through Ray's streaming generators."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import TYPE_CHECKING, Any

import ray

from flexray.errors import LeaseLost
from flexray.runtime.arguments import failure_of_arguments, fill_slots, when_ready
from flexray.runtime.call import Call
from flexray.runtime.dispatch import batch_message
from flexray.runtime.losses import argument_error, failed_elsewhere
from flexray.runtime.packing import unpack_error
from flexray.runtime.targets import HeldLease

if TYPE_CHECKING:
    from flexray.runtime.client import Client
    from flexray.runtime.engine import Engine


class StreamSource:
    """One stream. Starts when it is first iterated; the lease is kept until it ends. Never repeated."""

    def __init__(self, engine: Engine, client: Client, call: Call) -> None:
        self._engine, self._client, self._call = engine, client, call

    def items(self) -> Iterator[Any]:
        """Yield items; raises what the generator raised, or LeaseLost when its slice is gone."""
        self._await_arguments()
        lease = self._engine.lease_for_stream(self._call)
        try:
            for ref in self._start(lease):
                yield _item(ray.get(ref))
        except ray.exceptions.RayError as error:
            raise self._lost(lease, error) from error
        except StopIteration:
            return
        finally:
            self._engine.end_stream(lease, self._call)

    async def items_async(self) -> AsyncIterator[Any]:
        """As ``items``, for ``async for``."""
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(None, self._await_arguments)
        lease = await loop.run_in_executor(None, self._engine.lease_for_stream, self._call)
        try:
            async for ref in self._start(lease):
                yield _item(await ref)
        except ray.exceptions.RayError as error:
            raise self._lost(lease, error) from error
        finally:
            self._engine.end_stream(lease, self._call)

    def _start(self, lease: HeldLease) -> Any:
        with self._engine.lock:
            message, values = batch_message(lease, [self._call], 0)
        return lease.handle.stream.options(num_returns="streaming").remote(message, *values)

    def _lost(self, lease: HeldLease, error: Exception) -> Exception:
        if failed_elsewhere(lease, [self._call], error):
            return argument_error(self._call.target, error)
        return LeaseLost(f"{self._call.target.name} lost its slice while it streamed")

    def _await_arguments(self) -> None:
        import threading

        ready = threading.Event()
        if not when_ready(self._call, lambda *_: ready.set()):
            ready.wait()
        failure = failure_of_arguments(self._call)
        if failure is not None:
            raise failure
        fill_slots(self._call)


def _item(pair: tuple[bool, Any]) -> Any:
    ok, value = pair
    if not ok:
        raise unpack_error(value)
    return value
