"""Where a request is and why, in figures: what ``flexray explain`` and ``Future.explain()`` give.

The fields are an interface (docs/explain.md): ``--json`` prints them under these names. Shares are fractions of a
device, memory is in MiB, compute in units of an ``nvidia/A100-80GB``, times in seconds.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from flexray.model.amounts import format_memory
from flexray.model.lease import LeaseId
from flexray.model.snapshot import Preemption


@dataclass(frozen=True, slots=True)
class Holder:
    """Requests of one class (and queue) that hold devices: how many, and how much together."""

    queue: str
    task_class: str
    requests: int
    devices: float


@dataclass(frozen=True, slots=True)
class LimitReached:
    """The limit that keeps a request waiting.

    Attributes:
        queue: whose limit it is: the request's queue, or one above it.
        measure: ``devices``, ``compute``, or a device type or pattern.
        used, limit: in that measure.
        asked: what the request would add, in that measure.
        holders: who uses it, the largest first.
    """

    queue: str
    measure: str
    used: float
    limit: float
    asked: float
    holders: tuple[Holder, ...]


@dataclass(frozen=True, slots=True)
class Borrower:
    """A queue that uses more than it was promised, and by how much, in compute."""

    queue: str
    borrowed: float


@dataclass(frozen=True, slots=True)
class QueueStanding:
    """The queue of a request beside what it was promised, in compute.

    Attributes:
        quota: what it is guaranteed of this pool.
        used: what it uses.
        entitled: its fair share.
        borrowers: when it uses less than its quota, who uses what it lacks.
        reduced: why it, or a queue above it, is guaranteed less than was configured, in sentences.
    """

    queue: str
    quota: float
    used: float
    entitled: float
    borrowers: tuple[Borrower, ...]
    reduced: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Nearest:
    """The device (for several whole devices, or none: the node) that lacks least of what a request needs.

    Attributes:
        place: id of the device or node.
        type: of the device; "" for a node.
        share_free, memory_free: what may be had there now.
        lacks_share, lacks_memory: what is missing there.
        lacks_devices: whole devices that are missing on that node.
        lacks_cpus, lacks_host_memory: host cores, and MiB of host memory, that are missing on its node.
        scattered: that there is enough of all, but no room for a fixed part between what runs there, in words.
    """

    place: str
    node: str
    type: str
    share_free: float
    memory_free: int
    lacks_share: float = 0.0
    lacks_memory: int = 0
    lacks_devices: int = 0
    lacks_cpus: float = 0.0
    lacks_host_memory: int = 0
    scattered: str = ""


@dataclass(frozen=True, slots=True)
class Leaving:
    """A slice that makes room.

    Attributes:
        request: who holds it, or "".
        how: ``stopping`` (its process ends), ``preempted`` (it is asked to stop, by force at ``seconds``) or
            ``recalled`` (it is handed back when what runs there is done).
        seconds: from now until the grace period is over, or the expected end; None where nothing is known.
    """

    slice: str
    request: str
    how: str
    seconds: float | None


@dataclass(frozen=True, slots=True)
class StartEstimate:
    """When a request is expected to start, and what that rests on.

    Attributes:
        seconds: from now until it has its lease; None: cannot be told, ``why`` says why.
        basis: of the leases whose end comes before, the weakest kind: ``room`` (none has to end), ``declared``
            (run times given by users), ``learnt`` (measured), ``guessed`` (from other work, or for want of anything
            better from how long it has run), or ``unknown`` where there is no estimate.
        declared, learnt, guessed: how many of those leases were of each kind.
        why: why there is no estimate, or "".
        node, devices: where it would start.
    """

    seconds: float | None
    basis: str
    declared: int = 0
    learnt: int = 0
    guessed: int = 0
    why: str = ""
    node: str = ""
    devices: tuple[str, ...] = ()

    def __str__(self) -> str:
        if self.seconds is None:
            return f"start: cannot be estimated: {self.why}"
        ends = [(n, word) for n, word in zip(self._counts, ("declared", "learnt", "guessed"), strict=True) if n]
        rest = ", ".join(f"{count} {word}" for count, word in ends)
        leases = "lease that ends" if sum(self._counts) == 1 else f"{sum(self._counts)} leases that end"
        basis = f"run times of the {leases} before: {rest}" if ends else "no lease has to end"
        return f"start: in about {describe_seconds(self.seconds)}; {basis}"

    @property
    def _counts(self) -> tuple[int, int, int]:
        return self.declared, self.learnt, self.guessed


def describe_seconds(seconds: float) -> str:
    """For people: ``3 s``, ``5 min``, ``2.5 h``."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


