"""What is known of each pair of classes, and how much of it counts.

    effect(class, p) = suffers(class) + disturbs(p) + own(class, p)

each normal around 0 before anything is seen. ``blame.py`` finds the effects of the
partners of one class; ``suffers`` and ``disturbs`` are means over the pairs of a class,
shrunk towards 0, and complete the pairs that were never seen.

What others may count on is shown: it is cautious (little known means harmless) and moves
in steps, so that scores which depend on it can be kept.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from flexray.core.alone import NOISE
from flexray.core.blame import Belief, Blame

Row = tuple[str, str, str, float, float, float]

#: Variances before anything is seen: of suffers and disturbs each (a factor of 1.35), of a pair's own (1.2).
_SIDE, _OWN = 0.3**2, 0.2**2
#: An effect counts once it is expected to be so many standard deviations above 0 (one in 44 by chance), and then by
#: one less than expected.
_SURE, _CAUTION = 2.0, 1.0
#: What is below is harmless; changes below are not shown.
_LEAST, _STEP = 0.03, 0.02
#: No effect is believed to be more than a factor of 20.
WORST = math.log(20)
#: Of each class the partners seen last are kept, so many; and the classes that ran last.
MOST_PARTNERS, MOST_CLASSES = 32, 512


class _Leaning(NamedTuple):
    """How much a class suffers, or disturbs, in general; ``shown`` is what unseen pairs may count on."""

    mean: float = 0.0
    variance: float = _SIDE
    shown: float = 0.0


_UNKNOWN = _Leaning()


class Harm:
    """Effects of classes on classes: log of how many times longer the first takes beside the second."""

    def __init__(self) -> None:
        #: by class, the one that ran last comes last; and the classes that each was seen beside.
        self._blames: dict[str, Blame] = {}
        self._seen_by: dict[str, dict[str, None]] = {}
        self._suffers: dict[str, _Leaning] = {}
        self._disturbs: dict[str, _Leaning] = {}
        #: how many harmful pairs a class takes part in; how many classes suffer or disturb in general.
        self._harmful: dict[str, int] = {}
        self._general = 0
        self._changes: dict[str, int] = {}
        self._ticks = self._epoch = 0

    # -- asking ------------------------------------------------------------------------------

    def effect(self, task_class: str, beside: str) -> float:
        """The effect that is shown."""
        blame = self._blames.get(task_class)
        found = blame.shown.get(beside) if blame is not None else None
        return self._completed(task_class, beside) if found is None else found

    def expected(self, task_class: str, beside: str) -> float:
        """The effect as it is expected, where it counts at all; of a pair that was never seen, what is shown."""
        shown = self.effect(task_class, beside)
        blame = self._blames.get(task_class)
        if not shown or blame is None or beside not in blame.beliefs:
            return shown
        return min(blame.beliefs[beside].mean, WORST)

    def belief(self, task_class: str, beside: str) -> Belief:
        """The effect with its uncertainty, for learning more."""
        blame = self._blames.get(task_class)
        found = blame.beliefs.get(beside) if blame is not None else None
        return found or self._prior(task_class, beside)

    def knows(self, task_class: str) -> bool:
        """False while every effect on and of the class, beside whatever class, is shown as 0."""
        return self._general > 0 or task_class in self._harmful

    def version(self, task_class: str) -> tuple[int, int]:
        """Changes when an effect on or of the class may be shown otherwise."""
        return self._changes.get(task_class, 0), self._epoch

    # -- learning ----------------------------------------------------------------------------

    def tell(self, task_class: str, felt: Mapping[str, float], off: float, weight: float, noise: float) -> None:
        """A report was off what the beliefs say, with so much more felt of each partner than usual.

        Args:
            weight: of the report, in calls.
            noise: variance of a call.
        """
        strongest = sorted(felt, key=lambda name: (-abs(felt[name]), name))[:MOST_PARTNERS]
        felt = {name: felt[name] for name in sorted(strongest)}
        blame = self._blame(task_class, felt)
        value = off + sum(part * blame.beliefs[name].mean for name, part in felt.items())
        if blame.add(felt, value, weight):
            blame.solve({name: self._prior(task_class, name) for name in blame.beliefs}, noise)
            self._lean(self._suffers, task_class, self._leaning_of_row(task_class))
            for name in felt:
                self._lean(self._disturbs, name, self._leaning_of_column(name))
            for name, belief in blame.beliefs.items():
                self._show(task_class, name, blame, _cautious(belief.mean, belief.variance))

    def _blame(self, task_class: str, partners: Iterable[str]) -> Blame:
        """The class's blame, with a place for each partner. Old partners, and old classes, make room."""
        blame = self._blames.pop(task_class, None) or Blame()
        for name in partners:
            if name not in blame.beliefs:
                self._enter(task_class, blame, name, self._prior(task_class, name), self._completed(task_class, name))
        self._blames[task_class] = blame
        old = [name for name in blame.beliefs if name not in partners]
        for name in old[: max(0, len(blame.beliefs) - MOST_PARTNERS)]:
            self._forget(task_class, blame, name)
        if len(self._blames) > MOST_CLASSES:
            oldest = next(iter(self._blames))
            blame_of_oldest = self._blames.pop(oldest)
            for name in list(blame_of_oldest.beliefs):
                self._forget(oldest, blame_of_oldest, name)
        return blame

    def _enter(
        self, task_class: str, blame: Blame, name: str, belief: Belief, shown: float, information: float = 0.0
    ) -> None:
        blame.enter(name, belief, shown, information)
        self._seen_by.setdefault(name, {})[task_class] = None
        self._count(task_class, name, int(shown > 0))

    def _forget(self, task_class: str, blame: Blame, name: str) -> None:
        """Forget a pair; and of a class of which no pair is left, everything."""
        shown, general = blame.shown[name], self._general
        self._count(task_class, name, -int(shown > 0))
        blame.leave(name)
        del self._seen_by[name][task_class]
        if not self._seen_by[name]:
            del self._seen_by[name]
            self._general -= self._disturbs.pop(name, _UNKNOWN).shown > 0
        if not blame.beliefs:
            self._general -= self._suffers.pop(task_class, _UNKNOWN).shown > 0
        for one in (task_class, name):
            if one not in self._seen_by and one not in self._blames:
                self._changes.pop(one, None)
        # caches of callers stay valid where nothing that was shown has gone: rare pairs come and go all the time
        self._epoch += shown != self._completed(task_class, name) or general != self._general

    # -- what follows from the pairs ---------------------------------------------------------

    def _completed(self, task_class: str, beside: str) -> float:
        """The effect of a pair that was never seen."""
        found = self._suffers.get(task_class, _UNKNOWN).shown + self._disturbs.get(beside, _UNKNOWN).shown
        return min(found, WORST)

    def _prior(self, task_class: str, beside: str) -> Belief:
        """What is expected of a pair from its row and its column."""
        suffers = self._suffers.get(task_class, _UNKNOWN)
        disturbs = self._disturbs.get(beside, _UNKNOWN)
        mean = min(max(suffers.mean + disturbs.mean, 0.0), WORST)
        return Belief(mean, _OWN + suffers.variance + disturbs.variance)

    def _leaning_of_row(self, task_class: str) -> _Leaning:
        pairs = self._blames[task_class].beliefs.items()
        return _leaning((belief, self._disturbs.get(name, _UNKNOWN)) for name, belief in pairs)

    def _leaning_of_column(self, beside: str) -> _Leaning:
        names = self._seen_by[beside]
        return _leaning((self._blames[name].beliefs[beside], self._suffers.get(name, _UNKNOWN)) for name in names)

    def _lean(self, leanings: dict[str, _Leaning], task_class: str, new: _Leaning) -> None:
        old = leanings.get(task_class, _UNKNOWN)
        if not _differs(new.shown, old.shown):
            new = new._replace(shown=old.shown)
        else:
            self._general += (new.shown > 0) - (old.shown > 0)
            self._epoch += 1
        leanings[task_class] = new

    def _show(self, task_class: str, beside: str, blame: Blame, effect: float) -> None:
        old = blame.shown[beside]
        if _differs(effect, old):
            self._count(task_class, beside, (effect > 0) - (old > 0))
            blame.shown[beside] = effect
            self._ticks += 1  # of all classes, so that one that was forgotten and comes again has no old version
            self._changes[task_class] = self._changes[beside] = self._ticks

    def _count(self, task_class: str, beside: str, change: int) -> None:
        for name in (task_class, beside):
            count = self._harmful.get(name, 0) + change
            if count:
                self._harmful[name] = count
            else:
                self._harmful.pop(name, None)

    # -- across restarts ---------------------------------------------------------------------

    def rows(self) -> Iterator[Row]:
        """All that was learnt; see ``Company.rows``."""
        for task_class, leaning in self._suffers.items():
            yield task_class, "", "", *leaning
        for beside, leaning in self._disturbs.items():
            yield "", "", beside, *leaning
        for task_class, blame in self._blames.items():
            information = blame.information()
            for beside, belief in blame.beliefs.items():
                yield task_class, "", beside, information[beside], belief.mean, blame.shown[beside]

    def restore(self, row: Row) -> None:
        """Take in one of ``rows``, in their order."""
        task_class, _, beside, *numbers = row
        if task_class and beside:
            information, mean, shown = numbers
            prior, error = self._prior(task_class, beside), NOISE / max(information, 1e-9)
            belief = Belief(mean, 1.0 / (1.0 / prior.variance + 1.0 / error), error)
            self._enter(task_class, self._blames.setdefault(task_class, Blame()), beside, belief, shown, information)
        else:
            leanings, name = (self._suffers, task_class) if task_class else (self._disturbs, beside)
            leanings[name] = _Leaning(*numbers)
            self._general += numbers[2] > 0
        self._epoch += 1


def _leaning(pairs: Iterable[tuple[Belief, _Leaning]]) -> _Leaning:
    """From the pairs of a class, each with how the other class leans."""
    weight = total = 0.0
    for belief, other in pairs:
        one = 1.0 / (_OWN + other.variance + belief.error)
        weight += one
        total += one * (belief.mean - other.mean)
    variance = 1.0 / (1.0 / _SIDE + weight)
    # an unseen pair has its own part beside those of its row and its column
    return _Leaning(total * variance, variance, _cautious(total * variance, variance + _OWN / 2))


def _cautious(mean: float, variance: float) -> float:
    deviation = math.sqrt(variance)
    found = min(mean - _CAUTION * deviation, WORST)
    return found if mean >= _SURE * deviation and found >= _LEAST else 0.0


def _differs(new: float, old: float) -> bool:
    return abs(new - old) > _STEP or (new == 0.0) != (old == 0.0)
