"""Futures of tasks and actor calls: ``Future``, ``get``, ``wait``, ``as_completed``, ``Stream``."""

from __future__ import annotations

import queue
import time
from collections.abc import AsyncIterator, Callable, Generator, Iterable, Iterator
from typing import Any, Generic, TypeVar, cast, overload

from flexray.errors import UsageError, WaitTimeout
from flexray.model.explanation import Explanation
from flexray.runtime.call import Call, Phase

T = TypeVar("T")


class Future(Call, Generic[T]):
    """The result of a ``.remote()`` call, which may not be there yet.

    Resolves exactly once. May be given as an argument to another ``.remote()``, where
    it is awaited; anything else that pickles it raises UsageError while it is not done.
    """

    __slots__ = ()

    def result(self, timeout: float | None = None) -> T:
        """Wait for the result and return it, or raise what the task raised.

        Args:
            timeout: seconds; None waits for ever.

        Raises:
            WaitTimeout: time ran out. The task goes on.
            TaskError: the task raised; also an instance of the original's class.
            FlexrayError: another reason from ``flexray.errors``.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        if self.phase is not Phase.DONE:
            self.client.wait((self,), timeout)
        return self._result(deadline)

    def _result(self, deadline: float | None = None) -> T:
        """The result of a finished task, or raise what it raised."""
        failure = self.failure()
        if failure is not None:
            try:
                raise failure
            finally:
                del failure, self  # or the traceback's frames would keep each other, and what they hold, alive
        return cast(T, self.value(deadline))

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """Wait, and return the exception the task failed with, or None."""
        self.client.wait((self,), timeout)
        return self.failure()

    def done(self) -> bool:
        """Whether there is a result or an exception."""
        return self.phase is Phase.DONE

    def running(self) -> bool:
        """Whether the task is in a slice."""
        return self.phase in (Phase.SENT, Phase.HERE)

    def cancelled(self) -> bool:
        """Whether the task was cancelled."""
        from flexray.errors import Cancelled

        return self.phase is Phase.DONE and isinstance(self.failure(), Cancelled)

    def cancel(self, *, force: bool = False) -> bool:
        """Cancel the task. True when it will not run to its end.

        A task that has not started is dropped. Running async code is cancelled. Running
        sync code goes on: it can look at ``flex.current().should_yield()``, and False is
        returned; with ``force=True`` its slice is killed, which costs a process start.
        """
        return self.client.cancel(self, force)

    def add_done_callback(self, callback: Callable[[Future[T]], None]) -> None:
        """Call ``callback(future)`` when done, in a thread of flexray's; at once if it is done already."""
        if not self.on_done(callback):
            callback(self)

    def object_ref(self, timeout: float | None = None) -> Any:
        """The Ray ObjectRef of the result, once the task has succeeded, to hand to plain Ray code."""
        self.result(timeout)
        return self.client.object_ref(self)

    def explain(self) -> Explanation:
        """Where the task is and why: its wait reason, its place in line, what would let it start."""
        return self.client.explain(self)

    def __await__(self) -> Generator[Any, None, T]:
        yield from self.client.wait_async(self).__await__()
        if self.large is not None:
            return cast(T, (yield from self.client.repeats.fetch_async(self).__await__()))
        return self._result()

    def __repr__(self) -> str:
        return f"<Future {self.target.name} {self.phase.name.lower()}>"

    def __reduce__(self) -> Any:
        if self.phase is not Phase.DONE:
            raise UsageError(
                "a Future that is not done cannot be pickled; pass it as a top-level argument of .remote(), where it "
                "is awaited, or call result() first"
            )
        failure = self.failure()
        return (_done_future, (None if failure else self.value(), failure))


class DoneFuture(Generic[T]):
    """What a finished Future becomes in another process: its outcome, with the reading half of its interface."""

    def __init__(self, value: Any, failure: BaseException | None) -> None:
        self._value, self._failure = value, failure

    def result(self, timeout: float | None = None) -> T:
        """The result, or raise what the task raised."""
        if self._failure is not None:
            raise self._failure
        return cast(T, self._value)

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """The exception the task failed with, or None."""
        return self._failure

    def done(self) -> bool:
        """Always True."""
        return True


