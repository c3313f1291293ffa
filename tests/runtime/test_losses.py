"""Real kills: of slices, of their children, of the scheduler, of a node's agent."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

import flexray as flex
from flexray import errors
from flexray.runtime import process
from runtime.sample import Counter, call, echo, hold, sleep
from runtime.support import Marks, alive, until

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("pool")]
WAIT = 90


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def leave_and_die(marks: Marks, name: str) -> None:
    marks.leave(name, os.getpid())
    die()


def die_unless(marks: Marks, name: str, times: int) -> int:
    """Kills its slice so often, then succeeds."""
    marks.leave(name)
    if marks.count(name) <= times:
        die()
    return marks.count(name)


def work(marks: Marks, number: int) -> int:
    marks.leave("pids", os.getpid())
    time.sleep(0.01)
    return number


def actor_pid(name: str) -> int:
    """The process of one of the pool's own actors."""
    import ray

    handle = ray.get_actor(name, namespace="flexray")
    return ray.get(handle.__ray_call__.remote(lambda self: os.getpid()), timeout=30)


def test_a_slice_killed_under_200_tasks_loses_none(marks: Marks) -> None:
    calls = call.options(gpu=0.5)
    futures = [calls.remote(work, marks, i) for i in range(200)]
    victim = int(marks.wait("pids", 5)[-1])
    os.kill(victim, signal.SIGKILL)
    assert flex.get(futures, timeout=WAIT) == list(range(200))


def test_every_slice_killed_at_once(marks: Marks) -> None:
    calls = call.options(gpu=0.5)
    futures = [calls.remote(work, marks, i) for i in range(200)]
    for pid in {int(line) for line in marks.wait("pids", 20)}:
        if alive(pid):
            os.kill(pid, signal.SIGKILL)
    assert flex.get(futures, timeout=WAIT) == list(range(200))


def test_a_task_that_kills_its_slice_pays_alone(marks: Marks) -> None:
    """Attempts are counted where they survive; its neighbours on the slice are not charged."""
    calls = call.options(gpu=1, retries=2)
    before = [calls.remote(abs, -i) for i in range(50)]
    killer = calls.remote(leave_and_die, marks, "attempt")
    after = [calls.remote(abs, -i) for i in range(50, 100)]
    with pytest.raises(errors.LeaseLost, match=r"3 times.*retries=2"):
        killer.result(WAIT)
    assert marks.count("attempt") == 3
    assert len(set(marks.lines("attempt"))) == 3  # each time on a slice of its own
    assert flex.get([*before, *after], timeout=WAIT) == list(range(100))


def crash(marks: Marks, name: str) -> None:
    marks.leave(name, os.getpid())
    ctypes.string_at(0)


def leave_process(marks: Marks, name: str) -> None:
    marks.leave(name, os.getpid())
    os._exit(7)


@pytest.mark.parametrize(
    ("end", "words"),
    [(crash, r"Segmentation fault in string_at .*called by crash"), (leave_process, r"os\._exit\(7\)")],
)
def test_a_poison_task_is_told_what_it_does_and_nobody_else_pays(marks: Marks, end: Any, words: str) -> None:
    beside = hold.remote(marks, "beside")  # in a slice of its own, next to the others
    (pid,) = map(int, marks.wait("beside"))
    calls = call.options(retries=2)
    others = [calls.remote(abs, -i) for i in range(50)]
    poison = calls.remote(end, marks, "attempt")
    others += [calls.remote(abs, -i) for i in range(50, 100)]
    with pytest.raises(errors.LeaseLost, match=rf"3 times .*{words}.*retries=2.*3 slices") as caught:
        poison.result(WAIT)
    assert "no other call was charged" in str(caught.value)
    assert len(set(marks.lines("attempt"))) == 3
    assert flex.get(others, timeout=WAIT) == list(range(100))
    assert {other.attempts for other in others} == {0}
    assert not beside.done()
    marks.leave("release")
    assert beside.result(WAIT) == pid


class Poison:
    """Ends the process that reads it, before the task it is an argument of begins."""

    def __init__(self, marks: Marks) -> None:
        self.marks = marks

    def __reduce__(self) -> Any:
        return _explode, (self.marks, bytes(200_000))


def _explode(marks: Marks, data: bytes) -> None:
    leave_process(marks, "attempt")


def test_a_poison_argument_ends_only_so_many_slices(marks: Marks) -> None:
    calls = call.options(retries=1)
    poison = calls.remote(echo, Poison(marks))
    others = [calls.remote(abs, -i) for i in range(30)]
    with pytest.raises(errors.LeaseLost, match=r"2 times .*os\._exit\(7\).*retries=1"):
        poison.result(WAIT)
    assert marks.count("attempt") == 3, "at first nobody knows whose argument it was"
    assert flex.get(others, timeout=WAIT) == list(range(30))
    assert {other.attempts for other in others} == {0}


