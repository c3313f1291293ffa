"""Cancelling, and running out of time: what stops, what goes on, who is charged."""

from __future__ import annotations

import asyncio
import concurrent.futures
import os
import threading
import time

import pytest

import flexray as flex
from flexray import errors
from runtime.sample import call, deaf, echo, hold, sleep
from runtime.support import Marks, alive, until

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("pool")]
WAIT = 60


@flex.task(gpu=1)
def hold_all(marks: Marks, name: str) -> int:
    """As ``sample.hold``, on a whole device."""
    return hold(marks, name)


def fill(marks: Marks) -> list[flex.Future[int]]:
    """Take both devices, so that what comes next has to wait."""
    holders = [hold_all.remote(marks, "full") for _ in range(2)]
    marks.wait("full", 2)
    return holders


def test_cancel_in_the_backlog_drops_exactly_that(marks: Marks) -> None:
    holders = fill(marks)
    futures = [hold_all.remote(marks, f"ran-{i}") for i in range(3)]
    assert futures[1].cancel() is True
    assert futures[1].cancelled() and futures[1].done()
    with pytest.raises(concurrent.futures.CancelledError):
        futures[1].result(WAIT)
    assert isinstance(futures[1].exception(), errors.Cancelled)
    marks.leave("release")
    flex.get([*holders, futures[0], futures[2]], timeout=WAIT)
    assert [marks.count(f"ran-{i}") for i in range(3)] == [1, 0, 1]


def test_cancel_while_waiting_for_an_argument(marks: Marks) -> None:
    source = hold.remote(marks, "started")
    dependent = echo.remote(source)
    assert dependent.cancel() is True
    marks.leave("release")
    assert source.result(WAIT) > 0
    assert dependent.cancelled()


def test_cancelling_an_argument_cancels_what_needs_it(marks: Marks) -> None:
    holders = fill(marks)
    source = hold_all.remote(marks, "never")
    dependent = echo.remote(source)
    source.cancel()
    with pytest.raises(errors.Cancelled):
        dependent.result(WAIT)
    marks.leave("release")
    flex.get(holders, timeout=WAIT)


def test_cancel_in_a_slices_queue_takes_it_back(marks: Marks) -> None:
    """Of calls behind a running one, some wait at the slice and some in the client; neither kind runs."""

    @flex.actor(gpu=0.25)
    class Line:
        def first(self, marks: Marks) -> int:
            return deaf(marks)

        def then(self, marks: Marks, name: str) -> str:
            marks.leave(name)
            return name

    line = Line.remote()
    first = line.first.remote(marks)
    marks.wait("started")
    queued = [line.then.remote(marks, f"then-{i}") for i in range(4)]
    until(lambda: queued[0].running(), "it is at the slice")
    assert queued[0].cancel() is True
    assert queued[2].cancel() is True
    assert queued[0].cancelled() and queued[2].cancelled()
    marks.leave("release")
    assert flex.get([queued[1], queued[3]], timeout=WAIT) == ["then-1", "then-3"]
    assert first.result(WAIT) > 0
    assert marks.count("then-0") == marks.count("then-2") == 0


def test_cancelling_running_code_asks_it_to_yield(marks: Marks) -> None:
    def polite(marks: Marks) -> str:
        marks.leave("started")
        while not flex.current().should_yield():
            time.sleep(0.01)
        return "stopped when asked"

    future = call.remote(polite, marks)
    marks.wait("started")
    assert future.cancel() is False
    assert future.result(WAIT) == "stopped when asked"
    assert not future.cancelled()


def test_cancelling_by_force_kills_the_slice_and_nobody_else_pays(marks: Marks) -> None:
    calls = call.options(gpu=1, retries=0)
    future = calls.remote(deaf, marks)
    (pid,) = marks.wait("started")
    neighbours = [calls.remote(abs, -i) for i in range(20)]
    assert future.cancel(force=True) is True
    with pytest.raises(errors.Cancelled):
        future.result(WAIT)
    until(lambda: not alive(int(pid)), "its process is gone")
    assert flex.get(neighbours, timeout=WAIT) == list(range(20))
    assert marks.count("started") == 1  # never run again


