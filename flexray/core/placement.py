"""Where a request could go: filter, then score. Changes nothing.

``Pool`` joins the books of devices and nodes with what the devices are; ``place``
returns the best Placement with its score, or None.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from flexray.core.books import Books, IntArray
from flexray.model.amounts import share_of
from flexray.model.devices import ISOLATION_ORDER, Device, DeviceState, Family, Inventory
from flexray.model.lease import Placement
from flexray.model.lifecycle import FilterReason, WaitReason
from flexray.model.request import Request

FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]

#: Scores closer than this are ties, decided by the keyed hash of the device id.
TIE_TOLERANCE = 1e-9
SHARE, MEMORY = 0, 1
_UNBOUNDED = np.iinfo(np.int64).max


@dataclass(frozen=True, slots=True)
class Candidates:
    """Read-only columns a policy scores, one row per place the request fits now; all within [0, 1].

    Attributes:
        share_left: part of the device's share (or of the node's devices) left after placing.
        memory_left: the same for device memory.
        memory_size: device memory relative to the largest device of the pool.
        speed: nominal speed relative to the fastest device of the pool.
        disturbs: 1 where a warm idle slice would have to stop.
    """

    share_left: FloatArray
    memory_left: FloatArray
    memory_size: FloatArray
    speed: FloatArray
    disturbs: FloatArray


@dataclass(frozen=True, slots=True)
class Policy:
    """A named way to score: weights of terms, and the pure function that computes them in [0, 1]."""

    name: str
    weights: Mapping[str, float]
    terms: Callable[[Candidates], dict[str, FloatArray]]


@dataclass(frozen=True, slots=True)
class Choice:
    """A placement and the weighted, normalised terms that chose it."""

    placement: Placement
    scores: tuple[tuple[str, float], ...]


class Pool:
    """The devices and nodes of the pool, their books, and the columns that filters read."""

    def __init__(self) -> None:
        self.devices: dict[str, Device] = {}
        self.nodes: dict[str, Inventory] = {}
        self.books = Books(("share", "memory"))
        self.host = Books(("cpus",))
        self._feasible: dict[tuple[object, ...], BoolArray] = {}
        self._columns: _Columns | None = None

    def changed(self) -> None:
        """Forget what was derived from the inventory. Call after any change of devices or nodes."""
        self._feasible.clear()
        self._columns = None

    def add_device(self, device: Device) -> None:
        """A new device, or a new description of a known one."""
        if device.id not in self.devices:
            self.books.add(device.id, (1000, device.type.memory))
        self.books.resize(device.id, (1000, device.type.memory))
        self.devices[device.id] = device
        self.changed()

    def retire_device(self, name: str) -> None:
        """A device that has left while slices were on it: unusable until they have ended."""
        self.devices[name] = dataclasses.replace(self.devices[name], state=DeviceState.SICK)
        self.changed()

    def remove_device(self, name: str) -> None:
        """Drop a device that nothing holds."""
        self.books.remove(name)
        del self.devices[name]
        self.changed()

    @property
    def columns(self) -> _Columns:
        """Columns derived from the inventory, in the books' row order."""
        if self._columns is None:
            self._columns = _Columns(self)
        return self._columns

    def offered_families(self) -> set[Family]:
        """Families of real devices in the pool; CPU stand-ins serve the ones that are absent."""
        return {device.family for device in self.devices.values()} - {Family.CPU}

    def removed_by(self, request: Request) -> Counter[FilterReason]:
        """How many devices each reason rules out for good."""
        return +self._filter(request)[1]

    def feasible(self, request: Request) -> BoolArray:
        """Per device, whether it could ever hold the request (or one part of it)."""
        cached = self._feasible.get(request.shape)
        if cached is None:
            cached = self._feasible[request.shape] = self._filter(request)[0]
        return cached

    def _filter(self, request: Request) -> tuple[BoolArray, Counter[FilterReason]]:
        columns, reasons = self.columns, Counter[FilterReason]()
        left = np.ones(len(self.books), np.bool_)

        def keep(reason: FilterReason, passes: BoolArray) -> None:
            nonlocal left
            reasons[reason] += int((left & ~passes).sum())
            left = left & passes

        allowed = {Family.CPU} if request.family is Family.ANY else {request.family}
        allowed |= self.offered_families() if request.family is Family.ANY else set()
        if request.family not in self.offered_families():
            allowed.add(Family.CPU)
        keep(FilterReason.FAMILY, np.isin(columns.family, [f.value for f in allowed]))
        keep(FilterReason.TYPE, columns.by_type(request.allows_type))
        keep(FilterReason.MEMORY, columns.memory_need(request) <= self.books.total[:, MEMORY])
        keep(FilterReason.ISOLATION, columns.isolation >= ISOLATION_ORDER.index(request.isolation))
        keep(FilterReason.CPUS, self.host.total[columns.node, 0] >= request.cpus)
        if request.devices > 1:
            groups = np.bincount(columns.group, weights=left, minlength=len(columns.groups))
            keep(FilterReason.COUNT, groups[columns.group] >= request.devices)
        return left, reasons

    def why_not_now(self, request: Request) -> tuple[WaitReason, Counter[str]]:
        """Why no feasible device takes the request now, and how many devices each reason rules out."""
        columns, feasible = self.columns, self.feasible(request)
        if not len(self.books):
            return WaitReason.NO_DEVICES, Counter()
        ready = columns.ready
        room = self._has_room(request)
        cpus = self.host.reachable()[columns.node, 0] >= request.cpus
        busy = Counter(
            {
                WaitReason.USED_BY_RAY.value: int((feasible & (columns.state == DeviceState.UNCLAIMED.value)).sum()),
                WaitReason.DEVICES_SICK.value: int((feasible & (columns.state == DeviceState.SICK.value)).sum()),
                WaitReason.NO_ROOM.value: int((feasible & ready & ~room).sum()),
                WaitReason.HOST_CPUS.value: int((feasible & ready & room & ~cpus).sum()),
            }
        )
        if not any(busy.values()):
            return WaitReason.NEXT_CYCLE, Counter()
        reason = WaitReason(max(busy, key=lambda name: busy[name]))
        if reason is WaitReason.NO_ROOM:
            spare = self.books.reachable()[feasible & ready]
            need = (
                request.share * request.devices,
                int(columns.memory_need(request)[feasible].min(initial=_UNBOUNDED)),
            )
            if spare[:, SHARE].sum() >= need[0] and spare[:, MEMORY].sum() >= need[1]:
                reason = WaitReason.FRAGMENTED
        return reason, +busy

    def _has_room(self, request: Request) -> BoolArray:
        reach = self.books.reachable()
        if request.devices == 1:
            return (reach[:, SHARE] >= request.share) & (reach[:, MEMORY] >= self.columns.memory_need(request))
        whole: BoolArray = (reach == self.books.total).all(axis=1)
        return whole

    def place(self, request: Request, policy: Policy) -> Choice | None:
        """The best place the request fits now (counting idle slices as room), or None."""
        columns = self.columns
        if not len(self.books):
            return None
        fits = self.feasible(request) & columns.ready & self._has_room(request)
        if request.cpus:
            fits &= self.host.reachable()[columns.node, 0] >= request.cpus
        if not fits.any():
            return None
        return (
            self._best_device(request, policy, fits)
            if request.devices == 1
            else self._best_group(request, policy, fits)
        )

    def _best_device(self, request: Request, policy: Policy, fits: BoolArray) -> Choice:
        rows = np.flatnonzero(fits)
        columns, total = self.columns, self.books.total[rows]
        need = columns.memory_need(request)[rows]
        left = (self.books.reachable()[rows] - np.stack((np.full_like(need, request.share), need), axis=1)) / total
        spare = self.books.uncontested()[rows]
        host_spare = self.host.uncontested()[columns.node[rows], 0]
        quiet = (spare[:, SHARE] >= request.share) & (spare[:, MEMORY] >= need) & (host_spare >= request.cpus)
        candidates = Candidates(
            left[:, SHARE], left[:, MEMORY], columns.memory_size[rows], columns.speed[rows], (~quiet).astype(float)
        )
        best, scores = _argmax(candidates, policy, self.books.rank[rows])
        device = self.devices[self.books.ids[rows[best]]]
        return Choice(Placement(device.node, (device.id,), request.share, request.memory_on(device)), scores)

    def _best_group(self, request: Request, policy: Policy, fits: BoolArray) -> Choice | None:
        """Several whole devices: choose a group of equal devices on one node, then devices inside it."""
        columns = self.columns
        counts = np.bincount(columns.group, weights=fits, minlength=len(columns.groups))
        quiet = fits & (self.books.uncontested() == self.books.total).all(axis=1)
        quiet_counts = np.bincount(columns.group, weights=quiet, minlength=len(columns.groups))
        groups = np.flatnonzero(counts >= request.devices)
        if not len(groups):
            return None
        left = (counts[groups] - request.devices) / columns.group_size[groups]
        first = columns.group_first[groups]
        disturbs = (quiet_counts[groups] < request.devices).astype(float)
        candidates = Candidates(left, left, columns.memory_size[first], columns.speed[first], disturbs)
        best, scores = _argmax(candidates, policy, self.books.rank[first])
        rows = np.flatnonzero(fits & (columns.group == groups[best]))
        members = sorted((self.devices[self.books.ids[row]] for row in rows), key=lambda d: d.index)
        undisturbed = {self.books.ids[row] for row in np.flatnonzero(quiet)}
        members.sort(key=lambda d: d.id not in undisturbed)  # stable: low indexes first within each half
        chosen = sorted(members[: request.devices], key=lambda d: d.index)
        memory = request.memory_on(chosen[0])
        return Choice(Placement(chosen[0].node, tuple(d.id for d in chosen), request.share, memory), scores)


