"""What may be taken back: leases, members that a gang can do without, and whole gangs.

A gang gives up members beyond those it needs one by one, the highest index first; the others only all together.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple, TypeVar

from flexray.core.gang_places import fits
from flexray.core.gangs import take_gang_back
from flexray.core.loads import total
from flexray.core.preempting import loses, preempt
from flexray.core.records import GangRecord, RequestRecord, SliceRecord
from flexray.core.state import State
from flexray.model.lifecycle import RecallReason, RequestState, SliceState

T = TypeVar("T")


class Victim(NamedTuple):
    """A lease that may be taken back, or a gang with those of its members that it needs.

    Attributes:
        lost: what that loses, in device-seconds of work.
        records: the slices that come free.
        request: who holds the lease; the first member of a gang.
        preemptible: whether its user allows it to be taken back for others of its queue.
        whole: the gang, if all of it goes.
    """

    lost: float
    records: tuple[SliceRecord, ...]
    request: RequestRecord
    preemptible: bool
    whole: GangRecord | None = None

    @property
    def charged(self) -> dict[str, tuple[int, int]]:
        """What comes free, for the books of its queue."""
        if self.whole is None:
            return self.request.charged or {}
        return total(m.charged for m in self.whole.running[: len(self.records)] if m.charged is not None)

    @property
    def order(self) -> tuple[float, float, int, str]:
        """Those that lose least come first; of a gang's members the last."""
        gang, record = self.request.gang, self.records[0]
        index = 0 if gang is None else [one.id for one in gang.members].index(self.request.id)
        return self.lost, -record.since, -index, record.id


def find_victims(state: State, now: float) -> list[Victim]:
    """Everything that may be taken back at this moment."""
    single = [victim for victim in (_single(state, r, now) for r in state.slices.by_id.values()) if victim]
    return [*single, *(victim for gang in state.gangs.values() for victim in _of_gang(state, gang, now))]


def _single(state: State, record: SliceRecord, now: float) -> Victim | None:
    request = state.holder_of(record)
    if request is None or request.slice != record.id or request.state is not RequestState.LEASED:
        return None
    held = record.state is SliceState.HELD and record.reusable and request.restartable and not record.draining
    if not held or request.lease in state.blocked or not record.placement.devices:
        return None
    if _is_young(state, request.leased_at, now):
        return None
    return Victim(_lost(request, record, now), (record,), request, request.id in state.preemptible)


def _of_gang(state: State, gang: GangRecord, now: float) -> Iterator[Victim]:
    found = _held(state, gang)
    if not found or not found[0][1].placement.devices or _is_young(state, gang.since, now):
        return
    for member, record in found[gang.needed :]:
        yield Victim(_lost(member, record, now), (record,), member, gang.preemptible)
    lost = sum(_lost(member, record, now) for member, record in found)
    needed = tuple([record for _, record in found[: gang.needed]])
    yield Victim(lost, needed, found[0][0], gang.preemptible, gang)


def spare_members(state: State, gang: GangRecord) -> list[tuple[RequestRecord, SliceRecord]]:
    """Members that a gang can do without, with their slices; none while losing one would cost all that was done."""
    found = _held(state, gang)
    return found[gang.needed :] if any(record.safe_at > gang.since for _, record in found) else []


def _held(state: State, gang: GangRecord) -> list[tuple[RequestRecord, SliceRecord]]:
    """The members of a gang that runs, with their slices; [] for one of which nothing may be taken back now."""
    if not gang.movable or gang.closing or gang.returning or not gang.runs:
        return []
    if any(m.state is RequestState.DRAINING or m.lease in state.blocked for m in gang.live):
        return []
    return [(member, record) for member in gang.running if (record := state.slice_of(member)) is not None]


def _is_young(state: State, since: float, now: float) -> bool:
    least = state.options.min_run_seconds
    if now - since < least:
        state.look_again(since + least)
    return now - since < least


def _lost(request: RequestRecord, record: SliceRecord, now: float) -> float:
    seconds = loses(request, record, now) if not record.has_run else 0.0  # between its calls nothing is lost
    return seconds * record.placement.share * len(record.placement.devices)


def give_way(state: State, victim: Victim, reason: RecallReason, now: float, winner: str) -> None:
    """Have a victim go."""
    if victim.whole is not None:
        take_gang_back(state, victim.whole, reason, now, winner)
    else:
        preempt(state, victim.records[0], reason, now, winner)


def count_as_free(state: State, victims: Sequence[Victim], *, free: bool) -> None:
    """Have the books count on the room of victims, or no longer, to see what would fit."""
    for victim in victims:
        for record in victim.records:
            state.slices.set_draining(record, free)


def fewest_for_gang(state: State, gang: GangRecord, victims: Sequence[Victim], now: float) -> list[Victim] | None:
    """The fewest of the first victims whose end makes room for a gang, none in vain; None if all of them do not."""

    def enough(chosen: Sequence[Victim]) -> bool:
        count_as_free(state, chosen, free=True)
        found = fits(state, gang, now)
        count_as_free(state, chosen, free=False)
        return found

    if not enough(victims):
        return None
    chosen = list(victims[: first_that_do(enough, victims)])
    for victim in chosen[::-1]:
        without = [one for one in chosen if one is not victim]
        if enough(without):
            chosen = without
    return chosen


def first_that_do(enough: Callable[[Sequence[T]], bool], victims: Sequence[T]) -> int:
    """How many of the first victims are enough, all of them being so. More room never hurts: it is found by halving."""
    least, most = 0, len(victims)
    while most - least > 1:
        middle = (least + most) // 2
        if enough(victims[:middle]):
            most = middle
        else:
            least = middle
    return most
