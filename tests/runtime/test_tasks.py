"""Tasks, their Futures, and everything that travels with them."""

from __future__ import annotations

import asyncio
import concurrent.futures
import os
import pickle
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import flexray as flex
from flexray import errors
from runtime.sample import Counter, add, call, call_async, count_to, echo, fail, hold, sleep
from runtime.support import Marks, until

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("pool")]
WAIT = 60  # seconds that nothing here takes on a healthy machine


# -- calls -----------------------------------------------------------------------------------------


def test_a_plain_call_runs_here() -> None:
    assert call(os.getpid) == os.getpid()


def test_remote_runs_in_another_process() -> None:
    assert call.remote(os.getpid).result(WAIT) != os.getpid()


def test_keyword_arguments_and_defaults() -> None:
    assert sleep.remote(0, value="v").result(WAIT) == "v"
    assert sleep.remote(seconds=0).result(WAIT) is None


def test_options_override_and_are_validated_as_in_the_decorator() -> None:
    share = call.options(gpu=0.5, memory="64MiB").remote(lambda: (flex.current().share, flex.current().memory))
    assert share.result(WAIT) == (0.5, 64 * 2**20)
    with pytest.raises(errors.InvalidRequest, match=r"ask for gpu=2"):
        call.options(gpu=1.5)
    with pytest.raises(errors.InvalidRequest, match="'retries'"):
        call.options(retry=1)


def test_options_replace_an_amount_of_another_kind() -> None:
    assert "accelerator=0.5" in repr(call.options(accelerator=0.5))


def test_metadata_of_the_function_is_kept() -> None:
    @flex.task(gpu=0.5)
    def documented(x: int) -> int:
        """What it does."""
        return x

    assert (documented.__name__, documented.__doc__) == ("documented", "What it does.")
    assert "documented" in repr(documented)


def test_a_task_on_a_method_or_a_class_is_refused() -> None:
    with pytest.raises(errors.UsageError, match=r"@flex\.actor"):

        @flex.task(gpu=0.5)
        class Wrong:
            pass

    class Holder:
        @flex.task(gpu=0.5)
        def method(self) -> None: ...

    with pytest.raises(errors.UsageError, match=r"@flex\.actor"):
        Holder().method.remote()


# -- map -------------------------------------------------------------------------------------------


def test_map_keeps_the_order() -> None:
    assert list(echo.map(range(3000))) == list(range(3000))


def test_map_with_a_progress_bar_gives_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    assert list(echo.map([3, 1, 2], progress=True)) == [3, 1, 2]
    assert "echo" in capsys.readouterr().out


def test_map_takes_from_a_generator_only_what_it_needs() -> None:
    taken = 0

    def items() -> Iterator[int]:
        nonlocal taken
        while True:
            taken += 1
            yield taken

    results = echo.map(items())
    assert [next(results) for _ in range(10)] == list(range(1, 11))
    assert taken <= 2100
    results.close()


def test_map_holds_a_bounded_number_of_futures() -> None:
    given = returned = most = 0

    def items() -> Iterator[int]:
        nonlocal given, most
        for number in range(8000):
            given += 1
            most = max(most, given - returned)
            yield number

    for _ in echo.map(items()):
        returned += 1
    assert returned == 8000
    assert most <= 2001


def test_map_raises_where_the_failed_item_is() -> None:
    def check(x: int) -> int:
        if x == 3:
            raise LookupError(x)
        return x

    results = flex.task(gpu=1)(check).map(range(6))
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(LookupError, match="3"):
        next(results)


# -- get, wait, as_completed -----------------------------------------------------------------------


def test_get_takes_one_many_or_none() -> None:
    one, two = echo.remote(1), echo.remote(2)
    assert flex.get(one, timeout=WAIT) == 1
    assert flex.get([two, one, one], timeout=WAIT) == [2, 1, 1]
    assert flex.get(future for future in [one, two]) == [1, 2]
    assert flex.get([]) == []


def test_get_times_out_and_cancels_nothing(marks: Marks) -> None:
    future = hold.remote(marks, "started")
    marks.wait("started")
    with pytest.raises(errors.WaitTimeout) as info:
        flex.get([echo.remote(1), future], timeout=0.1)
    assert isinstance(info.value, TimeoutError)
    with pytest.raises(TimeoutError):
        future.result(timeout=0)
    assert not future.done()
    marks.leave("release")
    assert future.result(WAIT) > 0


