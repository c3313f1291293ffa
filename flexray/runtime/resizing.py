"""A running slice gets another size: who asks, who waits for the answer, and who does it.

task or handle ──ask_size──> scheduler ──ResizeSlice──> node agent ──change_size──> enforcer, then the slice itself
               <──answer───            <──SliceResized──
"""

from __future__ import annotations

import asyncio
import dataclasses
import itertools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import ray

from flexray.devices.enforcement import Enforcement
from flexray.devices.enforcers.enforcer import Cell, NotResizable
from flexray.errors import ResizeRefused, WaitTimeout
from flexray.model.amounts import MemoryMiB, Share, format_memory
from flexray.model.commands import AnswerResize
from flexray.model.events import ResizeAsked
from flexray.model.lease import LeaseId, Placement
from flexray.runtime.asking import ask_scheduler, find_scheduler
from flexray.runtime.blocking import refuse_on_event_loop
from flexray.runtime.protocol import Token

if TYPE_CHECKING:
    from flexray.runtime.slice_host import LiveSlice

_CHANGE_SECONDS = 30.0
_ANSWER_SECONDS = 120.0
"""Idle slices have to end and the maker's commands to run, each within a limit of its own; then something is stuck."""


def ask_size(token: Token, share: Share | None, memory: MemoryMiB | None) -> Placement:
    """Have the slice under a lease changed; returns what it has then.

    Raises ResizeRefused, ClusterUnreachable, WaitTimeout; UsageError on an event loop.
    """
    refuse_on_event_loop("`await asyncio.to_thread(...resize, ...)`")
    placement, refused = ask_scheduler(
        find_scheduler(), "resize", token, share, memory, within=_ANSWER_SECONDS, late=WaitTimeout
    )
    if refused:
        raise ResizeRefused(f"the slice keeps its size: {refused}")
    found: Placement = placement
    return found


class Questions:
    """Those that the scheduler has not answered yet. ``apply`` feeds its core."""

    def __init__(self, apply: Callable[[ResizeAsked], None]) -> None:
        self._apply = apply
        self._numbers = itertools.count(1)
        self._open: dict[int, asyncio.Future[tuple[Placement | None, str]]] = {}

    async def ask(self, lease: LeaseId, share: Share | None, memory: MemoryMiB | None) -> tuple[Placement | None, str]:
        """The lease's size once it is changed, or why it is not."""
        number = next(self._numbers)
        answer: asyncio.Future[tuple[Placement | None, str]] = asyncio.get_running_loop().create_future()
        self._open[number] = answer
        try:
            self._apply(ResizeAsked(lease, share, memory, number))
            return await answer  # unbounded: answered when its slice ends at the latest; who asked waits no longer
        finally:
            del self._open[number]

    def answered(self, answer: AnswerResize) -> None:
        """Whoever asked goes on."""
        waiting = self._open.get(answer.number)
        if waiting is not None and not waiting.done():
            waiting.set_result((answer.placement, answer.refused))


async def change_size(live: LiveSlice, placement: Placement, enforcement: Enforcement) -> None:
    """Change a running slice on its node. Raises NotResizable or another error, leaving it as it was."""
    before = live.cell
    if live.process is None or live.stopping or before is None:
        raise NotResizable("it does not run any more")
    burst = Share(max(placement.share, placement.burst))
    after = dataclasses.replace(before, share=placement.share, burst=burst, memory=placement.memory)
    loop = asyncio.get_running_loop()
    await loop.run_in_executor(None, _check_memory, live, after, enforcement)
    setup = await loop.run_in_executor(None, enforcement.resize, after)
    try:
        await asyncio.wait_for(_result(live.handle.change_size.remote(placement, setup)), _CHANGE_SECONDS)
    except Exception as error:
        await loop.run_in_executor(None, enforcement.resize, before)
        if isinstance(error, asyncio.TimeoutError):
            raise NotResizable(f"its process has not answered within {_CHANGE_SECONDS:g} s") from None
        raise (error.cause if isinstance(error, ray.exceptions.RayTaskError) else error) from None
    live.cell = after


def _check_memory(live: LiveSlice, after: Cell, enforcement: Enforcement) -> None:
    """A limit below what is in use would end the slice."""
    if live.cell is not None and after.memory < live.cell.memory:
        used, limit = live.usage(enforcement).memory, after.memory * len(after.devices)
        if used is not None and used > limit:
            raise NotResizable(f"it uses {format_memory(used)} of memory; free some before it shrinks below that")


async def _result(ref: Any) -> Any:
    return await ref  # unbounded: who calls it sets the limit
