"""How much each partner of one class of tasks slows it down: least squares, no effect below 0.

A report says: log seconds were off by y where partner p was felt d_p more than usual. Of all
reports only the sums A = sum of w d d' and h = sum of w d y are kept. With variance v of a
report and the effects expected at m with variance P, the most likely effects are

    min  e'(A/v + 1/P)e / 2 - (h/v + m/P)'e      over e >= 0

Partners that were never apart share what they cost as the prior has it, and where only
differences between partners can be told (a class that is never alone), the least of them
is harmless: nothing is blamed on somebody without need.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

#: Later reports on a partner count no more than this many, so that classes that change are learnt anew.
_MEMORY = 200.0
#: Solve again when a report adds this much to what is known.
_NEWS = 0.05


class Belief(NamedTuple):
    """An effect as a normal variable; ``error`` is the variance of what the partner's own reports say of it."""

    mean: float
    variance: float
    error: float = math.inf


class Blame:
    """One class of tasks and its partners.

    Attributes:
        beliefs: effects by partner, as of the last ``solve``; the partner seen last comes last.
        shown: effects by partner that others may count on; kept by the owner.
    """

    def __init__(self) -> None:
        self.beliefs: dict[str, Belief] = {}
        self.shown: dict[str, float] = {}
        self._names: list[str] = []
        self._gram: Floats = np.zeros((0, 0))
        self._pull: Floats = np.zeros(0)
        self._news = 0.0

    def enter(self, name: str, belief: Belief, shown: float, information: float = 0.0) -> None:
        """A partner, with what is believed of it; ``information``: as if so many reports had said that mean."""
        size = len(self._names)
        gram, pull = np.zeros((size + 1, size + 1)), np.zeros(size + 1)
        gram[:size, :size], pull[:size] = self._gram, self._pull
        gram[size, size], pull[size] = information, information * belief.mean
        self._gram, self._pull = gram, pull
        self._names.append(name)
        self.beliefs[name], self.shown[name] = belief, shown

    def leave(self, name: str) -> None:
        """Forget a partner."""
        at = self._names.index(name)
        del self._names[at], self.beliefs[name], self.shown[name]
        self._gram = np.delete(np.delete(self._gram, at, 0), at, 1)
        self._pull = np.delete(self._pull, at)

    def information(self) -> dict[str, float]:
        """How many reports tell of each partner, in the order of ``beliefs``."""
        known = dict(zip(self._names, self._gram.diagonal().tolist(), strict=True))
        return {name: known[name] for name in self.beliefs}

    def add(self, parts: Mapping[str, float], value: float, weight: float) -> bool:
        """Take in that a report was off by a value where partners were felt by so much more than usual.

        Returns whether it tells enough for another ``solve``.
        """
        change = np.zeros(len(self._names))
        for name, part in parts.items():
            change[self._names.index(name)] = part
            self.beliefs[name] = self.beliefs.pop(name)
        self._gram += weight * (change[:, None] * change)
        self._pull += weight * value * change
        known = self._gram.diagonal()
        self._news += float((weight * change**2 / np.maximum(known, 1e-9)).max())
        if (known > _MEMORY).any():
            self._fade(np.sqrt(np.minimum(1.0, _MEMORY / np.maximum(known, 1e-9))))
        return self._news > _NEWS

    def solve(self, priors: Mapping[str, Belief], noise: float) -> None:
        """Form the beliefs anew, from what is expected of each partner and the variance of a report of weight 1."""
        size = len(self._names)
        mean = np.array([priors[name].mean for name in self._names])
        variance = np.array([priors[name].variance for name in self._names])
        table = np.zeros((size + 1, size + 1))
        table[:size, :size] = self._gram / noise + np.diag(1.0 / variance)
        table[:size, size] = table[size, :size] = self._pull / noise + mean / variance
        free = _sweep_in(table)
        for at, name in enumerate(self._names):
            effect = max(float(table[at, size]), 0.0) if free[at] else 0.0
            variance_now = -table[at, at] if free[at] else 1.0 / table[at, at]
            known = float(self._gram[at, at])
            self.beliefs[name] = Belief(effect, float(variance_now), noise / known if known > 0 else math.inf)
        self._news = 0.0

    def _fade(self, keep: Floats) -> None:
        """Forget a part of what is known of each partner, and believe the same."""
        effects = np.array([self.beliefs[name].mean for name in self._names])
        rest = self._pull - (self._gram * effects).sum(axis=1)
        self._gram *= keep[:, None] * keep
        self._pull = (self._gram * effects).sum(axis=1) + keep * rest


def _sweep_in(table: Floats) -> NDArray[np.bool_]:
    """Solve M e = b over the rows where that gives e >= 0; ``table`` is [M b; b' 0] and is swept in place.

    The sweep operator (Goodnight, 1979) takes a row in and out of the solution. Afterwards the last column
    has the effect of a row that is in and the gradient of one that is out, and the diagonal minus the variance of the
    one and the precision of the other.
    """
    size = len(table) - 1
    free = np.zeros(size, dtype=np.bool_)
    for _ in range(4 * size):
        last = table[:size, size]
        low = np.where(free, last, 0.0)
        high = np.where(free, 0.0, last)
        at = int(low.argmin()) if low.min() < 0 else int(high.argmax())
        if low.min() >= 0 and high.max() <= 1e-9:
            break
        column = table[:, at].copy()
        pivot = column[at]
        table -= column[:, None] * (column / pivot)
        table[:, at] = table[at, :] = column / (-pivot if free[at] else pivot)
        table[at, at] = -1.0 / pivot
        free[at] = not free[at]
    return free