def test_get_raises_the_first_failure_in_order() -> None:
    futures = [echo.remote(1), fail.remote(KeyError("first")), fail.remote(OSError("second"))]
    with pytest.raises(KeyError, match="first"):
        flex.get(futures, timeout=WAIT)


def test_wait_splits_in_the_order_given(marks: Marks) -> None:
    slow, fast = hold.remote(marks, "started"), echo.remote(1)
    done, rest = flex.wait([slow, fast], num_returns=1, timeout=WAIT)
    assert (done, rest) == ([fast], [slow])
    done, rest = flex.wait([slow, fast], num_returns=2, timeout=0.05)
    assert (done, rest) == ([fast], [slow])
    marks.leave("release")
    done, rest = flex.wait([slow, fast], num_returns=2, timeout=WAIT)
    assert (done, rest) == ([slow, fast], [])


@pytest.mark.parametrize("number", [0, 3, -1])
def test_wait_refuses_a_number_that_cannot_be(number: int) -> None:
    with pytest.raises(errors.UsageError, match="num_returns"):
        flex.wait([echo.remote(1), echo.remote(2)], num_returns=number)


def test_wait_for_a_future_given_twice() -> None:
    future = echo.remote(1)
    done, rest = flex.wait([future, future], num_returns=2, timeout=WAIT)
    assert (done, rest) == ([future, future], [])


def test_as_completed_yields_each_when_it_is_done(marks: Marks) -> None:
    slow = hold.remote(marks, "started")
    fast = [echo.remote(i) for i in range(5)]
    seen = []
    for future in flex.as_completed([slow, *fast], timeout=WAIT):
        seen.append(future)
        if len(seen) == 5:
            marks.leave("release")
    assert seen[-1] is slow
    assert {id(f) for f in seen} == {id(f) for f in [slow, *fast]}


def test_as_completed_times_out(marks: Marks) -> None:
    slow = hold.remote(marks, "started")
    with pytest.raises(errors.WaitTimeout):
        list(flex.as_completed([slow], timeout=0.1))
    marks.leave("release")


@pytest.mark.parametrize("use", [flex.get, flex.wait, lambda x: list(flex.as_completed(x))])
def test_things_that_are_not_futures_are_refused(use: Callable[[Any], Any]) -> None:
    import ray

    with pytest.raises(errors.UsageError, match=r"ray\.get"):
        use([ray.put(1)])
    with pytest.raises(errors.UsageError, match="int"):
        use([1])


def test_a_callback_runs_once_with_the_future() -> None:
    called: list[flex.Future[int]] = []
    event = threading.Event()

    def callback(future: flex.Future[int]) -> None:
        called.append(future)
        event.set()

    future = echo.remote(7)
    future.add_done_callback(callback)
    assert event.wait(WAIT)
    assert future.result(WAIT) == 7
    later = threading.Event()
    future.add_done_callback(lambda _: later.set())
    assert later.is_set()  # done already: at once, here
    assert called == [future]


def test_a_callback_that_raises_harms_nobody() -> None:
    def wrong(future: object) -> None:
        raise RuntimeError("callback")

    first = echo.remote(1)
    first.add_done_callback(wrong)
    second = [echo.remote(i) for i in range(50)]
    second[0].add_done_callback(wrong)
    assert first.result(WAIT) == 1
    assert flex.get(second, timeout=WAIT) == list(range(50))


def test_a_callback_may_submit_and_wait_is_not_lost() -> None:
    chained: concurrent.futures.Future[flex.Future[int]] = concurrent.futures.Future()
    echo.remote(1).add_done_callback(lambda f: chained.set_result(echo.remote(f.result() + 1)))
    assert chained.result(WAIT).result(WAIT) == 2


def test_states_of_a_future(marks: Marks) -> None:
    future = hold.remote(marks, "started")
    marks.wait("started")
    assert (future.done(), future.running(), future.cancelled()) == (False, True, False)
    marks.leave("release")
    assert future.exception(WAIT) is None
    assert (future.done(), future.running(), future.cancelled()) == (True, False, False)
    assert "hold" in repr(future)


def test_explain_says_where_a_task_is(marks: Marks) -> None:
    future = hold.remote(marks, "started")
    marks.wait("started")
    running = future.explain()
    assert running.state == "leased"
    assert running.devices
    marks.leave("release")
    future.result(WAIT)
    assert future.explain().state == "done"


