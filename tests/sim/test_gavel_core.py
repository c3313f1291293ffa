"""Gavel's experiment played by the whole core: as good as the rounds alone, and nobody is forgotten."""

from __future__ import annotations

import numpy as np
import pytest

from flexray.sim.gavel import GavelResult, isolated, run
from flexray.sim.gavel_setting import ROUND, Setting
from flexray.sim.gavel_trace import Load, draw_load

SMALL = Setting((4, 4, 4), (40, 80))


def drawn(rate: float = 8.0) -> Load:
    """Jobs of 2 minutes to 12 hours on a V100: at 8 an hour the small cluster is full most of the time."""
    rates = np.array([[2.0, 1.0, 0.3], [5.0, 4.0, 3.0], [0.1, 0.09, 0.02], [1.0, 0.5, 0.5]])
    load = draw_load(rates, rate, 300, seed=3)
    return Load(load.arrival, load.job_class, load.steps / 14, load.rates, 300)


@pytest.fixture(scope="module")
def results() -> dict[str, GavelResult]:
    load = drawn()
    alone = isolated(load, SMALL)
    return {policy: run(load, policy, SMALL, alone=alone) for policy in ("las", "rounds", "core", "core-learnt")}


def test_the_core_does_what_its_rounds_do_alone(results: dict[str, GavelResult]) -> None:
    core, rounds, las = results["core"], results["rounds"], results["las"]
    assert core.mean_completion_hours < 1.02 * rounds.mean_completion_hours < las.mean_completion_hours
    assert core.finish_time_fairness_mean < las.finish_time_fairness_mean
    assert core.p99_completion_hours < 1.02 * rounds.p99_completion_hours
    assert 0 < core.moves < las.moves / 3
    assert core.mean_jobs == pytest.approx(rounds.mean_jobs, rel=0.1)


def test_learning_from_steps_costs_little(results: dict[str, GavelResult]) -> None:
    told, learnt = results["core"], results["core-learnt"]
    assert learnt.mean_completion_hours < 1.05 * told.mean_completion_hours
    assert learnt != told


def test_nobody_waits_longer_than_patience_and_a_round_or_two() -> None:
    result = run(drawn(), "core", Setting((2, 2, 2), (20, 40)))
    assert 0.5 < result.longest_gap_hours <= 1.0 + 3 * ROUND / 3600


def test_a_job_alone_is_as_fast_as_its_device() -> None:
    load = drawn()
    first = Load(load.arrival[:1], load.job_class[:1], load.steps[:1], load.rates, 1)
    result = run(first, "core", Setting((1, 1, 1), (0, 1)))
    best = first.rates[first.job_class[0]].max()
    assert result.max_completion_hours == pytest.approx(first.steps[0] / best / 3600)
    assert (result.longest_wait_hours, result.moves) == (pytest.approx(0.0, abs=1e-9), 0)


def test_a_move_costs_what_the_setting_says() -> None:
    free, dear = (run(drawn(), "core", Setting((4, 4, 4), (40, 50), move_cost=cost)) for cost in (0.0, 300.0))
    assert dear.mean_completion_hours > free.mean_completion_hours
