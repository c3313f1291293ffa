"""A task's state outlives its slice: with its client, or in a directory; and tasks that are asked to stop."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import flexray as flex
from flexray import errors
from runtime.sample import call, call_async
from runtime.support import Marks, until

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("pool")]
WAIT = 60


def count_on(marks: Marks, dies_after: tuple[int, ...], steps: int) -> tuple[int, float]:
    """Count, storing each step; kills its slice after some of them, each time once."""
    here = flex.current()
    state = here.restored
    marks.leave("found", None if state is None else state["step"])
    state = state or {"step": 0, "weights": np.zeros(50_000)}
    while state["step"] < steps:
        state["weights"] += 1  # in place, also what was restored
        state["step"] += 1
        here.checkpoint(state)
        if state["step"] in dies_after and marks.count(f"died {state['step']}") == 0:
            marks.leave(f"died {state['step']}")
            os.kill(os.getpid(), signal.SIGKILL)
    return state["step"], float(state["weights"].mean())


@pytest.mark.parametrize("kept", ["with the client", "in a directory", "under a URL"])
def test_a_killed_slice_costs_what_was_not_stored(marks: Marks, tmp_path: Path, kept: str) -> None:
    folder = tmp_path / "kept"
    place = {"with the client": None, "in a directory": str(folder), "under a URL": f"local://{folder}"}[kept]
    task = call.options(retries=2, request=flex.Request(checkpoint_place=place))
    assert task.remote(count_on, marks, (3, 5), 7).result(WAIT) == (7, 7.0)
    assert marks.lines("found") == ["None", "3", "5"]
    if place:  # the directory has been there, and nothing of the call is left in it
        until(lambda: not any(folder.iterdir()), "its files are deleted")


def test_without_a_checkpoint_it_starts_afresh(marks: Marks) -> None:
    def fresh(marks: Marks) -> Any:
        marks.leave("attempt")
        if marks.count("attempt") == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        return flex.current().restored

    assert call.remote(fresh, marks).result(WAIT) is None


def test_another_call_of_the_same_task_finds_nothing(marks: Marks) -> None:
    calls = call.options(retries=2)
    assert calls.remote(count_on, marks, (1,), 2).result(WAIT) == (2, 2.0)
    assert calls.remote(count_on, marks, (), 2).result(WAIT) == (2, 2.0)
    assert marks.lines("found") == ["None", "1", "None"]


def count_until_stopped(marks: Marks, name: str) -> None:
    here = flex.current()
    here.on_yield(lambda: marks.leave(f"{name} told"))
    for step in range(10**9):
        here.checkpoint(step, every=0.1)
        marks.leave(name)
        time.sleep(0.02)


def test_a_cancelled_task_ends_at_its_next_checkpoint(marks: Marks) -> None:
    future = call.remote(count_until_stopped, marks, "steps")
    marks.wait("steps", 5)
    future.cancel()
    with pytest.raises(errors.Cancelled, match="while it ran"):
        future.result(WAIT)
    assert future.cancelled()
    assert marks.wait("steps told") == ["x"]


def test_a_timeout_ends_a_task_at_its_next_checkpoint(marks: Marks) -> None:
    with pytest.raises(errors.TaskTimeout):
        call.options(timeout=3.0).remote(count_until_stopped, marks, "steps").result(WAIT)
    assert marks.wait("steps told") == ["x"]


def test_async_tasks_store_too(marks: Marks) -> None:
    async def work(marks: Marks) -> Any:
        here = flex.current()
        if here.restored is None:
            await asyncio.sleep(0.01)
            here.checkpoint({"step": 1})
            os.kill(os.getpid(), signal.SIGKILL)
        return here.restored

    assert call_async.remote(work, marks).result(WAIT) == {"step": 1}


def test_an_actors_method_is_told_that_nobody_would_find_it() -> None:
    @flex.actor(gpu=0.25)
    class Saver:
        def save(self) -> Any:
            assert flex.current().restored is None
            flex.current().checkpoint(1)

    saver = Saver.remote()
    with pytest.raises(errors.UsageError, match="is for tasks"):
        saver.save.remote().result(WAIT)
    saver.stop()
    with pytest.raises(errors.InvalidRequest, match="checkpoint_place= is for tasks"):
        flex.actor(gpu=0.25, request=flex.Request(checkpoint_place="/shared"))(Saver._cls).remote()


def test_what_cannot_be_stored_is_an_error_of_the_task() -> None:
    def wrong() -> None:
        import threading

        flex.current().checkpoint({"lock": threading.Lock()})

    with pytest.raises(errors.NotSerializable, match="lock"):
        call.remote(wrong).result(WAIT)


def test_a_place_that_nothing_can_write_to_is_refused_when_the_task_is_submitted() -> None:
    task = call.options(request=flex.Request(checkpoint_place="bogus://bucket"))
    with pytest.raises(errors.InvalidRequest, match="bogus"):
        task.remote(abs, 1)


def test_a_child_in_its_parents_slice_stores_nothing_and_goes_on(marks: Marks) -> None:
    def child() -> str:
        flex.current().on_yield(print)
        flex.current().checkpoint({"step": 1})
        return flex.current().slice

    def parent() -> bool:
        return flex.current().slice == flex.task(gpu=0.25)(child).remote().result()

    assert flex.task(gpu=1)(parent).remote().result(WAIT)