# -- errors of the user's own code -----------------------------------------------------------------


class OddError(Exception):
    """Needs two arguments, and hands neither to Exception: it pickles and does not unpickle."""

    def __init__(self, code: int, *, reason: str) -> None:
        super().__init__()
        self.code, self.reason = code, reason


class CarefulError(OddError):
    """The same with the usual remedy."""

    def __reduce__(self) -> Any:
        return (_careful, (self.code, self.reason))


def _careful(code: int, reason: str) -> CarefulError:
    return CarefulError(code, reason=reason)


class LockedError(Exception):
    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.lock = threading.Lock()


class MuteError(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no words")


def _raise(kind: type[BaseException], *args: Any, **kwargs: Any) -> None:
    raise kind(*args, **kwargs)


def _raise_odd(kind: type[OddError]) -> None:
    raise kind(7, reason="odd")


def test_an_exception_is_a_task_error_and_the_original_class() -> None:
    future = fail.remote(ValueError("bad thing"))
    with pytest.raises(ValueError, match="bad thing") as info:
        future.result(WAIT)
    error = info.value
    assert isinstance(error, errors.TaskError)
    assert type(error.__cause__) is ValueError and error.__cause__.args == ("bad thing",)
    assert "in fail" in error.remote_traceback and "sample.py" in error.remote_traceback
    assert error.remote_traceback in str(error)
    assert future.exception() is error


def test_an_exception_keeps_its_attributes() -> None:
    with pytest.raises(CarefulError) as info:
        call.remote(_raise_odd, CarefulError).result(WAIT)
    assert isinstance(info.value, errors.TaskError)
    assert (info.value.code, info.value.reason) == (7, "odd")


@pytest.mark.parametrize("kind", [FileNotFoundError, UnicodeDecodeError, KeyError, StopIteration, AssertionError])
def test_builtin_exceptions_keep_their_class(kind: type[Exception]) -> None:
    args: dict[type, tuple[Any, ...]] = {
        FileNotFoundError: (2, "gone", "/some/where"),
        UnicodeDecodeError: ("utf8", b"x", 0, 1, "why"),
    }
    with pytest.raises(kind) as info:
        call.remote(_raise, kind, *args.get(kind, ("it",))).result(WAIT)
    assert isinstance(info.value, errors.TaskError)
    assert info.value.__cause__ is not None and info.value.__cause__.args == kind(*args.get(kind, ("it",))).args
    if kind is FileNotFoundError:
        assert (info.value.errno, info.value.filename) == (2, "/some/where")


def test_an_exception_with_an_odd_constructor_travels_as_text() -> None:
    with pytest.raises(errors.TaskError, match="OddError") as info:
        call.remote(_raise_odd, OddError).result(WAIT)
    assert "raise kind(7" in str(info.value)


@pytest.mark.parametrize(("kind", "text"), [(LockedError, "kept"), (MuteError, "MuteError")])
def test_an_exception_that_cannot_travel_arrives_as_text(kind: type[Exception], text: str) -> None:
    with pytest.raises(errors.TaskError, match=text) as info:
        call.remote(_raise, kind, "kept").result(WAIT)
    assert "in _raise" in str(info.value)


def test_a_task_error_can_be_pickled() -> None:
    error = fail.remote(ValueError("bad thing")).exception(WAIT)
    again = pickle.loads(pickle.dumps(error))
    assert isinstance(again, errors.TaskError) and isinstance(again, ValueError)
    assert "bad thing" in str(again)
    assert again.__cause__ is not None and again.__cause__.args == ("bad thing",)


@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt])
def test_an_exit_ends_the_task_and_not_its_slice(kind: type[BaseException]) -> None:
    before = call.remote(os.getpid).result(WAIT)
    with pytest.raises(errors.TaskError, match=kind.__name__):
        call.remote(_raise, kind, 3).result(WAIT)
    assert call.remote(os.getpid).result(WAIT) == before


def test_the_exception_of_a_child_keeps_its_class_through_its_parent() -> None:
    def parent() -> None:
        fail.remote(LookupError("deep")).result()

    with pytest.raises(LookupError, match="deep") as info:
        call.options(gpu=0.5).remote(parent).result(WAIT)
    assert type(info.value.__cause__) is LookupError


def test_a_result_that_cannot_be_pickled_is_a_task_error() -> None:
    with pytest.raises(errors.TaskError, match="lock"):
        call.remote(threading.Lock).result(WAIT)


