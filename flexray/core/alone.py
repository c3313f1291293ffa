"""What a class takes on a type, whatever was beside it: what its reports are compared with.

A class may never run alone. So its mean of log seconds is kept as measured, together with
what was beside it on average meanwhile. A report then tells of a partner only by as much
as the partner was more, or less, beside it than usual: what all reports have in common is
the class's own.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

#: Later reports count no more than this many, so that a class that changes is learnt anew.
MEMORY = 50.0
#: Variance of the log seconds of a call before any was seen (30 %), worth so many reports; and the least.
NOISE, _NOISE_WEIGHT, _LEAST_NOISE = 0.3**2, 3.0, 0.02**2
#: Part of that variance that does not average out over the calls of one report.
_COMMON = 0.2
#: What was beside it for a smaller part of the time is as good as absent.
SLIGHT = 0.05
_MOST_BASES = 1024


def noise_share(calls: int) -> float:
    """Variance of a report of so many calls, as a part of that of a single call."""
    return _COMMON + (1.0 - _COMMON) / calls


@dataclass(slots=True)
class Base:
    """One class on one type: mean of log seconds, its weight in single calls, variance of one call, company kept."""

    weight: float = 0.0
    mean: float = 0.0
    noise: float = NOISE
    beside: dict[str, float] = field(default_factory=dict)

    def parts(self, calls: int) -> float:
        """Variance of how far a report is off the mean, in ``noise``, apart from what the company does."""
        return noise_share(calls) + 1.0 / self.weight

    def scattered(self, square: float) -> None:
        """A report was off by noise of this square, in terms of a single call."""
        self.noise += (square - self.noise) / (_NOISE_WEIGHT + min(self.weight, MEMORY))
        self.noise = max(_LEAST_NOISE, self.noise)

    def add(self, log_seconds: float, partners: Mapping[str, float], calls: int) -> None:
        """Take in a report, and how much it felt of each partner."""
        weight = 1.0 / noise_share(calls)
        self.weight = min(self.weight, MEMORY) + weight
        step = weight / self.weight
        self.mean += step * (log_seconds - self.mean)
        for name in sorted(self.beside.keys() | partners.keys()):
            before = self.beside.get(name, 0.0)
            part = before + step * (partners.get(name, 0.0) - before)
            if part < SLIGHT / 5 and name not in partners:
                self.beside.pop(name, None)
            else:
                self.beside[name] = part


class Bases:
    """The bases of the classes that had company; the one used longest ago is forgotten first."""

    def __init__(self) -> None:
        self._bases: dict[tuple[str, str], Base] = {}

    def get(self, task_class: str, device_type: str) -> Base | None:
        """The base of a class on a type, if it ever had company."""
        return self._bases.get((task_class, device_type))

    def put(self, task_class: str, device_type: str, base: Base) -> None:
        """Keep a base as the one used last."""
        self._bases.pop((task_class, device_type), None)
        self._bases[task_class, device_type] = base
        if len(self._bases) > _MOST_BASES:
            del self._bases[next(iter(self._bases))]

    def rows(self) -> Iterator[tuple[str, str, str, float, float, float]]:
        """(class, type, "", weight, mean, variance), and (class, type, partner, part, 0, 0) for each partner."""
        for (task_class, device_type), base in self._bases.items():
            yield task_class, device_type, "", base.weight, base.mean, base.noise
            for name, part in base.beside.items():
                yield task_class, device_type, name, part, 0.0, 0.0

    def restore(self, row: tuple[str, str, str, float, float, float]) -> None:
        """Take in one of ``rows``; a base comes before its partners."""
        task_class, device_type, partner, first, second, third = row
        if not partner:
            self.put(task_class, device_type, Base(first, second, third))
            return
        base = self.get(task_class, device_type)
        if base is not None:
            base.beside[partner] = first
