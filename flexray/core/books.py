"""Exact books: what each device and each node has, holds and could free.

One row per device (or node), two kinds of amount per row: share and memory of a device,
cores and memory of a node. Everything is an integer. For every row and kind

    free + held = total,   0 <= free,   0 <= pledged <= free + idle + stopping + draining

where *held* is what slices whose process may exist take, and idle, stopping and
draining are parts of *held* that can be had: warm slices, slices being stopped, slices
whose lease was recalled. *pledged* is promised to slices that start once room is free.

A device that is cut into fixed parts also has a row of places, each held by one slice at most. The same is
booked of them, as bits of a number (see ``fixed_parts.py``); of places promised no two slices share one.
"""

from __future__ import annotations

import hashlib
from typing import NamedTuple

from flexray.errors import InternalError

Amounts = tuple[int, int]
PARTS = ("idle", "stopping", "draining", "pledged")


def tie_rank(name: str) -> int:
    """Fixed, name-independent order for ties: a keyed hash of the id, 63 bits."""
    digest = hashlib.blake2b(name.encode(), digest_size=8, key=b"flexray tie order").digest()
    return int.from_bytes(digest, "big") >> 1


class Room(NamedTuple):
    """What is left of one device of a kind (see ``inhabitants.py``): reachable, and of that what disturbs nobody."""

    kind: int
    share: int
    memory: int
    quiet_share: int
    quiet_memory: int
    places: int = 0
    quiet_places: int = 0


class PlaceRow:
    """The places of a device, as bits: all, held, and what the parts of held and of promised are."""

    __slots__ = ("all", "draining", "held", "idle", "pledged", "stopping")

    def __init__(self, places: int) -> None:
        self.all = places
        self.held = self.idle = self.stopping = self.draining = self.pledged = 0

    @property
    def free(self) -> int:
        """Held by no slice, promised or not."""
        return self.all & ~self.held

    def uncontested(self) -> int:
        """Free or coming free without stopping an idle slice, and promised to nobody."""
        return (self.free | self.stopping | self.draining) & ~self.pledged

    def reachable(self) -> int:
        """Free, or coming free, and promised to nobody."""
        return (self.free | self.stopping | self.draining | self.idle) & ~self.pledged

    def spare(self) -> int:
        """Free, or held by idle slices, and promised to nobody."""
        return (self.free | self.idle) & ~self.pledged


class Row:
    """The amounts of one device or node. Changed by ``Books`` only."""

    __slots__ = ("draining", "free", "idle", "places", "pledged", "rank", "seen", "stopping", "total")

    def __init__(self, name: str, total: Amounts, places: int = 0) -> None:
        self.rank = tie_rank(name)
        self.total = total
        self.free = total
        self.idle: Amounts = (0, 0)
        self.stopping: Amounts = (0, 0)
        self.draining: Amounts = (0, 0)
        self.pledged: Amounts = (0, 0)
        #: of a device that is cut into parts which have their place.
        self.places = PlaceRow(places) if places else None
        #: the room as it was last asked for, while it holds.
        self.seen: Room | None = None

    def changed(self) -> None:
        """Some amount has changed: what was derived from them is stale."""
        self.seen = None

    def uncontested(self) -> Amounts:
        """What is free or coming free without stopping an idle slice, and promised to nobody."""
        free, stopping, draining, pledged = self.free, self.stopping, self.draining, self.pledged
        return (
            free[0] + stopping[0] + draining[0] - pledged[0],
            free[1] + stopping[1] + draining[1] - pledged[1],
        )

    def reachable(self) -> Amounts:
        """What a new request may count on: free, or coming free, and promised to nobody."""
        quiet, idle = self.uncontested(), self.idle
        return (quiet[0] + idle[0], quiet[1] + idle[1])

    def spare(self, need: Amounts) -> bool:
        """Whether so much is free, or held by idle slices, and promised to nobody."""
        free, idle, pledged = self.free, self.idle, self.pledged
        return free[0] + idle[0] - pledged[0] >= need[0] and free[1] + idle[1] - pledged[1] >= need[1]

    def room(self, kind: int) -> Room:
        """Both, as a room of a device of a kind; nothing where more is promised than may be counted on."""
        room = self.seen
        if room is None:
            (quiet_share, quiet_memory), (idle_share, idle_memory) = self.uncontested(), self.idle
            share, memory = quiet_share + idle_share, quiet_memory + idle_memory
            if share < 0 or memory < 0:
                share, memory = max(0, share), max(0, memory)
            room = Room(kind, share, memory, min(share, quiet_share), quiet_memory)
            if (places := self.places) is not None:
                room = room._replace(places=places.reachable(), quiet_places=places.uncontested())
            self.seen = room
        return room

    @property
    def untouched(self) -> bool:
        """Whether nothing of it is held or promised."""
        return self.free == self.total and not any(self.pledged)