def test_an_exception_class_of_the_drivers_main(script: Callable[..., Any]) -> None:
    done = script(
        """
        import flexray as flex

        class Mine(Exception):
            def __init__(self, a, b):
                super().__init__(a, b)
                self.a = a

        @flex.task(gpu=0.25)
        def f():
            raise Mine(1, 2)

        try:
            f.remote().result(60)
        except Mine as error:
            print(type(error.__cause__) is Mine, error.a, isinstance(error, flex.errors.TaskError))
        """
    )
    assert done.stdout.splitlines()[-1:] == ["True 1 True"], done.stderr


# -- generators and async --------------------------------------------------------------------------


def test_a_generator_streams_its_items() -> None:
    assert list(count_to.stream(5)) == [0, 1, 2, 3, 4]


def test_a_generator_streams_before_it_ends(marks: Marks) -> None:
    def items() -> Iterator[int]:
        yield 1
        while not marks.count("seen"):
            time.sleep(0.01)
        yield 2

    stream = iter(flex.task(gpu=0.25)(items).stream())
    assert next(stream) == 1
    marks.leave("seen")
    assert list(stream) == [2]


def test_a_generator_as_a_result_is_refused() -> None:
    with pytest.raises(errors.TaskError, match=r"\.stream\(\)"):
        count_to.remote(3).result(WAIT)


def test_a_stream_takes_futures_as_arguments_and_raises_what_the_generator_raises() -> None:
    assert list(count_to.stream(echo.remote(3))) == [0, 1, 2]
    with pytest.raises(TypeError):
        list(count_to.stream("three"))
    with pytest.raises(KeyError, match="no"):
        list(count_to.stream(fail.remote(KeyError("no"))))


def test_a_stream_that_is_left_gives_its_slice_back() -> None:
    for item in count_to.stream(10_000):
        if item == 3:
            break


def test_async_tasks() -> None:
    async def twice(x: int) -> int:
        await asyncio.sleep(0.001)
        return 2 * x

    assert flex.get([call_async.remote(twice, i) for i in (1, 2)], timeout=WAIT) == [2, 4]


def test_await_and_gather() -> None:
    async def main() -> list[int]:
        assert await echo.remote(1) == 1
        with pytest.raises(KeyError):
            await fail.remote(KeyError("k"))
        return await asyncio.gather(*[echo.remote(i) for i in range(100)])

    assert asyncio.run(main()) == list(range(100))


def test_async_for_over_a_stream() -> None:
    async def main() -> list[int]:
        return [item async for item in count_to.stream(4)]

    assert asyncio.run(main()) == [0, 1, 2, 3]


@pytest.mark.parametrize(
    "use",
    [
        lambda f: f.result(),
        lambda f: f.exception(),
        lambda f: flex.get([f]),
        lambda f: flex.wait([f]),
        lambda f: list(flex.as_completed([f])),
        lambda f: f.object_ref(),
    ],
    ids=["result", "exception", "get", "wait", "as_completed", "object_ref"],
)
def test_blocking_an_event_loop_is_refused(use: Callable[[Any], Any], marks: Marks) -> None:
    future = hold.remote(marks, "started")

    async def main() -> None:
        with pytest.raises(errors.UsageError, match="await"):
            use(future)

    asyncio.run(main())
    marks.leave("release")
    future.result(WAIT)


def test_blocking_an_event_loop_inside_a_task_is_refused() -> None:
    async def wrong() -> None:
        sleep.remote(0.5).result()

    with pytest.raises(errors.UsageError, match="await"):
        call_async.options(gpu=0.5).remote(wrong).result(WAIT)


# -- arguments and results -------------------------------------------------------------------------


@pytest.mark.parametrize("size", [10, 20_000, 1_000_000])
def test_arrays_there_and_back(size: int) -> None:
    array = np.arange(size)
    assert np.array_equal(echo.remote(array).result(WAIT), array)


def test_many_large_results_at_once() -> None:
    def block(i: int) -> Any:
        return np.full(40_000, i)

    calls = call.options(gpu=1)
    futures = [calls.remote(block, i) for i in range(30)]
    assert [int(a[0]) for a in flex.get(futures, timeout=WAIT)] == list(range(30))


