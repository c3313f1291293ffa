"""Ten devices, random requests on real Ray: after every step the books equal the sum of live slices."""

from __future__ import annotations

import random
from typing import Any

import pytest

import flexray as flex
from cluster.conftest import until
from flexray.errors import Cancelled, LeaseLost

CONFIG = {"fake_devices": "6xT4.4xA100-80GB", "lease_term_seconds": 1.0, "linger_seconds": 0.05}
SHARES = (0.1, 0.18, 0.25, 0.5, 0.6, 1)


@pytest.fixture
def scheduler(pool: None) -> Any:
    """The scheduler of ten fake devices on one node."""
    from flexray.runtime.asking import find_scheduler

    return find_scheduler()


def test_actors_that_come_and_go_leave_nothing_behind(scheduler: Any) -> None:
    import ray

    class Holder:
        def ping(self) -> int:
            return 1

    dice = random.Random(3)
    alive: list[Any] = []
    for _ in range(12):
        actor = flex.actor(gpu=dice.choice(SHARES))(Holder).remote()
        alive.append((actor, actor.ping.remote()))
        if len(alive) > 4:
            gone, ping = alive.pop(dice.randrange(len(alive)))
            gone.stop()
            assert ping.exception(60) is None or isinstance(ping.exception(), LeaseLost)
        ray.get(scheduler.check.remote())
    assert flex.get([ping for _, ping in alive], timeout=120) == [1] * len(alive)
    for actor, _ in alive:
        actor.stop()
    until(lambda: not flex.pool().slices)
    assert all(d.share_free == 1.0 for d in flex.pool().devices)


@pytest.mark.parametrize("count", [200, pytest.param(1000, marks=pytest.mark.nightly)])
def test_the_books_stay_exact_under_random_requests(scheduler: Any, count: int) -> None:
    import ray

    dice = random.Random(7)

    @flex.task(gpu=0.1)
    def square(n: int) -> int:
        return n * n

    tasks = [square.options(gpu=share) for share in SHARES] + [square.options(gpu=0.25, types="nvidia/A100*")]
    expected: dict[Any, int] = {}
    cancelled = 0
    for number in range(count):
        future = dice.choice(tasks).remote(number)
        expected[future] = number * number
        if dice.random() < 0.1:
            victim = dice.choice(list(expected))
            cancelled += victim.cancel()
        if number % 20 == 0:
            ray.get(scheduler.check.remote())
            held = {d.id: round(d.share_held + d.share_free, 6) for d in flex.pool().devices}
            assert set(held.values()) == {1.0}
    for future, value in expected.items():
        error = future.exception(120)
        assert isinstance(error, Cancelled) or (error is None and future.result() == value)
    assert sum(future.cancelled() for future in expected) >= cancelled > 0
    ray.get(scheduler.check.remote())
