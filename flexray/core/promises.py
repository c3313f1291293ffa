"""Promises that are more than there is: warnings when configured, pro rata at run time.

Top down, the quotas of siblings share what their parent's quota guarantees, or the whole
pool where no ancestor has one:

    for each type (or pattern) that quotas name:  n -> n x min(1, there is / sum of n)
    then in one measure, worth:                   q -> q x min(1, there is / sum of q)

An amount of devices of any type is worth so many average devices of the pool here.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import Enum
from fractions import Fraction

from flexray.core.loads import Capacity, capacity_load, worth
from flexray.core.queues import QueueTree, matches
from flexray.model.queue import ROOT_QUEUE, QueueAmount

_COMPUTE = "normalised compute"


class Trouble(str, Enum):
    """What can be wrong with what queues were promised."""

    ABOVE_PARENT = "above_parent"
    """The children of a queue are promised more than the queue."""
    ABOVE_POOL = "above_pool"
    """More is promised than the pool has."""
    QUOTA_ABOVE_LIMIT = "quota_above_limit"
    """A queue is promised more than it, or an ancestor, may use."""
    NO_SUCH_TYPE = "no_such_type"
    """A device type is named that the pool does not have now."""


@dataclass(frozen=True, slots=True)
class QueueWarning:
    """One thing that is wrong, and goes on working in a reduced form.

    Attributes:
        queue: of the children, for ABOVE_*: the queue they are parts of.
        measure: device type or pattern, or ``normalised compute``; "" where none is meant.
        promised, available: thousandths, of devices of that type or of an ``nvidia/A100-80GB``.
    """

    trouble: Trouble
    queue: str
    measure: str = ""
    promised: int = 0
    available: int = 0
    hint: str = ""

    def __str__(self) -> str:
        if self.trouble is Trouble.NO_SUCH_TYPE:
            return f"queue {self.queue!r} names {self.measure!r}, and the pool has no such device now.{self.hint}"
        if self.trouble is Trouble.QUOTA_ABOVE_LIMIT:
            return f"queue {self.queue!r} is promised more than it may use: {self.hint}"
        whole = "the pool has" if self.trouble is Trouble.ABOVE_POOL else f"queue {self.queue!r} is promised itself"
        where = "queues" if self.trouble is Trouble.ABOVE_POOL else f"the queues of {self.queue!r}"
        return (
            f"{where} are promised {self.promised / 1000:g} {self.measure} in all, more than the "
            f"{self.available / 1000:g} that {whole}; they count pro rata"
        )


@dataclass(frozen=True, slots=True)
class _Budget:
    """What some siblings can be promised together: worth (millionths), and thousandths by type or pattern."""

    worth: Fraction
    types: Mapping[str, Fraction]


def fitted(tree: QueueTree, capacity: Capacity) -> tuple[QueueTree, tuple[QueueWarning, ...]]:
    """The tree with promises that this pool can keep, and what had to be scaled or is odd.

    Everything else about the queues stays. Amounts are rounded down, so that sums never exceed what there is.
    Before the pool has any device nothing can be said, and nothing is.
    """
    if not capacity:
        return tree, ()
    patterns = sorted({p for queue in tree.queues.values() for p, _ in (queue.quota.types if queue.quota else ())})
    pool = _Budget(
        Fraction(worth(capacity_load(capacity), capacity)),
        {p: Fraction(sum(capacity[kind].devices for kind in matches(p, capacity))) for p in patterns},
    )
    none = dict.fromkeys(patterns, Fraction(1))
    warnings: list[QueueWarning] = []
    quotas: dict[str, QueueAmount | None] = {}
    # (owner, queues, what they can have of this pool, what they could if the owner had all it was promised)
    levels: list[tuple[str | None, tuple[str, ...], _Budget, _Budget]] = [(None, (ROOT_QUEUE,), pool, pool)]
    while levels:
        owner, siblings, budget, configured = levels.pop()
        shrink, factor = _fit(tree, capacity, siblings, budget)
        warnings += _above(tree, capacity, owner, siblings, configured)
        for name in siblings:
            quota = tree.queues[name].quota
            quotas[name] = None if quota is None else _scaled(quota, shrink, factor)
            own = _budget_of(tree, capacity, name, budget, shrink, factor)
            levels.append((name, tree.children[name], own, _budget_of(tree, capacity, name, pool, none, Fraction(1))))
    queues = [replace(queue, quota=quotas[name]) for name, queue in tree.queues.items()]
    return QueueTree(queues), (*sorted(warnings, key=lambda w: (w.queue, w.measure)), *_odd(tree, capacity))


def _fit(
    tree: QueueTree, capacity: Capacity, siblings: tuple[str, ...], budget: _Budget
) -> tuple[dict[str, Fraction], Fraction]:
    """By how much the promises to siblings shrink: by type or pattern, and then all of them."""
    shrink: dict[str, Fraction] = {}
    for pattern, available in budget.types.items():
        asked = sum((_promised(tree, name, pattern) for name in siblings), Fraction(0))
        shrink[pattern] = min(Fraction(1), available / asked) if asked else Fraction(1)
    asked = sum((_value(tree, capacity, name, shrink) for name in siblings), Fraction(0))
    return shrink, min(Fraction(1), budget.worth / asked) if asked else Fraction(1)


def _above(
    tree: QueueTree, capacity: Capacity, owner: str | None, siblings: tuple[str, ...], budget: _Budget
) -> list[QueueWarning]:
    """Where siblings are promised more than there is for them."""
    trouble, group = (Trouble.ABOVE_POOL, ROOT_QUEUE) if owner is None else (Trouble.ABOVE_PARENT, owner)
    shrink, factor = _fit(tree, capacity, siblings, budget)
    found = []
    for pattern, available in budget.types.items():
        if shrink[pattern] < 1 and matches(pattern, capacity):  # of others, ``_odd`` tells
            asked = sum((_promised(tree, name, pattern) for name in siblings), Fraction(0))
            found.append(QueueWarning(trouble, group, pattern, round(asked), int(available)))
    if factor < 1:
        asked = sum((_value(tree, capacity, name, shrink) for name in siblings), Fraction(0))
        found.append(QueueWarning(trouble, group, _COMPUTE, round(asked / 1000), int(budget.worth / 1000)))
    return found


def _budget_of(
    tree: QueueTree, capacity: Capacity, name: str, above: _Budget, shrink: Mapping[str, Fraction], factor: Fraction
) -> _Budget:
    """What the children of a queue can be promised: its own scaled quota, or what they were promised, scaled."""
    quota = tree.queues[name].quota
    named = {p for p, _ in quota.types} if quota is not None else set(shrink)
    types = {
        p: _promised(tree, name, p) * shrink[p] * factor if p in named else available
        for p, available in above.types.items()
    }
    return _Budget(_value(tree, capacity, name, shrink) * factor, types)


def _promised(tree: QueueTree, name: str, pattern: str) -> Fraction:
    """Thousandths of a type (or pattern) that a queue, or those below it, are promised by that name."""
    quota = tree.queues[name].quota
    if quota is not None:
        return Fraction(sum(amount for p, amount in quota.types if p == pattern))
    return sum((_promised(tree, child, pattern) for child in tree.children[name]), Fraction(0))


def _value(tree: QueueTree, capacity: Capacity, name: str, shrink: Mapping[str, Fraction]) -> Fraction:
    """What a queue, or those below it, are promised, in millionths."""
    quota = tree.queues[name].quota
    if quota is None:
        return sum((_value(tree, capacity, child, shrink) for child in tree.children[name]), Fraction(0))
    named = sum((amount * shrink[p] * _speed(capacity, matches(p, capacity)) for p, amount in quota.types), Fraction(0))
    general = [] if quota.devices is None else [quota.devices * _speed(capacity, list(capacity))]
    general += [] if quota.compute is None else [Fraction(1000 * quota.compute)]
    return max(named, min(general)) if general else named


def _speed(capacity: Capacity, kinds: list[str]) -> Fraction:
    """Mean speed of the devices of some types, in thousandths."""
    count = sum(capacity[kind].devices for kind in kinds)
    return Fraction(sum(capacity[k].devices * capacity[k].speed for k in kinds), count) if count else Fraction(0)


def _scaled(quota: QueueAmount, shrink: Mapping[str, Fraction], factor: Fraction) -> QueueAmount:
    return QueueAmount(
        None if quota.devices is None else int(quota.devices * factor),
        None if quota.compute is None else int(quota.compute * factor),
        tuple((pattern, int(amount * shrink[pattern] * factor)) for pattern, amount in quota.types),
    )


def _odd(tree: QueueTree, capacity: Capacity) -> list[QueueWarning]:
    """What was written and cannot be meant."""
    found = []
    for name, pattern in tree.type_patterns():
        if not matches(pattern, capacity):
            near = difflib.get_close_matches(pattern, capacity, n=1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            found.append(QueueWarning(Trouble.NO_SUCH_TYPE, name, pattern, hint=hint))
    for name, queue in tree.queues.items():
        for step in tree.path(name):
            limit = tree.queues[step].limit
            if queue.quota is not None and limit is not None and _exceeds(queue.quota, limit):
                hint = f"quota {queue.quota.describe()}, limit of {step!r} {limit.describe()}"
                found.append(QueueWarning(Trouble.QUOTA_ABOVE_LIMIT, name, hint=hint))
    return found


def _exceeds(quota: QueueAmount, limit: QueueAmount) -> bool:
    """Whether a quota is above a limit in a measure that both name."""
    most = dict(limit.types)
    pairs = [(quota.devices, limit.devices), (quota.compute, limit.compute)]
    pairs += [(amount, most.get(pattern)) for pattern, amount in quota.types]
    return any(n is not None and cap is not None and n > cap for n, cap in pairs)
