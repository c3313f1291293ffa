"""A gang's run on the client's side, as data: its leases, the members of the present attempt, how they ended.

    asked ── all of the roster granted ──> meeting place ──> members run ── all have ended ──> done, failed, or again

Nothing here sends anything; ``gangs.py`` does what follows from it.
"""

from __future__ import annotations

import pickle
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from flexray.errors import Cancelled, LeaseLost, TaskTimeout
from flexray.model.gang import Gang
from flexray.model.lease import LeaseId, RequestId, SliceId
from flexray.runtime.call import Call, Kind, Phase
from flexray.runtime.packing import rename_error
from flexray.runtime.protocol import Member

if TYPE_CHECKING:
    from flexray.runtime.keeping import Kept
    from flexray.runtime.targets import HeldLease

#: A member's call that is sent, or about to be; in any other phase it has ended.
_RUNS = (Phase.NEW, Phase.SENT)
#: What stands in errors that a member gets because another one is gone: reported only where there is no other.
_OF_PEERS = ("gloo", "nccl", "NCCL", "DistBackendError", "DistNetworkError", "DistStoreError")


class MemberCall(Call):
    """One member's call in one attempt. Its arguments, its number and its checkpoints are those of the gang's call."""

    __slots__ = ("whole",)

    def __init__(self, whole: Call) -> None:
        self.whole = whole
        super().__init__(whole._client, whole.target, whole.number)
        self.payload, self.slots, self.held = whole.payload, whole.slots, whole.held
        self.attempts = whole.attempts
        self.trace = whole.trace.member() if whole.trace is not None else None

    @property
    def kept(self) -> Kept | None:
        """The gang's last checkpoint; it outlives the member's call."""
        return self.whole.kept

    @kept.setter
    def kept(self, kept: Kept | None) -> None:
        if kept is not None:
            self.whole.kept = kept

    @property
    def value_is_there(self) -> bool:
        """Whether it has run to its end."""
        return self.phase is Phase.DONE and self.outcome[0] is not Kind.ERROR


@dataclass(slots=True, eq=False)
class GangRun:
    """Where a gang's call stands.

    Attributes:
        whole: the call that the user holds the Future of.
        request: the name under which the gang was asked for; its members' requests are named after it.
        roster: the leases that run together, by rank, as the scheduler last said.
        granted: every lease of the gang that was granted so far.
        meeting: the leases for which a meeting place has been asked.
        members: the calls of the present attempt, by rank; empty between attempts.
        attempt: counts the attempts.
        told: whether its members have been asked to end this attempt, by_pool: because the pool takes leases back or
            adds some, and not for a member's sake.
        forcing: whether those that do not end are stopped by force.
        cancelled: whether the user has cancelled it while it ran.
        filed: whether it has left checkpoints in a place.
    """

    whole: Call
    request: RequestId = RequestId("")
    roster: tuple[LeaseId, ...] = ()
    granted: set[LeaseId] = field(default_factory=set)
    meeting: tuple[LeaseId, ...] = ()
    members: dict[LeaseId, MemberCall] = field(default_factory=dict)
    attempt: int = 0
    told: bool = False
    by_pool: bool = False
    forcing: bool = False
    cancelled: bool = False
    filed: bool = False

    @property
    def gang(self) -> Gang:
        """What was asked for."""
        gang = self.whole.target.request.gang
        assert gang is not None
        return gang

    @property
    def over(self) -> bool:
        """Whether the Future has its outcome."""
        return self.whole.phase is Phase.DONE

    def names(self) -> list[RequestId]:
        """The requests of the gang: as a whole, and of each member."""
        return [self.request, *(RequestId(f"{self.request}.{index}") for index in range(self.gang.size))]

    def takes(self, lease: LeaseId, roster: tuple[LeaseId, ...]) -> None:
        """A lease was granted, to run together with these."""
        self.granted.add(lease)
        self.roster = roster
        self.whole.target.asked.pop(self.request, None)

    def team(self) -> list[HeldLease]:
        """The leases that the gang can run on, by rank: those of the roster, once all of it has come."""
        if not self.granted.issuperset(self.roster):
            return []
        held = self.whole.target.leases
        return [held[one] for one in self.roster if one in held and held[one].usable]

    @property
    def forgotten(self) -> bool:
        """Whether nothing more will come for it: nothing is asked for, on its way, or about to be taken back."""
        target = self.whole.target
        waits = target.asked or self.members or not self.granted.issuperset(self.roster)
        return not waits and all(lease.usable for lease in target.leases.values())

    def unfinished(self) -> list[HeldLease]:
        """The leases on which a member of the present attempt still runs."""
        held = self.whole.target.leases
        return [held[one] for one, call in self.members.items() if one in held and call.phase in _RUNS]

    def broke_off(self) -> bool:
        """Whether a member is gone without a result, so that the others cannot go on."""
        running = {lease.id for lease in self.unfinished()}
        return self.over or any(not c.value_is_there for one, c in self.members.items() if one not in running)

    def recalled(self) -> bool:
        """Whether the pool takes a member back."""
        held = self.whole.target.leases
        return any(held[one].recalled for one in self.members if one in held)

    def grown(self) -> bool:
        """Whether there are leases beside those of the attempt."""
        return any(lease.id not in self.members for lease in self.team())

    def begin(self, team: Sequence[HeldLease], rendezvous: str) -> None:
        """A new attempt, on these leases."""
        self.attempt += 1
        self.meeting, self.told, self.by_pool, self.forcing = (), False, False, False
        for lease, member in zip(team, memberships([lease.node for lease in team], rendezvous), strict=True):
            lease.member = member
            self.members[lease.id] = MemberCall(self.whole)

    def owners(self) -> tuple[SliceId, ...]:
        """The slices that own objects which the members' results refer to; both end with the gang."""
        return tuple(name for call in self.members.values() if call.large is not None for name in call.large.slices)

    def close(self) -> Verdict:
        """All members have ended: what becomes of the gang's call."""
        held = self.whole.target.leases
        lost = any(call.phase is Phase.BACKLOG and one not in held for one, call in self.members.items())
        calls, self.members = list(self.members.values()), {}
        self.filed = self.whole.kept is not None and self.whole.kept.filed
        verdict = judge(calls, lost, self.by_pool, self.cancelled)
        if not self.by_pool:
            self.whole.attempts = max(call.attempts for call in calls)
        return verdict


