"""``balanced``, the default: what a place leaves over, speed and scarcity, all in devices' worth.

    keeps         change of what the node's rests are worth to what arrives (``core/worth.py``)
    scarcity      - price of the type x devices asked: leave it to those who have no choice
    speed         + speed of the task's class there, relative to the fastest type it may use: a scarce type is
                  left to others where that costs little, not where a task would take several times as long
    undisturbed   + where no warm slice has to stop
    company       - what it and its neighbours on the device would lose beside each other
    near          + part of its large arguments on the node
    linked        + how well several devices are connected

Places that differ by less than 0.08 of a device are ties, so that the pool fills in one order.
"""

from __future__ import annotations

from flexray.core.policy import Option, Policy


def _terms(option: Option) -> dict[str, float]:
    return {
        "keeps": option.keeps,
        "scarcity": -option.scarcity,
        "speed": option.speed,
        "undisturbed": 1.0 - option.disturbs,
    }


BALANCED = Policy(
    "balanced",
    {
        "keeps": 1.0,
        "scarcity": 0.25,
        "speed": 2.0,
        "undisturbed": 0.25,
        "company": 1.0,
        "near": 0.25,
        "linked": 0.25,
    },
    _terms,
    band=0.08,
    additive=True,
    uses_mix=True,
    uses_speed=True,
)
