"""Whose turn at a device is next: pure arithmetic, time is an argument (nanoseconds of any clock that only rises).

Every slice has an account of what it has used, weighed by its share: *paid*. The next turn is for whoever waits
and has paid least, so that those who always want it get time in proportion to their shares, however
long their steps are: what was really held is billed. An idle slice saves nothing up but one turn, and a long
step is remembered for ``WINDOW`` at most. A slice with a burst below the whole device also has an allowance
that accrues at that rate; without any left it waits, even alone.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from flexray.errors import InternalError
from flexray.model.amounts import WHOLE, Share

MILLISECOND = 1_000_000
SECOND = 1_000 * MILLISECOND

TURN = 50 * MILLISECOND
"""Length of a turn. Asking costs some 0.1 ms, and with each slice's turn the device's caches are filled anew: shorter
turns waste more. Longer ones make others wait, and what was lent comes back after one turn at the latest."""

HANG = 2 * SECOND
"""How long after the end of its turn a slice may hold it, before it passes for hung and others go on. Steps of large
models take a second; a stopped process costs the others this much, once."""

WINDOW = 10 * SECOND
"""What a slice held too much is made up for, at most this long: without an end to it, one slice that hung for an hour
would starve for hours."""

_SAVED = TURN
"""Allowance that a capped slice keeps over a pause: enough to start at once, little in its average."""


@dataclass(slots=True)
class Allowance:
    """Time that accrues at a rate, and is spent."""

    rate: Share
    balance: int = 0
    at: int = 0

    def accrue(self, now: int) -> int:
        """What there is now; a debt is negative. No more is kept, or owed, than accrues in ``WINDOW``."""
        most = self.rate * WINDOW // WHOLE
        self.balance = max(-most, min(most, self.balance + self.rate * (now - self.at) // WHOLE))
        self.at = now
        return self.balance


@dataclass(slots=True)
class Account:
    """One slice of the device.

    Attributes:
        share: thousandths of the time that are its own, its weight too.
        cap: what it may use at all; its rate is the slice's burst.
        own: what it may use of its own share, to tell what was lent.
        joined: when it came.
        paid: time used, divided by its share.
        used: nanoseconds billed.
        lent: how much of that was above its share.
        turns: how many it was given.
        waiting: whether it wants a turn.
        ready: whether it was allowed one when last looked at.
        since: from when on it holds unbilled time; None: it holds nothing.
    """

    share: Share
    cap: Allowance
    own: Allowance
    joined: int
    paid: int = 0
    used: int = 0
    lent: int = 0
    turns: int = 0
    waiting: bool = False
    ready: bool = False
    since: int | None = None


@dataclass(slots=True)
class TurnBook:
    """The accounts of one device's slices, and who holds it.

    Attributes:
        holder: the slice whose turn it is, or "".
        end: when that turn ends.
    """

    holder: str = ""
    end: int = 0
    _accounts: dict[str, Account] = field(default_factory=dict)
    #: What the least served of those who wanted it had paid at the last grant; only rises.
    _floor: int = 0

    def join(self, name: str, share: Share, burst: Share, now: int) -> None:
        """A slice comes, or gets other amounts: 1 <= share <= burst, in thousandths."""
        account = self._accounts.get(name)
        if account is None:
            self._accounts[name] = Account(share, Allowance(burst, 0, now), Allowance(share, TURN, now), now)
            return
        account.cap.accrue(now)
        account.own.accrue(now)
        account.share = account.own.rate = share
        account.cap.rate = burst

    def leave(self, name: str) -> None:
        """A slice is gone, with its turn."""
        if self._accounts.pop(name, None) is not None and self.holder == name:
            self.holder = ""

    def ask(self, name: str, now: int) -> None:
        """It wants a turn."""
        account = self._accounts[name]
        if not account.waiting:
            account.waiting = True
            account.cap.balance = min(account.cap.accrue(now), _SAVED)

    def withdraw(self, name: str) -> None:
        """It does not want one any more."""
        self._accounts[name].waiting = False

    def give_back(self, name: str, now: int, idle: int = 0) -> None:
        """Its turn, also one taken from it long ago, is over. For the last ``idle`` ns it had nothing to do."""
        account = self._accounts[name]
        if account.since is None:
            return
        self._bill(account, now, idle)
        account.since = None
        if self.holder == name:
            self.holder = ""

    def next(self, now: int) -> str:
        """Give the turn to whoever is next; "" while somebody holds it or nobody may have it."""
        self._revoke(now)
        if self.holder:
            return ""
        ready = [(account.paid, name) for name, account in self._accounts.items() if self._is_ready(account, now)]
        if not ready:
            return ""
        paid, name = min(ready)
        self._floor = max(self._floor, paid)
        account = self._accounts[name]
        if account.since is not None:  # a turn taken from it, that it still holds
            self._bill(account, now)
        account.since, account.waiting, account.ready = now, False, False
        account.turns += 1
        self.holder, self.end = name, now + TURN
        return name

    def wake(self, now: int) -> int | None:
        """When ``next`` could find something although nobody did anything; None: never."""
        if self.holder:
            return self.end + HANG
        waits = [account.cap for account in self._accounts.values() if account.waiting]
        return min((now + (1 - cap.accrue(now)) * WHOLE // cap.rate + 1 for cap in waits), default=None)

    def accounts(self, now: int) -> dict[str, Account]:
        """All of them, billed until now, for reading."""
        for account in self._accounts.values():
            if account.since is not None:
                self._bill(account, now)
        return self._accounts

    def _is_ready(self, account: Account, now: int) -> bool:
        if not account.waiting or (account.cap.rate < WHOLE and account.cap.accrue(now) <= 0):
            account.ready = False
        elif not account.ready:  # it comes from a pause
            account.ready = True
            least = self._floor - TURN * WHOLE // account.share
            account.paid = min(max(account.paid, least), self._floor + WINDOW)
        return account.ready

    def _revoke(self, now: int) -> None:
        """Take the turn from one that hangs; what it goes on using it is billed when it answers."""
        if self.holder and now >= self.end + HANG:
            self._bill(self._accounts[self.holder], now)
            self.holder = ""

    def _bill(self, account: Account, now: int, idle: int = 0) -> None:
        if account.since is None:
            raise InternalError("a slice that holds no turn is billed")
        used = max(0, now - account.since - max(0, idle))
        account.since = now
        account.used += used
        account.paid += used * WHOLE // account.share
        account.cap.accrue(now)
        account.cap.balance -= used
        left = account.own.accrue(now) - used
        account.lent += max(0, -left)
        account.own.balance = max(0, left)
