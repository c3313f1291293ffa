"""The slice's run queue: what runs, what waits for company on its way back, what can be taken back."""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest

from flexray.model.lease import SessionId
from flexray.runtime.protocol import Code
from flexray.runtime.run_queue import RunQueue
from flexray.runtime.runs import Holder, Run

MINE: Holder = (SessionId("mine"), 1, 1)
LATER: Holder = (SessionId("mine"), 1, 2)
LONG = 30.0


class Slice:
    """A run queue, its user thread, and what it noted."""

    def __init__(self, grace: float = 0.05) -> None:
        self.notes: list[int | None] = []
        self.ended: list[str] = []
        self.queue = RunQueue(lambda ok, value: (Code.PLAIN, (ok, value)), self.notes.append, self.ended.append, grace)
        self.threads: list[threading.Thread] = []

    def runs(self, *calls: Callable[[], Any], first: int = 1, timeout: float | None = None) -> list[Run]:
        return [Run(first + n, call, lambda flag: None, timeout) for n, call in enumerate(calls)]

    def start(self, runs: list[Run], patience: float = 0.005, holder: Holder = MINE) -> None:
        """Run a batch in a thread, as Ray does."""
        fresh = self.queue.register(holder, runs, patience)
        self.threads.append(threading.Thread(target=self.queue.execute, args=(fresh,)))
        self.threads[-1].start()

    def take(self, holder: Holder = MINE) -> list[tuple[int, Any]]:
        return [(run.id, outcome[1]) for run, outcome in self.queue.take(holder)[0]]


@pytest.fixture
def here() -> Iterator[Slice]:
    made = Slice()
    yield made
    for thread in made.threads:
        thread.join(LONG)
        assert not thread.is_alive()


def test_calls_run_in_order_and_each_ends_for_itself(here: Slice) -> None:
    def fails() -> None:
        raise ValueError("no")

    here.queue.execute(here.queue.register(MINE, here.runs(lambda: 1, fails, lambda: 3), 0.005))
    first, failed, third = here.take()
    assert (first, third) == ((1, (True, 1)), (3, (True, 3)))
    assert failed[0] == 2 and not failed[1][0] and isinstance(failed[1][1], ValueError)
    assert here.notes == [1, 2, 3, None]
    assert here.take() == []


def test_a_repeated_message_runs_once(here: Slice) -> None:
    ran: list[int] = []
    runs = here.runs(lambda: ran.append(1))
    fresh = here.queue.register(MINE, runs, 0.005)
    assert here.queue.register(MINE, here.runs(lambda: ran.append(2)), 0.005) == []
    here.queue.execute(fresh)
    assert ran == [1]


def test_a_finished_result_does_not_wait_for_a_long_call(here: Slice) -> None:
    release = threading.Event()
    here.start(here.runs(lambda: "quick", lambda: release.wait(LONG)))
    here.queue.wait_some(MINE, LONG)
    assert here.take() == [(1, (True, "quick"))]
    release.set()


def test_a_collect_leaves_to_the_answer_what_is_about_to_go_with_it(here: Slice) -> None:
    collected = threading.Event()
    waiting = threading.Thread(target=lambda: (here.queue.wait_some(MINE, LONG), collected.set()))
    waiting.start()
    here.queue.execute(here.queue.register(MINE, here.runs(*[lambda: 0] * 5), 5.0))
    assert len(here.take()) == 5  # by the batch's own answer
    assert not collected.wait(0.3)
    release = threading.Event()
    here.start(here.runs(lambda: 1, lambda: release.wait(LONG), first=10), patience=0.005)
    assert collected.wait(LONG)
    assert here.take() == [(10, (True, 1))]
    release.set()
    waiting.join(LONG)


def test_another_grant_ends_the_wait_for_results_of_an_earlier_one(here: Slice) -> None:
    ended = threading.Event()
    waiting = threading.Thread(target=lambda: (here.queue.wait_some(MINE, LONG), ended.set()))
    waiting.start()
    time.sleep(0.05)
    here.queue.new_grant((1, 2))
    assert ended.wait(LONG)
    here.queue.execute(here.queue.register(LATER, here.runs(lambda: "later"), 0.005))
    assert here.take(MINE) == []
    assert here.take(LATER) == [(1, (True, "later"))]
    waiting.join(LONG)


def test_what_has_not_begun_can_be_taken_back_also_before_it_arrives(here: Slice) -> None:
    begun, release = threading.Event(), threading.Event()
    here.start(here.runs(lambda: begun.set() or release.wait(LONG), lambda: 2, lambda: 3))
    assert begun.wait(LONG)
    assert here.queue.take_back(MINE, [1, 2, 9]) == [2, 9]
    release.set()
    here.threads[0].join(LONG)
    assert [number for number, _ in here.take()] == [1, 3]
    assert here.queue.register(MINE, here.runs(lambda: 9, first=9), 0.005) == []
    assert here.queue.take_back(MINE, [3]) == []  # it has finished
    assert here.queue.register(MINE, here.runs(lambda: 2, first=2), 0.005) != []  # taken back, and given again


def test_a_timeout_asks_first_and_gives_the_slice_up_when_it_is_ignored(here: Slice) -> None:
    release = threading.Event()
    here.start(here.runs(lambda: release.wait(LONG), timeout=0.05))
    deadline = time.monotonic() + LONG
    while not here.ended and time.monotonic() < deadline:
        time.sleep(0.01)
    assert here.ended == ["timeout"]
    release.set()
    here.threads[0].join(LONG)
    (run, outcome), *_ = here.queue.take(MINE)[0]
    assert run.flag.raised and outcome[0] is Code.TIMEOUT


def test_a_call_that_looks_at_its_flag_ends_in_its_grace() -> None:
    here, runs = Slice(grace=LONG), list[Run]()

    def polite() -> str:
        while not runs[0].flag.raised:
            time.sleep(0.001)
        return "stopped"

    runs += here.runs(polite, timeout=0.05)
    here.start(runs)
    here.threads[0].join(LONG)
    assert not here.threads[0].is_alive() and here.ended == []
    assert here.queue.take(MINE)[0][0][1][0] is Code.TIMEOUT


def test_calls_within_their_timeout_are_left_alone(here: Slice) -> None:
    here.queue.execute(here.queue.register(MINE, here.runs(*[lambda: time.sleep(0.002)] * 30, timeout=5.0), 0.005))
    assert len(here.take()) == 30 and here.ended == []


def test_async_calls_run_beside_each_other(here: Slice) -> None:
    import asyncio

    async def meet(barrier: list[int]) -> int:
        barrier.append(1)
        while len(barrier) < 3:
            await asyncio.sleep(0.001)
        return len(barrier)

    barrier: list[int] = []
    runs = here.runs(*[lambda: meet(barrier)] * 3)
    here.queue.execute_async(here.queue.register(MINE, runs, LONG))
    assert sorted(here.take()) == [(n, (True, 3)) for n in (1, 2, 3)]


def test_what_a_call_was_given_is_let_go_when_it_has_run(here: Slice) -> None:
    class Large:
        pass

    given = Large()
    seen = weakref.ref(given)
    runs = here.runs(partial(lambda large: None, given))
    del given
    here.queue.execute(here.queue.register(MINE, runs, 0.005))
    assert seen() is None  # though the run itself is still to be fetched
