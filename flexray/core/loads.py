"""What queues use, want and may have: loads by device type, and their worth in one measure.

A load says, for each device type, what is taken of such devices: share, and memory as a
part of theirs, both in thousandths of a device. Its worth is the dominant one of both,
each normalised by the type's speed:

    worth = max( sum over types of speed x share,  sum over types of speed x memory )

in millionths of an nvidia/A100-80GB (thousandths of a device x thousandths of its speed), so
that no product is ever rounded. The worth of all devices is the pool's capacity, and
worth / capacity is the dominant share of DRF (Ghodsi et al., NSDI 2011) with device types
made comparable. Loads add up; amounts given in another measure cut them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from flexray.core.fixed_parts import granted
from flexray.model.amounts import MemoryMiB
from flexray.model.devices import Device, DeviceState
from flexray.model.lease import Placement
from flexray.model.partition import Profile
from flexray.model.queue import QueueAmount
from flexray.model.request import Request

Load = Mapping[str, tuple[int, int]]
"""Device type -> (share, memory) in thousandths of devices of that type."""


@dataclass(frozen=True, slots=True)
class TypeRoom:
    """What the pool has of one device type.

    Attributes:
        devices: thousandths of devices.
        speed: nominal, in thousandths of ``nvidia/A100-80GB``; at least 1.
        memory: MiB of each device.
        families: families its devices belong to.
        cuts: the fixed parts that its devices are cut into, each way once; () among them where they are not.
    """

    devices: int
    speed: int
    memory: MemoryMiB
    families: tuple[str, ...] = ()
    cuts: tuple[tuple[Profile, ...], ...] = ((),)

    def takes(self, request: Request) -> tuple[int, int] | None:
        """Share and MiB that a request takes of a device, the most of any way it is cut; None where it never fits."""
        grants = [one for one in (granted(request, self.memory, cut) for cut in self.cuts) if one is not None]
        return (max(g.share for g in grants), max(g.memory for g in grants)) if grants else None


Capacity = Mapping[str, TypeRoom]


def capacity_of(devices: Iterable[Device]) -> dict[str, TypeRoom]:
    """What the pool can promise: the devices that can take work."""
    found: dict[str, TypeRoom] = {}
    for device in devices:
        if device.state is DeviceState.READY:
            kind, known = device.type, found.get(device.type.name)
            families = {device.family.value, *(known.families if known else ())}
            speed = max(round(kind.speed * 1000), 1)
            count = 1000 + (known.devices if known else 0)
            cuts = known.cuts if known else ()
            cuts = cuts if device.profiles in cuts else (*cuts, device.profiles)
            found[kind.name] = TypeRoom(count, speed, kind.memory, tuple(sorted(families)), cuts)
    return dict(sorted(found.items()))


def load_of(kind: str, device_memory: int, placement: Placement) -> dict[str, tuple[int, int]]:
    """What a lease takes. Memory is rounded down, so that the parts never exceed the whole."""
    count = len(placement.devices)
    if not count:
        return {}
    return {kind: (placement.share * count, 1000 * placement.memory // device_memory * count)}


def expected_load(request: Request, capacity: Capacity, quota: QueueAmount | None = None) -> dict[str, tuple[int, int]]:
    """What a request is going to take, nobody knowing yet of which type.

    Spread over the types it may use: where its queue is promised some of them, by those promises, otherwise in
    proportion to what the pool has. The parts of the share add up to it exactly. On a type that is cut into fixed parts
    it takes what it would be granted.
    """
    grants = {name: room.takes(request) for name, room in capacity.items() if _could_be_on(request, name, room)}
    may = {name: grant for name, grant in grants.items() if grant is not None}
    by = {name: _promised(quota, name) for name in may}
    if not any(by.values()):
        by = {name: capacity[name].devices for name in may}
    whole = sum(by.values())
    if not whole or not request.devices:
        return {}
    shares = {name: share * request.devices * by[name] for name, (share, _) in may.items()}
    parts = {name: share // whole for name, share in shares.items()}
    rest = sum(shares.values()) // whole - sum(parts.values())
    for name in sorted(may, key=lambda n: (-(shares[n] % whole), n))[:rest]:
        parts[name] += 1
    load: dict[str, tuple[int, int]] = {}
    for name, (_, needed) in may.items():
        memory = 1000 * needed // capacity[name].memory * request.devices
        if parts[name] or memory * by[name] // whole:
            load[name] = (parts[name], memory * by[name] // whole)
    return load


def _could_be_on(request: Request, name: str, room: TypeRoom) -> bool:
    family = request.family.value
    return request.allows_type(name) and (family == "any" or not room.families or family in room.families)


def _promised(quota: QueueAmount | None, name: str) -> int:
    return sum(n for pattern, n in (quota.types if quota else ()) if fnmatchcase(name, pattern))


def times(load: Load, count: int) -> dict[str, tuple[int, int]]:
    """So many of a load."""
    return {name: (share * count, memory * count) for name, (share, memory) in load.items()}


def total(loads: Iterable[Load]) -> dict[str, tuple[int, int]]:
    """The sum of loads."""
    found: dict[str, tuple[int, int]] = {}
    for load in loads:
        for name, (share, memory) in load.items():
            before = found.get(name, (0, 0))
            found[name] = (before[0] + share, before[1] + memory)
    return found


def minus(load: Load, part: Load) -> dict[str, tuple[int, int]]:
    """What remains of a load without a part of it; types of which nothing remains are left out."""
    rest = total((load, {name: (-share, -memory) for name, (share, memory) in part.items()}))
    return {name: pair for name, pair in rest.items() if any(pair)}


def devices_of(load: Load) -> int:
    """Thousandths of devices, of whatever type: the dominant one of share and memory."""
    return max(sum(share for share, _ in load.values()), sum(memory for _, memory in load.values()))


def worth(load: Load, capacity: Capacity) -> int:
    """In millionths of an ``nvidia/A100-80GB``. What is on types that have left the pool is worth nothing."""
    share = memory = 0
    for name, (taken, held) in load.items():
        if name in capacity:
            share += taken * capacity[name].speed
            memory += held * capacity[name].speed
    return max(share, memory)


def capacity_load(capacity: Capacity) -> dict[str, tuple[int, int]]:
    """The whole pool as a load."""
    return {name: (room.devices, room.devices) for name, room in capacity.items()}


def clipped(load: Load, limit: QueueAmount | None, capacity: Capacity) -> dict[str, tuple[int, int]]:
    """The part of a load that a limit allows."""
    kept = dict(load)
    if limit is None:
        return kept
    for pattern, most in limit.types:
        kept.update(_cut(_matching(kept, pattern), most, None, capacity))
    return _cut(kept, limit.devices, _millionths(limit.compute), capacity)


def over(load: Load, limit: QueueAmount | None, capacity: Capacity) -> bool:
    """Whether a load exceeds a limit in any measure."""
    most = _millionths(limit.compute) if limit is not None else None
    return limit is not None and (
        any(devices_of(_matching(load, pattern)) > some for pattern, some in limit.types)
        or (limit.devices is not None and devices_of(load) > limit.devices)
        or (most is not None and worth(load, capacity) > most)
    )


def measured(load: Load, limit: QueueAmount, capacity: Capacity) -> Iterator[tuple[str, float, float]]:
    """A load in each measure that a limit gives: (device type or pattern, ``devices`` or ``compute``; load; limit)."""
    for pattern, most in limit.types:
        yield pattern, devices_of(_matching(load, pattern)) / 1000, most / 1000
    if limit.devices is not None:
        yield "devices", devices_of(load) / 1000, limit.devices / 1000
    if limit.compute is not None:
        yield "compute", worth(load, capacity) / 1e6, limit.compute / 1000


def covered(load: Load, quotas: Sequence[QueueAmount], capacity: Capacity) -> dict[str, tuple[int, int]]:
    """The part of a load that some quotas guarantee together, one after the other."""
    if len(quotas) == 1:
        return _covered(load, quotas[0], capacity)
    kept: dict[str, tuple[int, int]] = {}
    rest = dict(load)
    for quota in quotas:
        part = _covered(rest, quota, capacity)
        kept, rest = total((kept, part)), minus(rest, part)
    return kept


def _covered(load: Load, quota: QueueAmount, capacity: Capacity) -> dict[str, tuple[int, int]]:
    """What one quota guarantees: of the types it names first, then of any."""
    if not quota.types:
        return _cut(load, quota.devices, _millionths(quota.compute), capacity)
    kept: dict[str, tuple[int, int]] = {}
    rest = dict(load)
    for pattern, most in quota.types:
        part = _cut(_matching(rest, pattern), most, None, capacity)
        kept, rest = total((kept, part)), minus(rest, part)
    devices, compute = quota.devices, _millionths(quota.compute)
    if devices is None and compute is None:
        return kept
    devices = None if devices is None else max(devices - devices_of(kept), 0)
    compute = None if compute is None else max(compute - worth(kept, capacity), 0)
    return total((kept, _cut(rest, devices, compute, capacity)))


def _matching(load: Load, pattern: str) -> dict[str, tuple[int, int]]:
    return {name: pair for name, pair in load.items() if fnmatchcase(name, pattern)}


def _millionths(compute: int | None) -> int | None:
    return None if compute is None else 1000 * compute


def _cut(load: Load, devices: int | None, compute: int | None, capacity: Capacity) -> dict[str, tuple[int, int]]:
    """A load cut evenly until it is within so many thousandths of devices and so many millionths of compute."""
    kept = dict(load)
    if devices is not None and (taken := devices_of(kept)) > devices:
        kept = {name: (s * devices // taken, m * devices // taken) for name, (s, m) in kept.items()}
    if compute is not None and (taken := worth(kept, capacity)) > compute:
        kept = {name: (s * compute // taken, m * compute // taken) for name, (s, m) in kept.items()}
    return kept
