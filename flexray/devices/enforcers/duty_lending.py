"""Which rates the slices of a device have: their shares, and for those that may burst what the others leave idle.

Looked at ten times a second. What a slice uses, twice, is kept for it: one that wants its share
again has it after a few looks.
"""

from __future__ import annotations

from collections.abc import Sequence

from flexray.devices.enforcers.cpu_amounts import MILLI, CpuLimits
from flexray.devices.enforcers.duty_beat import PERIOD_SECONDS, Beat

_ROOM = 2.0
"""So many times what it used is kept for a slice: beside one that bursts it may have got half of what it wants."""


def needs(limits: CpuLimits, used: float, stopped: bool) -> float:
    """Cores that must be kept for a slice which used so many on average, up to its share."""
    share = limits.weight / MILLI
    return share if stopped else min(share, used * _ROOM)


def rates(cores: int, slices: Sequence[tuple[CpuLimits, float]]) -> list[float]:
    """Cores that each slice of a device may use, given its limits and what it needs.

    What nobody needs is divided among those that may burst, by share, up to their caps.
    """
    spare = max(0.0, cores - sum(need for _, need in slices))
    bursting = sum(limits.weight for limits, _ in slices if limits.cap > limits.weight)
    return [
        _rate(limits, need, spare * limits.weight / bursting if limits.cap > limits.weight else 0.0)
        for limits, need in slices
    ]


def _rate(limits: CpuLimits, need: float, lent: float) -> float:
    share = limits.weight / MILLI
    return max(share, min(limits.cap / MILLI, need + lent))


class Lending:
    """Sets the rates of slices from what they used since the last look."""

    def __init__(self) -> None:
        self._last = 0.0
        self._used: dict[int, float] = {}

    def update(self, slices: Sequence[tuple[str, Beat]], now: float) -> None:
        """Args: slices: (id of their device, beat); now: seconds."""
        if now - self._last < PERIOD_SECONDS:
            return
        passed, self._last = now - self._last, now
        by_device: dict[str, list[Beat]] = {}
        for device, beat in slices:
            beat.settle(now)
            by_device.setdefault(device, []).append(beat)
        for beats in by_device.values():
            wanted = [
                (
                    beat.limits,
                    needs(beat.limits, (beat.used - self._used.get(id(beat), beat.used)) / passed, beat.stopped),
                )
                for beat in beats
            ]
            for beat, rate in zip(beats, rates(beats[0].cores, wanted), strict=True):
                if rate > beat.rate:
                    beat.next = now  # it may be waiting to earn at the old rate
                beat.rate = rate
        self._used = {id(beat): beat.used for _, beat in slices}
