"""Requests come: what their queue says of them, and where they stand in line."""

from __future__ import annotations

import dataclasses
from collections import deque

from flexray.core.ending import fail
from flexray.core.gangs import make_gang
from flexray.core.queueing import refused_by_queue, within_queue
from flexray.core.records import RequestRecord
from flexray.core.state import State
from flexray.model.events import RequestSubmitted
from flexray.model.request import Request


def arrive(state: State, event: RequestSubmitted, now: float) -> None:
    """A request, or a gang of them, waits from now on, or fails if its queue does not take it."""
    if event.id in state.requests or event.id in state.gangs or event.session not in state.sessions:
        return  # a repeated message, or one of a session that has ended
    tree = state.sharing.configured
    refusal = refused_by_queue(tree, event.request)
    asked = event.request if refusal is not None else within_queue(tree, event.request)
    gang = make_gang(state, event, asked, now) if asked.gang is not None else None
    requests = [_single(state, event, asked, now)] if gang is None else gang.live
    first = requests[0]
    state.lines.setdefault(first.line, deque()).append(first.id)
    state.priorities_differ |= event.request.priority != 0
    piece = event.request if gang is None else dataclasses.replace(event.request, gang=None)
    for request in requests:
        state.pool.saw(piece)
        if refusal is None:
            state.sharing.waits(request)
    if refusal is not None:
        fail(state, first, *refusal, now)


def _single(state: State, event: RequestSubmitted, asked: Request, now: float) -> RequestRecord:
    request = state.requests[event.id] = RequestRecord(
        event.id,
        event.session,
        event.environment,
        event.task_class,
        asked,
        event.reusable,
        event.restartable,
        event.parent,
        state.next_sequence(),
        now - event.waited,
        event.near,
        attempt=event.attempt,
    )
    if event.request.preemptible and event.reusable and event.restartable:
        state.preemptible[event.id] = request
    return request
