"""Many models, few devices: which replica answers, what is loaded, parked, stopped and evicted. No clock, no Ray.

    LOADING ──> READY <──> parking, parked, unparking
       └──────────┴────────────┴──> gone

A request takes the ready replica with the fewest requests. Where none has room, a parked one is brought back, or one is
loaded, up to the most that its model may have. One that idles is parked or stopped. Where a load finds no room
in the pool, the least valuable idle replicas go: those whose absence would cost the fewest seconds of waiting.
"""

from __future__ import annotations

import fnmatch
import itertools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import NamedTuple

from flexray.model.devices import Family
from flexray.model.request import Request
from flexray.serving.declared import Model

#: How fast past requests lose weight in what a model is worth, in seconds until they count half.
_HALF_LIFE = 300.0
#: What a load is taken to last before one was measured.
_LOAD_SECONDS = 10.0
#: A load for which room was made is given so many seconds to take it before more is made.
_ROOM_SECONDS = 5.0


class State(str, Enum):
    """Where a replica is in its life."""

    LOADING = "loading"
    READY = "ready"
    PARKING = "parking"
    PARKED = "parked"
    UNPARKING = "unparking"


@dataclass(eq=False)
class Copy:
    """One replica of a model. ``share`` (a fraction) and ``memory`` (MiB) are what it holds of its device."""

    number: int
    model: Model
    since: float
    state: State = State.LOADING
    in_flight: int = 0
    used_at: float = 0.0
    device: str = ""
    share: float = 0.0
    memory: int = 0
    #: it has no slice yet; a load that has one goes on, whoever waits for it.
    in_line: bool = True
    #: it has to leave its slice: it finishes what runs.
    leaving: bool = False
    #: when room was last made for it.
    room_at: float = -math.inf


@dataclass
class Record:
    """What is known of a model: for people, and to tell what it is worth. ``*_seconds`` are of the last time."""

    requests: int = 0
    waiting: int = 0
    late: int = 0
    cold_starts: int = 0
    cold_seconds: float | None = None
    unparked: int = 0
    unpark_seconds: float | None = None
    evicted: int = 0
    heat: float = 0.0
    heated_at: float = 0.0
    #: how many loads have failed, why the last one did, and when the next may be tried.
    failures: int = 0
    failure: str = ""
    again_at: float = -math.inf

    def heat_at(self, now: float) -> float:
        """Requests so far, the older the less they count."""
        return self.heat * float(0.5 ** ((now - self.heated_at) / _HALF_LIFE))


class Do(str, Enum):
    """What is to be done with a replica."""

    LOAD = "load"
    PARK = "park"
    UNPARK = "unpark"
    STOP = "stop"


class Room(NamedTuple):
    """What is free of a device that takes work: a fraction of its compute, and MiB."""

    device: str
    type: str
    family: str
    share: float
    memory: int
    total_memory: int


