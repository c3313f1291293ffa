"""Gavel's own policy, as a baseline: least attained service, aware of speeds, by linear programming.

From Narayanan et al., OSDI 2020, sections 4 and 5, single devices. The shares of time x
maximise the least of the jobs' throughputs, each relative to what an equal share of all
devices would give it. Each round, per type, the jobs with the highest x / (part of the
type's time they received) run. Jobs of a class have equal shares, so the program has one
row of variables per class.
"""

from __future__ import annotations

import numpy as np

from flexray.errors import UsageError
from flexray.sim.gavel_policies import Moment
from flexray.sim.gavel_trace import Floats, Ints, Load

_RESET = 1920.0
"""Seconds between two solutions, at least: jobs that come between wait for the next (Gavel's default)."""

_ROUND = 360.0

_SPREAD = 1e-4
"""Weight of the mean speed beside the least: among the solutions of equal minimum, one that wastes nothing."""


class Las:
    """The policy ``las``."""

    def __init__(self, load: Load, slots: tuple[int, ...]) -> None:
        self._load, self._slots = load, np.asarray(slots, dtype=np.float64)
        shape = (load.arrival.size, len(slots))
        self._share = np.zeros(shape)
        #: seconds on each type since the last solution, and half a round, so that nobody divides by 0.
        self._got = np.full(shape, _ROUND / 2)
        #: seconds that a job should have had on each type and did not.
        self._deficit = np.zeros(shape)
        self._known = np.zeros(load.arrival.size, dtype=bool)
        self._solved_at = -np.inf
        self._stale = True

    def place(self, moment: Moment) -> Ints:
        """The type of each job that is there, or WAITING."""
        self._stale |= moment.changed
        if self._stale and moment.now - self._solved_at >= _RESET:
            self._renew(moment)
        known = self._known[moment.jobs]
        jobs = moment.jobs[known]
        found = self._round(jobs)
        runs = found >= 0
        self._got[jobs[runs], found[runs]] += _ROUND
        place = np.full(moment.jobs.size, -1, dtype=np.int64)
        place[known] = found
        return place

    def saw(self, classes: Ints, kinds: Ints, rates: Floats) -> None:
        """It was told the throughputs."""

    def _renew(self, moment: Moment) -> None:
        jobs = moment.jobs
        if self._solved_at >= 0:
            due = self._share[jobs] * (moment.now - self._solved_at)
            self._deficit[jobs] += due - (self._got[jobs] - _ROUND / 2)
        self._got[jobs] = _ROUND / 2
        self._known[jobs] = True
        classes, inverse, count = np.unique(self._load.job_class[jobs], return_inverse=True, return_counts=True)
        self._share[jobs] = solve(self._load.rates[classes], count, self._slots)[inverse.reshape(-1)]
        self._solved_at, self._stale = moment.now, False

    def _round(self, jobs: Ints) -> Ints:
        share, got, deficit = self._share[jobs], self._got[jobs], self._deficit[jobs]
        priority = share / (got / got.sum(axis=0))
        place = np.full(jobs.size, -1, dtype=np.int64)
        for kind, slots in enumerate(self._slots):
            order = np.lexsort((-share[:, kind], -deficit[:, kind], -priority[:, kind]))
            place[order[place[order] < 0][: int(slots)]] = kind
        return place


def solve(rates: Floats, count: Ints, slots: Floats) -> Floats:
    """(classes, kinds): shares of time of a job of each class, of which there are ``count``."""
    try:
        from scipy.optimize import linprog  # type: ignore[import-untyped]
    except ImportError:
        raise UsageError("the policy 'las' solves linear programs with scipy: pip install scipy") from None
    classes, kinds = rates.shape
    variables = classes * kinds
    equal = rates / (rates @ (slots / slots.sum()))[:, None]
    best = rates / rates.max(axis=1, keepdims=True)
    # the last variable is the minimum itself
    cost = np.append(-_SPREAD * (best * count[:, None] / count.sum()).reshape(-1), -1.0)
    above = np.zeros((2 * classes + kinds, variables + 1))
    limit = np.concatenate([np.zeros(classes), np.ones(classes), slots])
    of_class = np.arange(variables) // kinds
    above[of_class, np.arange(variables)] = -equal.reshape(-1)
    above[:classes, -1] = 1.0
    above[classes + of_class, np.arange(variables)] = 1.0
    above[2 * classes + np.arange(variables) % kinds, np.arange(variables)] = count[of_class]
    found = linprog(cost, A_ub=above, b_ub=limit, bounds=(0, None), method="highs")
    shares: Floats = np.clip(found.x[:-1].reshape(classes, kinds), 0.0, 1.0)
    return shares
