"""Actors: state, order, streams, and how they end."""

from __future__ import annotations

import asyncio
import gc
import os
import pickle
import signal
import threading
from collections.abc import Callable
from typing import Any

import pytest

import flexray as flex
from flexray import errors
from runtime.sample import Counter, Room, call, echo, fail
from runtime.support import Marks, alive, until

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("pool")]
WAIT = 60


def held() -> float:
    """How much of all devices is held by leases, in devices."""
    return sum(queue.devices_held for queue in flex.pool().queues)


def test_a_plain_instance_is_made_here() -> None:
    assert Counter(3).add() == 4


def test_state_and_order() -> None:
    counter = Counter.remote(10)
    assert flex.get([counter.add.remote() for _ in range(300)], timeout=WAIT) == list(range(11, 311))


def test_constructor_arguments_may_be_futures_and_references() -> None:
    import ray

    counter = Counter.remote(echo.remote(5), step=ray.put(3))
    assert counter.add.remote(echo.remote(100)).result(WAIT) == 105
    assert counter.add.remote().result(WAIT) == 108


def test_two_instances_do_not_share_state() -> None:
    one, two = Counter.remote(), Counter.remote(100)
    assert flex.get([one.add.remote(), two.add.remote(), one.add.remote()], timeout=WAIT) == [1, 101, 2]
    assert one.pid.remote().result(WAIT) != two.pid.remote().result(WAIT)


def test_an_exception_leaves_the_actor_alive() -> None:
    counter = Counter.remote()
    with pytest.raises(KeyError, match="missing") as info:
        counter.fail.remote().result(WAIT)
    assert isinstance(info.value, errors.TaskError)
    assert counter.add.remote().result(WAIT) == 1


def test_a_failing_constructor_fails_the_calls() -> None:
    counter = Counter.remote(1, 2, 3, 4)
    calls = [counter.add.remote() for _ in range(3)]
    for one in calls:
        with pytest.raises(TypeError, match="argument"):
            one.result(WAIT)
    with pytest.raises(TypeError):
        counter.add.remote().result(WAIT)


def test_a_failed_constructor_argument_fails_the_calls() -> None:
    counter = Counter.remote(fail.remote(LookupError("no start")))
    with pytest.raises(LookupError, match="no start"):
        counter.add.remote().result(WAIT)


def test_an_unknown_method_lists_those_there_are() -> None:
    counter = Counter.remote()
    with pytest.raises(AttributeError, match=r"'multiply'.*'add'"):
        counter.multiply  # noqa: B018
    with pytest.raises(errors.UsageError, match=r"\.remote\("):
        counter.add()


def test_generator_methods_stream() -> None:
    counter = Counter.remote()
    assert list(counter.numbers.remote(4)) == [0, 1, 2, 3]
    items = iter(counter.broken_numbers.remote())
    assert next(items) == 1
    with pytest.raises(OSError, match="ran dry"):
        next(items)
    assert counter.add.remote().result(WAIT) == 1


def test_async_methods_run_beside_each_other() -> None:
    room = Room.remote(25)
    assert flex.get([room.enter.remote() for _ in range(25)], timeout=WAIT) == [25] * 25
    assert room.plain.remote().result(WAIT) == 25

    async def main() -> list[int]:
        return [item async for item in room.numbers.remote(4)]

    assert asyncio.run(main()) == [0, 1, 2, 3]
    assert list(room.numbers.remote(3)) == [0, 1, 2]


def test_handles_travel_to_tasks_actors_and_plain_ray() -> None:
    import ray

    counter = Counter.remote()

    def use(handle: Any) -> int:
        return handle.add.remote(10).result()

    @ray.remote(num_cpus=0)
    def use_in_ray(data: bytes) -> int:
        return pickle.loads(data).add.remote(100).result(WAIT)

    @flex.actor(gpu=0.25)
    class User:
        def __init__(self, handle: Any) -> None:
            self.handle = handle

        def use(self) -> int:
            return self.handle.add.remote(1000).result()

    user = User.remote(counter)
    assert call.remote(use, counter).result(WAIT) == 10
    assert ray.get(use_in_ray.remote(pickle.dumps(counter)), timeout=WAIT) == 110
    assert user.use.remote().result(WAIT) == 1110
    assert counter.add.remote(0).result(WAIT) == 1110
    counter.stop()


def test_a_borrowed_handle_of_a_stopped_actor_fails() -> None:
    counter = Counter.remote()
    pid = counter.pid.remote().result(WAIT)
    data = pickle.dumps(counter)
    counter.stop()
    until(lambda: not alive(pid), "its process is gone")

    def use(data: bytes) -> Any:
        return pickle.loads(data).add.remote().result()

    with pytest.raises(errors.LeaseLost):
        call.remote(use, data).result(WAIT)


def test_stop_ends_it_and_frees_the_books(marks: Marks) -> None:
    counter = Counter.remote()
    pid = counter.pid.remote().result(WAIT)
    assert held() == 0.25
    unfinished = [counter.hold.remote(marks), counter.add.remote()]
    marks.wait("held")
    counter.stop()
    for one in unfinished:
        with pytest.raises(errors.LeaseLost, match="stopped"):
            one.result(WAIT)
    until(lambda: not alive(pid), "its process is gone")
    until(lambda: not held(), "its share is free")
    with pytest.raises(errors.LeaseLost):
        counter.add.remote().result(WAIT)
    counter.stop()  # again is fine


