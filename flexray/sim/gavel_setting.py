"""What Gavel's experiment is run on, and what any way of playing it gives."""

from __future__ import annotations

from dataclasses import dataclass

from flexray.errors import UsageError
from flexray.sim.gavel_trace import KINDS, Floats, Ints, Load

ROUND = 360.0
"""Seconds of a round."""


@dataclass(frozen=True, slots=True)
class Setting:
    """What an experiment is run on."""

    slots: tuple[int, ...] = (36, 36, 36)
    """Devices of each kind."""
    measure: tuple[int, int] = (4000, 5000)
    """First job that is measured, and the one after the last."""
    move_cost: float = 0.0
    """Seconds that a job loses by a move."""
    noise: float = 0.05
    """Standard deviation of the rates that are measured where they are learnt, as part of the rate."""
    seed: int = 0
    """Of that noise."""

    def __post_init__(self) -> None:
        if len(self.slots) != len(KINDS) or min(self.slots) < 0 or not any(self.slots):
            raise UsageError(f"the cluster is a number of devices for each of {', '.join(KINDS)}, such as 36:36:36")
        if not 0 <= self.measure[0] < self.measure[1]:
            raise UsageError(
                f"jobs {self.measure[0]}:{self.measure[1]} cannot be measured; give FIRST:END, FIRST < END"
            )
        if not 0 <= self.move_cost < ROUND or not 0 <= self.noise < 1:
            raise UsageError(f"a move costs 0 to {ROUND:g} s, and noise is a part of the rate, below 1")


@dataclass(frozen=True, slots=True)
class Played:
    """What became of the jobs, by number: seconds, nan where it has not happened."""

    finish: Floats
    first_start: Floats
    gap: Floats
    """Longest time without a device."""
    moves: int
    there: Ints
    """How many jobs were there at the beginning of each round."""


def refuse_endless(load: Load, arrived: int) -> None:
    """Raises UsageError when all drawn jobs came and what is measured still runs."""
    if load.arrival.size > load.given and arrived == load.arrival.size:
        raise UsageError(f"the cluster is too small: {arrived} jobs came, and the measured ones are not done")
