"""The pool as a ``concurrent.futures.Executor``: the standard library's own functions work with it."""

from __future__ import annotations

import asyncio
import concurrent.futures as standard
import os

import pytest

import flexray as flex
from flexray.errors import InvalidRequest
from runtime.sample import echo, hold
from runtime.support import Marks

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("pool")]
WAIT = 60


def power(base: int, exponent: int) -> int:
    return base**exponent


def fail(text: str) -> None:
    raise ValueError(text)


def large(size: int) -> bytes:
    return b"x" * size


def test_calls_run_on_slices_and_the_standard_librarys_functions_wait_for_them() -> None:
    with flex.Executor(accelerator=0.25) as executor:
        futures = [executor.submit(power, 2, exponent=number) for number in range(20)]
        assert {future.result() for future in standard.as_completed(futures, timeout=WAIT)} == {
            2**number for number in range(20)
        }
        done, open_ = standard.wait([*futures, executor.submit(os.getpid)], timeout=WAIT)
        assert len(done) == 21 and not open_
        assert executor.submit(os.getpid).result(WAIT) != os.getpid()
        assert executor.submit(large, 3_000_000).result(WAIT) == b"x" * 3_000_000
    assert all(future.done() and not future.running() for future in futures)


def test_map_keeps_the_order_and_sends_chunks() -> None:
    with flex.Executor(accelerator=0.25) as executor:
        assert list(executor.map(power, range(10), [2] * 10, timeout=WAIT)) == [n * n for n in range(10)]
        assert list(executor.map(power, range(10), [2] * 7, chunksize=3, timeout=WAIT)) == [n * n for n in range(7)]
        with pytest.raises(ValueError, match="at least 1, not 0"):
            executor.map(power, [1], [1], chunksize=0)


def test_what_a_call_raises_is_raised() -> None:
    with flex.Executor(accelerator=0.25) as executor:
        future = executor.submit(fail, "no")
        with pytest.raises(ValueError, match="no"):
            future.result(WAIT)
        assert isinstance(future.exception(), ValueError)


def test_asyncio_awaits_them() -> None:
    async def both(executor: flex.Executor) -> list[int]:
        loop = asyncio.get_running_loop()
        wrapped = asyncio.wrap_future(executor.submit(power, 3, 2))
        return [await wrapped, await loop.run_in_executor(executor, power, 3, 3)]

    with flex.Executor(accelerator=0.25) as executor:
        assert asyncio.run(both(executor)) == [9, 27]


def test_what_waits_can_be_cancelled(marks: Marks) -> None:
    executor = flex.Executor(accelerator=1)
    running = [executor.submit(hold, marks, "held") for _ in range(2)]
    marks.wait("held", 2)
    first, second = executor.submit(echo, 1), executor.submit(echo, 2)
    assert not first.running() and first.cancel() and first.cancelled() and first.cancel()
    with pytest.raises(standard.CancelledError):
        first.result(WAIT)
    assert standard.wait([first], timeout=WAIT).done == {first}
    executor.shutdown(wait=False, cancel_futures=True)
    assert second.cancelled() and not any(future.cancelled() for future in running)
    marks.leave("release")
    assert all(future.exception(WAIT) is None for future in running)
    with pytest.raises(RuntimeError, match="after shutdown"):
        executor.submit(echo, 3)


def test_options_are_those_of_tasks() -> None:
    with pytest.raises(InvalidRequest):
        flex.Executor(gpu=1.5)
    with pytest.raises(InvalidRequest, match="gang"):
        flex.Executor(gpu=1, gang=2)
