"""The calls of a slice: which are known, running, finished and not yet fetched.

    batch ──register──> run in the user thread ──> outbox of the holder ──reply──> client

Sync code runs in place, in the one thread of Ray's concurrency group ``user``, which
is not the main thread of the process; the slice answers control calls meanwhile. Classes
with async methods run on an event loop in a thread of its own instead. What has not
begun can be taken back, also before it has arrived.
"""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from types import CoroutineType
from typing import Any

from flexray.errors import Cancelled, Preempted
from flexray.runtime.protocol import Code
from flexray.runtime.runs import Holder, Outbox, Outcome, Run
from flexray.runtime.watchdog import Watchdog

#: How many finished calls are remembered, to tell them from calls that have not arrived.
_REMEMBERED = 20_000


class RunQueue:
    """Runs calls and keeps their outcomes until they are fetched.

    Args:
        encode: turns (succeeded, result or exception) into an Outcome; runs in the user thread.
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
        self._watchdog = Watchdog(self._ran_out, self._ignored, grace)
        self._lock = threading.Lock()
        self._runs: dict[tuple[Holder, int], Run] = {}
        self._outboxes: dict[Holder, Outbox] = {}
        #: calls taken back before their batch has arrived, and calls that have finished lately.
        self._ahead: set[tuple[Holder, int]] = set()
        self._finished: OrderedDict[tuple[Holder, int], None] = OrderedDict()
        self._loop: asyncio.AbstractEventLoop | None = None
        #: whether calls run on the event loop, in its own thread.
        self._serving = False

    def _outbox(self, holder: Holder) -> Outbox:
        found = self._outboxes.get(holder)
        if found is None:
            found = self._outboxes[holder] = Outbox()
        return found

    # -- called by actor threads -----------------------------------------------------------

    def new_grant(self, grant: tuple[int, int]) -> None:
        """The slice was granted again: whoever still waits for results under an earlier grant must not get these."""
        with self._lock:
            for holder, outbox in list(self._outboxes.items()):
                if holder[1:] < grant:
                    outbox.closed = True
                    outbox.some.set()
                    if not outbox.unfinished and not outbox.done:
                        del self._outboxes[holder]
            self._ahead = {key for key in self._ahead if key[0][1:] >= grant}

    def register(self, holder: Holder, runs: list[Run], patience: float) -> list[Run]:
        """Take in calls; returns those to run. A repeated message, and what was taken back, is left out.

        Args:
            patience: seconds that a finished call of the holder may wait for others from now on.
        """
        fresh = []
        with self._lock:
            for run in runs:
                run.holder = holder
                key = (holder, run.id)
                if key in self._ahead:
                    self._ahead.discard(key)
                elif key not in self._runs:
                    self._runs[key] = run
                    fresh.append(run)
            if fresh:
                outbox = self._outbox(holder)
                outbox.patience = patience
                outbox.unfinished += len(fresh)
                outbox.all.clear()
        return fresh

    def execute(self, runs: list[Run]) -> None:
        """Run calls here and now, one after the other, in the user thread."""
        for run in runs:
            if self._start(run):
                self._finish(run, self._run_sync(run))
        self._note(None)

    def execute_async(self, runs: list[Run]) -> None:
        """Run calls on the event loop; returns when all have finished, or their patience is over."""
        loop = self._serving_loop()
        for run in runs:
            loop.call_soon_threadsafe(self._begin_async, run)
        if runs:
            outbox = self._outbox(runs[0].holder)
            outbox.all.wait(outbox.patience)

    def take(self, holder: Holder) -> tuple[list[tuple[Run, Outcome]], int, int, float]:
        """Finished calls of a holder, how many are unfinished, and (number, seconds) run since last asked."""
        with self._lock:
            outbox = self._outbox(holder)
            answer = (outbox.done, outbox.unfinished, outbox.ran, outbox.seconds)
            outbox.done, outbox.ran, outbox.seconds = [], 0, 0.0
            outbox.some.clear()
            return answer

    def wait_some(self, holder: Holder, longest: float) -> None:
        """Wait until a call of the holder has finished, then for the others while the patience lasts.

        Goes on waiting where all have finished by then, since the answer to their batch brings them, and as long
        again where it looks as if they will: a message costs as much processor time as a small task. Code on the
        event loop is not waited for by a batch's answer.
        """
        with self._lock:
            outbox = self._outbox(holder)
        deadline = time.monotonic() + longest
        while not outbox.closed and (left := deadline - time.monotonic()) > 0:
            if outbox.some.wait(left) and not outbox.closed:
                company = outbox.patience
                soon = outbox.all.wait(company) or (
                    outbox.unfinished * outbox.mean_seconds <= company and outbox.all.wait(company)
                )
                if not soon or self._serving:
                    return
                time.sleep(company / 5)

    def take_back(self, holder: Holder, ids: list[int]) -> list[int]:
        """Drop calls that have not begun, arrived or not; returns which. The others go on."""
        taken = []
        with self._lock:
            for number in ids:
                key = (holder, number)
                run = self._runs.get(key)
                if run is None and key not in self._finished:
                    self._ahead.add(key)
                elif run is None or run.started is not None:
                    continue
                else:
                    run.taken = True
                    self._forget(run)
                taken.append(number)
        return taken

    def ask_to_stop(self, holder: Holder, number: int) -> bool:
        """Cancel a running call as far as it lets itself: async code is cancelled, sync code sees should_yield()."""
        run = self._runs.get((holder, number))
        if run is None or run.done:
            return False
        _ask(run)
        if run.task is not None:
            run.task.get_loop().call_soon_threadsafe(run.task.cancel)
            return True
        return False

    def give_way(self, holder: Holder) -> None:
        """The lease is taken back: what runs sees should_yield(), and is run again elsewhere if it raises Preempted."""
        with self._lock:
            for run in [run for run in self._runs.values() if run.holder == holder]:
                run.giving_way = True
                _ask(run)

    def is_busy(self, holder: Holder) -> bool:
        """Whether something of a holder is queued or running here."""
        outbox = self._outboxes.get(holder)
        return outbox is not None and outbox.unfinished > 0

    def is_known(self, holder: Holder, number: int) -> bool:
        """Whether a call is queued or running here."""
        return (holder, number) in self._runs

    # -- running ---------------------------------------------------------------------------

    def _start(self, run: Run) -> bool:
        with self._lock:
            if run.taken:
                return False
            run.started = time.perf_counter()
        self._note(run.id)
        if run.timeout is not None:
            self._watchdog.add(run)
        return True

    def _run_sync(self, run: Run) -> Outcome:
        try:
            run.enter(run)
            result = run.call()
            if isinstance(result, CoroutineType):
                result = self._run_coroutine(run, result)
            return self._encode(True, result)
        except asyncio.CancelledError:
            return Code.CANCELLED, None
        except BaseException as error:  # SystemExit and KeyboardInterrupt of user code end the call, not the slice
            return self._failed(run, error)

    def _failed(self, run: Run, error: BaseException) -> Outcome:
        if run.giving_way and isinstance(error, Preempted):
            return Code.YIELDED, None
        if run.flag.raised and isinstance(error, Cancelled):  # raised by a checkpoint
            return Code.CANCELLED, None
        return self._encode(False, error)

    def _run_coroutine(self, run: Run, coroutine: Any) -> Any:
        """An async task: one event loop for all of them, in the user thread."""
        if self._loop is None:
            self._loop = asyncio.new_event_loop()
            asyncio.set_event_loop(self._loop)
        run.task = self._loop.create_task(coroutine)
        return self._loop.run_until_complete(run.task)

    def _serving_loop(self) -> asyncio.AbstractEventLoop:
        """The event loop of a class with async methods, in its thread."""
        with self._lock:
            if self._loop is None:
                self._serving = True
                self._loop = asyncio.new_event_loop()
                threading.Thread(target=self._serve, args=(self._loop,), name="flexray-user", daemon=True).start()
            return self._loop

    @staticmethod
    def _serve(loop: asyncio.AbstractEventLoop) -> None:
        asyncio.set_event_loop(loop)
        loop.run_forever()

    def _begin_async(self, run: Run) -> None:
        if not self._start(run):
            return
        context = contextvars.copy_context()
        context.run(run.enter, run)
        run.task = context.run(asyncio.get_event_loop().create_task, self._run_async(run))

    async def _run_async(self, run: Run) -> None:
        try:
            result = run.call()
            if inspect.isawaitable(result):
                result = await result  # unbounded: user code; its timeout is the watchdog's
            outcome = self._encode(True, result)
        except asyncio.CancelledError:
            outcome = (Code.CANCELLED, None)
        except BaseException as error:
            outcome = self._failed(run, error)
        self._finish(run, outcome)
        self._note(None)

    def _finish(self, run: Run, outcome: Outcome) -> None:
        elapsed = time.perf_counter() - (run.started or 0.0)
        if run.timeout is not None:
            self._watchdog.discard(run)
        run.call = _over  # with its arguments: the run itself stays the thread's present one until the next
        if run.checkpoints is not None:
            run.checkpoints.close()
        if run.timed_out:
            outcome = (Code.TIMEOUT, elapsed)
        with self._lock:
            self._forget(run, (outcome, elapsed))

    def _forget(self, run: Run, finished: tuple[Outcome, float] | None = None) -> None:
        """The call is over (or taken back). Called with the lock held."""
        key = (run.holder, run.id)
        run.done = True
        self._runs.pop(key, None)
        outbox = self._outboxes[run.holder]
        outbox.unfinished -= 1
        if finished is not None:
            self._finished[key] = None
            if len(self._finished) > _REMEMBERED:
                self._finished.popitem(last=False)
            outbox.done.append((run, finished[0]))
            if finished[0][0] is not Code.YIELDED:  # how long a part of it took says nothing of the whole
                outbox.ran += 1
                outbox.seconds += finished[1]
                outbox.mean_seconds += 0.2 * (finished[1] - outbox.mean_seconds)
            if len(outbox.done) == 1:
                outbox.some.set()
        if not outbox.unfinished:
            outbox.all.set()

    # -- timeouts --------------------------------------------------------------------------

    def _ran_out(self, run: Run) -> None:
        self.ask_to_stop(run.holder, run.id)

    def _ignored(self, run: Run) -> None:
        if not run.done:
            self._note(run.id)
            self._give_up("timeout")


def _over() -> None:
    """What stands for a call that has run."""


def _ask(run: Run) -> None:
    """Let a call see that it should stop. The flag goes first: who asks to be told looks at it afterwards."""
    run.flag.raised = True
    if run.checkpoints is not None:
        run.checkpoints.asked()
