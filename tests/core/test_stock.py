"""Values of rests by the cutting-stock program: known optima, and what holds for every list of sizes."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog

from flexray.core import stock

SIZES = st.dictionaries(st.integers(1, 30), st.floats(0.1, 1.0), min_size=1, max_size=12).map(
    lambda found: tuple(sorted(found.items()))
)


def test_two_sizes_that_fill_a_device_together_are_worth_it_together() -> None:
    """As many 81 as 19: each pair takes one device, whose worth is that of both."""
    worth = stock.values(((19, 1.0), (81, 1.0)), 100)
    assert worth[100] == pytest.approx(1.0)
    assert worth[81] + worth[19] == pytest.approx(1.0)
    assert worth[18] == 0.0


def test_the_scarce_size_has_the_price() -> None:
    """With far more 81 than 19, a device goes to each 81 whatever comes beside it: rests of 19 are worth nothing."""
    assert stock.values(((19, 1.0), (81, 9.0)), 100)[19] == pytest.approx(0.0)
    assert stock.values(((19, 9.0), (81, 1.0)), 100)[19] == pytest.approx(0.2)  # five of them make a device


def test_an_early_stop_still_prices_no_pattern_above_a_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stock, "_MOST_STEPS", 2)
    sizes = tuple((size, 1.0) for size in (7, 11, 13, 17, 23))
    assert stock.values(sizes, 30)[30] == pytest.approx(1.0)


def test_with_too_many_sizes_the_rare_ones_count_as_larger_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stock, "_MOST_SIZES", 2)
    many = ((10, 8.0), (19, 90.0), (70, 1.0), (81, 5.0))
    fewer = stock.values(many, 100)
    assert fewer == stock.values(((19, 98.0), (81, 6.0)), 100)
    assert fewer[19] > fewer[18] == 0.0


def test_a_rare_size_makes_no_rest_dear() -> None:
    """Rests of 50 would be worth half a device each, were there more than a few who ask for it."""
    assert stock.values(((50, 0.001), (100, 1.0)), 100)[50] == 0.0
    assert stock.values(((50, 0.1), (100, 1.0)), 100)[50] == pytest.approx(0.5)


@given(SIZES)
@settings(max_examples=60, deadline=None)
def test_prices_are_an_optimum_of_the_dual(sizes: tuple[tuple[int, float], ...]) -> None:
    whole = 30
    worth = stock.values(sizes, whole)
    assert worth[whole] == pytest.approx(1.0)
    assert all(a <= b + 1e-9 for a, b in itertools.pairwise(worth))
    # No rest is worth less than its two parts apart: patterns of both parts fit into the whole rest.
    assert all(worth[a] + worth[b] <= worth[a + b] + 1e-7 for a in range(whole) for b in range(whole + 1 - a))
    reached = sum(worth[size] * weight for size, weight in sizes)
    assert reached == pytest.approx(optimum(sizes, whole), rel=1e-6)


def optimum(sizes: tuple[tuple[int, float], ...], whole: int) -> float:
    """The program as a flow of rooms (Valerio de Carvalho): arcs of each size, and of one unit of waste."""
    arcs = [(at, at + size, index) for index, (size, _) in enumerate(sizes) for at in range(whole + 1 - size)]
    arcs += [(at, at + 1, -1) for at in range(whole)]
    balance = np.zeros((whole + 1, len(arcs) + 1))
    for number, (begin, end, _) in enumerate(arcs):
        balance[begin, number], balance[end, number] = -1, 1
    balance[0, -1], balance[whole, -1] = 1, -1
    asked = np.array([[-(index == kind) for _, _, index in arcs] + [0] for kind in range(len(sizes))], float)
    cost = np.append(np.zeros(len(arcs)), 1.0)
    solved = linprog(cost, A_ub=asked, b_ub=[-w for _, w in sizes], A_eq=balance, b_eq=np.zeros(whole + 1))
    return float(solved.fun)
