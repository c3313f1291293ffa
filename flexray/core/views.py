"""Pictures of the core's state for people and programs: snapshots, wait reasons, invariants."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from flexray.core.books import PARTS, Books
from flexray.core.line import classes_waiting, first_in_line, placed
from flexray.core.loads import total
from flexray.core.records import GangRecord, RequestRecord, SliceRecord
from flexray.core.state import State
from flexray.core.waits import wait_reasons
from flexray.errors import InternalError
from flexray.model.amounts import share_as_float
from flexray.model.devices import MOVES_OFF, Device, DeviceState
from flexray.model.lifecycle import HOLDING, RequestState, SliceState
from flexray.model.queue import ROOT_QUEUE
from flexray.model.snapshot import DeviceView, NodeView, QueueView, RequestView, SliceView, Snapshot

#: So many preemptions are in a snapshot, the latest.
_PREEMPTIONS = 100
_RUNNING = (RequestState.LEASED, RequestState.DRAINING)


def snapshot(state: State, now: float, epoch: int, listed: int | None = None) -> Snapshot:
    """The whole pool at one instant.

    Args:
        listed: so many of the requests that stand in line are listed, the first; None lists all. The others are
            counted: by queue and class.
    """
    line = first_in_line(state, listed)
    holders = placed(state)
    reserved = [r for r in holders if r.state is RequestState.RESERVED]
    reasons = wait_reasons(state, [*reserved, *(r for r, _ in line)])
    places = {r.id: place for r, place in line}
    return Snapshot(
        now,
        epoch,
        tuple(_node(state, name) for name in sorted(state.pool.nodes)),
        tuple(_device(state, name) for name in sorted(state.pool.devices)),
        tuple(_slice(state, record) for record in state.slices.by_id.values()),
        tuple(queue_views(state)),
        tuple(_request(r, places.get(r.id, 0), reason) for r, reason in reasons),
        tuple(_request(r, 0, "") for r in holders if r.state in _RUNNING),
        tuple(state.past.preemptions)[-_PREEMPTIONS:],
        classes=classes_waiting(state),
    )


def queue_views(state: State) -> Iterator[QueueView]:
    """Every queue, parents before their children; amounts of compute in units of ``nvidia/A100-80GB``."""
    sharing = state.sharing
    held: Counter[str] = Counter()
    count = Counter((request.queue, request.state in _RUNNING) for request in state.requests.values())
    for request in placed(state):
        record = state.slice_of(request)
        if record is not None:
            held[request.queue] += record.placement.share * len(record.placement.devices)
    standings = {} if sharing.plain else sharing.borrowing().standings
    for name in sharing.configured.down():
        queue, own, share = sharing.configured.queues[name], standings.get(name), sharing.entitled.get(name)
        if sharing.plain and name == ROOT_QUEUE:
            continue
        yield QueueView(
            name,
            count[name, False],
            count[name, True],
            share_as_float(held[name]),
            queue.parent if name != ROOT_QUEUE else "",
            queue.quota.describe() if queue.quota is not None else "",
            queue.limit.describe() if queue.limit is not None else "",
            queue.weight / 1000,
            own.used / 1e6 if own is not None else 0.0,
            share.amount / 1e6 if share is not None else 0.0,
            own.quota / 1e6 if own is not None else 0.0,
            own.borrowed / 1e6 if own is not None else 0.0,
        )


def _node(state: State, name: str) -> NodeView:
    node = state.pool.nodes[name]
    free = state.pool.host.rows[name].free[0]
    reports = tuple((r.backend, r.found, r.reason) for r in node.reports)
    return NodeView(name, node.name, share_as_float(node.cpus), share_as_float(free), reports)


def _device(state: State, name: str) -> DeviceView:
    device, books = state.pool.devices[name], state.pool.books
    node = state.pool.nodes[device.node]
    share_free, memory_free = books.rows[name].free
    share, memory = books.rows[name].total
    return DeviceView(
        name,
        device.node,
        device.type.name,
        device.family.value,
        device.backend,
        _state_of(state, device).value,
        device.isolation.value,
        share_as_float(share - share_free),
        share_as_float(share_free),
        memory,
        memory - memory_free,
        memory_free,
        tuple(state.slices.by_device.get(name, ())),
        device.guarantee.describe(),
        device.reason,
        tuple(one for one in node.foreign if one.device == name),
        tuple(one for one in node.notes if one.device == name),
    )


def _state_of(state: State, device: Device) -> DeviceState:
    """A device that work has moved off is drained, before its node says so."""
    moved = device.state in MOVES_OFF and device.state is not DeviceState.LOST
    return DeviceState.DRAINED if moved and not state.slices.by_device.get(device.id) else device.state


def _slice(state: State, record: SliceRecord) -> SliceView:
    holder = state.holder_of(record)
    return SliceView(
        record.id,
        record.placement.node,
        record.placement.devices,
        share_as_float(record.placement.share),
        record.placement.memory,
        record.state.value,
        state.pool.kind_of(record.placement)[1].value,
        record.task_class,
        holder.id if holder else "",
        holder.session if holder else "",
        record.since,
        share_as_float(max(record.placement.share, record.placement.burst)),
    )


def _request(request: RequestRecord, position: int, reason: str) -> RequestView:
    return RequestView(
        request.id,
        request.session,
        request.task_class,
        request.queue,
        request.request.priority,
        request.state.value,
        reason,
        position,
        request.request.describe(),
        request.submitted,
        request.attempt,
    )


def check_invariants(state: State) -> None:
    """Raise InternalError unless the books equal the sum of the slices, exactly, and nothing is promised twice."""
    _check_books(state, state.pool.books, on_devices=True)
    _check_books(state, state.pool.host, on_devices=False)
    _check_places(state)
    _check_queues(state)
    for record in state.slices.by_id.values():
        holder = state.holder_of(record)
        if record.state is SliceState.HELD and (holder is None or holder.slice != record.id):
            raise InternalError(f"slice {record.id} is held by nobody")
    for request in state.requests.values():
        has_slice = state.slice_of(request) is not None
        wants_slice = request.state in (RequestState.RESERVED, RequestState.LEASED, RequestState.DRAINING)
        if has_slice != wants_slice:
            raise InternalError(f"request {request.id} is {request.state.value} and its slice is {request.slice}")
        settled = request.gang is None or request.gang.id not in state.unsettled
        if request.stands_in_line and settled and request.id not in state.lines.get(request.line, ()):
            raise InternalError(f"request {request.id} waits in no line")
    for gang in state.gangs.values():
        _check_gang(state, gang)


def _check_gang(state: State, gang: GangRecord) -> None:
    """All or none: no members sit on devices that are too few to run, unless they are giving them up."""
    if gang.id in state.unsettled or gang.closing:
        return
    if gang.returning and gang.running:
        raise InternalError(f"gang {gang.id} is taken back, and {len(gang.running)} members go on")
    have = gang.running or gang.coming
    if 0 < len(have) < gang.needed:
        raise InternalError(f"gang {gang.id} holds slices for {len(have)} members and needs {gang.needed}")
    names = [m.slice for m in (*gang.running, *gang.reserved)] + [m.next for m in gang.leaving]
    together = [state.slices.by_id[name] for name in names if name is not None]
    kinds = {state.pool.kind_of(record.placement)[0] for record in together}
    if len(kinds) > 1:  # what members are leaving may be of another type than where they go on
        raise InternalError(f"gang {gang.id} is on several device types: {sorted(kinds)}")


def _check_queues(state: State) -> None:
    """What the queues' books say is what their requests have and wait for."""
    sharing = state.sharing
    if sharing.plain:
        return
    for leaf in sharing.tree.leaves:
        mine = [request for request in state.requests.values() if request.queue == leaf]
        held = total(request.charged for request in mine if request.charged is not None)
        if held != sharing.books.used[leaf]:
            raise InternalError(f"queue {leaf!r} is said to use {sharing.books.used[leaf]}, and has {held}")
        for request in mine:
            if request.counted != (request.state is RequestState.QUEUED):
                raise InternalError(f"request {request.id} is {request.state.value} and counted as waiting or not")


