"""Replaying a journal: the same events must give the same commands, in any process.

A journal has a line of JSON, as ``Scheduler`` records them, for each ``apply`` and each
``decide``: ``{"now", "event"}`` and ``{"now", "commands"}``. Here they are parsed already.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from flexray.core.scheduler import Scheduler
from flexray.model.wire import decode, encode


def replay(entries: Iterable[dict[str, Any]], scheduler: Scheduler) -> Iterator[str]:
    """Feed a journal to a fresh scheduler. Yields one line for each cycle whose commands differ."""
    for number, entry in enumerate(entries, start=1):
        if "event" in entry:
            scheduler.apply(decode(entry["event"]), entry["now"])
            continue
        commands = scheduler.decide(entry["now"])
        if commands != [decode(command) for command in entry["commands"]]:
            yield f"entry {number}: recorded {entry['commands']}, replayed {[encode(command) for command in commands]}"