def _argmax(candidates: Candidates, policy: Policy, rank: IntArray) -> tuple[int, tuple[tuple[str, float], ...]]:
    terms = policy.terms(candidates)
    weight = sum(policy.weights.values())
    weighted = {name: policy.weights[name] / weight * values for name, values in terms.items()}
    total = np.sum(list(weighted.values()), axis=0)
    tied = np.flatnonzero(total >= total.max() - TIE_TOLERANCE)
    best = int(tied[np.argmin(rank[tied])])
    return best, tuple((name, float(values[best])) for name, values in weighted.items())


class _Columns:
    """What filters and scores read of the devices, by row of the books."""

    def __init__(self, pool: Pool) -> None:
        devices = [pool.devices[name] for name in pool.books.ids]
        self.devices = devices
        self.family = np.array([d.family.value for d in devices], dtype=object).astype(str)
        self.state = np.array([d.state.value for d in devices], dtype=object).astype(str)
        self.ready: BoolArray = self.state == DeviceState.READY.value
        self.isolation = np.array([ISOLATION_ORDER.index(d.isolation) for d in devices], np.int64)
        self.node = np.array([pool.host.rows[d.node] for d in devices], np.int64)
        memory = np.array([d.type.memory for d in devices], np.float64)
        speed = np.array([d.type.speed for d in devices], np.float64)
        self.memory_size: FloatArray = memory / memory.max(initial=1)
        self.speed: FloatArray = speed / speed.max(initial=1e-9)
        self.types = sorted({d.type.name for d in devices})
        self.type = np.array([self.types.index(d.type.name) for d in devices], np.int64)
        #: group: equal devices of one node, among which several-device requests choose.
        self.groups = sorted({(d.node, d.type.name) for d in devices})
        numbers = {key: number for number, key in enumerate(self.groups)}
        self.group = np.array([numbers[(d.node, d.type.name)] for d in devices], np.int64)
        self.group_size = np.bincount(self.group, minlength=len(self.groups))
        self.group_first = np.zeros(len(self.groups), np.int64)
        for row in np.argsort(-pool.books.rank):  # the lowest rank of a group decides its ties
            self.group_first[self.group[row]] = row
        self.memory = memory.astype(np.int64)

    def by_type(self, allows: Callable[[str], bool]) -> BoolArray:
        """Per device, a test of its type's name."""
        passes = np.array([allows(name) for name in self.types], np.bool_)
        return passes[self.type] if len(self.types) else np.zeros(0, np.bool_)

    def memory_need(self, request: Request) -> IntArray:
        """Per device, the MiB the request takes there."""
        if request.memory is not None:
            return np.full(len(self.memory), request.memory, np.int64)
        return share_of(self.memory, request.share)
