"""Handing calls from a client's backlog to the slices it holds leases on.

Late binding is the client's: a call goes to whichever lease is free first, small ones
packed together, long ones alone, with a second batch on its way so that a slice never
idles. Called with the client's lock held.
"""

from __future__ import annotations

import math
import pickle
import time
from collections.abc import Callable
from typing import Any

import ray

from flexray.runtime.arguments import sent_as
from flexray.runtime.call import Call, Phase
from flexray.runtime.near import home_of
from flexray.runtime.packing import LARGE
from flexray.runtime.targets import HeldLease, Target

#: Batches on their way to one slice at a time.
DEPTH = 2
#: The same while calls are submitted in a burst: larger and larger batches follow the first ones.
BURST_DEPTH = 8
_MOST_ITEMS = 500
#: Behind a deep backlog a batch may run this long, and this part of the time that the backlog will take.
_LONGEST_BATCH = 0.1
_PART_OF_BACKLOG = 0.05
#: Large results of one batch, each an object of its own. Storing them takes longer than making them.
_MOST_SLOTS = 8
#: A slice that will be busy for so many batches' time with what it has gets nothing more.
_BATCHES_AHEAD = 3
#: A further lease is asked for when the backlog is more work than this for those there are.
_LEASE_HORIZON = 0.25
_FIRST_LEASES = 16


def batch_seconds(target: Target, shortest: float) -> float:
    """How long a batch should run: longer behind a deep backlog, where messages cost more than waiting for them."""
    work = len(target.backlog) * (target.mean_seconds or 0.0) / max(1, len(target.leases))
    return max(shortest, min(_LONGEST_BATCH, _PART_OF_BACKLOG * work))


def pump(target: Target, shortest: float, depth: int, send: Callable[[HeldLease, list[Call], float], None]) -> None:
    """Send as much of the backlog as the leases can use; ``send`` takes lease, calls, and the length of a batch.

    Args:
        shortest: seconds a batch should run at least.
        depth: batches that may be on their way to one slice.
    """
    target.crowded = False
    seconds = batch_seconds(target, shortest)
    while target.backlog:
        if target.backlog[0].phase is not Phase.BACKLOG:  # cancelled, or run by a thread that waits for it
            target.backlog.popleft()
            continue
        lease = _freest(target, seconds, depth)
        target.crowded = lease is None
        if lease is None:
            return
        calls = _next_batch(target, lease, seconds)
        if not calls:
            return
        send(lease, calls, seconds)


def _freest(target: Target, seconds: float, depth: int) -> HeldLease | None:
    """The lease with the least on it that can take a batch; of equals, one where the first call's arguments are."""
    best = None
    for lease in target.leases.values():
        fewer = best is None or len(lease.in_flight) < len(best.in_flight)
        if fewer and _takes(target, lease, seconds, depth):
            best = lease
    if best is None or len(target.leases) < 2 or not target.backlog[0].slots:
        return best
    home = home_of(target.backlog[0])
    if home is None or best.node == home:
        return best
    there = (lease for lease in target.leases.values() if lease.node == home)
    load = len(best.in_flight)
    return next((x for x in there if len(x.in_flight) == load and _takes(target, x, seconds, depth)), best)


def _takes(target: Target, lease: HeldLease, seconds: float, depth: int) -> bool:
    """Whether a lease can take a batch."""
    if lease.recalled or lease.broken or lease.exclusive or lease.open_batches >= depth:
        return False
    if target.backlog[0].alone and lease.in_flight:
        return False
    return _room(target, lease, seconds) > 0


def _room(target: Target, lease: HeldLease, seconds: float) -> int:
    """How many more calls a slice should be given."""
    if target.actor:
        return _MOST_ITEMS if target.constructed else 0
    if target.mean_seconds is None:
        return DEPTH - len(lease.in_flight)
    ahead = max(DEPTH, int(_BATCHES_AHEAD * seconds / max(target.mean_seconds, 1e-6)))
    return min(ahead, DEPTH * _MOST_ITEMS) - len(lease.in_flight)


def _next_batch(target: Target, lease: HeldLease, seconds: float) -> list[Call]:
    """The first calls of the backlog that travel together: a fair part of it, about ``seconds`` of work."""
    if target.actor:
        size = _MOST_ITEMS
    elif target.mean_seconds is None:
        size = 1
    else:
        size = max(1, int(seconds / max(target.mean_seconds, 1e-6)))
        size = min(size, math.ceil(len(target.backlog) / max(1, len(target.leases))))
    size = min(size, _MOST_SLOTS if target.large_results else _MOST_ITEMS, _room(target, lease, seconds))
    calls: list[Call] = []
    backlog, method = target.backlog, target.backlog[0].method
    while backlog and len(calls) < size:
        call = backlog[0]
        if call.phase is not Phase.BACKLOG:  # cancelled, or run by a thread that waits for it
            backlog.popleft()
            continue
        if calls and (call.alone or call.streams or calls[0].streams or call.method != method):
            break
        calls.append(backlog.popleft())
        method = call.method
        if call.alone:
            lease.exclusive = True
            break
    return calls


