"""The scheduler actor as others see it: they import its class with every look-up, so the scheduler itself is not here.

Whoever asks Ray for an actor by its name gets a handle, for which Ray imports the actor's class. The core and all that
is around it would be half a second of processor time in every client, slice and command.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from flexray.config import PoolConfig


def _passed_on(name: str) -> Callable[..., Any]:
    async def method(self: SchedulerActor, *given: Any) -> Any:
        return await getattr(self.shell, name)(*given)

    method.__name__ = name
    return method


class SchedulerActor:
    """Detached and named; Ray restarts it when it dies. What the methods take and give: ``SchedulerShell``."""

    def __init__(self, config: PoolConfig, address: str, telemetry: dict[str, str]) -> None:
        from flexray.runtime.scheduler_shell import SchedulerShell

        self.shell = SchedulerShell(config, address, telemetry)

    open = _passed_on("open")
    ready = _passed_on("ready")
    welcome = _passed_on("welcome")
    # clients
    join = _passed_on("join")
    tell = _passed_on("tell")
    poll = _passed_on("poll")
    hold = _passed_on("hold")
    watch = _passed_on("watch")
    leave = _passed_on("leave")
    resize = _passed_on("resize")
    # people
    snapshot = _passed_on("snapshot")
    explain = _passed_on("explain")
    starts = _passed_on("starts")
    plan = _passed_on("plan")
    history = _passed_on("history")
    happenings = _passed_on("happenings")
    usage = _passed_on("usage")
    advice = _passed_on("advice")
    queues = _passed_on("queues")
    change_queues = _passed_on("change_queues")
    change_cordons = _passed_on("change_cordons")
    check = _passed_on("check")
    close = _passed_on("close")
