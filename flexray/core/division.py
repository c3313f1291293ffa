"""Dividing an integer among claims, exactly: quotas, then priorities, then weights, within what each can use.

    share = sure + min(want - sure, level x weight)        of siblings of one priority

with one level for all, as high as what is left allows (water filling). An indivisible
rest, less than one unit for each, goes to the lowest share, then by name. Pure arithmetic:
nothing here knows queues.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby


@dataclass(frozen=True, slots=True)
class Claim:
    """One sibling's claim, in integer units.

    Attributes:
        want: can use so much, at least ``sure``.
        sure: is guaranteed so much.
        weight: of what is left among claims of its priority; 0 takes only what no other claim can use.
        past: decayed use, in millionths of the whole; see ``effective_weights``.
    """

    name: str
    want: int
    sure: int = 0
    weight: int = 1000
    priority: int = 0
    past: int = 0


WHOLE_PAST = 1_000_000
"""``Claim.past`` of one who has had everything for ever."""


def divide(budget: int, claims: Sequence[Claim]) -> dict[str, int]:
    """Each claim's part. The parts add up to min(budget, sum of wants); no part is above its want.

    Every claim first gets what is sure, where budget allows; otherwise all those are cut pro rata. What is left goes
    by priority, among equals by weight. Claims of weight 0 come last, by priority, and equally.
    """
    shares = {claim.name: 0 for claim in claims}
    if sum(claim.sure for claim in claims) > budget:
        _fill(budget, shares, [(c.name, c.sure, c.sure) for c in claims])
        return shares
    for claim in claims:
        shares[claim.name] = claim.sure
    left = budget - sum(shares.values())
    by_priority = sorted(claims, key=lambda claim: -claim.priority)
    for _, group in groupby(by_priority, key=lambda claim: claim.priority):
        wanting = [claim for claim in group if claim.want > claim.sure and claim.weight]
        effective = effective_weights(wanting)
        for weights in (effective, {c.name: c.weight for c in wanting}):  # one whose past took its weight is second
            left -= _fill(left, shares, [(c.name, c.want - shares[c.name], weights[c.name]) for c in wanting])
    for _, group in groupby(by_priority, key=lambda claim: claim.priority):
        left -= _fill(left, shares, [(c.name, c.want - shares[c.name], 1) for c in group if not c.weight])
    return shares


def effective_weights(claims: Sequence[Claim]) -> dict[str, int]:
    """Weights after the past, as KAI has them with k = 1; only their proportions mean anything.

        w' = max(0, w / W + (w / W - u)),    W the sum of the weights, u the past use as a part of the whole

    so that one who used just its part keeps its weight, and one who used twice that or more has none.
    """
    if not any(claim.past for claim in claims):
        return {claim.name: claim.weight for claim in claims}
    whole = sum(claim.weight for claim in claims)
    return {c.name: max(0, 2 * c.weight * WHOLE_PAST - c.past * whole) for c in claims}


def _fill(budget: int, shares: dict[str, int], claims: Sequence[tuple[str, int, int]]) -> int:
    """Add to the shares what (name, room, weight) claims get of a budget, and say how much that was.

    The level rises until the budget is used or all room is full; claims without weight get nothing.
    """
    rising = [(name, room, weight) for name, room, weight in claims if room > 0 and weight > 0]
    left, weights = budget, sum(weight for *_, weight in rising)
    while rising:
        level, by = left, weights
        full = [(name, room, weight) for name, room, weight in rising if room * by <= level * weight]
        if not full:
            break
        for name, room, weight in full:
            shares[name] += room
            left, weights = left - room, weights - weight
        rising = [(name, room, weight) for name, room, weight in rising if room * by > level * weight]
    if not rising:
        return budget - left
    given = {name: left * weight // weights for name, _, weight in rising}
    for name, some in given.items():
        shares[name] += some
    for name in sorted(given, key=lambda n: (shares[n], n))[: left - sum(given.values())]:
        shares[name] += 1
    return budget
