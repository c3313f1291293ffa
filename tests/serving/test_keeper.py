"""A model is made again when its slice is lost, moves before its device is emptied, and requests are not lost."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from flexray.errors import Infeasible, LeaseLost, MemoryLimitExceeded
from flexray.runtime.actors import Standing
from flexray.serving.keeper import Keeper


class FakeSeat:
    """A slice that the test plays."""

    def __init__(self, number: int, arrives: bool = True) -> None:
        self.number, self.stopped, self.failure = number, False, None
        self.standing = Standing("ready")
        self.arrived, self.done = asyncio.Event(), asyncio.Event()
        self.done.set()
        self.calls: list[str] = []
        if arrives:
            self.arrived.set()

    async def ready(self) -> None:
        await self.arrived.wait()
        if self.failure is not None:
            raise self.failure

    async def call(self, method: str, args: Any, kwargs: Any) -> int:
        self.calls.append(method)
        await self.done.wait()
        if self.failure is not None:
            raise self.failure
        return self.number

    async def stream(self, method: str, args: Any, kwargs: Any) -> AsyncIterator[int]:
        for item in range(3):
            if self.failure is not None and item == args:
                raise self.failure
            yield 10 * self.number + item

    async def explain(self) -> str:
        return "no room"

    async def idle(self) -> None:
        await self.done.wait()

    def stop(self) -> None:
        self.stopped = True

    def lose(self, failure: Exception | None = None) -> None:
        self.failure = failure or LeaseLost("it died")
        self.standing = Standing("lost", str(self.failure))
        self.done.set()


class Pool:
    """Gives out seats; ``arrive`` says for each whether its slice is there at once."""

    def __init__(self, *arrive: bool) -> None:
        self.arrive, self.seats = list(arrive), list[FakeSeat]()

    def make(self) -> Any:
        self.seats.append(FakeSeat(len(self.seats), self.arrive.pop(0) if self.arrive else True))
        return self.seats[-1]


def played(scenario: Callable[[Pool, Keeper], Any], *arrive: bool, retries: int = 1, recover: float = 5.0) -> None:
    async def play() -> None:
        pool = Pool(*arrive)
        keeper = Keeper(pool.make, retries, recover)
        try:
            await asyncio.wait_for(scenario(pool, keeper), 30)
        finally:
            keeper.close()
            assert all(seat.stopped for seat in pool.seats if seat.failure is None)

    asyncio.run(play())


async def until(holds: Callable[[], object]) -> None:
    while not holds():
        await asyncio.sleep(0.01)


def test_a_request_whose_slice_is_lost_runs_on_the_next() -> None:
    async def scenario(pool: Pool, keeper: Keeper) -> None:
        await keeper.start()
        pool.seats[0].done.clear()
        asked = asyncio.ensure_future(keeper.call("f", (), {}))
        await until(lambda: pool.seats[0].calls)
        pool.seats[0].lose()
        assert await asked == 1

    played(scenario)


def test_it_runs_again_only_as_often_as_it_may() -> None:
    async def scenario(pool: Pool, keeper: Keeper) -> None:
        await keeper.start()
        pool.seats[0].lose()
        with pytest.raises(LeaseLost, match="it died"):
            await keeper.call("f", (), {})
        assert await keeper.call("f", (), {}) == 1

    played(scenario, retries=0)


def test_what_uses_too_much_memory_does_not_run_again() -> None:
    async def scenario(pool: Pool, keeper: Keeper) -> None:
        await keeper.start()
        pool.seats[0].lose(MemoryLimitExceeded("too much"))
        with pytest.raises(MemoryLimitExceeded):
            await keeper.call("f", (), {})
        assert await keeper.call("f", (), {}) == 1

    played(scenario)


def test_a_loss_is_noticed_without_requests() -> None:
    async def scenario(pool: Pool, keeper: Keeper) -> None:
        await keeper.start()
        pool.seats[0].lose()
        await until(lambda: len(pool.seats) == 2)

    played(scenario)


def test_the_next_slice_is_there_before_the_old_one_is_left() -> None:
    async def scenario(pool: Pool, keeper: Keeper) -> None:
        prepared = []

        async def prepare(seat: FakeSeat) -> None:
            prepared.append(seat.number)

        keeper.prepare = prepare
        await keeper.start()
        old = pool.seats[0]
        old.done.clear()
        running = asyncio.ensure_future(keeper.call("f", (), {}))
        await until(lambda: old.calls)
        old.standing = Standing("leaving", "drain")
        await until(lambda: len(pool.seats) == 2)
        meanwhile = asyncio.ensure_future(keeper.call("g", (), {}))
        await until(lambda: old.calls == ["f", "g"])
        pool.seats[1].arrived.set()
        await until(lambda: prepared == [0, 1])
        assert await keeper.call("f", (), {}) == 1 and not old.stopped
        old.done.set()
        assert await running == 0 and await meanwhile == 0
        await until(lambda: old.stopped)

    played(scenario, True, False)


def test_an_old_slice_may_be_lost_while_the_next_one_is_awaited() -> None:
    async def scenario(pool: Pool, keeper: Keeper) -> None:
        await keeper.start()
        pool.seats[0].standing = Standing("leaving", "drain")
        await until(lambda: len(pool.seats) == 2)
        pool.seats[0].lose()
        asked = asyncio.ensure_future(keeper.call("f", (), {}))
        await asyncio.sleep(0.05)
        assert not asked.done()
        pool.seats[1].arrived.set()
        assert await asked == 1

    played(scenario, True, False)


def test_without_a_slice_for_too_long_requests_fail_and_health_says_why() -> None:
    async def scenario(pool: Pool, keeper: Keeper) -> None:
        await keeper.start()
        pool.seats[0].lose()
        with pytest.raises(LeaseLost, match="no slice for 1 s: "):
            await keeper.call("f", (), {})
        await until(lambda: keeper.trouble.endswith("no room"))
        pool.seats[1].arrived.set()
        await until(lambda: not keeper.trouble)
        assert await keeper.call("f", (), {}) == 1

    played(scenario, True, False, recover=1.0)


def test_a_start_that_fails_is_tried_again_but_not_the_first() -> None:
    async def scenario(pool: Pool, keeper: Keeper) -> None:
        await keeper.start()
        pool.seats[0].lose()
        await until(lambda: len(pool.seats) == 2)
        pool.seats[1].failure = Infeasible("the devices have left", {})
        pool.seats[1].arrived.set()
        await until(lambda: len(pool.seats) == 3)
        assert await keeper.call("f", (), {}) == 2 and pool.seats[1].stopped

    played(scenario, True, False)

    async def first(pool: Pool, keeper: Keeper) -> None:
        made = pool.make()
        made.failure = Infeasible("never", {})
        with pytest.raises(Infeasible):
            await Keeper(lambda: made, 1, 5.0).start()
        assert made.stopped

    played(first)


@pytest.mark.parametrize(("at", "items"), [(0, [10, 11, 12]), (1, None)])
def test_a_stream_begins_again_before_its_first_item_only(at: int, items: list[int] | None) -> None:
    async def scenario(pool: Pool, keeper: Keeper) -> None:
        await keeper.start()
        pool.seats[0].lose()
        read = [item async for item in keeper.stream("f", at, {})] if items else None  # type: ignore[arg-type]
        assert read == items
        if items is None:
            with pytest.raises(LeaseLost):
                async for _ in keeper.stream("f", at, {}):  # type: ignore[arg-type]
                    pass

    played(scenario)


def test_a_slice_imports_no_serve() -> None:
    code = "import sys, flexray.serving.host, flexray.serving.declared; flexray.serving.batch; "
    code += "print('ray.serve' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "False"
