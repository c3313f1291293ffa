"""An inference engine as a process of its own, with all that it starts: brought up, watched, and brought up again.

    ┌──────────── it failed to start: after a pause ────────────┐
    v                                                           │
waits for its turn ──> starts ──> up ──died, or says it is ill──┴──> what is left of it is ended
"""

from __future__ import annotations

import atexit
import contextlib
import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

from flexray.devices.private import only_mine
from flexray.errors import FlexrayError, StartFailed

_LOOK_SECONDS, _HEALTH_SECONDS = 0.2, 5.0
#: How long it may take to answer, and to end when it is asked; a busy engine is slow, and not ill.
_ANSWER_SECONDS, _END_SECONDS = 10.0, 5.0
_FIRST_PAUSE, _LONGEST_PAUSE = 1.0, 30.0
_TAIL = 4000


class EngineProcess:
    """An engine that listens on a socket of this machine.

    Args:
        name: for messages.
        command: makes the whole command line; called in the engine's turn, each time it starts.
        environment: its variables.
        socket: path of the Unix socket that it listens on, answering ``GET /health``; its log is beside it.
        turn: what is held while it starts.
        start_seconds: how long a start may take, without the wait for the turn.
    """

    def __init__(
        self,
        name: str,
        command: Callable[[], Sequence[str]],
        environment: Mapping[str, str],
        socket: Path,
        turn: Callable[[], AbstractContextManager[None]],
        start_seconds: float,
    ) -> None:
        self._name, self._command, self._environment, self._turn = name, command, dict(environment), turn
        self._start_seconds = start_seconds
        self.socket, self.log = socket, socket.with_suffix(".log")
        self._process: subprocess.Popen[bytes] | None = None
        self._closing = threading.Event()
        self.up = False
        #: why it is not up, in words.
        self.why = "it starts"
        self.starts = 0

    @property
    def pid(self) -> int:
        """Its first process; 0 before there was one."""
        return self._process.pid if self._process is not None else 0

    def start(self) -> None:
        """Wait until it serves; from then on it is brought up again when it dies. Raises StartFailed, WaitTimeout."""
        atexit.register(self.stop)
        self._bring_up()
        threading.Thread(target=self._keep, name=f"engine {self._name}", daemon=True).start()

    def stop(self) -> None:
        """End it, with all that it has started."""
        self._closing.set()
        self.up, self.why = False, "it was stopped"
        process = self._process
        if process is not None and process.poll() is None:
            process.terminate()  # it ends its workers itself, if it can
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(_END_SECONDS)
        self._end()
        self.socket.unlink(missing_ok=True)

    def _bring_up(self) -> None:
        with self._turn():
            began = time.monotonic()
            self.socket.unlink(missing_ok=True)
            with open(self.log, "wb", opener=only_mine) as log:
                self._process = subprocess.Popen(
                    [*self._command()],
                    env=self._environment,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,  # a group of its own, which is ended as a whole
                )
            self.starts += 1
            while (status := health(self.socket)) != 200:
                if self._process.poll() is not None:
                    self._end()
                    raise StartFailed(f"engine {self._name} ended with {self._process.returncode}: {self._said()}")
                if self._closing.wait(_LOOK_SECONDS) or time.monotonic() - began > self._start_seconds:
                    self._end()
                    waited = f"{time.monotonic() - began:.0f} s (health: {status})"
                    raise StartFailed(f"engine {self._name} does not serve after {waited}: {self._said()}")
            self.up, self.why = True, ""
        print(f"engine {self._name} (process {self.pid}) serves after {time.monotonic() - began:.1f} s", flush=True)

    def _keep(self) -> None:
        pause, looked = _FIRST_PAUSE, time.monotonic()
        while not self._closing.wait(_LOOK_SECONDS):
            if self.up and self._process is not None and self._process.poll() is None:
                if time.monotonic() - looked < _HEALTH_SECONDS:
                    continue
                looked, found = time.monotonic(), health(self.socket)
                if found is None or found < 500:
                    pause = _FIRST_PAUSE
                    continue
            if self.up:
                self.up, self.why = False, "it died, and starts again"
                print(f"engine {self._name} died; it starts again. Its last words: {self.log}", flush=True)
            self._end()
            try:
                self._bring_up()
            except (FlexrayError, OSError) as error:
                self.why = str(error)
                self._closing.wait(pause)
                pause = min(2 * pause, _LONGEST_PAUSE)
        self._end()

    def _end(self) -> None:
        """Kill its process and what that has started, and wait until they are gone: their memory is needed."""
        process = self._process
        if process is None:
            return
        until = time.monotonic() + _END_SECONDS
        while time.monotonic() < until and _kill_group(process.pid):
            process.poll()  # or it stays as a zombie, and its group with it
            time.sleep(0.02)

    def _said(self) -> str:
        with contextlib.suppress(OSError):
            return f"...\n{self.log.read_text(errors='replace')[-_TAIL:]}\n(all of it: {self.log})"
        return "it said nothing"


def _kill_group(leader: int) -> bool:
    """Whether there was somebody to kill."""
    try:
        os.killpg(leader, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        return False
    return True


def health(path: Path) -> int | None:
    """The status of ``GET /health``, or None when nobody answers."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as line:
        line.settimeout(_ANSWER_SECONDS)
        try:
            line.connect(str(path))
            line.sendall(b"GET /health HTTP/1.1\r\nHost: engine\r\nConnection: close\r\n\r\n")
            said = b""
            while some := line.recv(4096):
                said += some
            return int(said.split(None, 2)[1])
        except (OSError, IndexError, ValueError):
            return None
