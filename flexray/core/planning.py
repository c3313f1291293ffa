"""What would become of a request if it were submitted now, and which requests near it would start at once."""

from __future__ import annotations

from dataclasses import replace
from itertools import islice

from flexray.core.coming import could_come
from flexray.core.ends import SLICE_START_SECONDS
from flexray.core.estimate import estimate_starts
from flexray.core.gang_fit import fits_ever
from flexray.core.queueing import refused_by_queue, within_queue
from flexray.core.scheduler import Scheduler
from flexray.core.state import State
from flexray.core.variations import VARIATIONS
from flexray.model.events import RequestSubmitted, SessionOpened
from flexray.model.explanation import StartEstimate
from flexray.model.lease import EnvironmentId, RequestId, SessionId
from flexray.model.plan import Alternative, PlanAnswer
from flexray.model.request import Request

_NAME, _SESSION, _ENVIRONMENT = RequestId("plan"), SessionId("plan"), EnvironmentId("plan")
#: So many requests of one kind of change are tried to the end: each takes a copy of the state.
_TRIES = 3


def plan(core: Scheduler, request: Request, now: float) -> PlanAnswer:
    """When and where a request would start, and what would start now.

    It is taken for a task of a class that nobody knows, of a client of its own: no warm slice is its.

    Args:
        core: is used up; give a copy (``Scheduler.copy``).
        now: of the scheduler's clock.
    """
    state = core.state
    refusal = refused_by_queue(state.sharing.configured, request)
    narrowed = request if refusal is not None else within_queue(state.sharing.configured, request)
    removed = state.pool.removed_by(narrowed) if len(state.pool.books) else {}
    rows = tuple(sorted((reason.value, count) for reason, count in removed.items()))
    found = _start(core.copy(), request, now)
    enough = narrowed.gang.enough if narrowed.gang is not None else 1
    too_large = not fits_ever(state.pool, narrowed, enough) and could_come(state.pool, narrowed) is None
    never = refusal is not None or (bool(len(state.pool.books)) and too_large)
    starts = "never" if never else _starts(found)
    return PlanAnswer(
        request.describe(),
        request.queue,
        starts,
        found,
        _type_of(state, found),
        found.why if never else "",
        rows,
        _alternatives(core, request, now) if starts != "now" else (),
    )


def _start(core: Scheduler, request: Request, now: float) -> StartEstimate:
    core.apply(SessionOpened(_SESSION, _ENVIRONMENT), now)
    core.apply(RequestSubmitted(_NAME, _SESSION, _ENVIRONMENT, _NAME, request), now)
    found = estimate_starts(core, [_NAME], now)
    return found.get(_NAME) or StartEstimate(None, "unknown", why=core.state.past.endings[_NAME].message)


def _starts(found: StartEstimate) -> str:
    if found.seconds is None:
        return "unknown"
    return "now" if _is_now(found) else "later"


def _is_now(found: StartEstimate) -> bool:
    return found.basis == "room" and found.seconds is not None and found.seconds <= SLICE_START_SECONDS


def _type_of(state: State, found: StartEstimate) -> str:
    return state.pool.devices[found.devices[0]].type.name if found.devices else ""


def _alternatives(core: Scheduler, request: Request, now: float) -> tuple[Alternative, ...]:
    """The nearest request of each kind of change that would start now."""
    core.decide(now)  # what there is room for among those who wait has its place
    found = []
    for change, near in VARIATIONS.items():
        for other in islice(near(core.state, request, lambda one: _may_start(core.state, one)), _TRIES):
            start = _start(core.copy(), other, now)
            if _is_now(start):
                place = (start.node, start.devices, _type_of(core.state, start))
                found.append(Alternative(change, other.describe(), other.queue, *place))
                break
    return tuple(found)


def _may_start(state: State, request: Request) -> bool:
    """Whether there is room for a request, and its queue may have it: a quick look, for what is worth a trial."""
    sharing = state.sharing
    if refused_by_queue(sharing.configured, request) is not None:
        return False
    narrowed = within_queue(sharing.configured, request)
    if not sharing.plain and sharing.books.limited_by(request.queue, sharing.books.expected(request.queue, narrowed)):
        return False
    alone = replace(narrowed, gang=None)
    return state.pool.ever_fits(alone) and state.pool.chooser.place(alone, state.options.policy) is not None
