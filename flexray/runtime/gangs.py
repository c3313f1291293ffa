"""Gangs of a client: several leases, one call on each, one Future.

    submit -> asked for as a whole -> granted together -> rank 0 says where to meet -> a call to each -> one outcome

Whatever ends one member's call without a result ends the attempt: the others are asked to stop, and stopped by force
after the grace period. Then the gang runs again, or its Future fails. Everything here is called inside ``Calls.step``
or opens a step of its own.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from flexray.model.events import RequestCancelled
from flexray.runtime.call import Call, Phase
from flexray.runtime.calls import Calls
from flexray.runtime.exchange import Exchange
from flexray.runtime.gang_run import GangRun, MemberCall
from flexray.runtime.leases import Leases
from flexray.runtime.repeats import Repeats
from flexray.runtime.targets import HeldLease

#: What could not be done because a slice did not answer, or had not got its call yet, is tried again after this long.
_AGAIN_SECONDS = 1.0


class Gangs:
    """Moves gangs on. ``post`` and ``later`` run things in the router thread; ``grace`` is in seconds."""

    def __init__(
        self,
        calls: Calls,
        leases: Leases,
        exchange: Exchange,
        repeats: Repeats,
        grace: float,
        post: Callable[..., None],
        later: Callable[[float, Callable[[], None]], None],
    ) -> None:
        self._calls, self._leases, self._exchange, self._repeats = calls, leases, exchange, repeats
        self._grace, self._post, self._later = grace, post, later

    @staticmethod
    def take_in(call: Call) -> None:
        """A gang's call gets a target of its own: nothing else may run on its leases."""
        run = GangRun(call)
        call.target = replace(call.target, gang=run, backlog=deque(), leases={}, asked={}, ended=False)

    def advance(self, run: GangRun) -> None:
        """Do what follows from the state of a gang. Safe to call at any time."""
        self._sort_backlog(run)
        if run.members:
            self._watch(run)
        elif run.over:
            self._end(run)
        else:
            self._start(run)

    def _sort_backlog(self, run: GangRun) -> None:
        """Members' calls that came back wait for nothing: the gang goes on as a whole."""
        target = run.whole.target
        self._calls.waiting -= sum(1 for call in target.backlog if isinstance(call, MemberCall))
        target.backlog = deque([run.whole] if run.whole.phase is Phase.BACKLOG else [])

    # -- between attempts ----------------------------------------------------------------------

    def _start(self, run: GangRun) -> None:
        """Hand back what was recalled; run on what is left if that is enough, else wait, or ask."""
        target = run.whole.target
        for lease in list(target.leases.values()):
            if lease.idle and (lease.recalled or lease.id not in run.roster):
                self._leases.release(lease)
        if run.whole.phase is Phase.NEW:  # an argument is made again
            return
        team = run.team()
        if len(team) < run.gang.enough:
            run.meeting = ()
            if run.forgotten:
                self._post(self._ask, run)  # after what else the scheduler has just said: perhaps that the gang fails
            return
        ids = tuple(lease.id for lease in team)
        if ids != run.meeting:
            run.meeting = ids
            ref = team[0].handle.meeting_place.remote()
            ref._on_completed(lambda answer: self._post(self._met, run, ids, answer))

    def _ask(self, run: GangRun) -> None:
        """Ask for the gang, after giving back what is left of an earlier one."""
        with self._calls.step():
            if run.over or not run.forgotten:
                return
            if run.request:
                self._give_back(run)
            run.roster = ()
            run.request = self._leases.ask(run.whole.target)
            self._leases.expect(run.whole.target, run.names())

    def _met(self, run: GangRun, ids: tuple[Any, ...], answer: Any) -> None:
        """Rank 0 has said where to meet, or did not answer."""
        with self._calls.step():
            if run.meeting != ids or run.members or run.over:
                return
            team = run.team()
            if not isinstance(answer, str) or tuple(lease.id for lease in team) != ids:
                run.meeting = ()
                self._later(_AGAIN_SECONDS, lambda: self._look_again(run))
                return
            run.begin(team, answer)
            self._calls.waiting -= 1
            run.whole.phase = Phase.SENT
            run.whole.target.backlog.clear()
            for lease in team:
                self._exchange.send(lease, [run.members[lease.id]])

    def _look_again(self, run: GangRun) -> None:
        with self._calls.step():
            self.advance(run)

    # -- during an attempt ---------------------------------------------------------------------

    def _watch(self, run: GangRun) -> None:
        """Ask the members to end the attempt if it cannot go on as it is; judge it once all have ended."""
        unfinished = run.unfinished()
        if not unfinished:
            self._judge(run)
            return
        broke_off, recalled = run.broke_off(), run.recalled()
        if (broke_off or recalled or run.grown()) and not run.told:
            run.told, run.by_pool = True, not broke_off
            for lease in unfinished:
                if not lease.broken:
                    lease.handle.give_way.remote(lease.token)
        if (broke_off or recalled) and not run.forcing:  # a gang that may only grow is not forced to
            run.forcing, attempt = True, run.attempt
            self._later(self._grace, lambda: self._force(run, attempt))

    def _force(self, run: GangRun, attempt: int) -> None:
        """The grace period is over: stop the slices whose calls go on. Those that are recalled the pool stops."""
        with self._calls.step():
            left = run.unfinished() if run.attempt == attempt else []
            for lease in left:
                if not lease.recalled and not lease.broken:
                    self._stop(run, lease)
            if left:
                self._later(_AGAIN_SECONDS, lambda: self._force(run, attempt))

    def _stop(self, run: GangRun, lease: HeldLease) -> None:
        ref = lease.handle.cancel.remote(lease.token, run.whole.number, True)
        ref._on_completed(lambda answer: self._post(self._stopped, run, lease, answer))

    def _stopped(self, run: GangRun, lease: HeldLease, answer: Any) -> None:
        """A slice was to be stopped: if its call had not begun, it does not run any more."""
        with self._calls.step():
            call = lease.in_flight.pop(run.whole.number, None) if answer == "taken" else None
            if call is not None:
                self._calls.put_back([call])
                self.advance(run)

    def _judge(self, run: GangRun) -> None:
        slices = run.owners()
        verdict = run.close()
        lost = getattr(verdict.outcome, "lost_argument", None)
        if lost is not None and self._repeats.mend(run.whole, lost):
            pass
        elif verdict.kind is not None:
            self._calls.settle(run.whole, verdict.kind, verdict.outcome)
            if slices and run.whole.large is not None:
                run.whole.large.slices = slices
                run.whole.forget_arguments()  # they would be lost again
        elif not run.over:
            self._calls.put_back([run.whole])
        self.advance(run)

    # -- the end -------------------------------------------------------------------------------

    def _end(self, run: GangRun) -> None:
        """The Future has its outcome: nothing of the gang stays behind."""
        target = run.whole.target
        target.ended = True
        self._forget_checkpoints(run)
        self._give_back(run)
        if not target.leases:
            target.gang = None  # or Future and gang would keep each other alive, and the results with them

    def _forget_checkpoints(self, run: GangRun) -> None:
        """What it stored in a place is a slice's to delete; its lease is kept until it has."""
        lease = next((one for one in run.whole.target.leases.values() if one.idle and not one.broken), None)
        if run.filed and lease is not None:
            run.filed = False
            self._exchange.forget_checkpoints(lease, run.whole)

    def _give_back(self, run: GangRun) -> None:
        """Hand back every lease that nothing runs on, and take back what was asked for."""
        target = run.whole.target
        for lease in list(target.leases.values()):
            if lease.idle:
                self._leases.release(lease)
        if target.asked:
            self._leases.session.tell(RequestCancelled(run.request))
            target.asked.clear()
        for name in run.names() if not target.leases else ():
            self._leases.forget(name)
