"""Actors on the client's side: how one is made, and given back."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

from flexray.errors import LeaseLost
from flexray.runtime.arguments import failure_of_arguments, pack_arguments, when_ready
from flexray.runtime.call import Call
from flexray.runtime.engine import Engine
from flexray.runtime.targets import Target


class Standing(NamedTuple):
    """Where an actor is in its life.

    ``waiting`` for a slice, ``starting`` its constructor, ``ready``, ``leaving`` (it works; its slice has to be left),
    ``lost`` for good.

    Attributes:
        reason: why it is leaving or lost.
        request: what the pool calls its request while it waits, "" otherwise.
    """

    state: Literal["waiting", "starting", "ready", "leaving", "lost"]
    reason: str = ""
    request: str = ""


def standing_of(engine: Engine, target: Target) -> Standing:
    """Where an actor is in its life, as far as this client knows; asks nobody."""
    with engine.calls.mutex:
        if target.failed is not None or target.ended:
            return Standing("lost", str(target.failed or "it was stopped"))
        if target.leases:
            if target.leaving:
                return Standing("leaving", target.leaving)
            return Standing("ready" if target.constructed else "starting")
        return Standing("waiting", request=next(iter(target.asked), ""))


def start_actor(
    engine: Engine, target: Target, make: Callable[[], Call], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> None:
    """Ask for a slice once the constructor's arguments are ready; the constructor runs there.

    Args:
        make: makes a call of the constructor.
    """
    target.asynchronous = _has_async_methods(target.callable)
    first = make()
    pack_arguments(first, args, kwargs)

    def constructor() -> Call:
        call = make()
        call.payload, call.slots, call.held = first.payload, first.slots, first.held
        return call

    target.make_constructor = constructor

    def start(call: Call, failure: BaseException | None) -> None:
        with engine.calls.step():
            target.arguments = first.slots
            target.failed, target.unready = failure, False
            if failure is not None:
                engine.calls.fail_backlog(target, failure)
            engine.advance(target)

    def ready(call: Call, failure: BaseException | None) -> None:
        if failure is None:
            engine.repeats.ready(first, start)
        else:
            start(first, failure)

    target.unready = True
    if when_ready(first, ready):
        ready(first, failure_of_arguments(first))


def end_actor(engine: Engine, target: Target, *, now: bool) -> None:
    """Give an actor's slice back: at once, failing what is unfinished, or once its calls are done."""
    with engine.calls.step():
        if target.ended:
            return
        target.ended = True
        if now:
            engine.drop(target, LeaseLost(f"{target.name} was stopped"))
        engine.advance(target)
        engine.leases.plan_sweep()


def _has_async_methods(cls: object) -> bool:
    functions = [member for _, member in inspect.getmembers(cls, inspect.isfunction)]
    return any(inspect.iscoroutinefunction(f) or inspect.isasyncgenfunction(f) for f in functions)
