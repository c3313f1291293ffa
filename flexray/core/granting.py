"""One request's turn: a warm slice, a new one, or a short wait for a device where it finishes first."""

from __future__ import annotations

from flexray.core.backfill import lend
from flexray.core.choosing import Choice
from flexray.core.coming import could_come
from flexray.core.ending import fail_infeasible
from flexray.core.ends import SLICE_START_SECONDS
from flexray.core.fixed_parts import granted
from flexray.core.gang_fit import fits_ever, fits_now
from flexray.core.gang_places import place_gang
from flexray.core.placement import Pool
from flexray.core.reclaim import idle_slices_to_stop
from flexray.core.records import GangRecord, RequestRecord, SliceRecord
from flexray.core.state import State
from flexray.model.amounts import WHOLE
from flexray.model.lease import Placement, RequestId
from flexray.model.lifecycle import RequestState, SliceState, WaitReason
from flexray.model.request import Request

#: Waiting for a faster device has to save so much of the time that a task takes at once; expectations are rough.
_WAIT_SAVES = 0.1


def serve(state: State, request: RequestRecord, full: set[tuple[object, ...]], now: float) -> bool:
    """Try to get one request on its way. False when it has to wait.

    Args:
        full: shapes for which there is no room in this cycle; kept up to date.
    """
    pool = state.pool
    request.passes_over = False
    if request.gang is not None:
        return _serve_gang(state, request.gang, full, now)
    warm = _best_warm(state, request) if request.reusable else None
    if warm is not None and not _better_elsewhere(state, request, warm):
        if _faster_soon(state, request, warm.placement, 0.0, now):
            return False
        if warm.state is SliceState.IDLE:
            state.grant(request, warm, now)
        else:
            state.reserve(request, warm, WaitReason.SLICE_STARTING)
        return True
    if request.shape in full:
        return lend(state, request, now)
    if _never(pool, request.request, 1):
        fail_infeasible(state, request, now)
        return True
    choice = _choose(state, request)
    if choice is None:
        full.add(request.shape)
        return lend(state, request, now)
    if _faster_soon(state, request, choice.placement, SLICE_START_SECONDS, now):
        return False
    request.choice = choice
    victims = idle_slices_to_stop(state.slices, pool, choice.placement, request.request.host)
    state.reserve_new_slice(request, choice.placement, victims, now)
    return True


def _serve_gang(state: State, gang: GangRecord, full: set[tuple[object, ...]], now: float) -> bool:
    """The same for a gang: as many members as there is room for get one on their way, or, if too few, none does."""
    leader, pool = gang.leader, state.pool
    if leader.shape in full:
        return False
    if _never(pool, gang.request, gang.needed):
        fail_infeasible(state, leader, now)
        return True
    if place_gang(state, gang, now):
        return True
    full.add(leader.shape)
    return False


def _never(pool: Pool, request: Request, needed: int) -> bool:
    """Whether neither what is there nor what can be added could ever hold so many; before any device is there, no."""
    if request.devices and not pool.books.rows:
        return False
    fits = pool.ever_fits(request) if request.gang is None else fits_ever(pool, request, needed)
    return not fits and could_come(pool, request) is None


def may_fit(state: State, request: RequestRecord) -> bool:
    """Whether there is room for a request of that shape, or it can never fit and has to be told so."""
    if request.gang is not None:
        asked, needed = request.request, request.gang.needed
        return _never(state.pool, asked, needed) or max(fits_now(state.pool, asked).values(), default=0) >= needed
    return _never(state.pool, request.request, 1) or _choose(state, request) is not None


def _choose(state: State, request: RequestRecord) -> Choice | None:
    policy = state.options.policy
    return state.pool.chooser.place(request.request, policy, request.task_class, request.near)


# -- warm slices ---------------------------------------------------------------------------------


def _best_warm(state: State, request: RequestRecord) -> SliceRecord | None:
    """The free slice of its class with the best pace, of equals one near its arguments, then the one used last."""
    usable = state.slices.warm_for(request)
    if len(usable) < 2:
        return usable[0] if usable else None
    near = dict(request.near)
    idle = [record for record in usable if record.state is SliceState.IDLE] or usable
    return max(idle, key=lambda s: (_pace(state.pool, request, s.placement), near.get(s.placement.node, 0)))


