"""Production journals: does this version decide alike, and what would have happened otherwise.

A journal is what a pool with ``journal=`` in its configuration appends to: one JSON
object per line, an event or the commands of a cycle.

- ``check_replay`` feeds it to a fresh core: the same events must give the same commands.
- ``what_if`` takes from it what came (requests, how long their leases were held, nodes)
  and runs that under the virtual clock, with another policy or on other nodes. A lease is
  held as long as it was, on whatever type it lands.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any, Literal

from flexray.build import build_scheduler
from flexray.config import PoolConfig
from flexray.core.journal import replay
from flexray.errors import FlexrayError, UsageError
from flexray.model import commands, events
from flexray.model.devices import Inventory
from flexray.model.lease import LeaseId, RequestId, SessionId
from flexray.model.wire import decode
from flexray.sim.clock import Happening, Simulation
from flexray.sim.jobs import Costs, Job, Ticks, ticks
from flexray.sim.result import Part

Entries = list[dict[str, Any]]
_SHOWN = 20


class ReplayResult(Part):
    """Whether a journal's events give its commands."""

    version: Literal[1] = 1
    policy: str
    events: int
    cycles: int
    same: bool
    different: int
    """Cycles whose commands differ."""
    differences: list[str]
    """The first of them, at most 20."""


def read_journal(path: Path) -> Entries:
    """The entries of a journal. Raises UsageError with the line of what is no entry."""
    entries: Entries = []
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"cannot read {path}: {error}") from None
    for number, line in enumerate(lines, start=1):
        try:
            entry = json.loads(line)
        except ValueError:
            if number == len(lines):
                break  # the writer was stopped in the middle of its last line
            raise UsageError(f"{path}, line {number}: is not JSON") from None
        if not isinstance(entry, dict) or "now" not in entry or ("event" in entry) == ("commands" in entry):
            raise UsageError(f'{path}, line {number}: an entry has "now" and one of "event", "commands"')
        entries.append(entry)
    if not entries:
        raise UsageError(f"{path}: has no entries")
    return entries


def check_replay(entries: Entries, config: PoolConfig) -> ReplayResult:
    """Replay a journal. ``config`` has to be what the pool had."""
    scheduler = build_scheduler(config, _epoch(entries))
    try:
        different = list(replay(entries, scheduler))
    except (FlexrayError, KeyError, TypeError, ValueError) as error:
        raise UsageError(f"the journal cannot be replayed: {error}; it is of another version, or cut") from None
    return ReplayResult(
        policy=config.policy,
        events=sum("event" in entry for entry in entries),
        cycles=sum("commands" in entry for entry in entries),
        same=not different,
        different=len(different),
        differences=different[:_SHOWN],
    )


def _epoch(entries: Entries) -> int:
    """Which incarnation of the scheduler wrote it: slice ids begin with its number."""
    started = [c["slice"] for entry in entries for c in entry.get("commands", ()) if c["kind"] == "StartSlice"]
    epochs = {int(match[1]) for match in (re.match(r"s(\d+)\.", name) for name in started) if match}
    if len(epochs) > 1:
        raise UsageError(
            f"the journal holds {len(epochs)} incarnations of the scheduler, which started afresh each time; "
            f"cut it where the slice ids change from s{min(epochs)}. to s{max(epochs)}."
        )
    return epochs.pop() if epochs else 1


def what_if(entries: Entries, config: PoolConfig, nodes: Sequence[Inventory] | None = None) -> Simulation:
    """What came in a journal, run again under another configuration or on other nodes. Returns it after the run."""
    past = _Past(entries)
    simulation = Simulation(
        config,
        nodes or [],
        past.jobs(),
        costs=Costs(start=past.start_cost()),
        happenings=[*past.cancellations, *(past.node_changes if nodes is None else [])],
    )
    simulation.run()
    return simulation


