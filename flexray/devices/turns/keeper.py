"""The node agent's side of the server of turns: starts it with the first slice, asks it, replaces it when it dies."""

from __future__ import annotations

import contextlib
import json
import os
import select
import subprocess
import sys
import threading
import time
from typing import IO, Any

from flexray.errors import IsolationFailed

_BOOT = "import json, sys; sys.path[:] = json.loads(sys.argv[1]); from flexray.devices.turns.server import main; main()"
"""Starts the server with its parent's import path, which Ray may have set up in the process only."""

_ANSWER_S = 10.0
"""Seconds an order may take; it takes a millisecond, and much longer on a machine that is overloaded."""
_END_S = 2.0
"""Seconds the server has to end by itself once its input is closed."""


class TurnKeeper:
    """Orders to the server. Thread-safe. What is open survives a server that dies: its successor is told."""

    def __init__(self) -> None:
        """Starts nothing."""
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._opened: dict[str, dict[str, Any]] = {}

    @property
    def pid(self) -> int | None:
        """The server's process number, or None while none runs."""
        return self._process.pid if self._process is not None and self._process.poll() is None else None

    def open(self, slice_id: str, path: str, device: str, share: int, burst: int) -> None:
        """A slice takes turns from now on, or gets other amounts. Raises IsolationFailed."""
        order = {"op": "open", "slice": slice_id, "path": path, "device": device, "share": share, "burst": burst}
        with self._lock:
            self._ask(order)
            self._opened[slice_id] = order

    def close(self, slice_id: str) -> None:
        """A slice is gone. The server ends with the last."""
        with self._lock:
            if self._opened.pop(slice_id, None) is not None and self.pid is not None and self._opened:
                self._ask({"op": "close", "slice": slice_id})
            if not self._opened:
                self._end()

    def is_open(self, slice_id: str) -> bool:
        """Whether it takes turns."""
        return slice_id in self._opened

    def opened(self) -> list[str]:
        """The slices that take turns."""
        return list(self._opened)

    def report(self) -> dict[str, dict[str, float]]:
        """Slice -> what the server says of it. Raises IsolationFailed."""
        with self._lock:
            return dict(self._ask({"op": "report"})) if self._opened else {}

    def end(self) -> None:
        """End the server; slices go on without turns."""
        with self._lock:
            self._opened.clear()
            self._end()

    def _ask(self, order: dict[str, Any]) -> Any:
        if self.pid is None:
            self._start()
        try:
            return self._say(order)
        except OSError as error:
            self._end()
            raise IsolationFailed(
                f"the server of turns does not answer ({error}); the next order starts it anew"
            ) from None

    def _start(self) -> None:
        self._end()
        path = json.dumps([os.path.abspath(entry) for entry in sys.path])
        command = [sys.executable, "-c", _BOOT, path]
        try:
            self._process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd="/", start_new_session=True
            )
            for order in self._opened.values():
                with contextlib.suppress(IsolationFailed):  # one that is refused keeps no other out
                    self._say(order)
        except OSError as error:
            self._end()
            raise IsolationFailed(f"the server of turns cannot be started: {error}") from None

    def _say(self, order: dict[str, Any]) -> Any:
        """Its answer. Raises OSError when it is dead or silent, IsolationFailed when it refuses."""
        assert self._process is not None
        orders, answers = _pipe(self._process.stdin), _pipe(self._process.stdout)
        orders.write(json.dumps(order).encode() + b"\n")
        orders.flush()
        answer = json.loads(_line(answers.fileno()))
        if "error" in answer:
            raise IsolationFailed(f"the server of turns: {answer['error']}")
        return answer["ok"]

    def _end(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        with contextlib.suppress(OSError):
            _pipe(process.stdin).close()
        try:
            process.wait(_END_S)
        except subprocess.TimeoutExpired:
            process.kill()
            with contextlib.suppress(subprocess.TimeoutExpired):  # the kernel holds it; it gives no turns any more
                process.wait(_END_S)
        _pipe(process.stdout).close()


def _pipe(stream: IO[bytes] | None) -> IO[bytes]:
    assert stream is not None
    return stream


def _line(descriptor: int) -> bytes:
    """One line; orders are answered one at a time, so nothing follows it."""
    said, deadline = b"", time.monotonic() + _ANSWER_S
    while not said.endswith(b"\n"):
        if not select.select([descriptor], [], [], max(0.0, deadline - time.monotonic()))[0]:
            raise TimeoutError(f"nothing within {_ANSWER_S:g} s")
        more = os.read(descriptor, 65536)
        if not more:
            raise ConnectionError("it has ended")
        said += more
    return said
