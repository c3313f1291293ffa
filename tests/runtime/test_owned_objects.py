"""Objects that a task makes end with its slice: it is kept for them a while, then they are made again, or refused."""

from __future__ import annotations

import gc
import os
import signal
import time
from typing import Any

import pytest

import flexray as flex
from flexray import errors
from runtime.sample import call
from runtime.support import Marks, until

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("pool")]
WAIT = 90


def refer(marks: Marks, name: str) -> dict[str, Any]:
    """A small result that refers to an object of the slice's own."""
    import ray

    marks.leave(name, os.getpid())
    return {"found": ray.put(name)}


def follow(found: dict[str, Any]) -> Any:
    import ray

    return ray.get(found["found"])


def kill_last(marks: Marks, name: str) -> None:
    pid = int(marks.lines(name)[-1])
    before = {one.id for one in flex.pool().slices}
    os.kill(pid, signal.SIGKILL)
    until(lambda: {one.id for one in flex.pool().slices} != before, "its slice is gone")


def test_a_slice_is_kept_for_its_objects_until_nobody_asks_for_them(marks: Marks) -> None:
    future = call.remote(refer, marks, "made")
    reference = future.result(WAIT)["found"]
    time.sleep(1.0)  # much longer than an idle lease is kept
    assert [one.task_class.split("/")[0] for one in flex.pool().running] == ["call"]
    assert follow({"found": reference}) == "made"
    del future, reference
    gc.collect()
    until(lambda: not flex.pool().running, "the lease is handed back")


def test_what_only_passes_through_a_task_keeps_no_slice(marks: Marks) -> None:
    import ray

    mine = ray.put("mine")
    future = call.remote(lambda refs: refs, [mine])
    assert ray.get(future.result(WAIT)[0]) == "mine"
    until(lambda: not flex.pool().running, "the lease is handed back")


def test_they_are_made_again_within_retries(marks: Marks) -> None:
    future = call.options(retries=2).remote(refer, marks, "made")
    assert follow(future.result(WAIT)) == "made"
    kill_last(marks, "made")
    assert call.remote(follow, future).result(WAIT) == "made", "as an argument"
    kill_last(marks, "made")
    assert follow(future.result(WAIT)) == "made"
    kill_last(marks, "made")
    with pytest.raises(errors.LeaseLost, match=r"2 retries are used up"):
        future.result(WAIT)
    assert marks.count("made") == 3


def test_without_retries_the_error_says_what_to_do(marks: Marks) -> None:
    future = call.options(retries=0).remote(refer, marks, "made")
    assert follow(future.result(WAIT)) == "made"
    kill_last(marks, "made")
    with pytest.raises(errors.LeaseLost, match=r"result of call is lost: .*ray\.put.*return the values") as caught:
        future.result(WAIT)
    assert "retries=0" in str(caught.value)
    with pytest.raises(errors.LeaseLost, match="return the values"):
        call.remote(follow, future).result(WAIT)


def test_an_actor_that_a_task_made_counts_too(marks: Marks) -> None:
    def make(marks: Marks) -> Any:
        import ray

        marks.leave("made", os.getpid())
        return ray.remote(num_cpus=0)(type("Inner", (), {"say": lambda self: "here"})).remote()

    import ray

    future = call.options(retries=0).remote(make, marks)
    assert ray.get(future.result(WAIT).say.remote()) == "here"
    kill_last(marks, "made")
    with pytest.raises(errors.LeaseLost, match="return the values"):
        future.result(WAIT)
