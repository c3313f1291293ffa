"""Rounds: the match is the best there is, stays where it can, and lets nobody wait for ever."""

from __future__ import annotations

import math
from itertools import product

import numpy as np
import pytest

from flexray.core.rounds import (
    WAITING,
    Floats,
    Ints,
    Job,
    Options,
    Standing,
    match,
    place_each,
    place_groups,
    urgency,
    weights,
)
from flexray.errors import UsageError

HOUR = 3600.0


def value(worth: Floats, place: Ints) -> float:
    runs = np.flatnonzero(place >= 0)
    return float(worth[runs, place[runs]].sum())


def best_value(worth: Floats, slots: list[int]) -> float:
    """By trying everything."""
    jobs, kinds = worth.shape
    best = 0.0
    for choice in product(range(-1, kinds), repeat=jobs):
        place = np.array(choice)
        if all((place == kind).sum() <= slots[kind] for kind in range(kinds)):
            best = max(best, value(np.where(worth > 0, worth, -np.inf), place))
    return best


def random_case(draw: np.random.Generator, jobs: int, levels: int) -> tuple[Floats, Ints, list[int]]:
    """Weights, some of them 0, with ties when there are few levels; places, some of which cannot be kept; slots."""
    kinds = int(draw.integers(1, 4))
    worth = np.ceil(draw.random((jobs, kinds)) * levels) / levels * (draw.random((jobs, kinds)) > 0.15)
    place = draw.integers(-1, kinds, size=jobs)
    return worth, place, [int(one) for one in draw.integers(0, 4, size=kinds)]


@pytest.mark.parametrize("levels", [3, 1000])
def test_the_sum_is_the_greatest_there_is(levels: int) -> None:
    draw = np.random.default_rng(levels)
    for jobs in [1, 2, 3, 4, 5, 6] * 6:
        worth, place, slots = random_case(draw, jobs, levels)
        for solve in (place_each, place_groups):
            found = solve(worth, place, slots)
            assert value(worth, found) == pytest.approx(best_value(worth, slots))
            assert all((found == kind).sum() <= there for kind, there in enumerate(slots))
            assert all(worth[job, kind] > 0 for job, kind in enumerate(found) if kind >= 0)


def test_jobs_by_the_hundred_match_as_well_grouped_as_alone() -> None:
    draw = np.random.default_rng(5)
    worth = draw.random((8, 4))[draw.integers(8, size=300)]
    place = np.full(300, WAITING)
    alone, grouped = (solve(worth, place, [40, 50, 60, 0]) for solve in (place_each, place_groups))
    assert value(worth, alone) == pytest.approx(value(worth, grouped))
    assert (grouped >= 0).sum() == 150


def test_nothing_moves_without_a_gain() -> None:
    worth = np.ones((4, 2))
    place = np.array([0, 1, 1, WAITING])
    assert place_each(worth, place, [1, 2]).tolist() == place.tolist()


def test_devices_go_to_those_that_lose_most_without() -> None:
    jobs = [Job("fast everywhere", (10.0, 9.0)), Job("needs the first", (2.0, 0.5))]
    assert match(jobs, [1, 1], 0.0) == {"fast everywhere": 1, "needs the first": 0}


def test_types_that_are_forbidden_stay_empty() -> None:
    jobs = [Job(n, (1.0, 0.0)) for n in range(3)] + [Job("nowhere", (0.0, 0.0)), Job("was there", (1.0, 0.0), place=1)]
    found = match(jobs, [1, 5], 0.0)
    assert sorted(found.values()) == [WAITING, WAITING, WAITING, WAITING, 0]
    assert found["nowhere"] == WAITING


def test_lost_devices_push_jobs_out() -> None:
    jobs = [Job(n, (1.0,), place=0, done=float(n)) for n in range(4)]
    assert sorted(match(jobs, [2], 0.0).values()) == [WAITING, WAITING, 0, 0]


def test_a_job_stays_for_a_small_gain_and_moves_for_a_large_one() -> None:
    def place(slow: float, options: Options) -> int:
        return match([Job("j", (1.0, slow), place=1, done=100.0)], [1, 1], 100.0, options)["j"]

    assert place(0.99, Options(stay=0.02)) == 1
    assert place(0.97, Options(stay=0.02)) == 0
    assert place(0.97, Options(stay=0.02, move_cost=60.0)) == 1  # 60 s of at least an hour that is left
    assert place(0.5, Options(stay=0.02, move_cost=60.0)) == 0