def test_the_last_handle_gone_ends_it_after_its_calls(marks: Marks) -> None:
    counter = Counter.remote(5)
    waiting = [counter.hold.remote(marks), counter.add.remote(), counter.add.remote()]
    (pid,) = marks.wait("held")
    del counter
    gc.collect()
    assert not waiting[0].done()
    marks.leave("release")
    assert flex.get(waiting, timeout=WAIT) == [5, 6, 7]
    until(lambda: not alive(int(pid)), "its process is gone")


def test_a_handle_may_be_gone_before_its_slice_is_there() -> None:
    assert Counter.remote(5).add.remote().result(WAIT) == 6
    Counter.remote()  # nobody ever calls it
    assert Counter.remote(echo.remote(7)).add.remote().result(WAIT) == 8


def test_a_killed_actor_is_lease_lost(marks: Marks) -> None:
    counter = Counter.remote()
    pid = counter.pid.remote().result(WAIT)
    running = counter.hold.remote(marks)
    marks.wait("held")
    os.kill(pid, signal.SIGKILL)
    with pytest.raises(errors.LeaseLost, match="Counter"):
        running.result(WAIT)
    with pytest.raises(errors.LeaseLost):
        counter.add.remote().result(WAIT)


def test_a_killed_actor_with_retries_answers_again_with_fresh_state(marks: Marks) -> None:
    counter = Counter.options(retries=1).remote(7)
    assert counter.add.remote().result(WAIT) == 8
    pid = counter.pid.remote().result(WAIT)
    running = counter.hold.remote(marks)
    marks.wait("held")
    os.kill(pid, signal.SIGKILL)
    with pytest.raises(errors.LeaseLost):
        running.result(WAIT)
    assert counter.add.remote().result(WAIT) == 8
    assert counter.pid.remote().result(WAIT) != pid


def test_retries_of_an_actor_are_counted() -> None:
    counter = Counter.options(retries=1).remote()
    for _ in range(2):
        # A call may still go to the slice that has just died; the next ones wait for the fresh instance.
        until(lambda: counter.add.remote().exception(WAIT) is None, "an instance answers")
        pid = counter.pid.remote().result(WAIT)
        os.kill(pid, signal.SIGKILL)
        until(lambda pid=pid: not alive(pid), "its process is gone")
    until(lambda: not held(), "its share is free")
    until(lambda: "2 times" in str(counter.add.remote().exception(WAIT)), "the actor is given up")
    for _ in range(3):
        with pytest.raises(errors.LeaseLost, match="2 times"):
            counter.add.remote().result(WAIT)


def test_an_actor_keeps_its_share_while_idle_and_tasks_go_on() -> None:
    counters = [Counter.remote() for _ in range(3)]
    flex.get([c.add.remote() for c in counters], timeout=WAIT)
    assert held() >= 0.75
    assert flex.get([echo.remote(i) for i in range(100)], timeout=WAIT) == list(range(100))
    assert flex.get([c.add.remote() for c in counters], timeout=WAIT) == [2, 2, 2]


def test_an_actors_timeout_bounds_each_call(marks: Marks) -> None:
    counter = Counter.options(timeout=1.0).remote()
    assert counter.add.remote().result(WAIT) == 1
    with pytest.raises(errors.TaskTimeout):
        counter.hold.remote(marks).result(WAIT)


def test_actors_decorate_classes_only() -> None:
    with pytest.raises(errors.UsageError, match=r"@flex\.task"):

        @flex.actor(gpu=0.5)
        def wrong() -> None: ...


def test_cancelling_an_async_call() -> None:
    room = Room.remote(99)
    future = room.wait.remote(300)
    until(future.running, "it runs")
    assert room.plain.remote().result(WAIT) == 0
    assert future.cancel() is True
    with pytest.raises(errors.Cancelled):
        future.result(WAIT)
    assert room.wait.remote(0).result(WAIT) == 0


def test_an_actor_made_by_a_scripts_end(script: Callable[..., Any]) -> None:
    done = script(
        """
        import flexray as flex

        @flex.actor(gpu=0.25)
        class A:
            def __init__(self):
                print("made", flush=True)

            def f(self):
                return 1

        a = A.remote()
        print(a.f.remote().result(60))
        """
    )
    assert done.returncode == 0, done.stderr
    assert "1" in done.stdout.splitlines()


def test_one_that_was_stopped_before_it_had_a_slice_keeps_nobody_waiting() -> None:
    holders = [Counter.options(accelerator=1).remote() for _ in range(2)]
    assert [one.add.remote(1).result(WAIT) for one in holders] == [1, 1]
    third = Counter.options(accelerator=1).remote()
    failed: list[BaseException] = []

    def send() -> None:
        try:
            pickle.dumps(third)  # a handle that is sent needs the actor to be there
        except BaseException as error:
            failed.append(error)

    sender = threading.Thread(target=send, daemon=True)
    sender.start()
    third.stop()
    sender.join(WAIT)
    assert [type(error) for error in failed] == [errors.LeaseLost]
    for one in holders:
        one.stop()
