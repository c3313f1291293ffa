"""How fast each class of tasks runs on each type of device: a prior from the catalog, then what was measured.

The run time of class c on type k is modelled as  log t = a_c - log s_k + b_k + e_ck,
with the type's nominal speed s_k (catalog, or declared), a correction b_k per type shared by
all classes, and a class's own deviation e_ck. Each is a mean shrunk towards 0, as if it
had been measured as 0 a few times, so that one odd run decides nothing and a pair that was
never seen is completed from the others. What is little known counts as faster than it
looks, by an upper confidence bound, and so gets tried now and then: less and less often
where it disappoints.

Calls of a class may be of any length; where they say how many steps they did, steps are
compared instead, which are alike, and known long before a call ends.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import lru_cache

#: Weight of the prior, in measured calls: for a type's correction, and for a class on a type.
_PRIOR_TYPE, _PRIOR_PAIR = 4.0, 1.0
#: Standard deviation (log scale) of how far a class may be off what is expected of it on a type.
_DEVIATION = 1.25
#: A type is not tried out where a call is expected to take longer than this many seconds.
_LONGEST_TRIAL = 30.0
#: Deviation of a type that a class has never been on, for who has to move there to find out: a factor of two.
_DOUBT = 0.7
#: Steps of a class are kept as a class of their own, of this name after its own.
_STEPS = "/steps"
#: Later calls count no more than this many, so that a class that changes is learnt anew.
_MOST = 50.0
#: A class that has had many leases is expected to have this many more at most.
_MOST_REPEATS = 20


@dataclass(slots=True)
class _Measured:
    """Mean of log seconds, and how much it is worth in calls."""

    weight: float = 0.0
    mean: float = 0.0

    def add(self, value: float, weight: float) -> None:
        total = min(self.weight, _MOST) + weight
        self.mean += weight / total * (value - self.mean)
        self.weight = total


class Speeds:
    """Learns from ``observe``; ``relative`` answers for all types at once."""

    def __init__(self) -> None:
        self._measured: dict[str, dict[str, _Measured]] = {}
        self._lease_seconds: dict[str, _Measured] = {}
        self._observed: dict[str, int] = {}
        self._total = 0
        #: corrections per type over all classes, of when, and when they are due to be taken anew.
        self._known_corrections: tuple[int, dict[str, float], dict[str, float]] = (-1, {}, {})
        self._due = 0

    @property
    def observations(self) -> int:
        """How many reports were taken in."""
        return self._total

    def knows(self, task_class: str) -> bool:
        """Whether any call of a class was measured."""
        return task_class in self._measured

    def version(self, task_class: str) -> tuple[int, int]:
        """Changes when ``relative`` of a class may give something else."""
        return self._observed.get(task_class, 0) + self._observed.get(task_class + _STEPS, 0), self._due

    def observe(self, task_class: str, device_type: str, calls: float, seconds: float) -> None:
        """Calls of a class ran on a type for so many seconds together."""
        if calls > 0 and seconds > 0:
            found = self._measured.setdefault(task_class, {}).setdefault(device_type, _Measured())
            found.add(math.log(seconds / calls), min(calls, _MOST))
            self._lease_seconds.setdefault(task_class, _Measured()).add(math.log(seconds), 1.0)
            self._observed[task_class] = self._observed.get(task_class, 0) + 1
            self._total += 1
            if self._total >= self._due:
                self._due = self._total + max(16, self._total // 10)

    def observe_steps(self, task_class: str, device_type: str, steps: float, seconds: float) -> None:
        """A call of a class that goes on did so many steps on a type in so many seconds."""
        self.observe(task_class + _STEPS, device_type, steps, seconds)

    def expected(self, task_class: str, device_type: str) -> tuple[float, float]:
        """Mean of log seconds that a call of the class took on a type, and its weight in calls: 0 if it never ran."""
        one = self._measured.get(task_class, {}).get(device_type)
        return (one.mean, one.weight) if one is not None else (0.0, 0.0)

    def correct(self, task_class: str, device_type: str, log_seconds: float) -> None:
        """What was observed means that a call of the class takes so long on a type, as is known by now."""
        one = self._measured.get(task_class, {}).get(device_type)
        if one is not None:
            one.mean = log_seconds

    def restore(self, rows: Iterable[tuple[str, str, float, float]]) -> None:
        """Take in what ``rows`` gave once."""
        for task_class, device_type, weight, mean in rows:
            self._measured.setdefault(task_class, {})[device_type] = _Measured(weight, mean)
        self._due += 1

    def rows(self) -> list[tuple[str, str, float, float]]:
        """(class, type, weight, mean of log seconds) of all that was measured."""
        return [
            (task_class, name, one.weight, one.mean)
            for task_class, types in sorted(self._measured.items())
            for name, one in sorted(types.items())
        ]

    def relative(
        self, task_class: str, nominal: Mapping[str, float], declared: tuple[tuple[str, float], ...] = ()
    ) -> dict[str, float]:
        """The class's speed on each type, relative to the fastest of them: in (0, 1].

        Args:
            nominal: speeds of the types there are, from the catalog.
            declared: (pattern, speed) pairs that the user gave; they replace the catalog's.
        """
        compared = self._compared(task_class)
        tried = self._observed.get(compared, 0)
        estimate = {}
        for name, (log_seconds, weight) in self._log_seconds(compared, nominal, declared).items():
            # UCB1 (Auer et al., 2002), on log seconds
            trial = not declared and log_seconds < math.log(_LONGEST_TRIAL)
            bonus = _DEVIATION * math.sqrt(2 * math.log1p(tried) / (1 + weight)) if trial else 0.0
            estimate[name] = log_seconds - bonus
        return _relative(estimate)

    def likely(
        self, task_class: str, nominal: Mapping[str, float], declared: tuple[tuple[str, float], ...] = ()
    ) -> dict[str, float]:
        """As ``relative``, for work that runs already and gives up a place it knows to try another.

        A type counts as faster by one standard deviation, and not the more the longer it was left untried.
        """
        known = self._log_seconds(self._compared(task_class), nominal, declared)
        doubt = 0.0 if declared else _DOUBT
        return _relative({name: mean - doubt / math.sqrt(1 + weight) for name, (mean, weight) in known.items()})

    def seconds(
        self,
        task_class: str,
        nominal: Mapping[str, float],
        declared: tuple[tuple[str, float], ...] = (),
        runtime: float | None = None,
    ) -> dict[str, float]:
        """How long a task is expected to take on each type; {} where nothing is known of it.

        Args:
            nominal, declared: as for ``relative``.
            runtime: what the user declared, for the slowest type it may use; what was measured replaces it.
        """
        log_seconds = self._log_seconds(task_class, nominal, declared)
        compared = self._log_seconds(self._compared(task_class), nominal, declared)
        if any(weight >= 1 for _, weight in log_seconds.values()):
            # so much longer than a step is a call, whatever the type
            total = sum(weight for _, weight in log_seconds.values())
            longer = sum(w * (mean - compared[name][0]) for name, (mean, w) in log_seconds.items()) / total
            return {name: math.exp(mean + longer) for name, (mean, _) in compared.items()}
        if runtime is None:
            return {}
        log_seconds = compared
        longest = max((mean for mean, _ in log_seconds.values()), default=0.0)
        if declared:  # one of the declared types may not be there
            longest = max(longest, -math.log(min(speed for _, speed in declared)))
        return {name: runtime * math.exp(mean - longest) for name, (mean, _) in log_seconds.items()}

    def _compared(self, task_class: str) -> str:
        """The class whose seconds say how the types compare: that of its steps, where it told them."""
        steps = task_class + _STEPS
        return steps if steps in self._measured else task_class

    def _log_seconds(
        self, task_class: str, nominal: Mapping[str, float], declared: tuple[tuple[str, float], ...]
    ) -> dict[str, tuple[float, float]]:
        """(mean of log seconds, weight of what was measured of it) for each type."""
        base = {name: math.log(_declared(name, declared) or speed) for name, speed in nominal.items()}
        known = self._measured.get(task_class, {})
        corrections = {} if declared else self._corrections(nominal)
        scale = self._scale(known, base, corrections)
        found = {}
        for name, log_speed in base.items():
            expected = scale - log_speed + corrections.get(name, 0.0)
            one = known.get(name)
            weight, mean = (one.weight, one.mean) if one is not None else (0.0, 0.0)
            stands = _declared(name, declared) is not None
            mixed = expected if stands else (_PRIOR_PAIR * expected + weight * mean) / (_PRIOR_PAIR + weight)
            found[name] = (mixed, weight)
        return found

    def work_ahead(self, task_class: str) -> float:
        """Seconds of work that one slice of the class will probably do: as often as so far, as long as so far."""
        found = self._lease_seconds.get(task_class)
        return math.exp(found.mean) * min(self._observed[task_class], _MOST_REPEATS) if found is not None else 0.0

    @staticmethod
    def _scale(known: Mapping[str, _Measured], base: Mapping[str, float], corrections: Mapping[str, float]) -> float:
        """a_c: what the class would take on a device of speed 1."""
        total = weights = 0.0
        for name, one in known.items():
            if name in base:
                total += one.weight * (one.mean + base[name] - corrections.get(name, 0.0))
                weights += one.weight
        return total / weights if weights else 0.0

    def _corrections(self, nominal: Mapping[str, float]) -> dict[str, float]:
        """b_k: how much slower a type is than its nominal speed says, over the classes seen on several types."""
        due, types, known = self._known_corrections
        if due != self._due or types.keys() != nominal.keys():
            known = self._take_corrections(nominal)
            self._known_corrections = (self._due, dict(nominal), known)
        return known

    def _take_corrections(self, nominal: Mapping[str, float]) -> dict[str, float]:
        total = dict.fromkeys(nominal, 0.0)
        weights = dict.fromkeys(nominal, 0.0)
        for types in self._measured.values():
            seen = {name: one for name, one in types.items() if name in nominal}
            if len(seen) < 2:
                continue
            level = {name: one.mean + math.log(nominal[name]) for name, one in seen.items()}
            middle = sum(level.values()) / len(level)
            for name in seen:
                total[name] += level[name] - middle
                weights[name] += 1.0
        return {name: total[name] / (weights[name] + _PRIOR_TYPE) for name in nominal}


def _relative(log_seconds: Mapping[str, float]) -> dict[str, float]:
    fastest = min(log_seconds.values(), default=0.0)
    return {name: math.exp(fastest - value) for name, value in log_seconds.items()}


@lru_cache(maxsize=4096)
def _declared(name: str, declared: tuple[tuple[str, float], ...]) -> float | None:
    return next((speed for pattern, speed in declared if fnmatchcase(name, pattern)), None)
