"""Devices that are cut into fixed parts (MIG instances, virtual NPUs): what is granted of them, and where.

    asked 0.5 of an A100 in MIG  ->  granted 4g.20gb: 571 thousandths, 20480 MiB, places 0 to 3

The places of a device stand in a row. Some of them are a number here whose bits are these places, so that "free",
"needed" and "in the way" are one operation each. A part takes neighbours, and may begin only at some of them:
a span is the bits of one way to put it. Of several ways those are taken, in this order, which

    wait for the least      fewest places whose lease has yet to end, then fewest of idle or stopping slices
    leave most              as many as possible of the largest size of part still fit, then of the next smaller one, ...
    are last                in the row

Parts of which only amounts count have no span.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

from flexray.model.amounts import WHOLE, MemoryMiB, Share
from flexray.model.lease import Placement
from flexray.model.partition import Profile, smallest_profile
from flexray.model.request import Request, memory_needed

Profiles = tuple[Profile, ...]
Spans = tuple[int, ...]


class Grant(NamedTuple):
    """What a request takes of each device of a kind.

    Attributes:
        part: name of the size of part, or "" where the device is not cut, or is taken whole.
        spans: the ways to put it, first place first; () where only amounts count.
    """

    share: Share
    memory: MemoryMiB
    part: str = ""
    spans: Spans = ()

    def fits(self, places: int) -> bool:
        """Whether some places have room for it."""
        return not self.spans or any(span & places == span for span in self.spans)

    def many(self, share: int, memory: int, places: int) -> int:
        """How many of it fit in what there is of a device."""
        times = min(share // self.share, memory // self.memory if self.memory else share)
        return min(times, how_many(self.spans, places)) if self.spans else times


def granted(request: Request, memory: int, profiles: Profiles) -> Grant | None:
    """What a request gets of a device with so much memory (MiB) and such parts; None where it never fits.

    Memory that was not asked for, but follows from the share, makes no part too small.
    """
    asked = memory_needed(request, memory)
    if asked > memory:
        return None
    if not profiles:
        return Grant(request.share, asked)
    part = smallest_profile(profiles, request.share, request.memory or 0)
    if part is not None:
        return Grant(part.share, part.memory, part.name, spans_of(part))
    if request.share < WHOLE or smallest_profile(profiles, WHOLE, 0) is not None:
        return None
    row = whole_row(profiles)
    return Grant(request.share, asked, "", (row,) if row else ())


def lacks_memory(request: Request, profiles: Profiles) -> bool:
    """Of a request for which no part is large enough: whether it is for want of memory alone."""
    return smallest_profile(profiles, request.share, 0) is not None


def spans_of(part: Profile) -> Spans:
    """The ways to put a part, first place first."""
    return tuple([((1 << part.width) - 1) << start for start in part.starts]) if part.width else ()


@lru_cache(maxsize=256)
def whole_row(profiles: Profiles) -> int:
    """All places of a device with such parts; 0 where only amounts count."""
    row = 0
    for part in profiles:
        for span in spans_of(part):
            row |= span
    return row


def span_at(profiles: Profiles, place: Placement) -> int:
    """The places that a placement takes of each of its devices, which have such parts."""
    if place.start < 0:
        return 0
    if not place.profile:
        return whole_row(profiles)
    return next((((1 << part.width) - 1) << place.start for part in profiles if part.name == place.profile), 0)


@lru_cache(maxsize=65536)
def how_many(spans: Spans, places: int) -> int:
    """How many parts fit side by side; taking the first each time is best, since all are equally wide."""
    found = 0
    for span in spans:
        if span & places == span:
            places &= ~span
            found += 1
    return found


@lru_cache(maxsize=65536)
def left_over(profiles: Profiles, places: int) -> tuple[int, ...]:
    """How many parts of each size some places have room for, largest first."""
    ordered = sorted(profiles, key=lambda part: (-part.width, -part.share, -part.memory, part.name))
    return tuple([how_many(spans_of(part), places) for part in ordered])


class Places(NamedTuple):
    """The places of a device that may be had, and those of them that are not free yet.

    Attributes:
        held: whose lease has yet to end.
        warm: of slices that are idle, or stop.
    """

    all: int
    held: int = 0
    warm: int = 0


@lru_cache(maxsize=65536)
def best_span(profiles: Profiles, spans: Spans, there: Places) -> int:
    """The places that a part is best put at; 0 where it fits nowhere, or only amounts count."""

    def order(span: int) -> tuple[int, int, tuple[int, ...], int]:
        waits, stops = (span & there.held).bit_count(), (span & there.warm).bit_count()
        return -waits, -stops, left_over(profiles, there.all & ~span), span

    return max((span for span in spans if span & there.all == span), key=order, default=0)


def best_in_room(profiles: Profiles, spans: Spans, places: int, quiet: int) -> int:
    """The same in a room of which is only known what disturbs nobody."""
    return best_span(profiles, spans, Places(places, warm=places & ~quiet))


def put(node: str, devices: tuple[str, ...], grant: Grant, span: int) -> Placement:
    """A placement of what is granted; ``span``: its places on each device."""
    first = (span & -span).bit_length() - 1  # -1 where there is none
    return Placement(node, devices, grant.share, grant.memory, profile=grant.part, start=first)
