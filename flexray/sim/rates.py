"""How fast classes of jobs run on types of devices: learnt from what they did, completed where nothing was seen.

For every cell only a count and a mean are kept, and a mean and a standard deviation given,
so that whoever chooses can count what is little known as better than it looks, and so
tries it: optimism in the face of uncertainty (Auer et al., 2002). Gavel completes its table
too, by matrix factorisation and a nearest known job (section 6 of the paper); a normal
model says as well how sure it is.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from flexray.errors import UsageError

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


class Estimate(NamedTuple):
    """Mean and standard deviation of every cell."""

    mean: Floats
    deviation: Floats


class Cells:
    """Count and mean of what was seen in each cell of a table."""

    def __init__(self, rows: int, columns: int) -> None:
        if rows < 1 or columns < 1:
            raise UsageError(f"a table of {rows} x {columns} has no cells")
        self.count = np.zeros((rows, columns))
        self.mean = np.zeros((rows, columns))

    def add(self, rows: ArrayLike, columns: ArrayLike, values: ArrayLike) -> bool:
        """Take in values. True when a cell has seen twice as much as at the last power of two: worth a new fit."""
        shape = self.count.shape
        index = np.asarray(rows, dtype=np.int64) * shape[1] + np.asarray(columns, dtype=np.int64)
        seen = np.bincount(index, minlength=self.count.size).reshape(shape)
        total = np.bincount(index, np.asarray(values, dtype=np.float64), minlength=self.count.size).reshape(shape)
        count = self.count + seen
        hit = seen > 0
        self.mean[hit] += (total[hit] - seen[hit] * self.mean[hit]) / count[hit]
        doubled = np.frexp(count)[1] > np.frexp(self.count)[1]
        self.count = count
        return bool(doubled.any())


class Rates:
    """Rates of classes of jobs on types of devices, in units of work a second.

    The log rates of a class on all types are drawn from one normal distribution, whose
    mean and covariance are learnt from the classes seen (expectation maximisation, shrunk
    towards the start). A type that a class never ran on is so completed from those it ran
    on, as similar classes behaved.
    """

    #: The fit is at rest after so many sweeps.
    _SWEEPS = 8

    def __init__(self, classes: int, kinds: int, *, common: float = 2.0, own: float = 0.7, noise: float = 0.05) -> None:
        """Before anything is seen, standard deviations of log rates.

        Args:
            common: of a class on all types alike; rates of different classes have nothing in common.
            own: of a class on one type apart from the others: a factor of two.
            noise: of one measurement; 0.05 is 5 %.
        """
        if not (common > 0 and own > 0 and noise > 0):
            raise UsageError("common, own and noise are standard deviations: above 0")
        self._cells = Cells(classes, kinds)
        self._start = common**2 * np.ones((kinds, kinds)) + own**2 * np.eye(kinds)
        self._noise = noise
        self._fit: Estimate | None = None

    def add(self, classes: ArrayLike, kinds: ArrayLike, rates: ArrayLike) -> None:
        """Measured rates, all above 0."""
        values = np.asarray(rates, dtype=np.float64)
        if not (values > 0).all():
            raise UsageError("a measured rate must be above 0")
        if self._cells.add(classes, kinds, np.log(values)):
            self._fit = None

    def log_rates(self) -> Estimate:
        """Log rates of every class on every type."""
        if self._fit is None:
            self._fit = self._estimate()
        return self._fit

    def optimistic(self, bonus: float = 1.0) -> Floats:
        """Rates with so many standard deviations added."""
        mean, deviation = self.log_rates()
        # what is common to all types cancels in the ratios that matter; its doubt must not drown the rest
        optimistic: Floats = np.exp(mean + bonus * np.minimum(deviation, 3.0))
        return optimistic

    def _estimate(self) -> Estimate:
        count, seen = self._cells.count, self._cells.count > 0
        kinds = count.shape[1]
        prior_weight = kinds + 2.0  # the start counts as this many classes
        level: Floats = np.full(kinds, float(self._cells.mean[seen].mean()) if seen.any() else 0.0)
        center, spread = level, self._start
        known = seen.any(axis=1)
        classes = float(known.sum())
        for sweep in range(self._SWEEPS):
            posterior, covariance = self._posterior(center, spread)
            if sweep == self._SWEEPS - 1 or classes < 2:
                break
            off = posterior[known] - center
            scatter: Floats = off.T @ off + covariance[known].sum(axis=0)
            center = (posterior[known].sum(axis=0) + level) / (classes + 1.0)
            spread = (scatter + prior_weight * self._start) / (classes + prior_weight)
        return Estimate(posterior, np.sqrt(np.einsum("ckk->ck", covariance)))

    def _posterior(self, center: Floats, spread: Floats) -> tuple[Floats, Floats]:
        """Of each class: mean (classes, types), and covariance (classes, types, types)."""
        precision = np.linalg.inv(spread)
        weight = self._cells.count / self._noise**2
        covariance = np.asarray(np.linalg.inv(precision + weight[:, :, None] * np.eye(len(spread))), dtype=np.float64)
        pull = precision @ center + weight * self._cells.mean
        return (covariance @ pull[:, :, None])[:, :, 0], covariance
