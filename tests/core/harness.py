"""A world around the core: feeds events, keeps the clock, plays the slices, checks the books after every step."""

from __future__ import annotations

import dataclasses
import json
import re
from collections import Counter
from typing import Any

from flexray.build import build_scheduler
from flexray.catalog import find, profiles_of
from flexray.config import PoolConfig
from flexray.core.explaining import explain
from flexray.core.views import check_invariants, snapshot
from flexray.model import events
from flexray.model.commands import (
    AnswerResize,
    Command,
    FailRequest,
    GrantLease,
    RecallLease,
    ResizeSlice,
    RevokeLease,
    StartSlice,
    StopSlice,
)
from flexray.model.devices import Device, DeviceState, DeviceType, Family, Inventory
from flexray.model.explanation import Explanation
from flexray.model.isolation import Isolation
from flexray.model.lease import Lease, LeaseId
from flexray.model.request import request_from_options
from flexray.model.snapshot import Snapshot

GIB = 1024
TYPES = {
    "A100": (DeviceType("nvidia/A100-80GB", 80 * GIB, 1.0), Family.GPU),
    "H100": (DeviceType("nvidia/H100", 80 * GIB, 2.0), Family.GPU),
    "A10": (DeviceType("nvidia/A10", 24 * GIB, 0.4), Family.GPU),
    "T4": (DeviceType("nvidia/T4", 16 * GIB, 0.2), Family.GPU),
    "910B": (DeviceType("ascend/910B", 64 * GIB, 1.0), Family.NPU),
    "CPU": (DeviceType("cpu/x86_64", 8 * GIB, 0.05), Family.CPU),
    "MIG": (find("nvidia/A100-40GB"), Family.GPU),
    "vNPU": (find("ascend/910B3"), Family.NPU),
}
CUT = {"MIG": Isolation.MIG, "vNPU": Isolation.VNPU}
"""Types whose devices are cut into the fixed parts that the catalog has for them, and by what."""


def node(name: str, what: str = "", cpus: float = 0, **fields: Any) -> Inventory:
    """An inventory in words: ``node("n1", "2xA100 1xT4 sick", cpus=8)``; a trailing state holds for the part before it.

    Devices are called ``n1/gpu0``, numbered within their family.
    """
    devices: list[Device] = []
    for word in what.split():
        if word in (state.value for state in DeviceState):
            devices[-1] = dataclasses.replace(devices[-1], state=DeviceState(word))
            continue
        count, kind = re.fullmatch(r"(\d+)x(\w+)", word).groups()
        kind_of_device, family = TYPES[kind]
        for _ in range(int(count)):
            index = sum(d.family is family for d in devices)
            cut = {"isolation": CUT[kind], "profiles": profiles_of(kind_of_device.name)} if kind in CUT else {}
            own = {**cut, **fields}
            device = Device(f"{name}/{family.value}{index}", name, index, kind_of_device, family, "fake", **own)
            devices.append(device)
    return Inventory(name, name, tuple(devices), cpus=round(cpus * 1000))


