"""Generators on slices: items as they are produced, through Ray's streaming generators."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import TYPE_CHECKING, Any

import ray

from flexray.errors import LeaseLost
from flexray.runtime.arguments import when_ready
from flexray.runtime.call import Call
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
        lease, refs = self._engine.start_stream(self._call)
        self._end_with_call(lease)
        try:
            for ref in refs:
                yield _item(ray.get(ref))  # unbounded: until user code yields, or its slice ends
        except ray.exceptions.RayError as error:
            raise self._lost() from error
        finally:
            self._close(lease)
        self._raise_failure()

    async def items_async(self) -> AsyncIterator[Any]:
        """As ``items``, for ``async for``."""
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(None, self._await_arguments)
        lease, refs = await loop.run_in_executor(None, self._engine.start_stream, self._call)
        self._end_with_call(lease)
        try:
            async for ref in refs:
                yield _item(await ref)  # unbounded: likewise
        except ray.exceptions.RayError as error:
            raise self._lost() from error
        finally:
            self._close(lease)
        self._raise_failure()

    def _end_with_call(self, lease: HeldLease) -> None:
        """A call that fails before its generator runs (an argument was lost, say) must not leave us waiting."""

        def end(call: Call) -> None:
            if call.failure() is not None and not lease.broken:
                lease.handle.close_stream.remote(lease.token, call.number)

        if not self._call.on_done(end):
            end(self._call)

    def _close(self, lease: HeldLease) -> None:
        """The reader stops: so must the generator."""
        if not self._call.settled and not lease.broken:
            lease.handle.close_stream.remote(lease.token, self._call.number)

    def _raise_failure(self) -> None:
        failure = self._call.failure() if self._call.settled else None
        if failure is not None:
            raise failure

    def _lost(self) -> BaseException:
        failure = self._call.failure() if self._call.settled else None
        return failure or LeaseLost(f"{self._call.target.name} lost its slice while it streamed")

    def _await_arguments(self) -> None:
        import threading

        ready = threading.Event()
        failures: list[BaseException | None] = []

        def go(_: Call, failure: BaseException | None) -> None:
            failures.append(failure)
            ready.set()

        if not when_ready(self._call, lambda *_: ready.set()):
            ready.wait()  # unbounded: the user waits for what is an argument
            ready.clear()
        self._engine.repeats.ready(self._call, go)
        ready.wait()  # unbounded: what was lost is being made again
        if failures[0] is not None:
            raise failures[0]


def _item(pair: tuple[bool, Any]) -> Any:
    ok, value = pair
    if not ok:
        raise unpack_error(value)
    return value