def _done_future(value: Any, failure: BaseException | None) -> DoneFuture[Any]:
    return DoneFuture(value, failure)


def _check(future: object, where: str) -> Future[Any]:
    if not isinstance(future, Future):
        kind = type(future).__name__
        hint = "; for Ray's ObjectRefs use ray.get" if "ObjectRef" in kind else ""
        raise UsageError(f"{where} takes flexray Futures, got {kind}: {future!r}{hint}")
    return future


@overload
def get(futures: Future[T], timeout: float | None = None) -> T: ...


@overload
def get(futures: Iterable[Future[T]], timeout: float | None = None) -> list[T]: ...


def get(futures: Future[T] | Iterable[Future[T]], timeout: float | None = None) -> T | list[T]:
    """The result of a Future, or the list of results of several, in order.

    Args:
        futures: one Future, or an iterable of them.
        timeout: seconds for all together; None waits for ever.

    Raises:
        WaitTimeout: time ran out. Nothing is cancelled.
        TaskError: the first (in order) that failed, as from ``Future.result``.
        UsageError: something that is not a Future.
    """
    if isinstance(futures, Future):
        return futures.result(timeout)
    if isinstance(futures, (str, bytes)) or not isinstance(futures, Iterable):
        _check(futures, "flex.get")
    several = [future if type(future) is Future else _check(future, "flex.get") for future in futures]
    deadline = None if timeout is None else time.monotonic() + timeout
    if several:
        several[0].client.wait(several, timeout)
    return [future.outcome[1] if future.is_value else future._result(deadline) for future in several]


def wait(
    futures: Iterable[Future[T]], *, num_returns: int = 1, timeout: float | None = None
) -> tuple[list[Future[T]], list[Future[T]]]:
    """Wait until ``num_returns`` Futures are done, or time runs out.

    Returns:
        (done, not done), each in the order given; at most ``num_returns`` in the first.
    """
    several = [_check(future, "flex.wait") for future in futures]
    if not 0 < num_returns <= max(1, len(several)):
        raise UsageError(f"num_returns={num_returns} must be between 1 and the number of Futures, {len(several)}")
    ready: dict[int, None] = {}
    try:
        for future in as_completed(several, timeout=timeout):
            ready[id(future)] = None
            if len(ready) >= num_returns:
                break
    except WaitTimeout:
        pass
    return [f for f in several if id(f) in ready], [f for f in several if id(f) not in ready]


def as_completed(futures: Iterable[Future[T]], timeout: float | None = None) -> Iterator[Future[T]]:
    """Yield Futures as they are done. Raises WaitTimeout when time runs out before the last."""
    several = [_check(future, "flex.as_completed") for future in futures]
    done: queue.SimpleQueue[Future[T]] = queue.SimpleQueue()
    for future in several:
        if not future.on_done(done.put):
            done.put(future)
    deadline = None if timeout is None else time.monotonic() + timeout
    for count in range(len(several)):
        try:
            yield done.get_nowait()
            continue
        except queue.Empty:
            pass
        left = None if deadline is None else max(0.0, deadline - time.monotonic())
        waiting = [future for future in several if future.phase is not Phase.DONE]
        if waiting:
            waiting[0].client.wait_any(waiting, left)
        try:
            yield done.get(timeout=1.0 if left is None else min(left, 1.0))
        except queue.Empty:
            raise WaitTimeout(f"{len(several) - count} of {len(several)} tasks not done after {timeout} s") from None


class Stream(Generic[T]):
    """The items of a generator that runs on a slice, as they are produced: iterate, or iterate with ``async for``."""

    def __init__(self, source: Any) -> None:
        self._source = source

    def __iter__(self) -> Iterator[T]:
        return cast(Iterator[T], self._source.items())

    def __aiter__(self) -> AsyncIterator[T]:
        return cast(AsyncIterator[T], self._source.items_async())