def memberships(nodes: Sequence[str], rendezvous: str) -> list[Member]:
    """What each member is told, for members on these nodes in the order of their ranks."""
    here, seen = Counter(nodes), Counter[str]()
    made = []
    for rank, node in enumerate(nodes):
        made.append(Member(rank, len(nodes), rendezvous, seen[node], here[node]))
        seen[node] += 1
    return made


class Verdict(NamedTuple):
    """What becomes of a gang's call after an attempt: an outcome, or (None) it runs again."""

    kind: Kind | None
    outcome: Any = None


_AGAIN = Verdict(None)


def judge(calls: Sequence[MemberCall], lost: bool, by_pool: bool, cancelled: bool) -> Verdict:
    """The verdict on an attempt whose members have all ended.

    What members raise when another one is lost, or the pool takes one back, is a consequence: only where all were there
    is it the fault of the code.

    Args:
        calls: the members by rank. One that came back (it is in the backlog's phase) has yielded or lost its slice.
        lost: whether a slice was lost, and the gang may run again.
        by_pool: the members were asked to end the attempt before any did: what befell them then says nothing.
        cancelled: by the user.
    """
    if all(call.value_is_there for call in calls):
        return Verdict(Kind.PARTS, tuple(call.outcome for call in calls))
    failures = [(rank, call.outcome[1]) for rank, call in enumerate(calls) if _failed(call)]
    for kind, counts in ((TaskTimeout, True), (Cancelled, cancelled), (LeaseLost, not by_pool)):
        found = _first(kind, failures) if counts else None
        if found is not None:
            return Verdict(Kind.ERROR, found)
    if cancelled:
        return Verdict(Kind.ERROR, Cancelled(f"{calls[0].target.name} was cancelled while it ran"))
    own = [(rank, error) for rank, error in failures if not isinstance(error, Cancelled)]
    if lost or by_pool or not own:
        return _AGAIN
    rank, error = min(own, key=lambda failure: (_is_of_peers(failure[1]), failure[0]))
    return Verdict(Kind.ERROR, _by_rank(error, f"rank {rank} of {len(calls)}"))


def _failed(call: Call) -> bool:
    return call.phase is Phase.DONE and call.outcome[0] is Kind.ERROR


def _first(kind: type[BaseException], failures: Iterable[tuple[int, Any]]) -> BaseException | None:
    return next((error for _, error in failures if isinstance(error, kind)), None)


def _is_of_peers(error: object) -> bool:
    """Whether an error looks as if it came of another member's end."""
    text = pickle.loads(error)[1] if isinstance(error, bytes) else ""
    return any(word in text for word in _OF_PEERS)


def _by_rank(error: Any, who: str) -> Any:
    return rename_error(error, who) if isinstance(error, bytes) else error
