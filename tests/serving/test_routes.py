"""Which engine answers: one that serves, the one with the fewest requests; what becomes of requests when one dies."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from flexray.errors import InternalError, LeaseLost, WaitTimeout
from flexray.serving.engine import Answer
from flexray.serving.routes import Replica, Routes


class FakeKeeper:
    """An engine on a slice, both of which the test plays. Answers are its number, in ``parts`` parts."""

    def __init__(self, number: int, parts: int = 1) -> None:
        self.number, self.parts = number, parts
        self.seated, self.trouble = True, ""
        self.serves, self.asked, self.goes_on = asyncio.Event(), 0, asyncio.Event()
        self.serves.set()
        self.goes_on.set()
        self.failure: Exception | None = None
        self.dropped: list[str] = []

    @contextlib.asynccontextmanager
    async def holding(self) -> AsyncIterator[Any]:
        yield self

    async def call(self, method: str, args: tuple[Any, ...], kwargs: Any) -> Any:
        if method == "up":
            await self.serves.wait()
            return ""
        if method == "drop":
            self.dropped.append(args[0])
            return None
        self.asked += method == "ask"
        left = self.parts - 1 if method == "ask" else int(args[0]) - 1
        if method == "more":
            await self.goes_on.wait()
        if self.failure is not None:
            raise self.failure
        if not self.serves.is_set():
            return Answer(0, "", b"it died, and starts again")
        return Answer(200, "text/event-stream", str(self.number).encode(), str(left) if left else "")

    def close(self) -> None: ...


def played(
    scenario: Callable[[list[FakeKeeper], Routes], Any], count: int = 2, parts: int = 1, wait: float = 30
) -> None:
    async def play() -> None:
        keepers = [FakeKeeper(number, parts) for number in range(count)]
        routes = Routes({"m": [Replica(keeper) for keeper in keepers]}, {"m": wait})
        await asyncio.wait_for(scenario(keepers, routes), 60)
        routes.close()

    asyncio.run(play())


async def whole(routes: Routes) -> list[bytes]:
    return [part.data async for part in routes.answer("m", "POST", "/v1/completions", {}, b"{}")]


async def until(holds: Callable[[], object]) -> None:
    while not holds():
        await asyncio.sleep(0.01)


def test_an_answer_comes_in_parts_and_nothing_is_left_open() -> None:
    async def scenario(keepers: list[FakeKeeper], routes: Routes) -> None:
        assert await whole(routes) == [b"0"] * 3
        assert keepers[0].dropped == []
        assert routes.replicas["m"][0].in_flight == 0

    played(scenario, parts=3)


def test_requests_go_where_the_fewest_are() -> None:
    async def scenario(keepers: list[FakeKeeper], routes: Routes) -> None:
        for keeper in keepers:
            keeper.goes_on.clear()
        asked = [asyncio.ensure_future(whole(routes)) for _ in range(6)]
        await until(lambda: sum(keeper.asked for keeper in keepers) == 6)
        assert [keeper.asked for keeper in keepers] == [2, 2, 2]
        for keeper in keepers:
            keeper.goes_on.set()
        assert len(await asyncio.gather(*asked)) == 6

    played(scenario, count=3, parts=2)


def test_a_request_whose_engine_is_gone_is_answered_by_another() -> None:
    async def scenario(keepers: list[FakeKeeper], routes: Routes) -> None:
        keepers[0].serves.clear()
        assert await whole(routes) == [b"1"]
        assert await whole(routes) == [b"1"]
        assert keepers[0].asked == 1  # it is not asked again before it serves
        keepers[0].serves.set()
        await until(lambda: routes.replicas["m"][0].up)
        assert await whole(routes) == [b"0"]

    played(scenario)


def test_with_one_engine_a_request_waits_until_it_is_back() -> None:
    async def scenario(keepers: list[FakeKeeper], routes: Routes) -> None:
        keepers[0].serves.clear()
        asked = asyncio.ensure_future(whole(routes))
        await until(lambda: not routes.replicas["m"][0].up)
        assert not asked.done()
        keepers[0].serves.set()
        assert await asked == [b"0"]

    played(scenario, count=1)


def test_a_lost_slice_is_passed_over() -> None:
    async def scenario(keepers: list[FakeKeeper], routes: Routes) -> None:
        keepers[0].failure = LeaseLost("its node died")
        assert await whole(routes) == [b"1"]
        keepers[0].failure, keepers[0].seated = None, False
        await until(lambda: routes.replicas["m"][0].up)
        assert await whole(routes) == [b"1"]  # it has no slice yet
        keepers[0].seated = True
        assert await whole(routes) == [b"0"]

    played(scenario)


def test_an_answer_that_has_begun_ends_with_an_error() -> None:
    async def scenario(keepers: list[FakeKeeper], routes: Routes) -> None:
        keepers[0].goes_on.clear()
        parts = routes.answer("m", "POST", "/", {}, b"")
        assert (await anext(parts)).data == b"0"
        keepers[0].serves.clear()
        keepers[0].goes_on.set()
        with pytest.raises(LeaseLost, match="in the middle of its answer: it died"):
            await anext(parts)
        assert keepers[1].asked == 0
        assert routes.replicas["m"][0].in_flight == 0

    played(scenario, parts=3)


def test_where_none_serves_for_too_long_it_says_why() -> None:
    async def scenario(keepers: list[FakeKeeper], routes: Routes) -> None:
        keepers[0].serves.clear()
        with pytest.raises(WaitTimeout, match="no engine of 'm' serves: it died, and starts again"):
            await whole(routes)

    played(scenario, count=1, wait=0.2)


def test_other_failures_are_the_requests_own() -> None:
    async def scenario(keepers: list[FakeKeeper], routes: Routes) -> None:
        keepers[0].failure = InternalError("odd")
        with pytest.raises(InternalError):
            await whole(routes)
        assert routes.replicas["m"][0].up and routes.replicas["m"][0].in_flight == 0

    played(scenario)


def test_a_client_that_leaves_ends_its_answer() -> None:
    async def scenario(keepers: list[FakeKeeper], routes: Routes) -> None:
        parts = routes.answer("m", "POST", "/", {}, b"")
        await anext(parts)
        await parts.aclose()
        await until(lambda: keepers[0].dropped == ["2"])
        assert routes.replicas["m"][0].in_flight == 0

    played(scenario, parts=3)