class World:
    """One scheduler and what surrounds it.

    ``starts`` and ``stops`` say whether slices start and stop at once when told to; otherwise the test does it
    with ``started``, ``failed_to_start`` and ``ended``. Meanwhile they are in ``starting``, ``stopping``.
    """

    def __init__(self, *nodes: Inventory, starts: bool = True, stops: bool = True, **config: Any) -> None:
        self.lines: list[str] = []
        self.epoch, self.config = 1, PoolConfig(**{"policy": "pack", **config})
        self.scheduler = build_scheduler(self.config, 1, self.lines.append)
        self.now = 0.0
        self.starts, self.stops = starts, stops
        self.commands: list[Command] = []
        self.starting: list[str] = []
        self.stopping: list[str] = []
        self.resizing: list[str] = []
        self.answers: list[AnswerResize] = []
        self.leases: dict[str, Lease] = {}
        self.failed: dict[str, FailRequest] = {}
        #: what was submitted and when, and how many leases each request was given: what its session knows.
        self.submitted: dict[str, tuple[float, events.RequestSubmitted]] = {}
        self.attempts: Counter[str] = Counter()
        for inventory in nodes:
            self.apply(events.NodeReported(inventory))
        self.open("S")

    @property
    def journal(self) -> list[dict[str, Any]]:
        """What the scheduler recorded."""
        return [json.loads(line) for line in self.lines]

    # -- in ----------------------------------------------------------------------------

    def apply(self, event: events.Event) -> None:
        if isinstance(event, events.SliceStarted) and event.slice in self.starting:
            self.starting.remove(event.slice)
        if isinstance(event, (events.SliceEnded, events.SliceFailed)):
            self.starting = [s for s in self.starting if s != event.slice]
            self.stopping = [s for s in self.stopping if s != event.slice]
        if isinstance(event, (events.SliceResized, events.ResizeRefused, events.SliceEnded)):
            self.resizing = [s for s in self.resizing if s != event.slice]
        if isinstance(event, events.RequestSubmitted):
            self.submitted.setdefault(event.id, (self.now - event.waited, event))
        self.scheduler.apply(event, self.now)
        check_invariants(self.scheduler.state)

    def open(self, session: str, environment: str = "E") -> None:
        self.apply(events.SessionOpened(session, environment))

    def submit(self, name: str, session: str = "S", **options: Any) -> None:
        """A request; what is not an option of RequestSubmitted is one of users. Its class follows its options."""
        own = {f.name for f in dataclasses.fields(events.RequestSubmitted)} - {"request"}
        extra = {key: options.pop(key) for key in list(options) if key in own}
        extra.setdefault("task_class", f"f{sorted(options.items(), key=repr)}")
        environment = extra.pop("environment", self.scheduler.state.sessions.get(session, "E"))
        request = request_from_options(options or {"gpu": 1})
        self.apply(events.RequestSubmitted(name, session, environment, request=request, **extra))

    def release(self, name: str) -> None:
        self.apply(events.LeaseReleased(self.leases.pop(name).lease))

    def started(self, slice: str) -> None:
        self.apply(events.SliceStarted(slice))

    def failed_to_start(self, slice: str, message: str = "boom") -> None:
        self.apply(events.SliceFailed(slice, message))

    def ended(self, slice: str, message: str = "killed") -> None:
        self.apply(events.SliceEnded(slice, message))

    def resize(self, name: str, **asked: Any) -> None:
        """What runs on a lease asks for another size."""
        self.apply(events.ResizeAsked(self.leases[name].lease, **asked))

    def _resized(self, answer: AnswerResize) -> None:
        lease = self.leases.get(answer.lease.request)
        if lease is not None and lease.lease == answer.lease and answer.placement is not None:
            self.leases[answer.lease.request] = dataclasses.replace(lease, placement=answer.placement)

    def session_is_gone(self, session: str) -> None:
        """Its leases went with it; nobody is told."""
        gone = {c.lease.lease.request for c in self.commands if isinstance(c, GrantLease) and c.session == session}
        self.leases = {name: lease for name, lease in self.leases.items() if name not in gone}

    def node_is_gone(self, node: str) -> None:
        """Its slices went with it."""
        there = self.scheduler.state.slices.by_id
        self.starting = [s for s in self.starting if s in there]
        self.resizing = [s for s in self.resizing if s in there]
        self.stopping = [s for s in self.stopping if s in there]

    def block(self, name: str, *classes: str, session: str = "S") -> None:
        self.apply(events.LeaseBlocked(self.leases[name].lease, session, classes))

    # -- restarts ----------------------------------------------------------------------

    def restart(self, *kept: events.Event) -> None:
        """The scheduler dies with all it knows, and another one is started, which is told first what was kept."""
        self.epoch += 1
        self.lines.clear()
        self.scheduler = build_scheduler(self.config, self.epoch, self.lines.append)
        for event in (*kept, events.RecoveryBegan()):
            self.apply(event)

    def again(self, name: str) -> events.RequestSubmitted:
        """What the session of a request submits again."""
        since, event = self.submitted[name]
        given = max([n for one, n in self.attempts.items() if one == name or one.startswith(f"{name}.")], default=0)
        return dataclasses.replace(event, waited=self.now - since, attempt=given)

    def holds(self, name: str, **fields: Any) -> events.LeaseFound:
        """What a session says of a lease; ``name``: its request, or the member of a gang."""
        return events.LeaseFound(self.again(name.split(".")[0]), self.leases[name], **fields)

    # -- out ---------------------------------------------------------------------------

    def decide(self) -> list[Command]:
        """One cycle; the world takes note of its commands but does nothing yet."""
        commands = self.scheduler.decide(self.now)
        check_invariants(self.scheduler.state)
        self.commands += commands
        for command in commands:
            match command:
                case StartSlice():
                    self.starting.append(command.slice)
                case StopSlice():
                    self.starting = [s for s in self.starting if s != command.slice]
                    self.stopping.append(command.slice)
                case ResizeSlice():
                    self.resizing.append(command.slice)
                case AnswerResize():
                    self.answers.append(command)
                    self._resized(command)
                case GrantLease():
                    assert command.lease.lease.request not in self.leases, "granted twice"
                    self.leases[command.lease.lease.request] = command.lease
                    self.attempts[command.lease.lease.request] = command.lease.lease.attempt
                case RevokeLease():
                    self.leases.pop(command.lease.request, None)
                case FailRequest():
                    self.failed[command.request] = command
        for roster in [command.gang for command in commands if isinstance(command, GrantLease) and command.gang]:
            held = {lease.lease for lease in self.leases.values()}
            assert held >= set(roster), f"members start together: {roster} of {sorted(held)}"
        return commands

    def settle(self) -> list[Command]:
        """Cycles, with slices starting and stopping as the world is set, until nothing moves any more."""
        out: list[Command] = []
        while True:
            commands = self.decide()
            out += commands
            moves = [(self.started, s) for s in self.starting if self.starts]
            moves += [(self.ended, s) for s in self.stopping if self.stops]
            for act, name in moves:
                act(name)
            if not commands and not moves:
                return out

    def wait(self, seconds: float) -> list[Command]:
        self.now += seconds
        return self.settle()

    # -- what can be seen ----------------------------------------------------------------

    @property
    def placed(self) -> dict[str, str]:
        """Granted request -> its devices, joined by commas."""
        return {name: ",".join(lease.placement.devices) for name, lease in self.leases.items()}

    def explain(self, name: str) -> Explanation | None:
        return explain(self.scheduler.state, name)

    def reason(self, name: str) -> str:
        found = self.explain(name)
        return found.wait_reason if found else "unknown"

    def snapshot(self) -> Snapshot:
        return snapshot(self.scheduler.state, self.now, self.epoch)


def kinds(commands: list[Command]) -> list[str]:
    """What a cycle does, in short: ``start s1.1``, ``stop s1.2 make_room``, ``grant r1#1`` ..."""
    return [_short(command) for command in commands]


def _short(command: Command) -> str:
    match command:
        case StartSlice():
            return f"start {command.slice}"
        case StopSlice():
            return f"stop {command.slice} {command.reason.value}"
        case GrantLease():
            return f"grant {command.lease.lease}"
        case RecallLease():
            return f"recall {command.lease}"
        case RevokeLease():
            return f"revoke {command.lease} {command.reason.value}{' again' if command.requeued else ''}"
        case ResizeSlice():
            return f"resize {command.slice} {command.placement.share} {command.placement.memory}"
        case AnswerResize():
            return f"answer {command.lease} {'refused' if command.refused else 'done'}"
        case FailRequest():
            return f"fail {command.request} {command.reason.value}"


def lease_id(name: str, attempt: int = 1) -> LeaseId:
    return LeaseId(name, attempt)
