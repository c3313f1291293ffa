"""An immutable picture of the pool at one instant: what ``flex.pool()`` and ``flexray status`` show."""

from __future__ import annotations

from dataclasses import dataclass

from flexray.model import html
from flexray.model.devices import DeviceNote, ForeignProcess
from flexray.model.lease import LeaseId

_SHOWN = 50
"""Rows of a table in a notebook."""


@dataclass(frozen=True, slots=True)
class NodeView:
    """One node. ``cpus`` and ``cpus_free`` in cores, ``reports`` as (backend, found, reason)."""

    id: str
    name: str
    cpus: float
    cpus_free: float
    reports: tuple[tuple[str, int, str], ...]


@dataclass(frozen=True, slots=True)
class DeviceView:
    """One device. Shares are fractions of it, memory is in MiB; free + held is the whole.

    ``isolation`` names the mechanism that holds its slices, ``guarantee`` says how strongly. ``reason`` says why it
    takes no work, ``foreign`` who uses it without holding a slice, ``notes`` what was seen on it lately.
    """

    id: str
    node: str
    type: str
    family: str
    backend: str
    state: str
    isolation: str
    share_held: float
    share_free: float
    memory: int
    memory_held: int
    memory_free: int
    slices: tuple[str, ...]
    guarantee: str = "none"
    reason: str = ""
    foreign: tuple[ForeignProcess, ...] = ()
    notes: tuple[DeviceNote, ...] = ()


@dataclass(frozen=True, slots=True)
class SliceView:
    """One slice. ``request`` and ``session`` are "" while nobody holds it.

    ``share``, ``burst`` and ``busy`` are fractions of each of its devices: its own, what it may use while others leave
    it idle (equal to ``share`` where it may not), and what it used over the last seconds. ``memory`` and
    ``memory_used`` are MiB of each. ``idle_seconds``: for how long its holder has used hardly any of it. What is
    measured is None where nobody can tell. ``user`` and ``job`` are whose session holds it, as that says.
    """

    id: str
    node: str
    devices: tuple[str, ...]
    share: float
    memory: int
    state: str
    isolation: str
    task_class: str
    request: str
    session: str
    since: float
    burst: float = 0.0
    busy: float | None = None
    memory_used: int | None = None
    idle_seconds: float | None = None
    user: str = ""
    job: str = ""


@dataclass(frozen=True, slots=True)
class QueueView:
    """One queue: how many requests wait and run, and the shares they hold, in devices."""

    name: str
    waiting: int
    running: int
    devices_held: float
    parent: str = ""
    quota: str = ""
    limit: str = ""
    weight: float = 1.0
    compute_held: float = 0.0
    compute_entitled: float = 0.0
    compute_guaranteed: float = 0.0
    compute_borrowed: float = 0.0


@dataclass(frozen=True, slots=True)
class RequestView:
    """One request. ``position`` counts from 1 among those without a place yet; 0 for the others."""

    id: str
    session: str
    task_class: str
    queue: str
    priority: int
    state: str
    wait_reason: str
    position: int
    asked: str
    submitted: float
    attempt: int


@dataclass(frozen=True, slots=True)
class ClassView:
    """Requests that stand in line for the same: of one task, in one queue, with one priority.

    ``waiting`` counts them; ``wait_reason`` is that of the first, ``submitted`` when the oldest was.
    """

    task: str
    queue: str
    priority: int
    asked: str
    waiting: int
    wait_reason: str
    submitted: float


@dataclass(frozen=True, slots=True)
class Preemption:
    """A lease that was taken back in the middle of its work.

    Attributes:
        at: seconds of the scheduler's clock.
        reason: RecallReason value.
        winner, winner_queue: who needed the room, and in which queue; "" where the work goes on better elsewhere.
        victim: the lease that was taken back; its request, and attempt.
        victim_queue: the queue of that request.
        slice, devices: where it ran.
        lost: device-seconds of work done again, at most: since the last checkpoint, and a start, x share.
    """

    at: float
    reason: str
    winner: str
    winner_queue: str
    victim: LeaseId
    victim_queue: str
    slice: str
    devices: tuple[str, ...]
    lost: float

    def describe(self, request: str = "") -> str:
        """One line, for people; from the point of view of a request, if one is given."""
        took = f"taken back from {self.victim.request} of queue {self.victim_queue}"
        lost = f"on {', '.join(self.devices)} ({self.reason}); {self.lost:.1f} device-seconds of work lost at most"
        whom = f" for {self.winner} of queue {self.winner_queue}" if self.winner else ", to go on better elsewhere"
        return f"{took} {lost}" if request == self.winner and request else f"{took}{whom} {lost}"


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The pool at ``now`` (seconds of the scheduler's clock).

    ``waiting`` are those whose slice is being started or chosen, and the first 1,000 of those who stand in line. All of
    these are counted in ``queues``, and in ``classes``, which are those with the most, at most 100, most first.
    ``preemptions`` are the latest 100, oldest first. ``notes``: what an operator should know of the scheduler itself.
    """

    now: float
    epoch: int
    nodes: tuple[NodeView, ...]
    devices: tuple[DeviceView, ...]
    slices: tuple[SliceView, ...]
    queues: tuple[QueueView, ...]
    waiting: tuple[RequestView, ...]
    running: tuple[RequestView, ...]
    preemptions: tuple[Preemption, ...] = ()
    notes: tuple[str, ...] = ()
    classes: tuple[ClassView, ...] = ()

    def _repr_html_(self) -> str:
        """For notebooks: devices, queues, and the first of those who wait."""
        devices = [
            (d.id, d.type, d.state, f"{d.share_held:.0%}", f"{d.memory_held} of {d.memory} MiB", len(d.slices))
            for d in self.devices[:_SHOWN]
        ]
        queues = [(q.name, q.waiting, q.running, f"{q.devices_held:g}", q.quota, q.limit) for q in self.queues]
        waiting = [(r.id, r.queue, r.asked, r.wait_reason) for r in self.waiting[:_SHOWN]]
        parts = [
            html.table(
                f"{len(self.devices)} devices", ("device", "type", "state", "share", "memory", "slices"), devices
            ),
            html.table("queues", ("queue", "waiting", "running", "devices", "quota", "limit"), queues),
        ]
        if waiting:
            parts.append(html.table("waiting", ("request", "queue", "asked", "reason"), waiting))
        return "".join(parts)
