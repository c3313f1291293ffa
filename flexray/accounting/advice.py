"""How much of a device each task class should ask for, from what it was seen to use.

The advised share is the smallest that would have lengthened its runs by no more than two per cent; the advised memory
has a fifth of room above the most that was seen, since too little memory ends a task and too little compute does not.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum

from flexray.accounting.profiles import ClassKey, Profile
from flexray.model.amounts import format_memory

_TOLERATED = 0.02
"""Of the run time."""
_STEP = 0.05
"""Advised shares are multiples of this."""
_HELD_BACK = 0.2
"""A class that is at its limit for this part of the time may need more."""
_HEADROOM = 1.2
_GIB = 1024


class Verdict(str, Enum):
    """What is advised."""

    SMALLER = "smaller"
    """It would do with less."""
    ENOUGH = "enough"
    """What it asks for is what it needs."""
    LARGER = "larger"
    """It is held back by its share."""
    UNKNOWN = "unknown"
    """Nobody can tell what it uses of its devices; what is said of memory stands."""


class Sure(str, Enum):
    """How much the advice rests on."""

    LOW = "low"
    """Less than five minutes, or less than a hundred looks."""
    MEDIUM = "medium"
    """More than that."""
    HIGH = "high"
    """At least half an hour, and three leases."""


@dataclass(frozen=True, slots=True)
class Advice:
    """What one task class asks for, used, and should ask for.

    Shares are fractions of each of its devices, memory is MiB of each.

    Attributes:
        task: name of the function; devices: how many its requests have.
        busy_p50, busy_p95: the share it used at most for half, for 95 % of the time; None where nobody can tell.
        memory_p95, memory_most: the same of memory, and the most.
        at_limit: for which part of the time it used all of its share.
        share, memory: what to ask for; None where nothing else is advised than what is asked.
        slowdown: by which part its runs would have been longer with that share.
        call_seconds: what a call of it takes, as far as that was learnt.
        samples, seconds, leases: what this rests on.
    """

    task: str
    devices: int
    asked_share: float
    asked_memory: int
    busy_p50: float | None
    busy_p95: float | None
    memory_p95: int | None
    memory_most: int | None
    at_limit: float
    verdict: Verdict
    share: float | None
    memory: int | None
    slowdown: float
    call_seconds: float | None
    samples: int
    seconds: float
    leases: int
    sure: Sure

    def __str__(self) -> str:
        used = [] if self.busy_p95 is None else [f"{self.busy_p95:g}"]
        used += [] if self.memory_p95 is None else [format_memory(self.memory_p95)]
        told = f"{self.task}: asked {self.asked_share:g} and {format_memory(self.asked_memory)}"
        told += f", used {' and '.join(used)} at p95" if used else ", and nobody can tell what it uses"
        basis = f"{self.samples} looks over {_long(self.seconds)}, {self.leases} leases; sure: {self.sure.value}"
        return f"{told}; {self._advice()} ({basis})"

    def _advice(self) -> str:
        memory = (
            "" if self.memory is None else f"memory={format_memory(self.memory).replace('.0', '').replace(' ', '')}"
        )
        if self.verdict is Verdict.LARGER:
            held = (
                f"it is at its limit for {self.at_limit:.0%} of the time: more than {self.asked_share:g} may be faster"
            )
            return f"{held}; {memory} is enough" if memory else held
        if self.share is None:
            return f"{memory} is enough" if memory else "that is what it needs"
        asked = f"a share of {self.share:g}{f', {memory},' if memory else ''}"
        was = f"would have changed its run time by about {self.slowdown:.0%}"
        if self.call_seconds is not None:
            was += f" ({self.call_seconds * self.slowdown:.2g} s of {self.call_seconds:.3g} s a call)"
        return f"{asked} {was}"


def advise(
    profiles: Iterable[tuple[ClassKey, Profile]], call_seconds: Mapping[str, float] | None = None
) -> tuple[Advice, ...]:
    """Advice for every class; those that could give back most of what they hold first."""
    found = [_advise(key, profile, (call_seconds or {}).get(key.task)) for key, profile in profiles]
    return tuple(sorted(found, key=lambda one: (-_given_back(one), one.task)))


def _given_back(one: Advice) -> float:
    return (one.asked_share - one.share) * one.devices * one.seconds if one.share is not None else 0.0


def _advise(key: ClassKey, profile: Profile, call_seconds: float | None) -> Advice:
    asked = key.share / 1000
    p95, measured = profile.busy_at(0.95), sum(profile.busy)
    limit = profile.at_limit / measured if measured else 0.0
    share = None if p95 is None or key.devices > 1 or limit >= _HELD_BACK else _share(profile, asked)
    memory = _memory(profile, key.memory)
    if limit >= _HELD_BACK and asked < 1:
        verdict = Verdict.LARGER
    elif share is not None or memory is not None:
        verdict = Verdict.SMALLER
    else:
        verdict = Verdict.ENOUGH if p95 is not None else Verdict.UNKNOWN
    return Advice(
        key.task, key.devices, asked, key.memory, profile.busy_at(0.5), p95,
        profile.memory_at(0.95), profile.most_memory if any(profile.memory) else None, limit, verdict, share, memory,
        max(0.0, profile.stretch(share) / profile.stretch(asked) - 1) if share is not None else 0.0,
        call_seconds, profile.samples, profile.seconds, profile.leases, _sure(profile),
    )  # fmt: skip


def _share(profile: Profile, asked: float) -> float | None:
    """The smallest that would have done, if it is a step below what is asked."""
    now = profile.stretch(asked)
    for step in range(1, math.floor((asked - _STEP) / _STEP + 1e-9) + 1):
        share = round(step * _STEP, 2)
        if profile.stretch(share) / now <= 1 + _TOLERATED:
            return share
    return None


def _memory(profile: Profile, asked: int) -> int | None:
    if not any(profile.memory):
        return None
    wanted = profile.most_memory * _HEADROOM
    step = _GIB if wanted > _GIB else 256
    found = max(step, math.ceil(wanted / step) * step)
    return found if found <= 0.9 * asked else None


def _sure(profile: Profile) -> Sure:
    if profile.seconds >= 1800 and profile.leases >= 3:
        return Sure.HIGH
    return Sure.MEDIUM if profile.seconds >= 300 and profile.samples >= 100 else Sure.LOW


def _long(seconds: float) -> str:
    return (
        f"{seconds:.0f} s"
        if seconds < 120
        else f"{seconds / 60:.0f} min"
        if seconds < 7200
        else f"{seconds / 3600:.1f} h"
    )
