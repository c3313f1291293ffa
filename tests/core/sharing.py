"""Short words for the tests of queues: amounts in devices of one type, exact."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction

from flexray.core.fairness import Entitlement, entitled
from flexray.core.loads import Load, TypeRoom
from flexray.core.promises import fitted
from flexray.core.queues import QueueTree
from flexray.model.amounts import MemoryMiB
from flexray.model.queue import ROOT_QUEUE, Queue, QueueAmount, parse_queue_amount

A100, T4, H100 = "nvidia/A100-80GB", "nvidia/T4", "nvidia/H100"
ROOMS = {A100: (1000, 80 * 1024), T4: (200, 16 * 1024), H100: (3000, 80 * 1024)}
"""Speed in thousandths and memory in MiB."""


def pool(**counts: int) -> dict[str, TypeRoom]:
    """``pool(A100=100, T4=4)``."""
    names = {"A100": A100, "T4": T4, "H100": H100}
    return {
        names[short]: TypeRoom(1000 * count, ROOMS[names[short]][0], MemoryMiB(ROOMS[names[short]][1]), ("gpu",))
        for short, count in counts.items()
    }


def queue(
    name: str,
    quota: object = None,
    *,
    limit: object = None,
    weight: float = 1,
    priority: int = 0,
    parent: str = ROOT_QUEUE,
    half_life: float | None = None,
) -> Queue:
    return Queue(
        name, parent, amount(quota), amount(limit), round(1000 * weight), priority=priority, half_life=half_life
    )


def amount(value: object) -> QueueAmount | None:
    return None if value is None else parse_queue_amount(value)


def devices(count: float, kind: str = A100, memory: float | None = None) -> Load:
    """So many devices, with all their memory unless another number of devices' memory is given."""
    return {kind: (round(1000 * count), round(1000 * (count if memory is None else memory)))}


def shares(
    queues: list[Queue],
    demand: Mapping[str, float],
    count: int = 100,
    past: Mapping[str, float] | None = None,
) -> dict[str, float]:
    """What queues are entitled to of a pool of A100s, in devices; root and empty ``default`` left out."""
    tree, _ = fitted(QueueTree(queues), pool(A100=count))
    usage = {name: round(1_000_000 * part) for name, part in (past or {}).items()}
    found = entitled(tree, {name: devices(n) for name, n in demand.items()}, pool(A100=count), usage)
    names = [q.name for q in queues if q.name != ROOT_QUEUE]
    return {name: exact(found[name].amount) for name in names}


def exact(millionths: int) -> float:
    return float(Fraction(millionths, 1_000_000))


def in_devices(found: Mapping[str, Entitlement], name: str) -> float:
    return exact(found[name].amount)