def _check_places(state: State) -> None:
    """Of fixed parts: no two hold, and no two are promised, a place; places promised are there or come free."""
    for name, row in state.pool.books.rows.items():
        there = state.slices.by_device.get(name, {}).values()
        sums = dict.fromkeys(("held", *PARTS), 0)
        for record in there:
            if record.span != state.pool.span_of(record.placement):
                raise InternalError(f"slice {record.id} is booked on other places than it has")
            for part in (part for part, yes in _parts_of(record).items() if yes):
                if sums[part] & record.span:
                    raise InternalError(f"{name}: slice {record.id} is {part} on a place that another has too")
                sums[part] |= record.span
        places = row.places
        if places is None:
            if any(sums.values()):
                raise InternalError(f"{name} has no places, and slices have some there")
            continue
        if any(getattr(places, part) != booked for part, booked in sums.items()):
            raise InternalError(f"the books' places of {name} differ from those of the slices")
        coming = places.free | places.idle | places.stopping | places.draining
        if sums["held"] & ~places.all or places.pledged & ~coming:
            raise InternalError(f"{name}: more places are held or promised than there are or can come free")


def _parts_of(record: SliceRecord) -> dict[str, bool]:
    """Which parts of the books a slice counts in."""
    return {
        "held": record.state in HOLDING,
        "idle": record.state is SliceState.IDLE,
        "stopping": record.state is SliceState.STOPPING,
        "draining": record.draining,
        "pledged": record.state is SliceState.PENDING,
    }


def _check_books(state: State, books: Books, *, on_devices: bool) -> None:
    parts: dict[str, dict[str, list[int]]] = {name: {part: [0, 0] for part in ("held", *PARTS)} for name in books.rows}
    for record in state.slices.by_id.values():
        place = record.placement
        applies = _parts_of(record)
        for name in place.devices if on_devices else (place.node,):
            first, second = (place.share, place.memory) if on_devices else record.host
            for part in (part for part, yes in applies.items() if yes):
                parts[name][part][0] += first
                parts[name][part][1] += second
    for name, row in books.rows.items():
        for kind in (0, 1):
            if row.free[kind] + parts[name]["held"][kind] != row.total[kind] or row.free[kind] < 0:
                raise InternalError(f"{name}: free + held differs from total")
            for part in PARTS:
                if getattr(row, part)[kind] != parts[name][part][kind]:
                    raise InternalError(f"the books' {part} of {name} differs from the sum of the slices")
            if row.pledged[kind] > row.free[kind] + row.idle[kind] + row.stopping[kind] + row.draining[kind]:
                raise InternalError(f"{name}: more is promised than can come free")
