"""joblib on slices: ``n_jobs`` of scikit-learn and of ``joblib.Parallel`` counts slices of the pool.

import joblib, flexray.joblib

flexray.joblib.register()
with joblib.parallel_backend("flexray", gpu=0.25):
    GridSearchCV(model, grid, n_jobs=-1).fit(x, y)
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any

from joblib import register_parallel_backend
from joblib.parallel import AutoBatchingMixin, ParallelBackendBase, SequentialBackend

import flexray
from flexray.errors import InvalidRequest
from flexray.executor import Executor, ExecutorFuture

Callback = Callable[[ExecutorFuture[Any]], None]


def register() -> None:
    """Make ``joblib.parallel_backend("flexray", ...)`` known, which takes the options of ``flex.task``."""
    register_parallel_backend("flexray", FlexrayBackend)


class FlexrayBackend(AutoBatchingMixin, ParallelBackendBase):  # type: ignore[misc]
    """Runs joblib's batches as calls in the pool, ``n_jobs`` at a time. Joblib makes batches of short calls.

    What runs in a slice runs nested ``Parallel`` calls one after the other: its part of the device is its own affair.
    """

    supports_retrieve_callback = True
    default_n_jobs = -1

    def __init__(self, nesting_level: int | None = None, inner_max_num_threads: int | None = None, **options: Any):
        if inner_max_num_threads is not None:
            raise InvalidRequest("a slice's threads follow its share; leave inner_max_num_threads out")
        super().__init__(nesting_level=nesting_level)
        self._options = options or {"accelerator": 1}
        self._lock = threading.Lock()
        self._waiting: deque[tuple[Callable[[], Any], Callback]] = deque()
        self._running = 0
        self._at_once = 1
        self._executor = Executor(**self._options)

    def effective_n_jobs(self, n_jobs: int | None) -> int:
        """So many slices; -1: as many as the devices that are there now could hold, -2: one less, and so on."""
        if n_jobs == 0:
            raise InvalidRequest("n_jobs=0 has no meaning; use a number of slices, or -1 for as many as there is room")
        if n_jobs is None or n_jobs > 0:
            return n_jobs or 1
        return max(1, _slices_at_most(self._options) + 1 + n_jobs)

    def configure(self, n_jobs: int = 1, parallel: Any = None, **_: Any) -> int:
        """Get ready for one call of ``Parallel``."""
        self.parallel = parallel
        self._at_once = self.effective_n_jobs(n_jobs)
        self._executor = Executor(**self._options)
        return self._at_once

    def submit(self, func: Callable[[], Any], callback: Callback) -> None:
        """Run a batch when its turn comes; the callback gets its Future when it is done."""
        with self._lock:
            self._waiting.append((func, callback))
        self._go_on()

    def retrieve_result_callback(self, out: ExecutorFuture[Any]) -> Any:
        """The results of a batch that is done; raises what it raised."""
        return out.result()  # unbounded: it is done when joblib asks

    def abort_everything(self, ensure_ready: bool = True) -> None:
        """One batch has failed: the others are of no use any more."""
        with self._lock:
            self._waiting.clear()
            self._running = 0
            old, self._executor = self._executor, Executor(**self._options)
        old.shutdown(wait=False, cancel_futures=True)

    def terminate(self) -> None:
        """The call of ``Parallel`` is over."""
        self._executor.shutdown(wait=False)
        self.reset_batch_stats()

    def get_nested_backend(self) -> tuple[Any, None]:
        """For ``Parallel`` inside of what runs."""
        return SequentialBackend(nesting_level=(self.nesting_level or 0) + 1), None

    def _go_on(self) -> None:
        """Submit what may run now."""
        while True:
            with self._lock:
                if not self._waiting or self._running >= self._at_once:
                    return
                func, callback = self._waiting.popleft()
                executor = self._executor
                self._running += 1
            try:
                future = executor.submit(func)
            except RuntimeError:
                if executor is self._executor:
                    raise
                return  # the whole call was given up in this moment
            future.add_done_callback(partial(self._ended, executor, callback))

    def _ended(self, executor: Executor, callback: Callback, future: Any) -> None:
        with self._lock:
            ours = executor is self._executor
            self._running -= ours
        if ours:  # else the whole call was given up
            callback(future)
            self._go_on()


def _slices_at_most(options: dict[str, Any]) -> int:
    """How many such slices would fit, one device after the other, if nothing else were there."""
    share = next((options[name] for name in ("gpu", "npu", "accelerator") if options.get(name)), 1)
    least = share[0] if isinstance(share, tuple) else share
    ready = sum(device.state == "ready" for device in flexray.pool().devices)
    return int(ready * int(1 / least + 1e-9) if least <= 1 else ready // least)