class _Past:
    """What a journal says of requests, leases and nodes. Times count from its first entry."""

    def __init__(self, entries: Entries) -> None:
        self._zero = float(entries[0]["now"])
        self._end = self._at(entries[-1]["now"])
        self._submitted: dict[RequestId, tuple[Ticks, events.RequestSubmitted]] = {}
        self._granted: dict[LeaseId, Ticks] = {}
        self._held: dict[RequestId, Ticks] = {}
        self._starting: dict[str, Ticks] = {}
        self._starts: list[Ticks] = []
        self.cancellations: list[tuple[Ticks, Happening]] = []
        self.node_changes: list[tuple[Ticks, Happening]] = []
        for entry in entries:
            at = self._at(entry["now"])
            for message in [entry["event"]] if "event" in entry else entry["commands"]:
                self._note(at, decode(message))
        for lease, at in self._granted.items():  # still held when the journal ends
            self._held[self._asked(lease)] = self._end - at

    def _asked(self, lease: LeaseId) -> RequestId:
        """The request of a lease; the members of a gang ``g`` have leases of ``g.0``, ``g.1`` and so on."""
        gang = RequestId(lease.request.rpartition(".")[0])
        return lease.request if lease.request in self._submitted else gang

    def _at(self, now: float) -> Ticks:
        return max(0, ticks(now - self._zero))

    def _note(self, at: Ticks, message: Any) -> None:
        match message:
            case events.RequestSubmitted():
                self._submitted.setdefault(message.id, (at, message))
            case events.LeaseFound():  # from before the scheduler was started again
                self._submitted.setdefault(message.submitted.id, (at, message.submitted))
                self._granted[message.lease.lease] = at
            case events.RequestCancelled() if message.id in self._submitted and message.id not in self._held:
                self.cancellations.append((at, lambda simulation: simulation.cancel(message.id)))
            case events.LeaseReleased() if message.lease in self._granted:
                self._held[self._asked(message.lease)] = at - self._granted.pop(message.lease)
            case events.SessionClosed():
                self._close(at, message.session)
            case events.NodeReported():
                self.node_changes.append((at, lambda simulation: simulation.report(message.inventory)))
            case events.NodeLost():
                self.node_changes.append((at, lambda simulation: simulation.lose(message.node)))
            case events.SliceStarted() if message.slice in self._starting:
                self._starts.append(at - self._starting.pop(message.slice))
            case commands.StartSlice():
                self._starting[message.slice] = at
            case commands.GrantLease():
                self._granted[message.lease.lease] = at
            case commands.RevokeLease():
                self._granted.pop(message.lease, None)

    def _close(self, at: Ticks, session: SessionId) -> None:
        """A client is gone: its leases end, and it no longer wants what waits."""
        own = {name for name, (_, event) in self._submitted.items() if event.session == session}
        for lease in [lease for lease in self._granted if self._asked(lease) in own]:
            self._held[self._asked(lease)] = at - self._granted.pop(lease)
        for name in sorted(own - self._held.keys()):
            self.cancellations.append((at, partial(Simulation.cancel, job=name)))

    def start_cost(self) -> float:
        """The median time that a slice took to start, in seconds."""
        return median(self._starts) / 1e6 if self._starts else 0.0

    def jobs(self) -> list[Job]:
        """The requests; one that never got a lease is taken to hold it as long as the others of its class."""
        by_class: dict[str, list[Ticks]] = {}
        for name, held in self._held.items():
            if name in self._submitted:
                by_class.setdefault(self._submitted[name][1].task_class, []).append(held)
        every = [held for spans in by_class.values() for held in spans] or [0]
        jobs: list[Job] = []
        for name, (at, event) in self._submitted.items():
            held = self._held.get(name, int(median(by_class.get(event.task_class, every))))
            durations = (("*", held / 1e6),)
            jobs += Job(name, at, event.task_class, event.request, durations, reusable=event.reusable).members()
        return jobs
