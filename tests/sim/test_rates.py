"""What is learnt of classes on types of devices."""

from __future__ import annotations

import numpy as np
import pytest

from flexray.errors import UsageError
from flexray.sim.rates import Cells, Floats, Rates

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
