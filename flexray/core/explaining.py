"""Why a request waits, in figures and in words. Looks, and changes nothing."""

from __future__ import annotations

from collections import Counter

from flexray.core.loads import devices_of, measured, total
from flexray.core.nearest import nearest_place
from flexray.core.past import Ending
from flexray.core.records import RequestRecord, SliceRecord
from flexray.core.state import State
from flexray.core.waits import needs, unready, wait_reasons
from flexray.model.amounts import share_as_float
from flexray.model.explanation import (
    Borrower,
    Explanation,
    Holder,
    Leaving,
    LimitReached,
    Nearest,
    QueueStanding,
    StartEstimate,
    describe_lack,
    describe_seconds,
)
from flexray.model.lease import RequestId
from flexray.model.lifecycle import LIVE, RequestState, SliceState, WaitReason

_LISTED = 5
_WANT_OF_ROOM = frozenset({WaitReason.NO_ROOM, WaitReason.FRAGMENTED, WaitReason.HOST_CPUS})


def explain(state: State, name: RequestId, start: StartEstimate | None = None) -> Explanation | None:
    """Where a request is and why; None when the core does not know it (it has ended).

    Args:
        start: when it is expected to start, if somebody has asked (``estimate.py``).
    """
    gang = state.gangs.get(name)
    request = state.requests.get(name) if gang is None else (gang.running or [gang.leader])[0]
    if request is None or request.state not in LIVE:
        return None
    waits = request.state in (RequestState.QUEUED, RequestState.RESERVED)
    reason = WaitReason(wait_reasons(state, [request])[0][1]) if waits else None
    order = state.waiting() if waits else []
    record = state.slice_of(request)
    held = [state.slice_of(one) for one in ([request] if gang is None else gang.live)]
    removed = state.pool.removed_by(request.request) if len(state.pool.books) else Counter()
    busy = state.pool.why_not_now(request.request)[1] if request.state is RequestState.QUEUED else Counter[str]()
    limit = _limit_reached(state, request) if reason is WaitReason.QUEUE_LIMIT else None
    standing = _standing(state, request) if waits else None
    near = nearest_place(state.pool, request.request) if reason in _WANT_OF_ROOM else None
    first = needs(state, request, reason) if reason is not None else ""
    if reason is WaitReason.DEVICES_SICK:
        first = f"{first}; {unready(state, request)}"
    leaving = _leaving(state, request, record) if reason is WaitReason.MAKING_ROOM and record is not None else ()
    return Explanation(
        name,
        request.state.value,
        reason.value if reason is not None else "",
        _position(request, order),
        _needs(first, reason, limit, near, leaving, standing) if reason is not None else "",
        request.lease if request.state in (RequestState.LEASED, RequestState.DRAINING) else None,
        tuple([device for one in held if one is not None for device in one.placement.devices]),
        tuple(sorted((reason.value, count) for reason, count in removed.items())),
        tuple(sorted(busy.items())),
        request.choice.scores if request.choice is not None else (),
        queue=request.queue,
        queue_position=_position(request, [one for one in order if one.queue == request.queue]),
        limit=limit,
        standing=standing,
        nearest=near,
        leaving=leaving,
        preemptions=state.past.of(name),
        estimated_start=start if waits else None,
    )


def explain_ended(state: State, name: RequestId) -> Explanation | None:
    """How a request ended that the core has not forgotten yet; None for any other."""
    ending: Ending | None = state.past.endings.get(name)
    if ending is None:
        return None
    ran = f" after {describe_seconds(ending.ran)} on its last lease" if ending.ran is not None else ""
    message = f"{ending.message}; " if ending.message else ""
    ago = describe_seconds(max(state.now - ending.at, 0.0))
    return Explanation(
        name,
        ending.state.value,
        queue=ending.queue,
        preemptions=state.past.of(name),
        message=f"{message}ended {ago} ago{ran}",
    )


def _position(request: RequestRecord, order: list[RequestRecord]) -> int:
    first = request.gang.leader if request.gang is not None and request.gang.waits else request
    return next((place for place, one in enumerate(order, start=1) if one is first), 0)


# -- figures ---------------------------------------------------------------------------------


def _limit_reached(state: State, request: RequestRecord) -> LimitReached | None:
    """The first measure of the limit that the request would exceed."""
    sharing = state.sharing
    name = request.limited_by or sharing.limited_by(request) or ""
    limit = sharing.tree.queues[name].limit if name in sharing.tree.queues else None
    if limit is None:
        return None
    books, asked = sharing.books, sharing.expected(request)
    used = books.used[name]
    rows = zip(
        measured(used, limit, books.capacity),
        measured(asked, limit, books.capacity),
        measured(total((used, asked)), limit, books.capacity),
        strict=True,
    )
    for (measure, now, most), (_, more, _), (_, then, _) in rows:
        if then > most:
            return LimitReached(name, measure, now, most, more, _holders(state, name))
    return None  # room has come since the last cycle


