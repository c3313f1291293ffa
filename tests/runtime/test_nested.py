"""Tasks that wait for tasks, on a pool that is full of them."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest

import flexray as flex
from flexray import errors
from runtime.sample import add, echo, hold
from runtime.support import Marks

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("pool")]
WAIT = 60


@flex.task(gpu=1)
def depth(n: int) -> int:
    return 0 if n == 0 else depth.remote(n - 1).result() + 1


@flex.task(gpu=1)
async def depth_async(n: int) -> int:
    return 0 if n == 0 else (await depth_async.remote(n - 1)) + 1


@flex.task(gpu=1)
def fan_out(n: int) -> list[int]:
    return flex.get([echo.remote(i) for i in range(n)])


@flex.task(gpu=1)
def half_child(marks: Marks | None = None) -> float:
    @flex.task(gpu=0.5)
    def child() -> float:
        return flex.current().share

    if marks is not None:
        marks.leave("parent")
    return child.remote().result()


@pytest.fixture
def one_device(marks: Marks) -> Iterator[None]:
    """Holds one of the two devices, so that a pool of one share of 1 is left."""
    holder = hold.options(gpu=1).remote(marks, "one device")
    marks.wait("one device")
    yield
    marks.leave("release")
    holder.result(WAIT)


@pytest.mark.usefixtures("one_device")
@pytest.mark.parametrize("task", [depth, depth_async], ids=["result", "await"])
def test_recursion_five_deep_on_one_device(task: Any) -> None:
    assert task.remote(5).result(WAIT) == 5


@pytest.mark.usefixtures("one_device")
def test_fan_out_from_a_task_that_holds_everything() -> None:
    assert fan_out.remote(200).result(WAIT) == list(range(200))


@pytest.mark.usefixtures("one_device")
def test_a_smaller_child_runs_in_its_parents_slice() -> None:
    assert half_child.remote().result(WAIT) == 1


@pytest.mark.usefixtures("one_device")
def test_dependencies_between_children() -> None:
    @flex.task(gpu=1)
    def parent() -> int:
        return add.remote(add.remote(1, 2), add.remote(3, echo.remote(4))).result()

    assert parent.remote().result(WAIT) == 10


@pytest.mark.usefixtures("one_device")
def test_wait_and_as_completed_inside_a_task() -> None:
    @flex.task(gpu=1)
    def parent() -> tuple[int, list[int]]:
        futures = [echo.remote(i) for i in range(10)]
        done, rest = flex.wait(futures, num_returns=3)
        return len(done) + len(rest), sorted(f.result() for f in flex.as_completed(futures))

    assert parent.remote().result(WAIT) == (10, list(range(10)))


@pytest.mark.usefixtures("one_device")
def test_a_failing_child_fails_only_where_it_is_asked_for() -> None:
    @flex.task(gpu=1)
    def parent() -> str:
        def broken() -> None:
            raise LookupError("child")

        future = flex.task(gpu=0.5)(broken).remote()
        try:
            future.result()
        except LookupError as error:
            return f"{type(error.__cause__).__name__} {flex.current().share}"
        return "nothing"

    assert parent.remote().result(WAIT) == "LookupError 1.0"


def test_a_child_that_needs_more_waits_for_room(marks: Marks) -> None:
    """Not a deadlock: somebody else has the room, and gives it back."""
    holder = hold.options(gpu=1).remote(marks, "other")
    marks.wait("other")

    @flex.task(gpu=0.5)
    def parent(marks: Marks) -> float:
        @flex.task(gpu=1)
        def child() -> float:
            return flex.current().share

        future = child.remote()
        marks.leave("asked")
        return future.result()

    future = parent.remote(marks)
    marks.wait("asked")
    done, _ = flex.wait([future], timeout=3)  # three times longer than a wait may take before it is looked at
    assert not done
    marks.leave("release")
    assert future.result(WAIT) == 1
    holder.result(WAIT)


def test_parents_that_hold_everything_and_wait_for_more_are_a_deadlock(marks: Marks) -> None:
    """Each child needs a whole device, each parent keeps half of one: no child can ever start."""

    @flex.task(gpu=1)
    def big_child() -> int:
        return 1

    @flex.task(gpu=0.6)
    def greedy_parent(marks: Marks) -> int:
        marks.leave("holding")
        while marks.count("holding") < 2:
            time.sleep(0.01)
        return big_child.remote().result()

    parents = [greedy_parent.remote(marks) for _ in range(2)]
    for parent in parents:
        with pytest.raises(errors.Deadlock) as info:
            parent.result(WAIT)
        assert isinstance(info.value, errors.PoolError)
        assert "greedy_parent" in str(info.value) and "big_child" in str(info.value)
    assert echo.remote(1).result(WAIT) == 1


def test_a_child_with_a_timeout_runs_elsewhere_or_is_a_deadlock_never_a_hang(marks: Marks) -> None:
    """What has a timeout cannot run in its parent's thread: only its own slice can be killed for it."""

    @flex.task(gpu=1)
    def parent(marks: Marks) -> int:
        marks.leave("holding")
        while marks.count("holding") < 2:
            time.sleep(0.01)
        return echo.options(timeout=30).remote(1).result()

    for future in [parent.remote(marks) for _ in range(2)]:
        assert isinstance(future.exception(WAIT), (errors.Deadlock, type(None)))