def test_no_retries_means_one_attempt(marks: Marks) -> None:
    calls = call.options(gpu=1, retries=0)
    killer = calls.remote(leave_and_die, marks, "attempt")
    neighbours = [calls.remote(abs, -i) for i in range(30)]
    with pytest.raises(errors.LeaseLost, match="retries=0"):
        killer.result(WAIT)
    assert marks.count("attempt") == 1
    assert flex.get(neighbours, timeout=WAIT) == list(range(30))


def test_a_task_that_recovers_within_its_retries_succeeds(marks: Marks) -> None:
    assert call.remote(die_unless, marks, "attempt", 2).result(WAIT) == 3


def test_an_exception_is_never_retried(marks: Marks) -> None:
    def wrong(marks: Marks) -> None:
        marks.leave("attempt")
        raise OSError("mine")

    with pytest.raises(OSError, match="mine"):
        call.remote(wrong, marks).result(WAIT)
    assert marks.count("attempt") == 1


def test_a_stream_that_loses_its_slice_says_so() -> None:
    def items() -> Any:
        yield os.getpid()
        time.sleep(60)

    stream = iter(flex.task(gpu=0.25)(items).stream())
    os.kill(next(stream), signal.SIGKILL)
    with pytest.raises(errors.LeaseLost, match="streamed"):
        next(stream)


def test_children_of_a_killed_slice_are_gone_before_its_device_is_free(marks: Marks) -> None:
    """Even a grandchild in a session of its own, which outlives the slice's process group."""

    def with_children(marks: Marks) -> None:
        nap = "import time; time.sleep(600)"
        command = [sys.executable, "-c", f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {nap!r}], "]
        command[-1] += "start_new_session=True); " + nap
        subprocess.Popen(command, start_new_session=True)
        while len(family := _descendants(os.getpid())) < 2:
            time.sleep(0.01)
        for pid in family:
            marks.leave("child", pid)
        marks.leave("slice", os.getpid())
        time.sleep(600)

    task = flex.task(gpu=1, retries=0)(with_children)
    doomed = task.remote(marks)
    (pid,) = map(int, marks.wait("slice"))
    children = [int(line) for line in marks.lines("child")]
    assert all(alive(child) for child in children)
    os.kill(pid, signal.SIGKILL)
    with pytest.raises(errors.LeaseLost):
        doomed.result(WAIT)
    # The client hears of the end when the books do: by then nothing may be left.
    assert [child for child in children if alive(child)] == []


def _descendants(root: int) -> list[int]:
    found = [root]
    for pid in found:
        for task in os.listdir(f"/proc/{pid}/task"):
            found += [int(p) for p in Path(f"/proc/{pid}/task/{task}/children").read_text().split()]
    return found[1:]


def test_children_of_a_task_that_is_done_end_with_the_slice(marks: Marks) -> None:
    def start(marks: Marks) -> None:
        marks.leave("child", subprocess.Popen(["sleep", "600"], start_new_session=True).pid)

    @flex.actor(gpu=0.5)
    class Starter:
        def start(self, marks: Marks) -> None:
            start(marks)

    starter = Starter.remote()
    starter.start.remote(marks).result(WAIT)
    (child,) = map(int, marks.lines("child"))
    assert alive(child)
    starter.stop()
    until(lambda: not alive(child), "the child has ended")


def test_a_killed_scheduler_comes_back_and_no_task_is_lost(marks: Marks) -> None:
    from flexray.runtime.protocol import SCHEDULER_NAME

    running, naps = hold.remote(marks, "started"), sleep.options(gpu=1)
    futures = [naps.remote(0.02, i) for i in range(100)]
    marks.wait("started")
    before, epoch = actor_pid(SCHEDULER_NAME), flex.pool().epoch
    os.kill(before, signal.SIGKILL)
    marks.leave("release")
    assert running.result(WAIT) > 0
    assert flex.get(futures, timeout=WAIT) == list(range(100))
    assert flex.get([echo.remote(i) for i in range(20)], timeout=WAIT) == list(range(20))
    assert actor_pid(SCHEDULER_NAME) != before
    assert flex.pool().epoch > epoch
    assert Counter.remote(1).add.remote().result(WAIT) == 2


def test_a_killed_node_agent_comes_back_and_no_task_is_lost(marks: Marks) -> None:
    from flexray.runtime.protocol import agent_name

    (node,) = flex.pool().nodes
    running, naps = hold.remote(marks, "started"), sleep.options(gpu=1)
    futures = [naps.remote(0.02, i) for i in range(100)]
    (slice_pid,) = map(int, marks.wait("started"))
    before = actor_pid(agent_name(node.id))
    os.kill(before, signal.SIGKILL)
    until(lambda: not alive(slice_pid), "its slices end with it", 30)
    marks.leave("release")
    assert running.result(WAIT) > 0
    assert flex.get(futures, timeout=WAIT) == list(range(100))
    assert actor_pid(agent_name(node.id)) != before
    process.client()  # still the same connection


def test_a_call_while_the_scheduler_is_away_only_waits() -> None:
    from flexray.runtime.protocol import SCHEDULER_NAME

    os.kill(actor_pid(SCHEDULER_NAME), signal.SIGKILL)
    assert echo.remote("after").result(WAIT) == "after"
