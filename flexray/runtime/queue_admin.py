"""Queues from the outside: reading them, changing them, and what a change would do now."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from flexray.core.queues import QueueTree
from flexray.core.scheduler import Scheduler
from flexray.model.commands import Command, GrantLease, RecallLease, StartSlice
from flexray.model.events import QueuesConfigured
from flexray.model.queue import Queue
from flexray.queue_file import parse_queues, plain_queue


def changed(running: Iterable[Queue], change: dict[str, Any], source: str = "queues") -> tuple[Queue, ...]:
    """The queues after a change. Raises UsageError for one that makes no sense.

    Args:
        change: ``{"queues": [...]}``: all of them anew; ``{"set": {...}}``: one, new or other than before;
            ``{"remove": name}``.
    """
    if "queues" in change:
        return parse_queues({"queues": change["queues"]}, source)
    by_name = {queue.name: plain_queue(queue) for queue in running}
    if "remove" in change:
        name = change["remove"]
        if by_name.pop(name, None) is None:
            QueueTree(running).path(name)  # raises with the nearest name; root and default are always there
    else:
        entry = change["set"]
        name = entry["name"]
        by_name[name] = {key: value for key, value in {**by_name.get(name, {}), **entry}.items() if value is not None}
    return parse_queues({"queues": list(by_name.values())}, source)


def would_do(core: Scheduler, queues: tuple[Queue, ...], now: float) -> list[str]:
    """What the scheduler would do at once under other queues, one line each; nothing is changed.

    The state is copied, which takes a second or so on a pool of thousands of slices.
    """
    copy = core.copy()
    copy.apply(QueuesConfigured(queues), now)
    lines = [f"warning: {warning}" for warning in copy.state.sharing.warnings]
    return [*lines, *filter(None, map(_line, copy.decide(now)))]


def _line(command: Command) -> str:
    match command:
        case RecallLease():
            winner = f" for {command.winner}" if command.winner else ""
            return f"take back {command.lease} ({command.reason.value}){winner}"
        case GrantLease():
            return f"grant {command.lease.lease} on {', '.join(command.lease.placement.devices)}"
        case StartSlice():
            return f"start a slice on {', '.join(command.placement.devices)}"
    return ""