def leases_wanted(target: Target) -> int:
    """How many leases the backlog can use, those held included. Grows by doubling: each grant asks again."""
    queued = sum(max(0, len(lease.in_flight) - 1) for lease in target.leases.values())
    waiting = len(target.backlog) + queued  # what waits behind a running call may move to a new lease
    busy = sum(1 for lease in target.leases.values() if not lease.idle and not lease.recalled)
    if not waiting:
        return busy + target.streams_waiting
    most = min(waiting + busy, max(_FIRST_LEASES, 2 * busy))
    if target.mean_seconds is None:
        return most
    now = time.monotonic()
    silent = max((now - lease.last_heard for lease in target.leases.values() if lease.in_flight), default=0.0)
    # What runs now may take longer than what ran before.
    work = waiting * max(target.mean_seconds, silent if silent > _LEASE_HORIZON else 0.0) / _LEASE_HORIZON
    return min(most, max(1, busy + math.ceil(work) if work > 1 else busy or 1))


def send_batch(lease: HeldLease, calls: list[Call], patience: float) -> list[Any]:
    """Make the actor call of a batch; returns its references, the header first."""
    target = lease.target
    slots = min(len(calls), _MOST_SLOTS) if target.large_results else 0
    message, values = batch_message(lease, calls, slots, patience)
    if not lease.in_flight:
        lease.last_heard = time.monotonic()
    for call in calls:
        if call.trace is not None:
            call.trace.sent(call.trace.since)
        call.phase, call.lease = Phase.SENT, lease.id
        lease.in_flight[call.number] = call
    lease.open_batches += 1
    method = lease.handle.submit if target.asynchronous else lease.handle.run
    if not slots:
        return [method.remote(message, *values)]
    refs: list[Any] = method.options(num_returns=1 + slots).remote(message, *values)
    return refs


def batch_message(lease: HeldLease, calls: list[Call], slots: int, patience: float) -> tuple[bytes, list[Any]]:
    """The bytes of a batch, and the Ray arguments that go with them."""
    target = lease.target
    items: list[tuple[Any, ...]] = []
    held: list[Any] = []
    values: list[Any] = []
    for call in calls:
        if not call.slots and not call.held and call.kept is None:
            items.append((call.number, call.payload))
            continue
        filled: list[Any] = []
        for slot in map(sent_as, call.slots):
            if not isinstance(slot, bytes):
                values.append(slot)
                slot = len(values) - 1
            filled.append(slot)
        item = (call.number, call.payload, tuple(filled), (len(held), len(call.held)))
        held.extend(call.held)
        found = call.kept.references if call.kept is not None else ()
        items.append((*item, (len(held), len(found))) if found else item)
        held.extend(found)
    blob = _function_blob(lease, values)
    if held:
        values.append(held)  # a list: Ray resolves references at the top level only
    batch: tuple[Any, ...] = (
        tuple(lease.token),
        target.function.key,
        blob,
        calls[0].method,
        target.timeout,
        items,
        patience,
        slots,
        len(values) - 1 if held else -1,
        calls[0].streams,
    )
    traces = {call.number: call.trace.header for call in calls if call.trace is not None}
    if target.request.checkpoint_place or lease.member is not None or traces:
        batch = (*batch, target.request.checkpoint_place or "", lease.member and tuple(lease.member), traces)
    return pickle.dumps(batch, protocol=5), values


def _function_blob(lease: HeldLease, values: list[Any]) -> bytes | int | None:
    """The function, if the slice does not have it: its bytes, or which argument holds them."""
    target = lease.target
    if target.function.key in lease.functions:
        return None
    lease.functions.add(target.function.key)
    if len(target.function.data) <= LARGE and not target.function.held:
        return target.function.data
    if target.function_ref is None:
        target.function_ref = ray.put((target.function.data, list(target.function.held)))
    values.append(target.function_ref)
    return len(values) - 1


def mark_idle(lease: HeldLease) -> None:
    """Note when a lease ran out of calls."""
    if not lease.in_flight:
        lease.exclusive = False
        lease.idle_since = time.monotonic()
