"""Messages are lost, come twice and in any order; schedulers, slices and agents die: in the end all is as it should."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from flexray.runtime.call import Kind
from parts.lossy import Clock, Pool

NIGHTLY = os.environ.get("HYPOTHESIS_PROFILE") == "nightly"


def run(
    monkeypatch: pytest.MonkeyPatch, seed: int, trouble: float, story: Callable[[Pool], Coroutine[Any, Any, None]]
) -> Pool:
    clock = Clock()
    failures: list[dict[str, Any]] = []
    clock.set_exception_handler(lambda loop, context: failures.append(context))

    async def main() -> Pool:
        pool = Pool(clock, seed, trouble, monkeypatch)
        try:
            await story(pool)
            pool.network.trouble = 0.0
            await settle(pool)
        finally:
            pool.close()
        await asyncio.sleep(0)
        return pool

    try:
        pool = clock.run_until_complete(main())
    finally:
        monkeypatch.undo()
        clock.close()
    assert not failures, failures[0]
    return pool


async def settle(pool: Pool) -> None:
    """Until every call has its outcome, and what is left is warm or gone."""
    end = pool.clock.time() + 600
    while not all(client.done for client in pool.clients):
        assert pool.clock.time() < end, [client.outcomes for client in pool.clients]
        await asyncio.sleep(0.5)
    await asyncio.sleep(20)
    pool.check_equal()
    for client in pool.clients:
        assert not client.dead
        for number, outcomes in client.outcomes.items():
            assert outcomes == [(Kind.VALUE, number)], "each has one outcome, its own"


@pytest.mark.parametrize("seed", range(200 if NIGHTLY else 10))
def test_after_the_network_is_healed_books_equal_truth(monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    async def story(pool: Pool) -> None:
        for _ in range(40):
            await asyncio.sleep(pool.rng.random() * 2)
            chance = pool.rng.random()
            if chance < 0.6:
                for _ in range(pool.rng.randrange(1, 4)):
                    pool.rng.choice(pool.clients).submit(pool.rng.choice([250, 500, 1000]))
            elif chance < 0.75:
                await pool.restart()
            elif chance < 0.9:
                agent = pool.agents[pool.rng.choice(sorted(pool.agents))]
                if agent.slices:
                    agent.stop(pool.rng.choice(sorted(agent.slices)))
            elif chance < 0.93:
                pool.agents[pool.rng.choice(sorted(pool.agents))].die()
            pool.check_devices()

    run(monkeypatch, seed, 0.15, story)


@pytest.mark.parametrize("seed", range(50 if NIGHTLY else 4))
def test_restarts_alone_repeat_nothing(monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    async def story(pool: Pool) -> None:
        for _ in range(30):
            await asyncio.sleep(pool.rng.random() * 2)
            for client in pool.clients:
                client.submit(pool.rng.choice([250, 500, 1000]))
            if pool.rng.random() < 0.3:
                await pool.restart()
            pool.check_devices()

    pool = run(monkeypatch, seed, 0.0, story)
    assert pool.epoch > 3 and set(pool.began.values()) == {1}
