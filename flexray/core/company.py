"""Who slows whom down on one device, learnt from what ran beside what.

    log(seconds a call takes) = alone(class, type) + sum over partners p of effect(class, p) + noise

A partner that was there for a part f of the time counts as -log(1 - f (1 - exp(-effect))):
work goes on at the mean of the two rates. ``alone.py`` keeps what a class takes otherwise,
``harm.py`` what is known of the effects.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

from flexray.core.alone import MEMORY, NOISE, SLIGHT, Base, Bases, noise_share
from flexray.core.harm import WORST, Harm, Row
from flexray.model.amounts import WHOLE

#: A report that is off by more standard deviations than this is taken for one that is off by as many.
_ODD = 4.0


class Company:
    """Learns from ``ran``; ``effect`` and ``loss`` answer. Effects are on log scale, 0 for none."""

    def __init__(self) -> None:
        self._bases = Bases()
        self._harm = Harm()

    # -- asking ------------------------------------------------------------------------------

    def effect(self, task_class: str, beside: str) -> float:
        """Log of how many times longer a task takes beside another, on the safe side: 0 while little is known.

        Moves in steps. A pair that was never seen is completed from how much the class suffers and how much the
        other disturbs elsewhere.
        """
        return self._harm.effect(task_class, beside)

    def loss(self, task_class: str, share: int, residents: Sequence[tuple[str, int]]) -> float:
        """Devices' worth of work lost by putting a task beside others.

        Args:
            share: its thousandths of the device.
            residents: (class, share in thousandths) of each task that is there.
        """
        effect = self._harm.effect
        together = sum(effect(task_class, name) for name, _ in residents)
        lost = share * -math.expm1(-together)
        return (lost + sum(part * -math.expm1(-effect(name, task_class)) for name, part in residents)) / WHOLE

    def knows(self, task_class: str) -> bool:
        """False while the effects on and of the class, beside whatever class, are all 0."""
        return self._harm.knows(task_class)

    def version(self, task_class: str) -> tuple[int, int]:
        """Changes when an effect on or of the class may have changed."""
        return self._harm.version(task_class)

    def slowdown(self, task_class: str, partners: Mapping[str, float]) -> float:
        """Log of how many times longer a task is expected to take, with each class beside it for a part of the time.

        Not on the safe side: for taking the company out of what was measured.
        """
        return sum(_over(part, self._harm.expected(task_class, name)) for name, part in sorted(partners.items()))

    # -- learning ----------------------------------------------------------------------------

    def ran(
        self,
        task_class: str,
        device_type: str,
        calls: int,
        seconds: float,
        partners: Mapping[str, float],
        known: tuple[float, float],
    ) -> float:
        """Calls ran on a type beside others. Returns for how many seconds they would have run alone.

        Args:
            partners: for which part of the time each class was beside it; two of a class count twice.
            known: mean of log seconds of the class alone on that type and its weight in calls, for the first time
                that it has company there.
        """
        base = self._bases.get(task_class, device_type)
        if calls <= 0 or seconds <= 0 or (base is None and not partners):
            return seconds
        if base is None:
            base = Base(min(known[1], MEMORY), known[0])
        log_seconds = math.log(seconds / calls)
        if base.weight > 0:
            parts = base.parts(calls)
            square = self._credit(task_class, partners, base.beside, log_seconds - base.mean, base.noise, parts)
            base.scattered(square / parts)
        felt = {name: _felt(part, self._harm.expected(task_class, name)) for name, part in partners.items()}
        base.add(log_seconds, felt, calls)
        self._bases.put(task_class, device_type, base)
        return seconds * math.exp(-self.slowdown(task_class, partners))

    def alone(self, task_class: str, device_type: str) -> float | None:
        """Mean of log seconds of the class alone on a type, by what is known of its company now.

        None if it never had company there.
        """
        base = self._bases.get(task_class, device_type)
        if base is None:
            return None
        return base.mean - sum(part * self._harm.expected(task_class, name) for name, part in base.beside.items())

    def observe(self, task_class: str, partners: Mapping[str, float], log_ratio: float, calls: int) -> None:
        """A task took exp(log_ratio) times as long as it is known to take alone.

        Args:
            partners: for which part of the time each class was beside it; two of a class count twice.
            calls: how many calls that is the mean of.
        """
        self._credit(task_class, partners, {}, log_ratio, NOISE, noise_share(max(calls, 1)))

    def _credit(
        self,
        task_class: str,
        partners: Mapping[str, float],
        usual: Mapping[str, float],
        log_ratio: float,
        noise: float,
        parts: float,
    ) -> float:
        """Learn from what a report is off by; returns the square of the noise in it, as far as can be told.

        Args:
            usual: how much is felt of each partner in the reports that ``log_ratio`` is against.
            noise: variance of a call.
            parts: variance of this report, in ``noise``.
        """
        more: dict[str, float] = {}
        expected, variance = 0.0, noise * parts
        for name in sorted(partners.keys() | usual.keys()):
            mean, doubt, _ = self._harm.belief(task_class, name)
            felt = _felt(partners.get(name, 0.0), min(mean, WORST)) - usual.get(name, 0.0)
            expected += felt * mean
            if abs(felt) >= SLIGHT:
                more[name] = felt
                variance += felt * felt * doubt
        odd = _ODD * math.sqrt(variance)
        off = min(max(log_ratio - expected, -odd), odd)
        if more:
            self._harm.tell(task_class, more, off, 1.0 / parts, noise)
        clear = noise * parts / variance
        return (off * clear) ** 2 + noise * parts * (1.0 - clear)

    # -- across restarts ---------------------------------------------------------------------

    def rows(self) -> list[Row]:
        """All that was learnt, as one table; "" stands for any.

        | class | type | beside | three numbers |
        | ----- | ---- | ------ | ------------- |
        | c     |      | p      | a pair: reports' worth of information, mean, shown effect |
        | c     |      |        | how much c suffers: mean, variance, shown value |
        |       |      | p      | how much p disturbs: mean, variance, shown value |
        | c     | t    |        | c on t in the company it has: weight, mean of log seconds, variance of a call |
        | c     | t    | p      | that company: how much of p is felt; 0; 0 |
        """
        return [*self._harm.rows(), *self._bases.rows()]

    def restore(self, rows: Iterable[Row]) -> None:
        """Take in what ``rows`` gave, into one that has learnt nothing."""
        for row in rows:
            (self._bases if row[1] else self._harm).restore(row)


def _over(part: float, effect: float) -> float:
    """Log of how many times longer it takes beside a class that is there for a part of the time.

    Above 1 it is several of the class, each as often there as the others.
    """
    several = max(1, math.ceil(part - SLIGHT))  # rounding must not make two of one
    return -several * math.log1p(min(part / several, 1.0) * math.expm1(-effect))


def _felt(part: float, effect: float) -> float:
    """How much is felt of an effect beside a class that is there for a part of the time."""
    return _over(part, effect) / effect if effect > 1e-6 else part
