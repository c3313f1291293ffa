"""Policies: what they see of a place, and how they say what it is worth."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

PLACE_TERMS = ("company", "near", "linked")
"""Terms of a particular place, in devices' worth, added to the total of its class (see ``places.py``)."""


class Option(NamedTuple):
    """A place as a policy sees it; everything within [0, 1].

    Attributes:
        share_left: part of the device's share (of several devices: of the node's whole ones) left after placing.
        memory_left: the same for device memory.
        memory_size: device memory relative to the largest device of the pool.
        speed: nominal speed relative to the fastest device of the pool; where the policy uses it, that of the
            task's class relative to the fastest type it may use.
        disturbs: 1 where a warm idle slice would have to stop.
        defragments: devices' worth of fragments (see ``mix.py``) that the node loses; below 0, that it gains.
        keeps: change of what the node's rests are worth to what arrives (see ``worth.py``), in devices.
        scarcity: demand for such devices by those who have no choice, times the devices' worth taken.
    """

    share_left: float
    memory_left: float
    memory_size: float
    speed: float
    disturbs: float
    defragments: float = 0.0
    scarcity: float = 0.0
    keeps: float = 0.0


class Rating(NamedTuple):
    """What computes totals by a policy.

    Attributes:
        total: of an option.
        most: a bound of the total of all options that have the ``memory_size``, ``speed`` and ``scarcity`` of the one
            given, and whose ``keeps`` is at most its; infinite where nothing is known.
    """

    total: Callable[[Option], float]
    most: Callable[[Option], float]


@dataclass(frozen=True, slots=True)
class Policy:
    """A named way to score: weights of terms, and the pure function that computes them from an Option.

    A weight for one of ``PLACE_TERMS`` makes the policy look at particular places too; ``terms`` does not give these.

    The total is the weighted mean of the terms, rounded down to a multiple of ``step``. Places whose total is at most
    ``band`` below the best are ties, decided by the keyed hash of the node's id.

    Attributes:
        additive: take the sum of the terms, which is in devices' worth, instead of their mean.
        squash: then take the logistic function of it.
        uses_mix: whether ``defragments``, ``scarcity`` or ``keeps`` is needed.
        uses_speed: whether ``speed`` is that of the task's class, as measured, instead of the catalog's.
    """

    name: str
    weights: Mapping[str, float]
    terms: Callable[[Option], Mapping[str, float]]
    step: float = 1e-9
    band: float = 0.0
    additive: bool = False
    squash: bool = False
    uses_mix: bool = False
    uses_speed: bool = False
    _factors: tuple[tuple[str, float], ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        weights = {name: weight for name, weight in self.weights.items() if name not in PLACE_TERMS}
        parts = 1.0 if self.additive else sum(weights.values())
        factors = tuple((name, weight / parts) for name, weight in weights.items())
        object.__setattr__(self, "_factors", factors)

    def weighted(self, option: Option) -> dict[str, float]:
        """The weighted terms of an option."""
        terms = self.terms(option)
        return {name: factor * terms[name] for name, factor in self._factors}

    def rating(self) -> Rating:
        """What computes the totals of options.

        Most policies' terms are linear in the option, so that the total is one dot product; it is found by
        trying, and any other policy is computed term by term.
        """
        weights = _linear(lambda option: sum(self.weighted(option).values()))
        linear = _dot(*weights) if weights is not None else None
        step, squash = self.step, self.squash

        def total(option: Option) -> float:
            value = linear(option) if linear is not None else sum(self.weighted(option).values())
            if squash:
                value = 1 / (1 + math.exp(-value))
            return math.floor(value / step + 1e-6) * step

        def most(option: Option) -> float:
            if weights is None or weights[1].defragments or weights[1].keeps < 0:
                return math.inf
            best = {name: float(getattr(weights[1], name) > 0) for name in ("share_left", "memory_left", "disturbs")}
            return total(option._replace(**best))  # sums are rounded alike, so that it holds to the last digit

        return Rating(total, most)


#: Options at which a sum of terms that is taken for linear has to be what it would be then.
_TRIALS = (
    Option(0.31, 0.77, 0.53, 0.19, 1.0, -0.41, 0.23, -0.67),
    Option(0.92, 0.08, 1.0, 1.0, 0.0, 1.7, 3.1, 0.29),
    Option(0.5, 0.5, 0.25, 0.4, 1.0, -2.3, 0.9, -1.9),
)


def _linear(value: Callable[[Option], float]) -> tuple[float, Option] | None:
    """What the function is at 0, and the weight of each of the option's fields; None where it is not linear."""
    none = Option(*[0.0] * len(Option._fields))
    base = value(none)
    weights = Option(*[value(none._replace(**{name: 1.0})) - base for name in Option._fields])
    dot = _dot(base, weights)
    return (base, weights) if all(abs(value(trial) - dot(trial)) < 1e-9 for trial in _TRIALS) else None


def _dot(base: float, weights: Option) -> Callable[[Option], float]:
    a, b, c, d, e, f, g, h = weights

    def dot(option: Option) -> float:
        o, p, q, r, s, t, u, v = option
        return base + a * o + b * p + c * q + d * r + e * s + f * t + g * u + h * v

    return dot
