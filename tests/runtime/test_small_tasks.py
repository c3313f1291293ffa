"""Many small tasks: packed into few calls, and still each for itself."""

from __future__ import annotations

import threading
from collections import Counter as Count
from typing import Any

import pytest

import flexray as flex
from flexray.errors import TaskError
from flexray.runtime import dispatch, exchange, process
from flexray.runtime.session import Session
from runtime.sample import echo, fail, hold, sleep
from runtime.support import Marks

pytestmark = pytest.mark.usefixtures("pool")
WAIT = 60


@pytest.fixture
def messages(monkeypatch: pytest.MonkeyPatch) -> Count[str]:
    """Counts what the client sends, by kind: events to the scheduler, batches and functions to slices."""
    counted: Count[str] = Count()
    tell, send_batch, function_blob = Session.tell, dispatch.send_batch, dispatch._function_blob

    def count_tell(self: Session, event: Any) -> None:
        counted[type(event).__name__] += 1
        tell(self, event)

    def count_batch(*args: Any) -> Any:
        counted["batch"] += 1
        return send_batch(*args)

    def count_function(*args: Any) -> Any:
        blob = function_blob(*args)
        counted["function"] += blob is not None
        return blob

    monkeypatch.setattr(Session, "tell", count_tell)
    monkeypatch.setattr(exchange, "send_batch", count_batch)
    monkeypatch.setattr(dispatch, "_function_blob", count_function)
    return counted


def test_twenty_thousand_tasks_need_few_messages(messages: Count[str]) -> None:
    """Two devices hold four slices of 0.5: about that many leases, and a function once for each."""
    half = echo.options(gpu=0.5)
    futures = [half.remote(n) for n in range(20_000)]
    assert flex.get(futures, timeout=WAIT) == list(range(20_000))
    assert 0 < messages["function"] <= 8
    assert messages["batch"] < 2_000
    assert sum(messages[kind] for kind in ("RequestSubmitted", "RequestCancelled", "LeaseReleased")) < 400


def test_a_burst_behind_a_long_task_does_not_wait_for_it(marks: Marks) -> None:
    flex.get([hold.remote(marks, "warm", "go") for _ in marks.leave("go") or range(4)], timeout=WAIT)
    long = hold.remote(marks, "started", "release")
    burst = [hold.remote(marks, "quick", "go") for _ in range(300)]  # the same function: the same slices
    flex.get(burst, timeout=WAIT)
    assert not long.done()
    marks.leave("release")
    assert long.result(WAIT) > 0


def test_tasks_of_one_batch_fail_each_for_itself() -> None:
    good, bad = [echo.remote(n) for n in range(200)], [fail.remote(ValueError(n)) for n in range(200)]
    assert flex.get(good, timeout=WAIT) == list(range(200))
    for number, future in enumerate(bad):
        with pytest.raises(ValueError, match=f"^ValueError: {number}\n") as raised:
            future.result(WAIT)
        assert isinstance(raised.value, TaskError)


def test_cancelling_a_part_of_a_burst_leaves_the_rest() -> None:
    naps = sleep.options(gpu=1)
    futures = [naps.remote(0.001, n) for n in range(2_000)]
    cancelled = {n for n in range(1, 2_000, 3) if futures[n].cancel()}
    assert len(cancelled) > 100
    for number, future in enumerate(futures):
        if number in cancelled:
            assert future.cancelled()
        else:
            assert future.result(WAIT) == number


def test_a_burst_with_a_timeout_that_is_not_reached() -> None:
    bounded = echo.options(gpu=1, timeout=30)
    assert flex.get([bounded.remote(n) for n in range(5_000)], timeout=WAIT) == list(range(5_000))


def test_threads_that_wait_for_different_tasks_all_wake() -> None:
    futures = [sleep.remote(0.002 * (n % 5), n) for n in range(200)]
    results: dict[int, Any] = {}
    threads = [
        threading.Thread(target=lambda n=n: results.update({n: futures[n].result(WAIT)})) for n in range(0, 200, 10)
    ]
    for thread in threads:
        thread.start()
    for future in flex.as_completed(futures, timeout=WAIT):
        assert future.done()
    for thread in threads:
        thread.join(WAIT)
    assert results == {n: n for n in range(0, 200, 10)}


@pytest.mark.parametrize(
    "value", [None, True, 3, 2.5, 1j, "é" * 10, b"\0" * 10, "x" * 5_000, "x" * 300_000, 10**400, (1, "a"), [None], {}]
)
def test_plain_and_other_values_keep_type_and_value(value: Any) -> None:
    result = echo.remote(value).result(WAIT)
    assert result == value and type(result) is type(value)
    assert echo.remote(value=value).result(WAIT) == value


def test_a_subclass_of_a_plain_type_keeps_its_class() -> None:
    class Level(int):
        pass

    assert type(echo.remote(Level(3)).result(WAIT)).__name__ == "Level"


def test_a_session_that_was_taken_for_dead_gets_its_tasks_done_and_leaves_nothing_behind(marks: Marks) -> None:
    """It is told that what it held is lost, and joins again."""
    import ray

    session = process.client()._session
    running = hold.remote(marks, "started", "release")
    marks.wait("started")
    futures = [sleep.remote(0.01, n) for n in range(50)]
    ray.get(process.client()._link.scheduler.leave.remote(session._ticket))
    marks.leave("release")
    assert flex.get(futures, timeout=WAIT) == list(range(50))
    assert running.result(WAIT) > 0
