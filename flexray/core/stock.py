"""What a piece of a device is worth where pieces of every size are asked for: dual prices of the cutting-stock program.

Pieces of size s make up the part p_s of what is asked for. The least number of devices
they can be cut from, on average, is the linear program of Gilmore and Gomory (1961)

    min sum x_a   with   sum a_s x_a >= p_s,   over all patterns a that fit: sum a_s s <= a device

Its dual gives each size a price, so that no pattern is worth more than the one device it
takes; a rest is worth the dearest pattern that fits in it. Solved by the simplex method
with patterns found as they are needed. It may stop early: prices divided by what their
dearest pattern is worth are a solution of the dual at any time, so the best so far counts.
Plain floats in a fixed order, so that a journal replays alike on any machine.
"""

from __future__ import annotations

from collections.abc import Sequence

#: Steps of the simplex method, and sizes: both bound the time, to about 25 ms on a swap of the mix.
_MOST_STEPS = 120
_MOST_SIZES = 40
#: Sizes below this part of what is asked for have no price of their own: there is no use for many rests of theirs.
_RARE = 0.005
_CLOSE = 1e-9


def values(sizes: Sequence[tuple[int, float]], whole: int) -> list[float]:
    """The worth of each rest from 0 to ``whole``, in devices; sizes are from 1 to ``whole``, with weights above 0."""
    sizes = _fewer(sizes)
    pieces = [size for size, _ in sizes]
    program = _Program(sizes, whole)
    best, table = -1.0, [0.0] * (whole + 1)
    for _ in range(_MOST_STEPS):
        prices = program.prices()
        worth = _dearest(pieces, prices, whole)
        reached = sum(price * weight for price, (_, weight) in zip(prices, sizes, strict=True)) / worth[whole]
        if reached > best:
            best, table = reached, [one / worth[whole] for one in worth]
        if worth[whole] <= 1 + _CLOSE:
            break
        program.use(_pattern(pieces, prices, worth))
    return table


def _fewer(sizes: Sequence[tuple[int, float]]) -> Sequence[tuple[int, float]]:
    """The most popular sizes and the largest; each of the others counts as the next larger one."""
    largest, least = max(sizes), _RARE * sum(weight for _, weight in sizes)
    enough = [one for one in sizes if one[1] >= least or one == largest]
    popular = sorted(enough, key=lambda one: (one != largest, -one[1], one[0]))[:_MOST_SIZES]
    kept = {size: 0.0 for size, _ in sorted(popular)}
    for size, weight in sizes:
        kept[next(one for one in kept if one >= size)] += weight
    return list(kept.items())


class _Program:
    """A basis of patterns: the inverse of its matrix, and how often each is cut."""

    def __init__(self, sizes: Sequence[tuple[int, float]], whole: int) -> None:
        count = len(sizes)
        self._inverse = [[0.0] * count for _ in range(count)]
        self._cut = [weight / (whole // size) for size, weight in sizes]
        for row, (size, _) in enumerate(sizes):  # at first, one pattern for each size alone
            self._inverse[row][row] = 1.0 / (whole // size)

    def prices(self) -> list[float]:
        """Of each size; on the way some would be below 0, where less of a size were better."""
        return [max(0.0, sum(column)) for column in zip(*self._inverse, strict=True)]

    def use(self, pattern: Sequence[int]) -> None:
        """Take a pattern into the basis in place of the one that is used up first."""
        some = [(index, times) for index, times in enumerate(pattern) if times]
        enters = [sum(row[index] * times for index, times in some) for row in self._inverse]
        parts = enumerate(zip(self._cut, enters, strict=True))
        ratios = [(cut / part, row) for row, (cut, part) in parts if part > _CLOSE]
        amount, leaves = min(ratios)
        pivot = [one / enters[leaves] for one in self._inverse[leaves]]
        for row, part in enumerate(enters):
            if row != leaves and part:
                self._inverse[row] = [one - part * other for one, other in zip(self._inverse[row], pivot, strict=True)]
                self._cut[row] = max(0.0, self._cut[row] - part * amount)
        self._inverse[leaves], self._cut[leaves] = pivot, amount


def _dearest(pieces: Sequence[int], prices: Sequence[float], whole: int) -> list[float]:
    """By room, what the dearest pattern in it is worth."""
    worth = [0.0] * (whole + 1)
    for size, price in zip(pieces, prices, strict=True):
        for room in range(size, whole + 1):
            dearer = worth[room - size] + price
            if dearer > worth[room]:
                worth[room] = dearer
    return worth


def _pattern(pieces: Sequence[int], prices: Sequence[float], worth: Sequence[float]) -> list[int]:
    """The dearest pattern of a whole device, followed back from the worth of each room."""
    pattern = [0] * len(pieces)
    room = len(worth) - 1
    while True:
        found = next(
            (
                index
                for index, size in enumerate(pieces)
                if size <= room and prices[index] > 0 and worth[room - size] + prices[index] >= worth[room] - _CLOSE
            ),
            None,
        )
        if found is None:
            return pattern
        pattern[found] += 1
        room -= pieces[found]
