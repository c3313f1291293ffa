"""The slices and their effect on the books: every change of a slice's state is booked here."""

from __future__ import annotations

from collections import OrderedDict
from typing import TypeVar

from flexray.core import beside
from flexray.core.books import Amounts
from flexray.core.choosing import covers
from flexray.core.placement import Pool
from flexray.core.records import RequestRecord, SliceRecord
from flexray.model.devices import DeviceState
from flexray.model.events import SliceFound
from flexray.model.lease import EnvironmentId, Placement, SliceId
from flexray.model.lifecycle import HOLDING, SliceState, SliceStep

_PART_OF_STATE = {SliceState.PENDING: "pledged", SliceState.IDLE: "idle", SliceState.STOPPING: "stopping"}
#: slices that run nothing now and will not before somebody chooses them.
_OUT_OF_THE_WAY = frozenset({SliceState.IDLE, SliceState.STOPPING, SliceState.GONE})
#: states in which the room of a slice may be promised to others.
_AT_WORK = frozenset({SliceState.STARTING, SliceState.HELD})
WarmKey = tuple[EnvironmentId, str]
Key = TypeVar("Key")


class Slices:
    """All slices of the pool. The books follow their states; nobody else touches them."""

    def __init__(self, pool: Pool, prefix: str) -> None:
        self._pool = pool
        self._prefix = prefix
        self._count = 0
        self.by_id: dict[SliceId, SliceRecord] = {}
        #: PENDING slices in the order they were planned: room that comes free goes to the first.
        self.pending: OrderedDict[SliceId, SliceRecord] = OrderedDict()
        #: IDLE slices, longest idle first.
        self.idle: OrderedDict[SliceId, SliceRecord] = OrderedDict()
        self._idle_by_node: dict[str, dict[SliceId, SliceRecord]] = {}
        #: what a lease can take over at once: IDLE slices, and STARTING ones nobody waits for any more.
        self._free_by_key: dict[WarmKey, dict[SliceId, SliceRecord]] = {}
        self.by_device: dict[str, dict[SliceId, SliceRecord]] = {}
        pool.residents = self.residents

    def plan(self, request: RequestRecord, placement: Placement, now: float) -> SliceRecord:
        """A new PENDING slice for a request; its amounts are pledged."""
        record = self._new(request, placement, now)
        self.pending[record.id] = record
        self._mark("pledged", record, +1)
        return record

    def begin(self, request: RequestRecord, placement: Placement, now: float) -> SliceRecord | None:
        """A new STARTING slice for a request where all it needs is free now; None where it has to be planned."""
        if not self._is_free(placement, request.request.host):
            return None
        record = self._new(request, placement, now, SliceState.STARTING)
        self._book(record, hold=True)
        return record

    def find(self, found: SliceFound, now: float) -> SliceRecord | None:
        """A slice that was there before, held by nobody; None where its place is not there, or taken."""
        place = found.placement
        there = place.node in self._pool.host.rows and self._is_free(place, found.host)
        if not there or (place.start >= 0 and not self._pool.span_of(place)):
            return None
        record = SliceRecord(
            found.slice,
            place,
            found.environment,
            found.task_class,
            found.reusable,
            found.host,
            now,
            SliceState.STARTING,
            span=self._pool.span_of(place),
            resized=found.resized,
        )
        self._book(self._add(record), hold=True)
        self._index(record)
        if found.state is not SliceState.STARTING:
            self.step(record, SliceStep.IDLE if found.state is SliceState.IDLE else SliceStep.STOP, now)
        return record

    def _new(
        self, request: RequestRecord, placement: Placement, now: float, state: SliceState = SliceState.PENDING
    ) -> SliceRecord:
        self._count += 1
        return self._add(
            SliceRecord(
                SliceId(f"{self._prefix}{self._count}"),
                placement,
                request.environment,
                request.task_class,
                request.reusable,
                request.request.host,
                now,
                state,
                request=request.id,
                span=self._pool.span_of(placement),
            )
        )

    def _add(self, record: SliceRecord) -> SliceRecord:
        self.by_id[record.id] = record
        for device in record.placement.devices:
            self.by_device.setdefault(device, {})[record.id] = record
        return record

    def step(self, record: SliceRecord, step: SliceStep, now: float) -> None:
        """Move a slice along its life cycle and book what that means."""
        before, held = record.state, record.state in HOLDING
        if before is SliceState.HELD:
            beside.settle(record, self._held_beside(record), now)
        record.step(step, now)
        if record.state is SliceState.HELD:
            beside.begin(record, now)
        if before in _PART_OF_STATE:
            self._mark(_PART_OF_STATE[before], record, -1)
        if record.state not in _AT_WORK:
            record.promised, record.lent_until = False, None
        self.set_draining(record, record.promised)
        if record.state in HOLDING and not held:
            self._book(record, hold=True)
        elif record.state not in HOLDING and held:
            self._book(record, hold=False)
        if record.state in _PART_OF_STATE:
            self._mark(_PART_OF_STATE[record.state], record, +1)
        self._index(record)

    def set_draining(self, record: SliceRecord, draining: bool) -> None:
        """Whether the slice's lease was recalled: its room is as good as coming free."""
        if record.draining != draining:
            record.draining = draining
            self._mark("draining", record, +1 if draining else -1)

    def change_size(self, record: SliceRecord, placement: Placement) -> None:
        """A slice has so much of its device from now on. Raises InternalError where that is not free."""
        parts = [_PART_OF_STATE[record.state]] if record.state in _PART_OF_STATE else []
        parts += ["draining"] if record.draining else []
        for part in parts:
            self._mark(part, record, -1)
        self._book(record, hold=False)
        record.placement = placement
        self._book(record, hold=True)
        for part in parts:
            self._mark(part, record, +1)

    def disown(self, record: SliceRecord) -> None:
        """Nobody waits for this slice any more; a STARTING one may be taken over by the next of its class."""
        record.request = None
        self._index(record)

    def adopt(self, record: SliceRecord, request: RequestRecord) -> None:
        """Give a free slice to a request of its class."""
        if record.request != request.id:  # a planned slice is its already
            record.request = request.id
            self._index(record)

    def has_warm(self, request: RequestRecord) -> bool:
        """Whether some slice of the request's class is free, on a device that may be sick."""
        return (request.environment, request.task_class) in self._free_by_key

    def warm_for(self, request: RequestRecord) -> list[SliceRecord]:
        """Free slices of the request's class: idle before starting, last used first. Leaves them where they are."""
        free = self._free_by_key.get((request.environment, request.task_class))
        usable = [s for s in reversed(free.values()) if self._device_ready(s)] if free else []
        return sorted(usable, key=lambda s: s.state is not SliceState.IDLE)

    def residents(self, device: str) -> list[tuple[str, int]]:
        """(task class, share) of each slice that works on a device, or is about to."""
        there = self.by_device.get(device, {}).values()
        return [(s.task_class, s.placement.share) for s in there if s.state not in _OUT_OF_THE_WAY]

    def starts(self, record: SliceRecord) -> bool:
        """Whether a PENDING slice's room is all free now."""
        return self._is_free(record.placement, record.host)

    def _is_free(self, place: Placement, host: Amounts) -> bool:
        return self._pool.has_free(place) and covers(self._pool.host.rows[place.node].free, host)

    def company_of(self, record: SliceRecord, now: float) -> dict[str, float]:
        """By class, which part of the time since the last call a held slice was beside others on its device."""
        beside.settle(record, self._held_beside(record), now)
        return beside.take(record, now)

    def room_awaited(self, record: SliceRecord) -> bool:
        """Whether a planned slice waits for room on a device, or for host cores, that this slice holds."""
        place = record.placement
        return any(
            p.placement.node == place.node
            and (any(map(min, p.host, record.host)) or any(device in place.devices for device in p.placement.devices))
            for p in self.pending.values()
        )

    def pending_on(self, device: str) -> list[SliceRecord]:
        """Planned slices on a device, first planned first."""
        return [r for r in self.by_device.get(device, {}).values() if r.state is SliceState.PENDING]

    def pending_on_unready(self, node: str) -> list[SliceRecord]:
        """Planned slices of a node on a device that takes no work now."""
        return [r for r in self.pending.values() if r.placement.node == node and not self._device_ready(r)]

    def on_node(self, node: str) -> list[SliceRecord]:
        """The node's slices, oldest first."""
        return [record for record in self.by_id.values() if record.placement.node == node]

    def idle_on(self, node: str) -> list[SliceRecord]:
        """The node's IDLE slices, longest idle first."""
        return list(self._idle_by_node.get(node, {}).values())

    def _held_beside(self, record: SliceRecord) -> list[SliceRecord]:
        """The other HELD slices on its devices."""
        found: list[SliceRecord] = []
        for device in record.placement.devices:
            there = self.by_device[device]
            if len(there) > 1:
                found += [s for s in there.values() if s is not record and s.state is SliceState.HELD]
        return found

    def _device_ready(self, record: SliceRecord) -> bool:
        devices = self._pool.devices
        return all(d in devices and devices[d].state is DeviceState.READY for d in record.placement.devices)

    def _mark(self, part: str, record: SliceRecord, sign: int) -> None:
        place = record.placement
        for device in place.devices:
            self._pool.books.mark(part, device, (place.share, place.memory), sign, record.span)
        self._pool.host.mark(part, place.node, record.host, sign)
        self._pool.landscape.touch(place.node)

    def _book(self, record: SliceRecord, *, hold: bool) -> None:
        books, host, place = self._pool.books, self._pool.host, record.placement
        for device in place.devices:
            (books.hold if hold else books.give_back)(device, (place.share, place.memory), record.span)
        (host.hold if hold else host.give_back)(place.node, record.host)
        self._pool.landscape.touch(place.node)

    def _index(self, record: SliceRecord) -> None:
        """Keep the lookup tables in step with the record."""
        state = record.state
        if state is not SliceState.PENDING:
            self.pending.pop(record.id, None)
        idle = state is SliceState.IDLE
        _keep(self.idle, record, idle)
        _keep_under(self._idle_by_node, record.placement.node, record, idle)
        taken_over = idle or (state is SliceState.STARTING and record.request is None and record.reusable)
        _keep_under(self._free_by_key, record.warm_key, record, taken_over)
        if state is SliceState.GONE:
            del self.by_id[record.id]
            for device in record.placement.devices:
                del self.by_device[device][record.id]
                if not self.by_device[device]:
                    del self.by_device[device]


def _keep(table: dict[SliceId, SliceRecord], record: SliceRecord, there: bool) -> None:
    """Have the record last in a table, or not in it."""
    table.pop(record.id, None)
    if there:
        table[record.id] = record


def _keep_under(tables: dict[Key, dict[SliceId, SliceRecord]], key: Key, record: SliceRecord, there: bool) -> None:
    """The same for the table of some key; a table that is empty goes."""
    if there:
        _keep(tables.setdefault(key, {}), record, there)
    elif key in tables:
        _keep(tables[key], record, there)
        if not tables[key]:
            del tables[key]
