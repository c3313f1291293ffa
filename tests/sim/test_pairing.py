"""Partners are chosen so that the devices get the most work done."""

from __future__ import annotations

from itertools import combinations

import numpy as np

from flexray.sim.pairing import ALONE, Floats, Unit, choose


def best_work(worth: Floats, classes: list[int], devices: int) -> float:
    """By trying every set of pairs."""

    def most(rest: list[int], units: int) -> float:
        best = float(min(len(rest), units))
        if units:
            for a, b in combinations(range(len(rest)), 2):
                left = [one for n, one in enumerate(rest) if n not in (a, b)]
                best = max(best, worth[rest[a], rest[b]] + most(left, units - 1))
        return best

    return most(classes, devices)


def work(worth: Floats, units: list[Unit]) -> float:
    return sum(1.0 if b == ALONE else float(worth[a, b]) for a, b in units)


def symmetric(draw: np.random.Generator, classes: int) -> Floats:
    half = draw.uniform(0.2, 1.0, (classes, classes))
    worth: Floats = half + half.T
    return worth


def test_partners_are_nearly_the_best_there_are() -> None:
    draw = np.random.default_rng(7)
    reached = []
    for _ in range(40):
        worth, classes = symmetric(draw, 4), sorted(draw.integers(4, size=7).tolist())
        devices = int(draw.integers(1, 8))
        units = choose(worth, np.bincount(classes, minlength=4), devices)
        members = sorted(one for unit in units for one in unit if one != ALONE)
        assert len(units) == min(devices, len(classes))
        assert all(members.count(one) <= classes.count(one) for one in classes)
        reached.append(work(worth, units) / best_work(worth, classes, devices))
    assert min(reached) > 0.98
    assert np.mean(reached) > 0.999


def test_nobody_shares_while_there_is_room() -> None:
    assert choose(np.full((2, 2), 2.0), np.array([2, 1]), 3) == [Unit(0, ALONE), Unit(0, ALONE), Unit(1, ALONE)]


def test_a_pair_worth_less_than_one_job_is_not_formed() -> None:
    assert choose(np.full((1, 1), 0.9), np.array([5]), 2) == [Unit(0, ALONE)] * 2


def test_only_as_many_pairs_as_leave_no_device_idle() -> None:
    units = choose(np.full((1, 1), 1.8), np.array([5]), 4)
    assert sorted(units) == [Unit(0, ALONE)] * 3 + [Unit(0, 0)]