@dataclass
class Store:
    """The models of an endpoint and their replicas."""

    models: dict[str, Model]
    copies: list[Copy] = field(default_factory=list)
    records: dict[str, Record] = field(default_factory=dict)
    _numbers: itertools.count[int] = field(default_factory=lambda: itertools.count(1))

    def __post_init__(self) -> None:
        self.records = {name: Record() for name in self.models}

    def arrived(self, name: str, now: float) -> None:
        """A request has come for a model."""
        record = self.records[name]
        record.requests += 1
        record.heat, record.heated_at = record.heat_at(now) + 1, now

    def choose(self, name: str) -> Copy | None:
        """The replica that a request should go to now; None while there is none with room."""
        most = self.models[name].max_ongoing_requests
        able = [c for c in self._of(name, State.READY) if not c.leaving and c.in_flight < most]
        return min(able, key=lambda c: (c.in_flight, c.number), default=None)

    def has(self, name: str) -> bool:
        """Whether there is a replica of a model, or one is on its way."""
        return bool(self._of(name))

    def next_steps(self, now: float) -> list[tuple[Do, Copy]]:
        """What is to be done now. Copies that are to be loaded are in the books from here on."""
        steps: list[tuple[Do, Copy]] = []
        for name, model in self.models.items():
            steps += self._more(model, self.records[name], now)
            steps += self._less(model, self.records[name], now)
        return steps

    def _more(self, model: Model, record: Record, now: float) -> Iterable[tuple[Do, Copy]]:
        mine = [c for c in self._of(model.name) if not c.leaving]
        able = [c for c in mine if c.state in (State.READY, State.LOADING, State.UNPARKING)]
        busy = sum(c.in_flight for c in mine) + record.waiting
        wanted = min(model.most, max(model.least, math.ceil(busy / model.max_ongoing_requests)))
        parked = [c for c in mine if c.state is State.PARKED]
        for _ in range(wanted - len(able)):
            if parked:
                copy = parked.pop(0)
                copy.state, copy.since = State.UNPARKING, now
                yield Do.UNPARK, copy
            elif now >= record.again_at and len(mine) < model.most:
                copy = Copy(next(self._numbers), model, now)
                mine.append(copy)
                self.copies.append(copy)
                yield Do.LOAD, copy

    def _less(self, model: Model, record: Record, now: float) -> Iterable[tuple[Do, Copy]]:
        ready = [c for c in self._of(model.name, State.READY) if not c.leaving]
        spare = len(ready) - model.least
        idle = [c for c in ready if not c.in_flight and now - c.used_at >= model.idle_seconds]
        for copy in sorted(idle, key=lambda c: (c.used_at, c.number))[: max(0, spare)] if not record.waiting else ():
            yield (Do.PARK if model.parked is not None else Do.STOP), copy
        for copy in self._of(model.name):
            if copy.leaving and not copy.in_flight and copy.state in (State.READY, State.PARKED):
                yield Do.STOP, copy
        loading = self._of(model.name, State.LOADING)
        for copy in loading[max(0, model.least - len(ready)) :] if not record.waiting else ():
            if copy.in_line and now - copy.since > model.wait_seconds:  # nobody waits for it any more
                yield Do.STOP, copy

    def gone(self, copy: Copy) -> None:
        """A replica has ended, or is about to."""
        if copy in self.copies:
            self.copies.remove(copy)

    def failed(self, copy: Copy, why: str, now: float) -> None:
        """A replica could not be loaded; the next try waits as long as this one took, within limits."""
        record = self.records[copy.model.name]
        record.failures += 1
        record.failure, record.again_at = why, now + min(30.0, max(1.0, now - copy.since))
        self.gone(copy)

    def loaded(self, copy: Copy, seconds: float, now: float) -> None:
        """A replica is there, so many seconds after it was asked for."""
        record = self.records[copy.model.name]
        record.cold_starts, record.cold_seconds, record.failure = record.cold_starts + 1, seconds, ""
        copy.state, copy.used_at = State.READY, now

    def unparked(self, copy: Copy, seconds: float, now: float) -> None:
        """A parked replica is back."""
        record = self.records[copy.model.name]
        record.unparked, record.unpark_seconds = record.unparked + 1, seconds
        copy.state, copy.used_at = State.READY, now

    # -- room ----------------------------------------------------------------------------------

    def victims(self, copy: Copy, rooms: Sequence[Room], now: float) -> list[Copy]:
        """The idle replicas to stop so that a load fits somewhere: those that are worth least; [] if none help."""
        if now - copy.room_at < _ROOM_SECONDS:
            return []
        evictable = [c for c in self._evictable(now) if c is not copy and c.model is not copy.model]
        found = [
            self._on_one(copy.model, room, [c for c in evictable if c.device == room.device], now) for room in rooms
        ]
        possible = [chosen for chosen in found if chosen]
        best = min(possible, key=lambda some: (sum(self.worth(c, now) for c in some), len(some)), default=[])
        if best:
            copy.room_at = now
        for victim in best:
            self.records[victim.model.name].evicted += 1
        return best

    def beside(self, copy: Copy) -> list[Copy]:
        """The replicas on its device that may be parked soon, so that one that comes back has room again."""
        soon = (State.READY, State.PARKING)
        there = [c for c in self.copies if c.device == copy.device and c is not copy and c.state in soon]
        return [c for c in there if c.model.parked is not None]

    def parks_for(self, copy: Copy, now: float) -> Copy | None:
        """The idle one of these that is worth least; None while all are busy."""
        there = self.beside(copy)
        return next((c for c in self._evictable(now) if c in there and c.state is State.READY), None)

    def worth(self, copy: Copy, now: float) -> float:
        """Seconds of waiting that its absence costs, in so far as past requests tell."""
        record = self.records[copy.model.name]
        return record.heat_at(now) * (record.cold_seconds or _LOAD_SECONDS)

    def _evictable(self, now: float) -> list[Copy]:
        kept = {name: model.least for name, model in self.models.items()}
        found = []
        for copy in sorted(self.copies, key=lambda c: (-c.in_flight, c.number)):
            if copy.state is State.PARKED:
                found.append(copy)
            elif copy.state is State.READY:
                name = copy.model.name
                kept[name] -= 1
                if kept[name] < 0 and not copy.in_flight and not self.records[name].waiting:
                    found.append(copy)
        return sorted(found, key=lambda c: (self.worth(c, now), c.number))

    def _on_one(self, model: Model, room: Room, able: list[Copy], now: float) -> list[Copy]:
        """As few of these as make a model fit on their device, the least valuable first."""
        if not _allowed(model.request, room):
            return []
        share, memory = needs(model, room.total_memory)
        chosen: list[Copy] = []
        for copy in [None, *able]:
            chosen += [copy] if copy is not None else []
            if _fits(room, chosen, share, memory):
                break
        else:
            return []
        for copy in list(chosen):
            without = [c for c in chosen if c is not copy]
            if _fits(room, without, share, memory):
                chosen = without
        return chosen

    def _of(self, name: str, *states: State) -> list[Copy]:
        return [c for c in self.copies if c.model.name == name and (not states or c.state in states)]


def _allowed(request: Request, room: Room) -> bool:
    """Whether a device is of a kind that was asked for; CPUs stand in for others where there are none."""
    if request.devices != 1 or (request.family not in (Family.ANY, room.family) and room.family != Family.CPU):
        return False
    return any(fnmatch.fnmatchcase(room.type, pattern) for pattern in request.types or ("*",))


def needs(model: Model, total_memory: int) -> tuple[float, int]:
    """The share and MiB that a model takes of a device with so many MiB."""
    share = model.request.share / 1000
    memory = model.request.memory
    return share, int(memory) if memory is not None else int(share * total_memory)


def _fits(room: Room, freed: list[Copy], share: float, memory: int) -> bool:
    enough = room.share + sum(c.share for c in freed) >= share - 1e-6
    return enough and room.memory + sum(c.memory for c in freed) >= memory