def _pace(pool: Pool, request: RequestRecord, place: Placement) -> float:
    """Speed at a place, 1 for the fastest type it may use, less what is lost beside those who are there."""
    speed = pool.chooser.speeds_for(request.task_class, request.request).get(pool.kind_of(place)[0], 1.0)
    if place.share == WHOLE or not pool.company.knows(request.task_class):
        return speed
    lost = sum(pool.company.loss(request.task_class, place.share, pool.residents(d)) for d in place.devices)
    return max(speed - lost * WHOLE / place.share, 0.01)


def _better_elsewhere(state: State, request: RequestRecord, warm: SliceRecord) -> bool:
    """Whether a free place is so much faster than a warm slice that starting a slice there pays."""
    pool = state.pool
    if not state.options.policy.uses_speed or not request.request.devices:
        return False
    work = pool.speeds.work_ahead(request.task_class)
    here = _pace(pool, request, warm.placement)
    if work * (1 - here) < SLICE_START_SECONDS:
        return False
    choice = _choose(state, request)
    there = _pace(pool, request, choice.placement) if choice is not None else 0.0
    return work * (1 - here / there if there > here else 0.0) >= SLICE_START_SECONDS


# -- a faster device that comes free soon ----------------------------------------------------------


def _faster_soon(state: State, request: RequestRecord, place: Placement, start: float, now: float) -> bool:
    """Whether the request finishes sooner if it waits for a faster device than at this place, where it fits now.

    Only where run times are known, and never for longer in all than the faster device saves: so a
    wrong expectation costs at most as much again as a right one would have gained. Long work
    that rounds may move takes what there is, and is moved.
    """
    if not state.options.policy.uses_speed or request.request.devices != 1:
        return False
    seconds = state.pool.chooser.seconds_for(request.task_class, request.request)
    here = seconds.get(state.pool.kind_of(place)[0]) if seconds else None
    if here is None or _is_moved_within(state, request, here):
        return False
    since = request.waits_since if request.waits_since is not None else now
    for there, kind in sorted((s, name) for name, s in seconds.items() if s < (1 - _WAIT_SAVES) * here):
        end = _next_end(state, request, kind, there, now) if now - since < here - there else None
        if end is not None and end - now + there + SLICE_START_SECONDS < (1 - _WAIT_SAVES) * (here + start):
            request.waits_since, request.passes_over = since, True
            state.look_again(min(end, since + here - there))
            return True
    return False


def _is_moved_within(state: State, request: RequestRecord, seconds: float) -> bool:
    """Whether a round comes that may move it, before so many seconds have passed."""
    return request.id in state.preemptible and 0 < state.options.rematch_seconds < seconds


def _next_end(state: State, request: RequestRecord, kind: str, seconds: float, now: float) -> float | None:
    """When room for the request is expected on a type: a lease ends, and who waits for that already has had a turn.

    Args:
        seconds: how long a turn takes, as far as the request can tell.
    """
    soonest: tuple[float, SliceRecord] | None = None
    for end, record in state.ends.coming(kind, now):
        if soonest is not None and end >= soonest[0]:
            break
        if _holds(state.pool, request, record):
            record.awaited = [name for name in record.awaited if _still_waits(state, name)]
            before = record.awaited.index(request.id) if request.id in record.awaited else len(record.awaited)
            if soonest is None or end + before * seconds < soonest[0]:
                soonest = (end + before * seconds, record)
    if soonest is None:
        return None
    if request.id not in soonest[1].awaited:
        soonest[1].awaited.append(request.id)
    return soonest[0]


def _still_waits(state: State, name: RequestId) -> bool:
    request = state.requests.get(name)
    return request is not None and request.state is RequestState.QUEUED


def _holds(pool: Pool, request: RequestRecord, record: SliceRecord) -> bool:
    place, wanted = record.placement, request.request
    device = pool.devices.get(place.devices[0]) if place.devices else None
    if device is None or not wanted.allows_type(device.type.name):
        return False
    row, grant = pool.books.rows[device.id], granted(wanted, device.type.memory, device.profiles)
    share, memory = row.reachable()
    places = 0 if row.places is None else row.places.reachable() | record.span & ~row.places.pledged
    cores, host_memory = pool.host.rows[place.node].reachable()
    return (
        grant is not None
        and share + place.share >= grant.share
        and memory + place.memory >= grant.memory
        and grant.fits(places)
        and cores + record.host[0] >= wanted.cpus
        and host_memory + record.host[1] >= wanted.host_memory
    )
