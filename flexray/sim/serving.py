"""Serving: the calls of a trace, and replicas on slices that the production core places.

First the core places the replicas, under the virtual clock, beside the requests of the
scenario (a background load) if it has any; a replica holds its lease to the end. Then
each call goes to the replica of its model with the fewest calls, waiting or in work, per
nominal speed of its card (join the shortest queue; among equals the first), which
serves it as ``replicas.py`` says. The router sees how many calls a replica has, not how
long their answers will be. The number of replicas is fixed: no autoscaling.

A trace names no models. With several, call and model are matched by a hash of the
call's number, so that each gets an equal part of the bursts, more or less.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from functools import partial

from flexray.errors import UsageError
from flexray.model.amounts import WHOLE, format_memory, share_as_float, share_of
from flexray.model.devices import Device
from flexray.model.lease import RequestId
from flexray.model.request import Request
from flexray.sim.agenda import ARRIVAL, COMPLETION, HAPPENING, Agenda
from flexray.sim.clock import Simulation
from flexray.sim.jobs import Costs, Course, Job, JobState, Ticks
from flexray.sim.replicas import Call, Replica
from flexray.sim.scenario import config_of, inventory_of, jobs_of
from flexray.sim.schema import Scenario
from flexray.sim.serving_result import Fleet, Seat, Served, ServingResult, collect_serving

_FOREVER = 1e9
"""Seconds that a replica would stay: longer than any trace."""


def serve(scenario: Scenario, calls: Sequence[Call], fleet: Fleet, policy: str | None = None) -> ServingResult:
    """Place the replicas and serve the calls. Raises UsageError for what cannot be meant."""
    _refuse(scenario, calls, fleet)
    devices = {device.id: device for node in scenario.nodes for device in inventory_of(node).devices}
    request, count = _request(list(devices.values()), fleet)
    until = max(call.at for call in calls)
    simulation = _placed(scenario, request, count, fleet, policy, until)
    seats = [
        _seat(course, number, devices, fleet)
        for number in range(count)
        if (course := simulation.courses[_name(number)]).attempts
    ]
    if not seats:
        raise UsageError("no replica had a place before the last call came; ask for a smaller share, or add cards")
    front = _Front(fleet.models, seats)
    front.run(calls)
    own = {_name(number) for number in range(count)}
    states = Counter(course.state for name, course in simulation.courses.items() if name not in own)
    background = {state: states[state] for state in JobState}
    served = Served(calls, seats, front.begun, front.done, front.now)
    return collect_serving(simulation.config.policy, fleet, count, len(devices), served, background)


# -- placing -------------------------------------------------------------------------------


def _refuse(scenario: Scenario, calls: Sequence[Call], fleet: Fleet) -> None:
    if not calls:
        raise UsageError("there are no calls to serve")
    if fleet.models < 1 or not 0 < fleet.share <= WHOLE:
        raise UsageError("a replica has a share above 0 and at most 1 of a card, and there is at least one model")
    unused = [name for name in ("events", "slowdown", "until") if getattr(scenario, name)]
    if unused:
        raise UsageError(f"serving does not know {' and '.join(unused)} of a scenario; leave them out")
    if any(entry.id.split("/")[0] == "replica" for entry in scenario.requests):
        raise UsageError("a request is called replica, as the replicas are; give it another name")


def _name(number: int) -> RequestId:
    return RequestId(f"replica/{number}")


def _request(devices: list[Device], fleet: Fleet) -> tuple[Request, int]:
    """What each replica asks for, and how many there are. It may go to the types whose share of memory holds the
    model and a call."""
    share = share_as_float(fleet.share)
    kinds = {device.type.name: device.type for device in devices}
    fitting = sorted(name for name, kind in kinds.items() if fleet.service.room(share_of(kind.memory, fleet.share)))
    if not fitting:
        largest = max((share_of(kind.memory, fleet.share) for kind in kinds.values()), default=0)
        raise UsageError(
            f"a replica of {share:g} of a card has at most {format_memory(largest)} here; the model needs "
            f"{format_memory(fleet.service.memory)} and {format_memory(fleet.service.call_memory)} for a call. "
            f"Give a larger share, or a smaller model"
        )
    fit = sum(device.type.name in fitting for device in devices) * (WHOLE // fleet.share)
    count = fit if fleet.replicas is None else fleet.replicas
    if count < fleet.models:
        raise UsageError(f"{count} replicas of {share:g} of a card for {fleet.models} models: each needs at least one")
    return Request(share=fleet.share, types=tuple(fitting)), count


def _placed(
    scenario: Scenario, request: Request, count: int, fleet: Fleet, policy: str | None, until: Ticks
) -> Simulation:
    """The background and the replicas, as the core placed them until the last call came."""
    replicas = [
        Job(_name(i), 0, f"model{i % fleet.models}", request, (("*", _FOREVER),), reusable=False) for i in range(count)
    ]
    simulation = Simulation(
        config_of(scenario, policy),
        [inventory_of(node) for node in scenario.nodes],
        [*jobs_of(scenario), *replicas],
        costs=Costs(**scenario.costs.model_dump()),
    )
    simulation.run(until)
    return simulation


def _seat(course: Course, number: int, devices: dict[str, Device], fleet: Fleet) -> Seat:
    attempt = course.attempts[-1]
    place, (card,) = attempt.lease.placement, attempt.lease.placement.devices
    kind = devices[card].type
    replica = Replica(place.share / WHOLE, kind.speed, fleet.service.room(place.memory), fleet.service)
    return Seat(number % fleet.models, card, kind.name, place.share, attempt.start, replica)


# -- serving -------------------------------------------------------------------------------


class _Front:
    """Sends calls to replicas under the virtual clock: what replicas have to do comes first, then arrivals in order."""

    def __init__(self, models: int, seats: Sequence[Seat]) -> None:
        self.seats = seats
        self.now: Ticks = 0
        self.begun: dict[int, Ticks] = {}
        self.done: dict[int, Ticks] = {}
        self._models = models
        self._up: list[list[Seat]] = [[] for _ in range(models)]
        self._early: list[list[Call]] = [[] for _ in range(models)]
        self._agenda = Agenda()

    def run(self, calls: Sequence[Call]) -> None:
        """Until every call that has a replica is done."""
        for seat in self.seats:
            self._agenda.put(seat.start, HAPPENING, partial(self._open, seat))
        for call in calls:
            self._agenda.put(call.at, ARRIVAL, partial(self._route, call))
        while (time := self._agenda.next_time()) is not None:
            self.now = time
            while entry := self._agenda.take(time):
                entry.act()

    def _open(self, seat: Seat) -> None:
        """A replica is there. Calls that came before its model had any go to it, in the order they came."""
        self._up[seat.model].append(seat)
        early, self._early[seat.model] = self._early[seat.model], []
        for call in early:
            self._route(call)

    def _route(self, call: Call) -> None:
        model = model_of(call.number, self._models)
        seats = self._up[model]
        if not seats:
            self._early[model].append(call)
            return
        seat = min(seats, key=lambda s: (s.replica.calls + 1) / s.replica.speed)  # the first of equals
        for one in seat.replica.add(call, self.now):
            self.begun[one.number] = self.now
        self._plan(seat)

    def _act(self, seat: Seat) -> None:
        seat.entry = None
        done, begun = seat.replica.act(self.now)
        for one in done:
            self.done[one.number] = self.now
        for one in begun:
            self.begun[one.number] = self.now
        self._plan(seat)

    def _plan(self, seat: Seat) -> None:
        if seat.entry is not None:
            self._agenda.drop(seat.entry)
        due = seat.replica.due
        seat.entry = None if due is None else self._agenda.put(due, COMPLETION, lambda: self._act(seat))


def model_of(call: int, models: int) -> int:
    """Which of several models a call is for."""
    if models == 1:
        return 0
    return int.from_bytes(hashlib.blake2b(str(call).encode(), digest_size=8).digest(), "big") % models
