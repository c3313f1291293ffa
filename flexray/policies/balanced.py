"""``balanced``, the default: speed, fragmentation and scarcity weighed in devices' worth of work.

The sum of the terms goes through the logistic function and is rounded down to hundredths,
as FGD does, so that places that hardly differ are ties and the pool fills in one order:

    defragments    devices' worth of fragments the node loses by it (FGD)
    scarcity       - price of the type x devices asked: leave it to those who have no choice
    speed          + speed of the task's class there, relative to the fastest type
    undisturbed    + where no warm slice has to stop
"""

from __future__ import annotations

from flexray.core.placement import Option, Policy


def _terms(option: Option) -> dict[str, float]:
    return {
        "defragments": option.defragments,
        "scarcity": -option.scarcity,
        "speed": option.speed,
        "undisturbed": 1.0 - option.disturbs,
    }


BALANCED = Policy(
    "balanced",
    {"defragments": 1.0, "scarcity": 0.25, "speed": 1.0, "undisturbed": 0.25},
    _terms,
    step=0.01,
    squash=True,
    uses_mix=True,
    uses_speed=True,
)