@dataclass(frozen=True, slots=True)
class Explanation:
    """Where a request is and why.

    Attributes:
        state: RequestState value; of a call that its client still has, a few words.
        wait_reason: WaitReason value, or "" when it does not wait.
        position: place among all waiting requests, from 1; 0 when it does not wait, or its place is chosen.
        needs: what would let it start, as a sentence with figures.
        lease: the lease it holds, if any.
        devices: ids of the devices it holds or is reserved on.
        removed: how many devices each reason rules out for good.
        busy: how many of the remaining devices each reason rules out now.
        scores: per term, the score of the chosen placement (after weights, in [0, 1]); () before one is chosen.
        queue: the queue it is in.
        queue_position: place among the waiting requests of that queue, from 1; 0 as for ``position``.
        limit: for ``queue_limit``, whose limit and who uses it.
        standing: of its queue, where the pool has rules for queues and it waits.
        nearest: for want of room, the place that lacks least.
        leaving: for ``making_room``, the slices it waits for.
        preemptions: leases that were taken back for it or from it, the latest last.
        estimated_start: when it is expected to start, while it waits.
        message: how it ended, for one that has.
    """

    request: str
    state: str
    wait_reason: str = ""
    position: int = 0
    needs: str = ""
    lease: LeaseId | None = None
    devices: tuple[str, ...] = ()
    removed: tuple[tuple[str, int], ...] = ()
    busy: tuple[tuple[str, int], ...] = ()
    scores: tuple[tuple[str, float], ...] = ()
    queue: str = ""
    queue_position: int = 0
    limit: LimitReached | None = None
    standing: QueueStanding | None = None
    nearest: Nearest | None = None
    leaving: tuple[Leaving, ...] = ()
    preemptions: tuple[Preemption, ...] = ()
    estimated_start: StartEstimate | None = None
    message: str = ""

    def __str__(self) -> str:
        return "\n  ".join([self._headline(), *filter(None, self._lines())])

    @property
    def over(self) -> bool:
        """Whether it has ended."""
        return self.state in ("done", "cancelled", "failed")

    def _headline(self) -> str:
        where = f" on {', '.join(self.devices)}" if self.devices else ""
        why = f", waits for {self.wait_reason}" if self.wait_reason else ""
        own = f", {self.queue_position} in queue {self.queue}" if self.queue_position != self.position else ""
        place = f" (position {self.position}{own})" if self.position else ""
        return f"request {self.request}: {self.state}{where}{why}{place}"

    def _lines(self) -> Iterator[str]:
        yield self.message
        yield from self.needs.split("; ")
        for title, rows in (("never fits", self.removed), ("not now", self.busy)):
            if rows:
                yield f"{title}: " + ", ".join(f"{count} by {name}" for name, count in rows)
        if self.scores:
            yield "score: " + ", ".join(f"{name} {value:.3f}" for name, value in self.scores)
        yield str(self.estimated_start) if self.estimated_start is not None else ""
        for one in self.preemptions:
            yield one.describe(self.request)


def describe_lack(near: Nearest) -> str:
    """What a place lacks: ``0.3 of its compute and 2.0 GiB``."""
    parts = [
        f"{near.lacks_devices} whole devices" if near.lacks_devices > 1 else "",
        "1 whole device" if near.lacks_devices == 1 else "",
        f"{near.lacks_share:g} of its compute" if near.lacks_share else "",
        f"{format_memory(near.lacks_memory)} of its memory" if near.lacks_memory else "",
        f"{near.lacks_cpus:g} host cores" if near.lacks_cpus else "",
        f"{format_memory(near.lacks_host_memory)} of host memory" if near.lacks_host_memory else "",
    ]
    return " and ".join(filter(None, parts))
