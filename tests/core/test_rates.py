"""What is learnt of classes on types and beside each other, and the partners that are chosen by it."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from flexray.core.partners import ALONE, Floats, Partners, Unit, choose
from flexray.core.rates import Cells, Effects, Rates
from flexray.errors import UsageError

TYPES = np.array([0.0, -0.7, -1.6])  # log speeds


def measured(draw: np.random.Generator, classes: int) -> Floats:
    """Rates that follow the types' speeds, each class at a scale of its own."""
    rates: Floats = np.exp(draw.normal(0, 1, classes)[:, None] + TYPES + draw.normal(0, 0.1, (classes, 3)))
    return rates


def test_a_measured_rate_is_known() -> None:
    table = Rates(2, 3)
    table.add([0] * 40, [1] * 40, [8.0] * 40)
    mean, deviation = table.log_rates()
    assert np.exp(mean[0, 1]) == pytest.approx(8.0, rel=0.01)
    assert deviation[0, 1] < 0.02 < deviation[0, 0] < deviation[1, 0]


def test_a_type_never_tried_is_completed_as_other_classes_behave() -> None:
    off = []
    for seed in range(10):
        truth = measured(np.random.default_rng(seed), 13)
        table = Rates(13, 3)
        for kind in range(3):
            table.add(range(12), [kind] * 12, truth[:12, kind])
        unseen = table.log_rates().deviation[12]
        table.add([12], [0], truth[12, :1])
        mean, deviation = table.log_rates()
        off.append(np.abs(mean[12] - np.log(truth[12])))
        assert deviation[12, 0] < deviation[12, 1] < unseen[1] / 1.5
        assert deviation[12, 0] < deviation[12, 2] < unseen[2] / 1.5
    assert np.mean(off, axis=0)[0] < 0.01
    assert np.mean(off, axis=0).max() < 0.3  # the types themselves are 0.7 and 1.6 apart


def test_a_class_unlike_the_others_is_believed_once_it_was_measured() -> None:
    table = Rates(8, 3)
    for kind in range(3):
        table.add(range(7), [kind] * 7, np.exp(TYPES[kind]) * np.ones(7))
    table.add([7] * 3, [0, 1, 2], [0.1, 1.0, 5.0])
    assert np.exp(table.log_rates().mean[7]) == pytest.approx([0.1, 1.0, 5.0], rel=0.05)


def test_what_is_little_known_counts_as_better() -> None:
    table = Rates(1, 2)
    table.add([0] * 20, [0] * 20, [2.0] * 20)
    rates = table.optimistic(bonus=1.0)
    assert rates[0, 0] == pytest.approx(2.0, rel=0.05)
    assert rates[0, 1] > rates[0, 0]
    table.add([0] * 20, [1] * 20, [1.0] * 20)
    assert table.optimistic(bonus=1.0)[0, 1] == pytest.approx(1.0, rel=0.05)


def test_nothing_seen_says_nothing() -> None:
    mean, deviation = Rates(3, 2).log_rates()
    assert (mean == 0).all()
    assert (deviation == deviation[0, 0]).all()


def test_rates_must_be_positive() -> None:
    with pytest.raises(UsageError, match="above 0"):
        Rates(1, 1).add([0], [0], [0.0])


def test_a_cell_is_due_when_its_count_has_doubled() -> None:
    cells = Cells(1, 2)
    due = [cells.add([0], [0], [float(n)]) for n in range(8)]
    assert due == [True, True, False, True, False, False, False, True]
    assert cells.mean[0, 0] == pytest.approx(3.5)
    assert cells.add([1 - 1], [1], [0.0])


def test_effects_are_the_posterior_of_a_normal_model() -> None:
    draw = np.random.default_rng(3)
    effects = Effects(3, 4, level=0.5, common=0.2, row=0.3, column=0.1, own=0.2, noise=0.1)
    rows, columns = np.divmod(draw.permutation(12)[:9], 4)
    values = draw.random(9)
    for row, column, value in zip(rows, columns, values, strict=True):
        effects.add([row], [column], [value])
    effects.add([], [], [])
    # the same by conditioning all 12 cells on the 9 measurements at once
    cell_row, cell_column = np.divmod(np.arange(12), 4)
    prior = 0.04 + 0.09 * np.equal.outer(cell_row, cell_row) + 0.01 * np.equal.outer(cell_column, cell_column)
    prior = prior + 0.04 * np.eye(12)
    at = rows * 4 + columns
    gain = prior[:, at] @ np.linalg.inv(prior[np.ix_(at, at)] + 0.01 * np.eye(9))
    expected = 0.5 + gain @ (values - 0.5)
    spread = np.sqrt(np.diag(prior - gain @ prior[at]))
    mean, deviation = effects.values()
    assert mean.reshape(-1) == pytest.approx(expected)
    assert deviation.reshape(-1) == pytest.approx(spread)


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


def test_good_partners_are_found_by_trying() -> None:
    left = np.array([[0.3, 0.9, 0.4], [0.95, 0.4, 0.5], [0.3, 0.4, 0.2]])
    truth = left + left.T
    partners, counts, last = Partners(3), np.array([4, 4, 4]), 0.0
    for _ in range(30):
        units = choose(partners.worth(), counts, 6)
        last = work(truth, units)
        pairs = np.array([unit for unit in units if unit.second != ALONE], dtype=np.int64).reshape(-1, 2)
        both = np.concatenate([pairs, pairs[:, ::-1]])
        partners.add(both[:, 0], both[:, 1], left[both[:, 0], both[:, 1]])
    assert last == pytest.approx(work(truth, choose(truth, counts, 6)))


def test_before_anything_is_seen_pairs_look_good() -> None:
    worth = Partners(2).worth()
    assert (worth == worth.T).all()
    assert (worth == 2.0).all()
