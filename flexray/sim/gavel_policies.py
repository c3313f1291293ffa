"""What decides in Gavel's experiment: the core's rounds, with throughputs that are given or learnt."""

from __future__ import annotations

from typing import NamedTuple, Protocol

import numpy as np

from flexray.core.rounds import Options, Standing, assign
from flexray.sim.gavel_trace import Floats, Ints, Load
from flexray.sim.rates import Rates


class Moment(NamedTuple):
    """What a policy sees at the beginning of a round. Columns are of the jobs that are there."""

    now: float
    jobs: Ints
    """Their numbers."""
    place: Ints
    idle_since: Floats
    done: Floats
    """Steps."""
    changed: bool
    """Whether jobs came or went since the last round."""


class Policy(Protocol):
    """Places jobs, round by round."""

    def place(self, moment: Moment) -> Ints:
        """Index of the kind of device for each job that is there, or WAITING."""

    def saw(self, classes: Ints, kinds: Ints, rates: Floats) -> None:
        """What jobs did in a round: steps a second."""


class Rounds:
    """``core.rounds``, told the throughputs."""

    def __init__(self, load: Load, slots: tuple[int, ...], options: Options) -> None:
        self._load, self._slots, self._options = load, slots, options

    def place(self, moment: Moment) -> Ints:
        """As the core says."""
        rates, best = self._rates()
        classes = self._load.job_class[moment.jobs]
        standing = Standing(
            rates=rates[classes],
            place=moment.place,
            elapsed=moment.now - self._load.arrival[moment.jobs],
            idle=np.where(moment.place >= 0, 0.0, moment.now - moment.idle_since),
            served=moment.done / best[classes],
        )
        return assign(standing, self._slots, self._options)

    def saw(self, classes: Ints, kinds: Ints, rates: Floats) -> None:
        """Nothing it does not know."""

    def _rates(self) -> tuple[Floats, Floats]:
        """(classes, kinds) to match by, and (classes,) of the best kind to count work by."""
        return self._load.rates, self._load.rates.max(axis=1)


class LearntRounds(Rounds):
    """The same with throughputs learnt from the rounds, per class of job."""

    def __init__(self, load: Load, slots: tuple[int, ...], options: Options, noise: float, seed: int) -> None:
        """``noise``: standard deviation of what is measured, as part of the rate."""
        super().__init__(load, slots, options)
        self._learnt = Rates(*load.rates.shape, noise=max(noise, 0.01))
        self._noise, self._draw = noise, np.random.default_rng(seed)

    def saw(self, classes: Ints, kinds: Ints, rates: Floats) -> None:
        """Measured with noise."""
        off = 1 + self._noise * self._draw.standard_normal(rates.size)
        self._learnt.add(classes, kinds, rates * np.maximum(off, 0.05))

    def _rates(self) -> tuple[Floats, Floats]:
        return self._learnt.optimistic(), np.exp(self._learnt.log_rates().mean).max(axis=1)
