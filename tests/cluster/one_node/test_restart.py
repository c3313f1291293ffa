"""The scheduler's process is killed while work runs: the work goes on, and nobody has to do anything."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import flexray as flex
from cluster.conftest import until
from flexray import errors

CONFIG = {
    "cpu_devices": 1,
    "grace_seconds": 1,
    "linger_seconds": 0.1,
    "rejoin_seconds": 8,
    "client_timeout_seconds": 4,
    "queues": [{"name": "a"}, {"name": "b"}],
}
WAIT = 90


@pytest.fixture(autouse=True)
def all_is_given_back(pool: None) -> Iterator[None]:
    """After each test nothing waits, runs, or holds a slice that is not warm, and the books are exact."""
    import ray

    yield
    until(lambda: not flex.pool().waiting and not flex.pool().running)
    until(lambda: all(one.state == "idle" for one in flex.pool().slices))
    ray.get(scheduler().check.remote())


def scheduler() -> Any:
    from flexray.runtime.asking import find_scheduler

    return find_scheduler()


def kill_scheduler() -> int:
    """Kill its process as the kernel would; returns the epoch it had."""
    import ray

    epoch = flex.pool().epoch
    pid = ray.get(scheduler().__ray_call__.remote(lambda actor: os.getpid()))
    os.kill(pid, signal.SIGKILL)
    return epoch


def restart_scheduler() -> None:
    """Kill it, and wait until the next one has found out what runs."""
    epoch = kill_scheduler()
    until(lambda: flex.pool().epoch > epoch and not flex.pool().notes)


def leave(file: Path, text: object = "x") -> None:
    with file.open("a") as out:
        out.write(f"{text}\n")


def lines(file: Path) -> list[str]:
    return file.read_text().split() if file.exists() else []


def wait_for(gate: Path, log: Path, number: int) -> tuple[int, int]:
    leave(log, number)
    while not gate.exists():
        time.sleep(0.02)
    return number, os.getpid()


def member(gate: Path, log: Path) -> int:
    leave(log, flex.current().rank)
    while not gate.exists():
        time.sleep(0.02)
    return flex.current().rank


class Counter:
    def __init__(self) -> None:
        self.count = 0

    def add(self) -> int:
        self.count += 1
        return self.count


def test_what_runs_goes_on_and_nothing_runs_twice(tmp_path: Path) -> None:
    gate, log, members = tmp_path / "gate", tmp_path / "log", tmp_path / "members"
    counter = flex.actor(accelerator=0.125)(Counter).remote()
    assert counter.add.remote().result(WAIT) == 1
    gang = flex.task(accelerator=0.125, gang=2, retries=0)(member).remote(gate, members)
    until(lambda: len(lines(members)) == 2)
    tasks = [flex.task(accelerator=0.25, queue="a", retries=0)(wait_for).remote(gate, log, n) for n in range(4)]
    until(lambda: len(lines(log)) == 2)
    before = {one.id for one in flex.pool().slices}
    for _ in range(2):  # and once more
        restart_scheduler()
        assert counter.add.remote().result(WAIT) > 1
        assert {one.id for one in flex.pool().slices} == before
        assert len(lines(log)) == 2 and len(flex.pool().waiting) >= 1
    gate.touch()
    done = flex.get(tasks, timeout=WAIT)
    assert [number for number, _ in done] == [0, 1, 2, 3]
    assert sorted(lines(log)) == ["0", "1", "2", "3"]
    assert gang.result(WAIT) == [0, 1] and sorted(lines(members)) == ["0", "1"]
    assert counter.add.remote().result(WAIT) == 4
    counter.stop()


def test_those_who_wait_keep_their_places(tmp_path: Path) -> None:
    gate, log = tmp_path / "gate", tmp_path / "log"
    first = flex.task(accelerator=1)(wait_for).remote(gate, tmp_path / "first", 0)
    until(lambda: lines(tmp_path / "first") == ["0"])
    waiting = []
    for number in range(3):  # of three classes, so that each is a request of its own
        waiting.append(flex.task(accelerator=0.9 + number / 100)(wait_for).remote(gate, log, number))
        until(lambda number=number: len(flex.pool().waiting) == number + 1)
    names = [one.id for one in flex.pool().waiting]
    restart_scheduler()
    assert [one.id for one in flex.pool().waiting] == names
    gate.touch()
    flex.get([first, *waiting], timeout=WAIT)
    assert lines(log) == ["0", "1", "2"]


def outer(gate: Path, log: Path) -> tuple[int, int]:
    """Waits for a task that does not fit into its own slice."""
    return flex.task(accelerator=0.75)(wait_for).remote(gate, log, 7).result(WAIT)


def test_a_task_that_waits_for_tasks_goes_on(tmp_path: Path) -> None:
    gate, log = tmp_path / "gate", tmp_path / "log"
    future = flex.task(accelerator=0.25, retries=0)(outer).remote(gate, log)
    until(lambda: lines(log) == ["7"])
    restart_scheduler()
    gate.touch()
    assert future.result(WAIT)[0] == 7 and lines(log) == ["7"]


@pytest.mark.parametrize("delay", [0.0, 0.3, 0.8])
def test_slices_that_are_just_started_or_stopped_come_out_right(delay: float) -> None:
    """Those of the first call are idle, and have to stop for those of the next, while these are on their way."""
    share = 0.3 + delay / 100  # a class of its own, that has no warm slice
    first = [flex.task(accelerator=share)(abs).remote(-n) for n in range(6)]
    assert flex.get(first, timeout=WAIT) == list(range(6))
    futures = [flex.task(accelerator=share + 0.1)(abs).remote(-n) for n in range(6)]
    time.sleep(delay)
    epoch = kill_scheduler()
    assert flex.get(futures, timeout=WAIT) == list(range(6))
    until(lambda: flex.pool().epoch > epoch and not flex.pool().notes)


def test_questions_are_answered_while_it_restarts() -> None:
    epoch = kill_scheduler()
    assert flex.pool().epoch >= epoch  # waits, and raises nothing of Ray's
    until(lambda: flex.pool().epoch > epoch and not flex.pool().notes)
    kill_scheduler()
    assert flex.plan(accelerator=0.5) is not None
    until(lambda: not flex.pool().notes)


def test_a_lease_that_nobody_knows_is_stopped(tmp_path: Path) -> None:
    """Another client dies while there is no scheduler: it does not join again, and its slice goes."""
    import subprocess
    import sys

    import ray

    gate, log = tmp_path / "gate", tmp_path / "log"
    code = (
        "import sys, time, pathlib, flexray as flex\n"
        f"sys.path.insert(0, {str(Path(__file__).parents[2])!r})\n"
        f"flex.init({ray.get_runtime_context().gcs_address!r})\n"
        "def hold(gate, log):\n"
        "    log.write_text('1')\n"
        "    while not gate.exists(): time.sleep(0.02)\n"
        f"flex.task(accelerator=0.5)(hold).remote(pathlib.Path({str(gate)!r}), pathlib.Path({str(log)!r})).result()\n"
    )
    other = subprocess.Popen([sys.executable, "-c", code])
    try:
        until(lambda: lines(log) == ["1"])
        epoch = kill_scheduler()
        other.kill()
        other.wait(30)
        until(lambda: flex.pool().epoch > epoch and not flex.pool().notes)
        until(lambda: not flex.pool().slices and not flex.pool().running)
    finally:
        other.kill()


def test_a_client_that_stops_is_taken_for_dead_and_recovers(tmp_path: Path) -> None:
    """It is cut off for longer than ``client_timeout_seconds``: its work is stopped, and done again when it is back."""
    from flexray.runtime import process

    gate, log = tmp_path / "gate", tmp_path / "log"
    task = flex.task(accelerator=0.5, retries=0)(wait_for).remote(gate, log, 1)
    actor = flex.actor(accelerator=0.25)(Counter).remote()
    assert actor.add.remote().result(WAIT) == 1
    until(lambda: lines(log) == ["1"])
    session = process.client()._session
    with cut_off(session):
        until(lambda: not flex.pool().running)
    until(lambda: lines(log) == ["1", "1"])
    gate.touch()
    assert task.result(WAIT)[0] == 1
    with pytest.raises(errors.LeaseLost, match="taken for dead"):
        actor.add.remote().result(WAIT)
    actor.stop()


def cut_off(session: Any) -> Any:
    """While it lasts, nothing of the session reaches the scheduler."""
    from contextlib import contextmanager

    import ray

    @contextmanager
    def lost() -> Iterator[None]:
        link, call = session.link, session.link.call

        def swallow(method: str, args: tuple[Any, ...], done: Callable[[Any], None]) -> None:
            done(ray.exceptions.ActorUnavailableError("cut off", None))

        link.call = swallow
        try:
            yield
        finally:
            link.call = call

    return lost()


def test_settings_are_kept_and_a_damaged_record_stops_nobody() -> None:
    from ray.experimental import internal_kv

    from flexray.runtime.kept import QUEUES
    from flexray.runtime.reading import change_cordons, change_queues, read_queues

    change_queues(scheduler(), {"set": {"name": "c", "weight": 2}})
    (device,) = change_cordons(scheduler(), {"cordon": flex.pool().devices[0].id, "reason": "mine"})
    restart_scheduler()
    assert [queue["name"] for queue in read_queues(scheduler())] == ["a", "b", "c"]
    assert flex.pool().devices[0].state == "cordoned" and flex.pool().devices[0].id == device
    found = internal_kv._internal_kv_get(QUEUES, namespace=b"flexray")
    internal_kv._internal_kv_put(QUEUES, found.replace(b"weight", b"wright"), overwrite=True, namespace=b"flexray")
    epoch = kill_scheduler()
    until(lambda: flex.pool().epoch > epoch and "'queues' could not be read" in " ".join(flex.pool().notes))
    assert [queue["name"] for queue in read_queues(scheduler())] == ["a", "b"]
    assert internal_kv._internal_kv_get(b"damaged:" + QUEUES, namespace=b"flexray")
    internal_kv._internal_kv_del(b"damaged:" + QUEUES, namespace=b"flexray")
    change_cordons(scheduler(), {"uncordon": device})
    restart_scheduler()
    assert flex.task(accelerator=0.25)(abs).remote(-1).result(WAIT) == 1
