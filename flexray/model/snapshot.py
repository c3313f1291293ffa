"""An immutable picture of the pool at one instant: what ``flex.pool()`` and ``flexray status`` show."""

from __future__ import annotations

from dataclasses import dataclass

from flexray.model.lease import LeaseId


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
    """One device. Shares are fractions of it, memory is in MiB; free + held is the whole."""

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


@dataclass(frozen=True, slots=True)
class SliceView:
    """One slice. ``request`` and ``session`` are "" while nobody holds it."""

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
class Snapshot:
    """The pool at ``now`` (seconds of the scheduler's clock)."""

    now: float
    epoch: int
    nodes: tuple[NodeView, ...]
    devices: tuple[DeviceView, ...]
    slices: tuple[SliceView, ...]
    queues: tuple[QueueView, ...]
    waiting: tuple[RequestView, ...]
    running: tuple[RequestView, ...]


@dataclass(frozen=True, slots=True)
class Explanation:
    """Where a request is and why.

    Attributes:
        state: RequestState value.
        wait_reason: WaitReason value, or "" when it does not wait.
        position: place among the waiting requests, from 1; 0 when it does not wait.
        needs: what would let it start, as a sentence.
        lease: the lease it holds, if any.
        devices: ids of the devices it holds or is reserved on.
        removed: how many devices each reason rules out for good.
        busy: how many of the remaining devices each reason rules out now.
        scores: per term, the score of the chosen placement (after weights, in [0, 1]); () before one is chosen.
    """

    request: str
    state: str
    wait_reason: str
    position: int
    needs: str
    lease: LeaseId | None
    devices: tuple[str, ...]
    removed: tuple[tuple[str, int], ...]
    busy: tuple[tuple[str, int], ...]
    scores: tuple[tuple[str, float], ...]

    def __str__(self) -> str:
        where = f" on {', '.join(self.devices)}" if self.devices else ""
        why = f", waits for {self.wait_reason} (position {self.position})" if self.wait_reason else ""
        lines = [f"request {self.request}: {self.state}{where}{why}"]
        if self.needs:
            lines.append(f"  {self.needs}")
        for title, rows in (("never fits", self.removed), ("not now", self.busy)):
            if rows:
                lines.append(f"  {title}: " + ", ".join(f"{count} by {name}" for name, count in rows))
        if self.scores:
            lines.append("  score: " + ", ".join(f"{name} {value:.3f}" for name, value in self.scores))
        return "\n".join(lines)