def test_ray_references_resolve_at_the_top_level_and_stay_deeper() -> None:
    import ray

    ref = ray.put(20)
    assert add.remote(ref, other=ray.put(1)).result(WAIT) == 21
    nested = echo.remote({"deep": [ref]}).result(WAIT)
    assert isinstance(nested["deep"][0], ray.ObjectRef)
    assert ray.get(nested["deep"][0]) == 20


def test_a_large_argument_with_a_nested_reference() -> None:
    import ray

    back = echo.remote([np.zeros(50_000), ray.put("deep")]).result(WAIT)
    assert ray.get(back[1]) == "deep"


def test_a_ray_reference_that_is_not_ready_is_awaited() -> None:
    import ray

    @ray.remote(num_cpus=0)
    def late() -> int:
        time.sleep(0.3)
        return 5

    assert add.remote(late.remote(), 1).result(WAIT) == 6


def test_a_ray_reference_that_failed_fails_the_task() -> None:
    import ray

    @ray.remote(num_cpus=0, max_retries=0)
    def broken() -> None:
        raise ValueError("from plain Ray")

    future = echo.remote(broken.remote())
    error = future.exception(WAIT)
    assert isinstance(error, errors.FlexrayError)
    assert "from plain Ray" in str(error) or "from plain Ray" in repr(error.__cause__)
    assert echo.remote(1).result(WAIT) == 1


def test_futures_as_arguments() -> None:
    small, large = echo.remote(1), echo.remote(np.ones(100_000))
    assert add.remote(add.remote(small, 1), other=echo.remote(3)).result(WAIT) == 5
    assert add.remote(large, small).result(WAIT).sum() == 200_000
    assert add.remote(small, small).result(WAIT) == 2
    small.result(WAIT)
    assert add.remote(small, large).result(WAIT).sum() == 200_000  # finished already, value kept here


def test_a_dependent_of_a_failed_task_fails_with_the_same_error() -> None:
    root = fail.remote(ZeroDivisionError("root"))
    last = add.remote(1, echo.remote(root))
    assert last.exception(WAIT) is root.exception(WAIT)
    assert add.remote(root, 1).exception(WAIT) is root.exception(WAIT)  # failed before it was given


def test_a_long_chain_of_futures() -> None:
    future = echo.remote(0)
    for _ in range(300):
        future = add.remote(future, 1)
    assert future.result(WAIT) == 300


def test_a_nested_unfinished_future_is_refused_with_the_remedy(marks: Marks) -> None:
    unfinished = hold.remote(marks, "started")
    with pytest.raises(errors.UsageError, match="top-level"):
        echo.remote([unfinished])
    with pytest.raises(errors.UsageError, match="top-level"):
        pickle.dumps(unfinished)
    marks.leave("release")
    unfinished.result(WAIT)


def test_a_finished_future_pickles() -> None:
    good, bad = echo.remote([1, 2]), fail.remote(KeyError("k"))
    flex.wait([good, bad], num_returns=2, timeout=WAIT)
    again = pickle.loads(pickle.dumps(good))
    assert (again.result(), again.done(), again.exception()) == ([1, 2], True, None)
    with pytest.raises(KeyError):
        pickle.loads(pickle.dumps(bad)).result()
    assert call.remote(lambda f: f[0].result(), [good]).result(WAIT) == [1, 2]


def test_closures_may_hold_ray_references() -> None:
    import ray

    ref = ray.put(np.arange(10))

    @flex.task(gpu=0.25)
    def total() -> int:
        return int(ray.get(ref).sum())

    assert total.remote().result(WAIT) == 45


def test_a_large_function_travels() -> None:
    table = np.arange(100_000)

    @flex.task(gpu=1)
    def look_up(i: int) -> int:
        return int(table[i])

    assert flex.get([look_up.remote(i) for i in range(5)], timeout=WAIT) == list(range(5))


def test_object_ref_for_plain_ray() -> None:
    import ray

    @ray.remote(num_cpus=0)
    def total(x: Any) -> int:
        return int(np.sum(x))

    for size in (3, 200_000):
        ref = echo.remote(np.ones(size)).object_ref(WAIT)
        assert isinstance(ref, ray.ObjectRef)
        assert ray.get(ref).sum() == size
        assert ray.get(total.remote(ref), timeout=WAIT) == size
    with pytest.raises(KeyError):
        fail.remote(KeyError("k")).object_ref(WAIT)


def test_a_result_that_holds_references_made_in_the_task() -> None:
    import ray

    def put() -> list[Any]:
        return [ray.put("made in a slice")]

    assert ray.get(call.remote(put).result(WAIT)[0], timeout=WAIT) == "made in a slice"


