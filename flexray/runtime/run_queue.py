"""A slice's own queue of calls, and the thread that runs them.

    batch ──submit──> queue ──user thread──> outbox of the session ──reply──> client

User code runs in one dedicated thread, which is not the main thread of the process, so
control calls are answered while it runs. What has not begun can be taken back. When an
actor's class has async methods, the same thread runs an event loop instead.
"""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import queue
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from flexray.model.lease import SessionId
from flexray.runtime.current import StopFlag
from flexray.runtime.protocol import Code

Outcome = tuple[Code, Any]


@dataclass(slots=True, eq=False)
class Run:
    """One call on this slice. ``call`` does the work and returns the raw result; ``finish`` makes an Outcome of it."""

    id: int
    session: SessionId
    call: Callable[[], Any]
    context: Callable[[StopFlag], None]
    timeout: float | None
    ticket: Ticket | None
    flag: StopFlag = field(default_factory=StopFlag)
    started: float | None = None
    taken: bool = False
    done: bool = False
    timed_out: bool = False
    task: asyncio.Task[Any] | None = None
    timer: threading.Timer | None = None


@dataclass(slots=True, eq=False)
class Ticket:
    """The calls that came in one batch: ``finished`` is set when none is left."""

    left: int
    finished: threading.Event = field(default_factory=threading.Event)


class Outbox:
    """Finished calls of one session that its client does not know of yet."""

    def __init__(self) -> None:
        self.done: list[tuple[Run, Outcome]] = []
        self.unfinished = 0
        self.count = 0
        self.seconds = 0.0
        self.some = threading.Event()
        self.all = threading.Event()