def test_urgency_is_the_slowdown_so_far() -> None:
    options = Options(prior=HOUR)
    elapsed, served = np.array([0.0, HOUR, 4 * HOUR, 4 * HOUR]), np.array([0.0, 0.0, 2 * HOUR, 5 * HOUR])
    assert urgency(elapsed, served, options).tolist() == [1.0, 2.0, 1.5, 1.0]
    assert urgency(elapsed, served, Options(power=0)).tolist() == [1.0, 1.0, 1.0, 1.0]


def rotation(options: Options, jobs: int = 9, slots: int = 2, rounds: int = 200) -> tuple[float, list[dict[int, int]]]:
    """Jobs that never end on too few devices, in rounds of 360 s: the longest wait, and what each round decided."""
    # the first jobs are urgent by far, and would run for ever
    state = {n: Job(n, (1.0,), born=-1e6 if n < slots else 0.0) for n in range(jobs)}
    longest, history = 0.0, []
    for turn in range(rounds):
        now = 360.0 * turn
        found = match(list(state.values()), [slots], now, options)
        history.append(found)
        for n, place in found.items():
            job = state[n]
            idle_since = now if job.place >= 0 and place < 0 else job.idle_since
            if place < 0:
                longest = max(longest, now - idle_since)
            state[n] = Job(n, job.rates, place, job.born, idle_since, job.done + (360.0 if place >= 0 else 0.0))
    return longest, history


def test_patience_bounds_the_wait() -> None:
    # 7 jobs wait, 2 a round go first: 4 rounds after patience at the latest
    assert rotation(Options(power=0, patience=HOUR))[0] <= HOUR + 4 * 360.0
    assert rotation(Options(power=0, patience=math.inf))[0] == 199 * 360.0


def test_of_the_late_the_latest_goes_first() -> None:
    jobs = [Job("urgent", (1.0,), place=0, born=-1e7), Job("late", (1.0,), idle_since=-5 * HOUR)]
    jobs.append(Job("later", (1.0,), born=-6 * HOUR, idle_since=-6 * HOUR))
    assert match(jobs, [1], 0.0) == {"urgent": WAITING, "late": WAITING, "later": 0}


def test_a_late_job_is_not_kept_out_by_being_slow() -> None:
    jobs = [Job(n, (1.0, 0.02), place=0, born=-1e6) for n in range(2)]
    jobs.append(Job("late", (0.02, 1.0), born=-2 * HOUR, idle_since=-2 * HOUR))
    assert match(jobs, [2, 0], 0.0)["late"] == 0


def test_the_same_rounds_every_time() -> None:
    assert rotation(Options())[1] == rotation(Options())[1]


def test_rounded_urgencies_make_few_groups() -> None:
    draw = np.random.default_rng(2)
    count = 500
    standing = Standing(
        rates=np.array([[1.0, 0.5], [1.0, 0.9]])[draw.integers(2, size=count)],
        place=np.full(count, WAITING),
        elapsed=draw.uniform(2e4, 1e5, count),
        idle=np.zeros(count),
        served=draw.uniform(0, 1e4, count),
    )
    rows = {level: len(np.unique(weights(standing, Options(level=level)), axis=0)) for level in (0.0, 0.1)}
    assert rows[0.0] == count
    assert rows[0.1] < 80


def test_no_jobs() -> None:
    assert match([], [3], 0.0) == {}


@pytest.mark.parametrize("wrong", [{"patience": 0.0}, {"prior": -1.0}, {"stay": -0.1}, {"power": math.nan}])
def test_options_that_make_no_sense(wrong: dict[str, float]) -> None:
    with pytest.raises(UsageError, match=next(iter(wrong))):
        Options(**wrong)


def test_a_rate_for_every_type_and_a_place_among_them() -> None:
    with pytest.raises(UsageError, match="2 rates"):
        match([Job("j", (1.0,))], [1, 1], 0.0)
    with pytest.raises(UsageError, match="type 2 of 2"):
        match([Job("j", (1.0, 1.0), place=2)], [1, 1], 0.0)
