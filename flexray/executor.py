"""``flex.Executor``: the pool as a ``concurrent.futures.Executor``."""

from __future__ import annotations

import concurrent.futures
import itertools
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any, TypeVar

from flexray.errors import Cancelled, InvalidRequest
from flexray.future import Future
from flexray.tasks import Task, task

T = TypeVar("T")

_FUNCTIONS_KEPT = 32


class Executor(concurrent.futures.Executor):
    """Runs calls on slices of the pool, for code that is written for ``concurrent.futures``.

        with flex.Executor(gpu=0.25) as executor:
            print(list(executor.map(embed, batches, chunksize=8)))

    Takes the options of ``flex.task``. Its Futures are the standard library's, so ``concurrent.futures.wait`` and
    ``as_completed`` and ``asyncio.wrap_future`` work with them; they raise what the Futures of ``.remote()`` raise.
    Executors are cheap: they own no slices, the pool does.
    """

    def __init__(self, **options: Any) -> None:
        if options.get("gang") is not None:
            raise InvalidRequest("an Executor runs calls by themselves; use @flex.task(gang=...) for a gang")
        self._decorate = task(**options)
        self._tasks: OrderedDict[int, Task[..., Any]] = OrderedDict()
        self._open: set[ExecutorFuture[Any]] = set()
        self._lock = threading.Lock()
        self._closed = False

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> ExecutorFuture[T]:
        """Run ``fn(*args, **kwargs)`` on a slice; returns at once.

        Raises:
            RuntimeError: the executor was shut down.
        """
        with self._lock:
            if self._closed:
                raise RuntimeError("cannot schedule new futures after shutdown")
            runs = self._task_of(fn)
            future: ExecutorFuture[T] = ExecutorFuture(runs.remote(*args, **kwargs))
            self._open.add(future)
        future.add_done_callback(self._open.discard)
        future.link()
        return future

    def map(
        self, fn: Callable[..., T], *iterables: Iterable[Any], timeout: float | None = None, chunksize: int = 1
    ) -> Iterator[T]:
        """Results in order. All is submitted at once; ``chunksize`` items travel as one call.

        Small calls are packed together on their way anyway; a chunk saves a Future per item.

        Raises:
            ValueError: ``chunksize`` is below 1.
            TimeoutError: the next result is not there ``timeout`` seconds after the call of ``map``.
        """
        if chunksize < 1:
            raise ValueError(f"chunksize must be at least 1, not {chunksize}")
        if chunksize == 1:
            return super().map(fn, *iterables, timeout=timeout)
        chunks = _chunks(zip(*iterables, strict=False), chunksize)
        return itertools.chain.from_iterable(super().map(partial(_run_chunk, fn), chunks, timeout=timeout))

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no more calls; what was submitted goes on.

        Args:
            wait: return when all calls are done.
            cancel_futures: cancel those that have not begun.
        """
        with self._lock:
            self._closed = True
            left = list(self._open)
        if cancel_futures:
            for future in left:
                if not future.running():
                    future.cancel()
        if wait:
            concurrent.futures.wait(left)

    def _task_of(self, function: Callable[..., T]) -> Task[..., T]:
        """The same function as the same object is packed once."""
        found = self._tasks.get(id(function))
        if found is None:
            # the Task holds the function, so that its id is not given to another one while it is kept here
            found = self._tasks[id(function)] = self._decorate(function)
            if len(self._tasks) > _FUNCTIONS_KEPT:
                self._tasks.popitem(last=False)
        self._tasks.move_to_end(id(function))
        return found


class ExecutorFuture(concurrent.futures.Future[T]):
    """The standard library's Future of a call in the pool. ``call`` is flexray's own, which can ``explain()``."""

    def __init__(self, call: Future[T]) -> None:
        super().__init__()
        self.call = call
        self._settling = threading.Lock()

    def link(self) -> None:
        """Follow the call from now on."""
        self.call.add_done_callback(self._follow)

    def cancel(self) -> bool:
        """Cancel the call; True when it will not run, or not to its end.

        Sync code that runs already goes on: it can look at ``flex.current().should_yield()``, and False is returned.
        """
        if self.cancelled():
            return True
        if self.done() or not self.call.cancel():
            return False
        with self._settling:  # async code ends in a moment; who waits need not wait for that
            if not self.done():
                self._give_up()
        return self.cancelled()

    def running(self) -> bool:
        """Whether the call is in a slice."""
        return not self.done() and self.call.running()

    def result(self, timeout: float | None = None) -> T:
        """Wait for the result and return it, or raise what the call raised. Large results come when they are asked for.

        Raises:
            TimeoutError: it is not there after ``timeout`` seconds; the call goes on.
            CancelledError: it was cancelled.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        super().result(timeout)
        return self.call.result(None if deadline is None else max(0.0, deadline - time.monotonic()))

    def _follow(self, call: Future[T]) -> None:
        """The call is done."""
        with self._settling:
            if self.done():
                return
            failure = call.exception(0)
            if isinstance(failure, Cancelled):
                self._give_up()
            elif failure is not None:
                self.set_exception(failure)
            else:
                self.set_result(None)  # type: ignore[arg-type]  # ``result`` asks the call

    def _give_up(self) -> None:
        super().cancel()
        self.set_running_or_notify_cancel()  # tells those who wait for several


def _chunks(items: Iterable[tuple[Any, ...]], size: int) -> Iterator[tuple[tuple[Any, ...], ...]]:
    iterator = iter(items)
    while chunk := tuple(itertools.islice(iterator, size)):
        yield chunk


def _run_chunk(function: Callable[..., T], chunk: tuple[tuple[Any, ...], ...]) -> list[T]:
    return [function(*arguments) for arguments in chunk]
