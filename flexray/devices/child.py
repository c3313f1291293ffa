"""The parent's side of the probe process: start it, ask it, replace it when it dies or hangs."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

from flexray.devices.backend import Health, NodeFacts, Sample
from flexray.devices.discover import Discovery
from flexray.errors import BackendUnavailable
from flexray.model.devices import BackendReport, Device
from flexray.model.wire import from_plain, to_plain

_BOOT = "import json, sys; sys.path[:] = json.loads(sys.argv.pop(1)); from flexray.devices.probe import main; main()"
"""Starts the probe with its parent's import path, which Ray may have set up in the process only."""

_CLOSE_S = 2.0
"""Seconds an idle probe has to end by itself when its input is closed."""

_KILL_S = 2.0
"""Seconds a killed probe has to be gone; the kernel may hold it in a call of a broken driver."""


class ProbeChild:
    """Asks backends in a child process, started on demand and replaced after a crash or a time-out.

    Thread-safe; requests are answered one at a time. A replaced child has forgotten what it
    saw: a GPU lost before that is no longer reported as sick, it is missing.
    """

    def __init__(self, fake_script: str | Path | None = None, command: Sequence[str] | None = None) -> None:
        """Starts nothing.

        Args:
            fake_script: JSON file with the faults of fake devices.
            command: what to run instead of the shipped probe, for tests.
        """
        extra = ["--fake-script", os.path.abspath(fake_script)] if fake_script else []
        path = json.dumps([os.path.abspath(entry) for entry in sys.path])
        self._command = list(command) if command else [sys.executable, "-c", _BOOT, path, *extra]
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        #: Killed, but held by the kernel in a call of a broken driver; nothing is started beside it.
        self._stuck: subprocess.Popen[bytes] | None = None
        self._lines: queue.Queue[bytes | None] = queue.Queue()
        self._number = 0

    @property
    def pid(self) -> int | None:
        """Process id of the running child, or None."""
        return self._process.pid if self._process else None

    def discover(self, facts: NodeFacts, timeout: float = 30.0) -> Discovery:
        """The node's devices and the backends' reports; ``timeout`` in seconds, longer since drivers start slowly."""
        found = self.ask("discover", timeout, facts=to_plain(facts))
        devices = tuple(from_plain(Device, device) for device in found["devices"])
        return devices, tuple(from_plain(BackendReport, report) for report in found["reports"])

    def health(self, device: Device, timeout: float = 10.0) -> Health:
        """Whether the device can take work; ``timeout`` in seconds."""
        return from_plain(Health, self.ask("health", timeout, device=to_plain(device)))

    def sample(self, device: Device, timeout: float = 10.0) -> Sample:
        """How much of the device is in use; ``timeout`` in seconds."""
        return from_plain(Sample, self.ask("sample", timeout, device=to_plain(device)))

    def ask(self, op: str, timeout: float = 10.0, **payload: Any) -> Any:
        """The plain answer to one request, within ``timeout`` seconds.

        Raises BackendUnavailable when the child reports an error, dies or does not answer; in
        the last two cases it is killed and the next request starts another.
        """
        with self._lock:
            process = self._start()
            self._number += 1
            request = json.dumps({"id": self._number, "op": op, **payload}) + "\n"
            with contextlib.suppress(OSError):  # it is dead: the reader sees the end of its output
                _pipe(process.stdin).write(request.encode())
                _pipe(process.stdin).flush()
            reply = self._reply(process, op, timeout)
        if "error" in reply:
            raise BackendUnavailable(f"{op}: {reply['error']}")
        return reply["ok"]

    def close(self) -> None:
        """End the child. A later request would start another."""
        with self._lock:
            if self._process is None:
                return
            with contextlib.suppress(OSError, subprocess.TimeoutExpired):  # then it is killed
                _pipe(self._process.stdin).close()
                self._process.wait(_CLOSE_S)
            self._kill()

    def _start(self) -> subprocess.Popen[bytes]:
        """The running child, or a new one. Caller holds the lock."""
        if self._process is not None and self._process.poll() is None:
            return self._process
        self._kill()
        if self._stuck is not None and self._stuck.poll() is None:
            raise BackendUnavailable(f"a killed device probe (process {self._stuck.pid}) is stuck in a driver call")
        self._stuck = None
        try:
            process = subprocess.Popen(
                self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd="/", start_new_session=True
            )
        except OSError as error:
            raise BackendUnavailable(f"the device probe cannot be started: {error}") from error
        self._process, self._lines = process, queue.Queue()
        threading.Thread(target=_forward, args=(_pipe(process.stdout), self._lines), daemon=True).start()
        return process

    def _reply(self, process: subprocess.Popen[bytes], op: str, timeout: float) -> dict[str, Any]:
        """The answer to the last request; lines that are no answer to it are skipped. Caller holds the lock."""
        deadline = time.monotonic() + timeout
        while True:
            try:
                line = self._lines.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                self._kill()
                raise BackendUnavailable(f"{op}: the device probe gave no answer in {timeout:g} s, killed") from None
            if line is None:
                self._kill()
                raise BackendUnavailable(f"{op}: the device probe died ({_ending(process.poll())})")
            try:
                reply = json.loads(line)
            except ValueError:
                continue
            if isinstance(reply, dict) and reply.get("id") == self._number and ("ok" in reply or "error" in reply):
                return reply

    def _kill(self) -> None:
        """Make sure that nothing of the child is left. Caller holds the lock."""
        process, self._process = self._process, None
        if process is None:
            return
        if process.poll() is None:
            try:
                os.killpg(process.pid, signal.SIGKILL)  # its own group: helpers a library started go too
            except OSError:
                process.kill()
        with contextlib.suppress(OSError):  # unwritten bytes for a dead process
            _pipe(process.stdin).close()
        try:
            process.wait(_KILL_S)
        except subprocess.TimeoutExpired:
            self._stuck = process


def _forward(output: IO[bytes], lines: queue.Queue[bytes | None]) -> None:
    """Pass the child's lines on, None at their end, so that waiting for one can time out."""
    with output:
        for line in output:
            lines.put(line)
    lines.put(None)


def _pipe(stream: IO[bytes] | None) -> IO[bytes]:
    assert stream is not None, "the child is started with pipes"
    return stream


def _ending(code: int | None) -> str:
    if code is None or code >= 0:
        return f"exit code {code}"
    try:
        return f"signal {signal.Signals(-code).name}"
    except ValueError:
        return f"signal {-code}"
