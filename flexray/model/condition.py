"""The condition of a device: what its maker's faults mean, and when it is trusted again. One table.

    ready ──passing──> suspect ──persists──> sick ──empty──> drained ──recovered──> ready
      │                   └────recovered────> ready  ▲           ▲
      └──condemned───────────────────────────────────┘           │
    anywhere ──gone──> lost ──empty───────────────────────────────┘

A *suspect* device takes nothing new. The work of a *sick* one moves off, that of a *lost* one has ended. A device
returns when it has been well for a while; each time it falls soon after, that while is twice as long.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from enum import Enum

from flexray.model.devices import DeviceState


class Severity(str, Enum):
    """What a fault means for its device."""

    NOTE = "note"
    """Nothing: it is reported. Faults of applications, and what the device copes with, such as heat."""
    PASSING = "passing"
    """It may pass: nothing new is placed there meanwhile."""
    CONDEMNS = "condemns"
    """The device is not to be trusted: its work moves off."""
    GONE = "gone"
    """Nothing runs there any more."""


_ORDER = list(Severity)


@dataclass(frozen=True, slots=True)
class Fault:
    """Something that is wrong with a device, or was seen on it.

    Attributes:
        code: what the maker calls it, such as ``XID 79``; "" where it has no name.
        message: what it is, in words.
        pid: the process it hit, where that is known; else 0.
    """

    code: str
    severity: Severity
    message: str
    pid: int = 0

    def describe(self) -> str:
        """One line, for people."""
        said = f"{self.code}: {self.message}" if self.code else self.message
        return f"{said} (process {self.pid})" if self.pid else said


def worst(faults: list[Fault]) -> Fault | None:
    """The fault that means most; the first of several, None of none."""
    return max(faults, key=lambda fault: _ORDER.index(fault.severity), default=None)


class Sign(str, Enum):
    """What a look at a device shows."""

    PASSING = "passing"
    """A fault that may pass."""
    PERSISTS = "persists"
    """A fault that might have passed has not, for as long as a device has to be well to return."""
    CONDEMNED = "condemned"
    """A fault that condemns."""
    GONE = "gone"
    """Nothing runs there any more."""
    EMPTY = "empty"
    """No slice is left on it."""
    RECOVERED = "recovered"
    """It has been well for long enough."""


_D, _S = DeviceState, Sign
#: What a sign changes; whatever is not here changes nothing.
CONDITION_TABLE: dict[tuple[DeviceState, Sign], DeviceState] = {
    (_D.READY, _S.PASSING): _D.SUSPECT,
    (_D.READY, _S.CONDEMNED): _D.SICK,
    (_D.READY, _S.GONE): _D.LOST,
    (_D.SUSPECT, _S.RECOVERED): _D.READY,
    (_D.SUSPECT, _S.PERSISTS): _D.SICK,
    (_D.SUSPECT, _S.CONDEMNED): _D.SICK,
    (_D.SUSPECT, _S.GONE): _D.LOST,
    (_D.SICK, _S.EMPTY): _D.DRAINED,
    (_D.SICK, _S.GONE): _D.LOST,
    (_D.LOST, _S.EMPTY): _D.DRAINED,
    (_D.DRAINED, _S.RECOVERED): _D.READY,
}

_SIGN_OF = {Severity.PASSING: _S.PASSING, Severity.CONDEMNS: _S.CONDEMNED, Severity.GONE: _S.GONE}
#: A device that falls within so many times the while it was watched for has fallen again; later, for the first time.
_FORGET = 10
#: The while is doubled at most so often.
_MOST_DOUBLINGS = 6


@dataclass(frozen=True, slots=True)
class Condition:
    """A device's condition. Times are seconds of one clock.

    Attributes:
        fault: what brought it into this state; None while it is ready.
        bad_since: when a fault was first seen without a look in between that showed none.
        well_since: when it was first seen well again without a fault since.
        falls: how often it has fallen, one soon after the other.
        returned: when it was last returned.
    """

    state: DeviceState = DeviceState.READY
    fault: Fault | None = None
    bad_since: float | None = None
    well_since: float | None = None
    falls: int = 0
    returned: float = float("-inf")


def patience(condition: Condition, recovery: float) -> float:
    """Seconds for which a device has to be well to return, ``recovery`` being those for the first time."""
    return recovery * float(2 ** min(max(condition.falls - 1, 0), _MOST_DOUBLINGS))


def observe(condition: Condition, fault: Fault | None, *, empty: bool, now: float, recovery: float) -> Condition:
    """The condition after a look at a device.

    Args:
        fault: the worst that its maker says of it now, or that was seen since the last look; None: it is well.
        empty: whether no slice is on it.
        recovery: seconds that it has to be well to return, the first time.
    """
    sign = _SIGN_OF.get(fault.severity) if fault is not None else None
    if sign is None:
        condition = dataclasses.replace(condition, bad_since=None, well_since=_first(condition.well_since, now))
    else:
        condition = dataclasses.replace(condition, bad_since=_first(condition.bad_since, now), well_since=None)
        condition = _follow(condition, sign, fault, now, recovery)
        if condition.bad_since is not None and now - condition.bad_since >= recovery:
            condition = _follow(condition, Sign.PERSISTS, fault, now, recovery)
    if empty:
        condition = _follow(condition, Sign.EMPTY, condition.fault, now, recovery)
    if condition.well_since is not None and now - condition.well_since >= patience(condition, recovery):
        condition = _follow(condition, Sign.RECOVERED, None, now, recovery)
    return condition


def _follow(condition: Condition, sign: Sign, fault: Fault | None, now: float, recovery: float) -> Condition:
    state = CONDITION_TABLE.get((condition.state, sign), condition.state)
    if state is condition.state:
        return condition
    if state is DeviceState.READY:
        return dataclasses.replace(condition, state=state, fault=None, returned=now)
    falls = condition.falls
    if condition.state is DeviceState.READY:
        soon = now - condition.returned <= _FORGET * patience(condition, recovery)
        falls = falls + 1 if soon else 1
    return dataclasses.replace(condition, state=state, fault=fault, falls=falls)


def _first(known: float | None, now: float) -> float:
    return now if known is None else known
