"""The duty cycle of one slice: an account of CPU time, and its processes stopped while it is overdrawn.

The account earns the slice's rate and pays for what the processes used. At zero they are stopped until a
period's worth is earned. What was used too much is paid back, so that the average is exact; what
was not used is kept for one period only.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterable

from flexray.devices.enforcers.cpu_amounts import MILLI, CpuLimits
from flexray.devices.enforcers.process_use import Known, cpu_nanoseconds

PERIOD_SECONDS = 0.1
"""Earnings that are kept, and after which stopped processes go on."""
_LEAST_LOOK_SECONDS = 0.004


class Member:
    """A process of the slice, held by a descriptor so that a number used again is never signalled."""

    def __init__(self, known: Known) -> None:
        self.known = known
        self._descriptor = os.pidfd_open(known.pid)
        self.used = cpu_nanoseconds(known.pid) or 0

    def send(self, number: int) -> None:
        """A signal; nothing when the process has ended."""
        try:
            signal.pidfd_send_signal(self._descriptor, number)
        except ProcessLookupError:
            pass  # the next look at the processes drops it

    def spent(self) -> int:
        """Nanoseconds of CPU since the last call."""
        now = cpu_nanoseconds(self.known.pid)
        if now is None or now < self.used:
            return 0
        spent, self.used = now - self.used, now
        return spent

    def close(self) -> None:
        """The process is no longer looked after."""
        os.close(self._descriptor)


class Beat:
    """One slice.

    Args:
        limits: its share, and what it may use at most; thousandths of a core.
        cores: that its device has.
        now: seconds; any clock that only goes forward.
    """

    def __init__(self, limits: CpuLimits, cores: int, now: float) -> None:
        self.limits, self.cores = limits, cores
        #: Cores it may use at present: its share, and more while others on its device leave some idle.
        self.rate = limits.weight / MILLI
        #: When to look again.
        self.next = now
        self.stopped = False
        #: CPU seconds it has used in all.
        self.used = 0.0
        self._balance = self._worth
        self._last = now
        self._members: dict[Known, Member] = {}

    @property
    def members(self) -> list[Known]:
        """Its processes."""
        return list(self._members)

    def meet(self, found: Iterable[Known]) -> None:
        """These are its processes now; new ones are stopped at once when it is."""
        present = set(found)
        for known in [known for known in self._members if known not in present]:
            self._members.pop(known).close()
        for known in sorted(present - self._members.keys()):
            try:
                self._members[known] = Member(known)
            except OSError:  # it has ended already
                continue
            if self.stopped:
                self._members[known].send(signal.SIGSTOP)

    def settle(self, now: float) -> None:
        """Bring the account up to date."""
        spent = sum(member.spent() for member in self._members.values()) / 1e9
        self.used += spent
        self._balance = min(self._worth, self._balance + self.rate * (now - self._last) - spent)
        self._last = now

    def step(self, now: float) -> None:
        """Settle the account, stop or continue, and say when to look ``next``."""
        self.settle(now)
        worth = self._worth
        if self.rate >= self.cores:
            self._go_on()
            self.next = now + PERIOD_SECONDS
        elif self._balance <= 0 or (self.stopped and self._balance < worth - 1e-9):
            self._stop()
            self.next = now + max(_LEAST_LOOK_SECONDS, (worth - self._balance) / self.rate)
        else:
            self._go_on()
            # It cannot be overdrawn before: nothing burns faster than all cores.
            self.next = now + max(_LEAST_LOOK_SECONDS, self._balance / (self.cores - self.rate))
        if not self._members:
            self.next = now + PERIOD_SECONDS

    @property
    def _worth(self) -> float:
        """What it earns in a period: most that it keeps, and least with which it goes on."""
        return self.rate * PERIOD_SECONDS

    def close(self) -> None:
        """Let its processes go on, for ever."""
        self._go_on()
        self.meet(())

    def _stop(self) -> None:
        if not self.stopped:
            self.stopped = True
            for member in self._members.values():
                member.send(signal.SIGSTOP)

    def _go_on(self) -> None:
        if self.stopped:
            self.stopped = False
            for member in self._members.values():
                member.send(signal.SIGCONT)