def test_cancelling_async_code(marks: Marks) -> None:
    @flex.task(gpu=0.25)
    async def forever(marks: Marks) -> None:
        try:
            marks.leave("started", os.getpid())
            await asyncio.sleep(1000)
        finally:
            marks.leave("cleaned up")

    future = forever.remote(marks)
    (pid,) = marks.wait("started")
    assert future.cancel() is True
    with pytest.raises(errors.Cancelled):
        future.result(WAIT)
    marks.wait("cleaned up")
    assert alive(int(pid))


def test_cancelling_what_is_done_changes_nothing() -> None:
    future = echo.remote(3)
    assert future.result(WAIT) == 3
    assert future.cancel() is False
    assert future.cancel(force=True) is False
    assert future.result() == 3


def test_a_task_that_notices_its_timeout(marks: Marks) -> None:
    future = hold.options(timeout=3.0).remote(marks, "started")
    with pytest.raises(errors.TaskTimeout, match="3 s") as info:
        future.result(WAIT)
    assert isinstance(info.value, TimeoutError)
    (pid,) = marks.lines("started")
    assert alive(int(pid))  # it stopped by itself: the slice stays warm
    assert marks.count("started") == 1


def test_a_task_that_ignores_its_timeout_costs_its_slice_only(marks: Marks) -> None:
    calls = call.options(gpu=1, timeout=3.0, retries=0)
    stuck = calls.remote(deaf, marks)
    neighbours = [calls.remote(abs, -i) for i in range(100)]
    with pytest.raises(errors.TaskTimeout):
        stuck.result(WAIT)
    assert flex.get(neighbours, timeout=WAIT) == list(range(100))
    pids = marks.lines("started")
    assert len(pids) == 1  # a timeout is final
    until(lambda: not alive(int(pids[0])), "its process is gone")


def test_the_timeout_counts_run_time_only(marks: Marks) -> None:
    """Neither the wait for room nor that behind others of its batch."""
    holders = fill(marks)
    waiting = sleep.options(gpu=1, timeout=1.0).remote(0.01, "ran")
    done, _ = flex.wait([waiting], timeout=1.5)
    assert not done
    marks.leave("release")
    assert waiting.result(WAIT) == "ran"
    flex.get(holders, timeout=WAIT)
    line = sleep.options(gpu=1, timeout=1.0)
    assert flex.get([line.remote(0.2, i) for i in range(16)], timeout=WAIT) == list(range(16))


def test_a_timeout_is_not_retried(marks: Marks) -> None:
    future = call.options(timeout=3.0, retries=3).remote(deaf, marks)
    assert isinstance(future.exception(WAIT), errors.TaskTimeout)
    assert marks.count("started") == 1


def test_async_code_is_cancelled_at_its_timeout(marks: Marks) -> None:
    @flex.task(gpu=0.25, timeout=3.0)
    async def forever(marks: Marks) -> None:
        marks.leave("started", os.getpid())
        await asyncio.sleep(1000)

    with pytest.raises(errors.TaskTimeout):
        forever.remote(marks).result(WAIT)
    assert alive(int(marks.lines("started")[0]))


def test_waiting_too_long_cancels_nothing(marks: Marks) -> None:
    future = hold.remote(marks, "started")
    marks.wait("started")
    for use in (
        lambda: future.result(0.05),
        lambda: future.exception(0.05),
        lambda: flex.get([future], timeout=0.05),
        lambda: list(flex.as_completed([future], timeout=0.05)),
        lambda: future.object_ref(0.05),
    ):
        with pytest.raises(errors.WaitTimeout):
            use()
    marks.leave("release")
    assert future.result(WAIT) == int(marks.lines("started")[0])


def test_cancel_from_many_threads_is_one_outcome(marks: Marks) -> None:
    futures = [sleep.remote(0.01, i) for i in range(100)]
    threads = [threading.Thread(target=f.cancel) for f in futures for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    outcomes = [f.exception(WAIT) for f in futures]
    assert all(error is None or isinstance(error, errors.Cancelled) for error in outcomes)
    assert [f.result() for f, e in zip(futures, outcomes, strict=True) if e is None] == [
        i for i, e in enumerate(outcomes) if e is None
    ]
