"""The output of a serving run, version 1, and how it is made. Times in seconds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from flexray.model.amounts import WHOLE, Share, share_as_float
from flexray.sim.agenda import Entry
from flexray.sim.jobs import JobState, Ticks, seconds
from flexray.sim.replicas import Call, Objective, Replica, Service
from flexray.sim.result import Distribution, Part, distribution


@dataclass(frozen=True, slots=True)
class Fleet:
    """What serves: ``replicas`` equal parts (``share`` thousandths) of cards, dealt to ``models`` in turn.

    ``replicas`` None means as many as the cards hold when they are empty.
    """

    share: Share = WHOLE
    replicas: int | None = None
    models: int = 1
    service: Service = field(default_factory=Service)
    objective: Objective = field(default_factory=Objective)


@dataclass(slots=True)
class Seat:
    """A replica in its place: which model's, on which card of which type, its thousandths, from when on.

    ``entry`` is what it has on the agenda.
    """

    model: int
    card: str
    kind: str
    share: int
    start: Ticks
    replica: Replica
    entry: Entry | None = None


@dataclass(frozen=True, slots=True)
class Served:
    """What a run was: its calls and replicas, when each call (by number) was begun and done, when it ended."""

    calls: Sequence[Call]
    seats: Sequence[Seat]
    begun: Mapping[int, Ticks]
    done: Mapping[int, Ticks]
    end: Ticks


class CardUse(Part):
    """A card that holds replicas."""

    card: str
    type: str
    replicas: int
    held: float
    """The part of it that they hold."""
    utilisation: float
    """What they used of it, from 0 to 1, over the run: prompts their share, decoding no more than it can use."""


class ServingResult(Part):
    """How many calls of a trace met the objective, on how many cards. Times in seconds."""

    version: Literal[1] = 1
    policy: str
    share: float
    """Of a card, for each replica."""
    models: int
    replicas: int
    """Asked for."""
    placed: int
    """Replicas that got a place before the last call came."""
    service: Service
    objective: Objective
    devices: int
    """Cards there are."""
    cards: int
    """Cards that hold a replica: what the next figures are per."""
    held: float
    """The parts of cards that replicas hold, together."""
    calls: int
    served: int
    met: int
    """Served within the objective."""
    met_percent: float
    met_per_card: float
    met_per_card_hour: float
    end: float
    """When the last call was done; hours are counted to here."""
    latency: Distribution
    """From a call's arrival to its last token."""
    wait: Distribution
    """From a call's arrival until its prompt is begun."""
    percentiles: dict[int, float]
    """Of the latency, each per cent from 1 to 100."""
    utilisation: float
    """Mean over the cards that hold a replica."""
    by_card: list[CardUse]
    background: dict[JobState, int]
    """What had become of the scenario's own requests when the last call came."""


def collect_serving(
    policy: str, fleet: Fleet, asked: int, devices: int, served: Served, background: Mapping[JobState, int]
) -> ServingResult:
    """The result of a run of which ``asked`` replicas and ``devices`` cards were part."""
    calls, seats = served.calls, served.seats
    latency = {c.number: seconds(served.done[c.number] - c.at) for c in calls if c.number in served.done}
    met = sum(c.number in latency and fleet.objective.met(latency[c.number], c.generated) for c in calls)
    span = max(seconds(served.end), 1e-6)
    cards = _cards(seats, span)
    ordered = sorted(latency.values())
    return ServingResult(
        policy=policy,
        share=share_as_float(fleet.share),
        models=fleet.models,
        replicas=asked,
        placed=len(seats),
        service=fleet.service,
        objective=fleet.objective,
        devices=devices,
        cards=len(cards),
        held=round(sum(seat.share for seat in seats) / WHOLE, 3),
        calls=len(calls),
        served=len(latency),
        met=met,
        met_percent=round(100 * met / len(calls), 4),
        met_per_card=round(met / len(cards), 4),
        met_per_card_hour=round(met / len(cards) / span * 3600, 4),
        end=seconds(served.end),
        latency=distribution(ordered),
        wait=distribution(seconds(served.begun[c.number] - c.at) for c in calls if c.number in latency),
        percentiles={p: ordered[-(-p * len(ordered) // 100) - 1] for p in range(1, 101) if ordered},
        utilisation=round(sum(card.utilisation for card in cards) / len(cards), 6),
        by_card=cards,
        background={state: count for state, count in background.items() if count},
    )


def _cards(seats: Sequence[Seat], span: float) -> list[CardUse]:
    """The cards that hold replicas, by id."""
    found: dict[str, list[Seat]] = {}
    for seat in seats:
        found.setdefault(seat.card, []).append(seat)
    return [
        CardUse(
            card=card,
            type=some[0].kind,
            replicas=len(some),
            held=sum(seat.share for seat in some) / WHOLE,
            utilisation=round(sum(seat.replica.card_seconds for seat in some) / span, 6),
        )
        for card, some in sorted(found.items())
    ]