class RunQueue:
    """Runs calls one after the other (or on an event loop) and keeps their outcomes until they are fetched.

    Args:
        encode: turns ("value" | "error", object) into an Outcome; runs in the user thread.
        note: told the id of each call that starts, and None when nothing runs.
        give_up: ends the process, noting a cause; called when a call ignores its timeout or a forced cancel.
        grace: seconds between asking a call to stop and giving up.
    """

    def __init__(
        self,
        encode: Callable[[bool, Any], Outcome],
        note: Callable[[int | None], None],
        give_up: Callable[[str], None],
        grace: float,
    ) -> None:
        self._encode = encode
        self._note = note
        self._give_up = give_up
        self._grace = grace
        self._lock = threading.Lock()
        self._queue: queue.SimpleQueue[Run] = queue.SimpleQueue()
        self._runs: dict[tuple[SessionId, int], Run] = {}
        self._outboxes: dict[SessionId, Outbox] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._serving_async = False
        self._thread = threading.Thread(target=self._main, name="flexray-user", daemon=True)
        self._thread.start()

    # -- called by actor threads -----------------------------------------------------------

    def submit(self, runs: list[Run]) -> None:
        """Queue calls, in order. A call that is known already (a repeated message) is ignored."""
        with self._lock:
            fresh = [run for run in runs if (run.session, run.id) not in self._runs]
            for run in runs:
                if run not in fresh and run.ticket is not None:
                    run.ticket.left -= 1
                    if not run.ticket.left:
                        run.ticket.finished.set()
            for run in fresh:
                self._runs[run.session, run.id] = run
                outbox = self._outboxes.setdefault(run.session, Outbox())
                outbox.unfinished += 1
                outbox.all.clear()
        for run in fresh:
            if self._serving_async and self._loop is not None:
                self._loop.call_soon_threadsafe(self._begin_async, run)
            else:
                self._queue.put(run)

    def take(self, session: SessionId) -> tuple[list[tuple[Run, Outcome]], int, int, float]:
        """Finished calls of a session, how many are unfinished, and (count, seconds) of run time since last asked."""
        with self._lock:
            outbox = self._outboxes.setdefault(session, Outbox())
            answer = (outbox.done, outbox.unfinished, outbox.count, outbox.seconds)
            outbox.done, outbox.count, outbox.seconds = [], 0, 0.0
            outbox.some.clear()
            return answer

    def wait_some(self, session: SessionId, patience: float, company: float) -> None:
        """Wait until a call of the session has finished, then at most ``company`` seconds for the others."""
        with self._lock:
            outbox = self._outboxes.setdefault(session, Outbox())
            if not outbox.unfinished:
                return
        if outbox.some.wait(patience):
            outbox.all.wait(company)

    def take_back(self, session: SessionId, ids: list[int]) -> list[int]:
        """Drop calls that have not begun; returns which. The others go on."""
        taken = []
        with self._lock:
            for number in ids:
                run = self._runs.get((session, number))
                if run is not None and run.started is None and not run.done:
                    run.taken = True
                    self._forget(run)
                    taken.append(number)
        return taken

    def ask_to_stop(self, session: SessionId, number: int) -> bool:
        """Cancel a running call as far as it lets itself: async code is cancelled, sync code sees should_yield()."""
        run = self._runs.get((session, number))
        if run is None or run.done:
            return False
        run.flag.raised = True
        if run.task is not None and self._loop is not None:
            self._loop.call_soon_threadsafe(run.task.cancel)
            return True
        return False

    def is_known(self, session: SessionId, number: int) -> bool:
        """Whether a call is queued or running here."""
        return (session, number) in self._runs

    def serve_async(self) -> None:
        """From now on calls run on an event loop in the user thread. Called from the user thread."""
        self._serving_async = True

    # -- the user thread -------------------------------------------------------------------

    def _main(self) -> None:
        while not self._serving_async:
            run = self._queue.get()
            if self._start(run):
                self._finish(run, self._run_sync(run))
        loop = self._event_loop()
        while not self._queue.empty():
            loop.call_soon(self._begin_async, self._queue.get())
        loop.run_forever()

    def _event_loop(self) -> asyncio.AbstractEventLoop:
        if self._loop is None:
            self._loop = asyncio.new_event_loop()
            asyncio.set_event_loop(self._loop)
        return self._loop

    def _start(self, run: Run) -> bool:
        with self._lock:
            if run.taken:
                return False
            run.started = time.perf_counter()
        self._note(run.id)
        if run.timeout is not None:
            self._arm(run, run.timeout, self._ran_out)
        return True

    def _run_sync(self, run: Run) -> Outcome:
        try:
            run.context(run.flag)
            result = run.call()
            if inspect.iscoroutine(result):
                run.task = self._event_loop().create_task(result)
                result = self._event_loop().run_until_complete(run.task)
            return self._encode(True, result)
        except asyncio.CancelledError:
            return Code.CANCELLED, None
        except BaseException as error:  # SystemExit and KeyboardInterrupt of user code end the call, not the slice
            return self._encode(False, error)

    def _begin_async(self, run: Run) -> None:
        if not self._start(run):
            return
        context = contextvars.copy_context()
        context.run(run.context, run.flag)
        loop = self._event_loop()
        run.task = context.run(loop.create_task, self._run_async(run))

    async def _run_async(self, run: Run) -> None:
        try:
            result = run.call()
            if inspect.isawaitable(result):
                result = await result
            outcome = self._encode(True, result)
        except asyncio.CancelledError:
            outcome = (Code.CANCELLED, None)
        except BaseException as error:
            outcome = self._encode(False, error)
        self._finish(run, outcome)

    def _finish(self, run: Run, outcome: Outcome) -> None:
        elapsed = time.perf_counter() - (run.started or 0.0)
        if run.timer is not None:
            run.timer.cancel()
        if run.timed_out:
            outcome = (Code.TIMEOUT, elapsed)
        self._note(None)
        with self._lock:
            self._forget(run, (outcome, elapsed))

    def _forget(self, run: Run, finished: tuple[Outcome, float] | None = None) -> None:
        """The call is over (or taken back). Called with the lock held."""
        run.done = True
        self._runs.pop((run.session, run.id), None)
        outbox = self._outboxes[run.session]
        outbox.unfinished -= 1
        if finished is not None:
            outbox.done.append((run, finished[0]))
            outbox.count += 1
            outbox.seconds += finished[1]
            if len(outbox.done) == 1:
                outbox.some.set()
        if not outbox.unfinished:
            outbox.some.set()
            outbox.all.set()
        if run.ticket is not None:
            run.ticket.left -= 1
            if not run.ticket.left:
                run.ticket.finished.set()

    # -- timeouts --------------------------------------------------------------------------

    def _arm(self, run: Run, seconds: float, then: Callable[[Run], None]) -> None:
        run.timer = threading.Timer(seconds, then, (run,))
        run.timer.daemon = True
        run.timer.start()

    def _ran_out(self, run: Run) -> None:
        if run.done:
            return
        run.timed_out = True
        self._arm(run, self._grace, self._ignored)
        self.ask_to_stop(run.session, run.id)

    def _ignored(self, run: Run) -> None:
        if not run.done:
            self._note(run.id)
            self._give_up("timeout")