class Books:
    """Rows of things with an id, in the order they came."""

    def __init__(self) -> None:
        self.rows: dict[str, Row] = {}

    def __len__(self) -> int:
        return len(self.rows)

    def add(self, name: str, total: Amounts, places: int = 0) -> None:
        """A new row, entirely free; ``places``: of a device that is cut into fixed parts, as bits."""
        if name in self.rows:
            raise InternalError(f"{name} is already in the books")
        self.rows[name] = Row(name, total, places)

    def cut(self, name: str, places: int) -> None:
        """Other places for a device of which nothing is held or promised."""
        row = self.rows[name]
        if not row.untouched:
            raise InternalError(f"{name} is cut anew while something is held there")
        row.places = PlaceRow(places) if places else None
        row.changed()

    def resize(self, name: str, total: Amounts) -> None:
        """New totals for a row. What is held stays held; a total that is too small for it is not taken over."""
        row = self.rows[name]
        free = (row.free[0] + total[0] - row.total[0], row.free[1] + total[1] - row.total[1])
        coming = [f + i + s + d for f, i, s, d in zip(free, row.idle, row.stopping, row.draining, strict=True)]
        if min(free) >= 0 and all(c >= p for c, p in zip(coming, row.pledged, strict=True)):
            row.free, row.total = free, total
        row.changed()  # whatever came of it: the kind may be another

    def remove(self, name: str) -> None:
        """Drop a row that nothing holds or is promised."""
        row = self.rows[name]
        if not row.untouched:
            raise InternalError(f"{name} leaves the books while something is held there")
        del self.rows[name]

    def hold(self, name: str, amounts: Amounts, span: int = 0) -> None:
        """Take amounts, and places, out of what is free. Raises InternalError if they are not there."""
        row = self.rows[name]
        left = (row.free[0] - amounts[0], row.free[1] - amounts[1])
        if left[0] < 0 or left[1] < 0:
            raise InternalError(f"{name}: cannot hold {list(amounts)} of {list(row.free)} free")
        if span:
            _set_places(name, row, "held", span, +1)
        row.free = left
        row.changed()

    def give_back(self, name: str, amounts: Amounts, span: int = 0) -> None:
        """Return held amounts, and places, to what is free."""
        row = self.rows[name]
        left = (row.free[0] + amounts[0], row.free[1] + amounts[1])
        if left[0] > row.total[0] or left[1] > row.total[1]:
            raise InternalError(f"{name}: gave back more than it has ({list(left)} of {list(row.total)})")
        if span:
            _set_places(name, row, "held", span, -1)
        row.free = left
        row.changed()

    def mark(self, part: str, name: str, amounts: Amounts, sign: int, span: int = 0) -> None:
        """Add (+1) or take away (-1) amounts, and places, of ``idle``, ``stopping``, ``draining`` or ``pledged``."""
        row = self.rows[name]
        before: Amounts = getattr(row, part)
        left = (before[0] + sign * amounts[0], before[1] + sign * amounts[1])
        if left[0] < 0 or left[1] < 0:
            raise InternalError(f"{name}: {part} would fall below zero")
        if span:
            _set_places(name, row, part, span, sign)
        setattr(row, part, left)
        row.changed()


def _set_places(name: str, row: Row, part: str, span: int, sign: int) -> None:
    places = row.places
    before = getattr(places, part) if places is not None else 0
    if places is None or span & ~places.all or (before & span) != (0 if sign > 0 else span):
        raise InternalError(f"{name}: places {span:b} cannot be {'added to' if sign > 0 else 'taken from'} {part}")
    setattr(places, part, before ^ span)