def _holders(state: State, name: str) -> tuple[Holder, ...]:
    """Who uses what a queue (or group) has, the largest first."""
    found: dict[tuple[str, str], list[int]] = {}
    for request in state.requests.values():
        if request.charged and name in state.sharing.tree.path(request.queue):
            sums = found.setdefault((request.queue, request.task_class), [0, 0])
            sums[0] += devices_of(request.charged)
            sums[1] += 1
    largest = sorted(found.items(), key=lambda item: (-item[1][0], item[0]))[:_LISTED]
    return tuple(Holder(queue, kind, count, share_as_float(held)) for (queue, kind), (held, count) in largest)


def _standing(state: State, request: RequestRecord) -> QueueStanding | None:
    sharing = state.sharing
    if sharing.plain or request.queue not in sharing.tree.queues:
        return None
    standings = sharing.borrowing().standings
    own, fair = standings[request.queue], sharing.fair_shares(state.now).get(request.queue)
    rivals = [name for name in sharing.tree.leaves if name != request.queue and standings[name].borrowed > 0]
    lacks = any(standings[name].idle > 0 for name in sharing.tree.path(request.queue)[1:])
    borrowers = sorted(rivals, key=lambda name: (-standings[name].borrowed, name)) if lacks else []
    path = sharing.tree.path(request.queue)
    return QueueStanding(
        request.queue,
        own.quota / 1e6,
        own.used / 1e6,
        fair.amount / 1e6 if fair is not None else 0.0,
        tuple(Borrower(name, standings[name].borrowed / 1e6) for name in borrowers[:_LISTED]),
        tuple(str(warning) for warning in sharing.warnings if warning.queue in path),
    )


def _leaving(state: State, request: RequestRecord, record: SliceRecord) -> tuple[Leaving, ...]:
    """The slices whose end the planned slice of a request waits for."""
    place, slices = record.placement, state.slices
    there = {s.id: s for device in place.devices for s in slices.by_device.get(device, {}).values()}
    if any(request.request.host):
        there.update((s.id, s) for s in slices.on_node(place.node) if any(s.host))
    return tuple(filter(None, (_leaves(state, one) for one in there.values())))


def _leaves(state: State, record: SliceRecord) -> Leaving | None:
    if record.state is SliceState.STOPPING:
        return Leaving(record.id, record.request or "", "stopping", None)
    if not record.draining:
        return None
    due = state.evictions.get(record.id)
    end = due if due is not None else record.expected_end
    left = end - state.now if end > state.now else None
    return Leaving(record.id, record.request or "", "recalled" if due is None else "preempted", left)


# -- words -----------------------------------------------------------------------------------


def _needs(
    first: str,
    reason: WaitReason,
    limit: LimitReached | None,
    near: Nearest | None,
    leaving: tuple[Leaving, ...],
    standing: QueueStanding | None,
) -> str:
    """What would let it start, with figures where there are some."""
    parts = [first]
    if limit is not None:
        parts = [_limit_in_words(limit), first]
    if near is not None and (near.scattered or describe_lack(near)):
        kind = f" ({near.type})" if near.type else ""
        lacks = f": {near.scattered}" if near.scattered else f", which lacks {describe_lack(near)}"
        if near.scattered and reason is WaitReason.FRAGMENTED:
            parts = ["a slice that is in the way of its part has to end"]
        parts.append(f"nearest is {near.place}{kind}{lacks}")
    if leaving:
        parts.append(f"it waits for {', '.join(map(_leaving_in_words, leaving))}")
    if standing is not None and reason in _WANT_OF_ROOM:
        parts += [_standing_in_words(standing), *standing.reduced]
    return "; ".join(parts)


def _limit_in_words(limit: LimitReached) -> str:
    unit = limit.measure if limit.measure in ("devices", "compute") else f"of {limit.measure}"
    who = ", ".join(f"{_short(one)} {one.devices:g} devices in {one.requests} requests" for one in limit.holders)
    held = f", held by {who}" if who else ""
    said = f"queue {limit.queue} uses {limit.used:g} of its limit of {limit.limit:g} {unit}"
    return f"{said} and this takes {limit.asked:g}{held}"


def _short(holder: Holder) -> str:
    """The task's name, without the hashes that make its class unique."""
    return holder.task_class.split("/")[0]


def _standing_in_words(standing: QueueStanding) -> str:
    said = f"queue {standing.queue} uses {standing.used:g} of the {standing.quota:g} compute that it is guaranteed"
    turn = f"is entitled to {standing.entitled:g}: it waits for its turn"
    if standing.borrowers:
        who = ", ".join(f"{one.queue} ({one.borrowed:g})" for one in standing.borrowers)
        return f"{said}, and {who} borrows: leases there may be taken back"
    if standing.quota:
        return f"{said} and {turn}"
    return f"queue {standing.queue} uses {standing.used:g} compute, has no quota and {turn}"


def _leaving_in_words(leaving: Leaving) -> str:
    who = leaving.request or leaving.slice
    when = f", {describe_seconds(leaving.seconds)} from now at the latest" if leaving.seconds is not None else ""
    if leaving.how == "recalled":
        when = f", expected in {describe_seconds(leaving.seconds)}" if leaving.seconds is not None else ""
    return f"{who} ({leaving.how}{when})"