_setting = "first"


def test_a_function_is_taken_as_it_is_at_its_first_call() -> None:
    """Like Ray's: what it closes over is copied then, and later changes are seen by a new task object only."""
    box = ["first"]

    def read() -> str:
        return box[0]

    task = flex.task(gpu=0.25)(read)
    box[0] = "before the first call"
    assert task.remote().result(WAIT) == "before the first call"
    box[0] = "after it"
    assert task.remote().result(WAIT) == "before the first call"
    assert task() == "after it"  # here, plain Python
    assert flex.task(gpu=0.25)(read).remote().result(WAIT) == "after it"


def test_tasks_and_handles_as_arguments() -> None:
    counter = Counter.remote(10)

    def use(task: Any, handle: Any) -> tuple[int, int]:
        return task.remote(1).result(), handle.add.remote(5).result()

    assert call.options(gpu=0.5).remote(use, echo, counter).result(WAIT) == (1, 15)
    assert counter.add.remote().result(WAIT) == 16
    counter.stop()  # a handle that was sent elsewhere does not end with the last one here


def test_tasks_called_from_plain_ray_tasks() -> None:
    import ray

    wide = echo.options(gpu=1)

    @ray.remote(num_cpus=0)
    def outer(n: int) -> list[int]:
        return flex.get([wide.remote(i) for i in range(n)], timeout=WAIT)

    assert ray.get(outer.remote(20), timeout=WAIT) == list(range(20))


def test_tasks_called_from_slices() -> None:
    def outer(n: int) -> int:
        return sum(flex.get([echo.remote(i) for i in range(n)]))

    assert call.options(gpu=0.5).remote(outer, 100).result(WAIT) == 4950


# -- where it runs ---------------------------------------------------------------------------------


def test_current_describes_the_slice() -> None:
    def look() -> dict[str, Any]:
        here = flex.current()
        names = ("slice", "share", "memory", "isolation", "request", "attempt", "rank", "world_size", "torch_device")
        return {**{n: getattr(here, n) for n in names}, "device": here.device, "yield": here.should_yield()}

    here = call.remote(look).result(WAIT)
    pool = flex.pool()
    device = {d.id: d for d in pool.devices}[here["device"].id]
    assert here["slice"] in {s.id for s in pool.slices}
    assert here["share"] == 0.25
    assert here["memory"] == device.memory // 4 * 2**20
    assert here["isolation"] == device.isolation != "none"
    assert here["attempt"] >= 1
    assert here["request"]
    assert (here["rank"], here["world_size"], here["yield"], here["torch_device"]) == (0, 1, False, "cpu")


def test_current_outside_a_task_is_refused() -> None:
    with pytest.raises(errors.UsageError, match="inside a running"):
        flex.current()


# -- threads and processes -------------------------------------------------------------------------


def test_many_threads_get_their_own_results() -> None:
    wide = echo.options(gpu=1)

    def work(thread: int) -> list[tuple[int, int]]:
        return flex.get([wide.remote((thread, i)) for i in range(200)], timeout=WAIT)

    with concurrent.futures.ThreadPoolExecutor(8) as executor:
        results = list(executor.map(work, range(8)))
    assert results == [[(thread, i) for i in range(200)] for thread in range(8)]


def test_threads_of_one_task_submit_beside_each_other() -> None:
    def outer() -> list[int]:
        with concurrent.futures.ThreadPoolExecutor(4) as executor:
            return list(executor.map(lambda i: echo.remote(i).result(), range(40)))

    assert call.options(gpu=0.5).remote(outer).result(WAIT) == list(range(40))


def test_a_forked_child_raises_and_never_hangs() -> None:
    assert echo.remote(1).result(WAIT) == 1
    unfinished = sleep.remote(1.0, "parent")
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        said = []
        for use in (lambda: echo.remote(2), lambda: unfinished.result(5), flex.pool, unfinished.cancel, flex.init):
            try:
                use()
                said.append("nothing")
            except BaseException as error:
                said.append(type(error).__name__)
        os.write(writer, " ".join(said).encode())
        os._exit(0)
    os.close(writer)
    until(lambda: os.waitpid(child, os.WNOHANG)[0] == child, "the child ends", 30)
    assert os.read(reader, 1000).decode() == " ".join(["NotConnected"] * 5)
    assert unfinished.result(WAIT) == "parent"
