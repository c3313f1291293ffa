"""The work of ``chaos.py``: tasks, actors and gangs that write down when they start and end, and a stream of them.

Each start and each end is one line in one file, appended by the process itself, so that what really ran can be compared
with what the pool says.
"""

from __future__ import annotations

import json
import os
import random
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import flexray as flex
from flexray.errors import LeaseLost

TASK_SECONDS = (0.1, 0.8)
LARGE = 2_000_000
"""Bytes of a large result, which stays on the node that made it until somebody fetches it."""
TASKS_AT_ONCE, GANGS_AT_ONCE, ACTORS = 14, 1, 2
_CLOCKS_SECONDS = 0.5
"""The clocks of processes and of their lines may differ by this."""
MOST_WRONG = 20
"""After so many calls that failed, nothing more is submitted: something is broken."""


@dataclass(frozen=True)
class Line:
    """One line of the log: a call started (or ended) in a process on a device, with how much of it."""

    call: str
    event: str
    pid: int
    devices: tuple[str, ...]
    share: int
    at: float

    @property
    def node(self) -> str:
        """Where it ran."""
        return self.devices[0].rsplit("/", 1)[0]


def note(log: str, call: str, event: str) -> None:
    """Append a line to the log, in one write."""
    here = flex.current()
    devices = [device.id for device in here.devices]
    line = json.dumps([call, event, os.getpid(), devices, round(1000 * here.share), time.time()]) + "\n"
    file = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(file, line.encode())
    finally:
        os.close(file)


def line_of(call: str) -> str:
    """What goes on when a call was interrupted: the call itself; for a method of an actor, the actor's next call."""
    return call.split("-")[0] if call.startswith("step") else call


class Log:
    """Reads what has been appended since the last look."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._offset = 0
        self.lines: list[Line] = []
        self._lock = threading.Lock()

    def look(self) -> list[Line]:
        """All lines so far."""
        with self._lock:
            if self.path.exists():
                with self.path.open("rb") as file:
                    file.seek(self._offset)
                    whole = file.read().rpartition(b"\n")[0]  # of the last line there may be only the beginning
                if whole:
                    self._offset += len(whole) + 1
                fresh = [json.loads(line) for line in whole.splitlines()]
                self.lines += [Line(c, e, pid, tuple(devices), share, at) for c, e, pid, devices, share, at in fresh]
            return list(self.lines)

    def running(self) -> dict[str, Line]:
        """The last start of each call that has not ended, as far as its process is alive."""
        last: dict[str, Line] = {}
        for line in self.look():
            if line.event == "start":
                last[line.call] = line
            else:
                last.pop(line.call, None)
        return {call: line for call, line in last.items() if alive(line.pid, line.at)}


def alive(pid: int, at: float | None = None) -> bool:
    """Whether a process runs (a zombie does not); ``at``: and was there at that time, so that it is not another one."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    except OSError:
        return False
    booted = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)
    begun = booted + int(fields[19]) / os.sysconf("SC_CLK_TCK")
    return fields[0] not in "ZX" and (at is None or begun <= at + _CLOCKS_SECONDS)


def work(log: str, call: str, seconds: float, size: int) -> Any:
    """Sleep, then return something that can be checked."""
    note(log, call, "start")
    time.sleep(seconds)
    note(log, call, "end")
    return call.encode() * (size // len(call)) if size else call


def member(log: str, call: str, seconds: float) -> str:
    """One of a gang."""
    rank = flex.current().rank
    note(log, f"{call}.{rank}", "start")
    time.sleep(seconds)
    note(log, f"{call}.{rank}", "end")
    return f"{call}.{rank}"


class Counting:
    """An actor: its state is new when its slice was lost."""

    def __init__(self) -> None:
        self.count = 0

    def step(self, log: str, call: str, seconds: float) -> tuple[str, int]:
        """Count one more."""
        note(log, call, "start")
        time.sleep(seconds)
        self.count += 1
        note(log, call, "end")
        return call, self.count


@dataclass
class Stream:
    """Keeps so much work under way until it is told to stop; counts what became of each call.

    Attributes:
        resolved: how often each call's Future was done; more than once is a fault.
        wrong: calls that failed, or whose result was not theirs, with what it was.
        lost_by_actors: calls of actors that ended in LeaseLost, as is documented, and were made again.
    """

    log: str
    seed: int
    retries: int
    submitted: int = 0
    done: int = 0
    lost_by_actors: int = 0
    resolved: Counter[str] = field(default_factory=Counter)
    wrong: dict[str, str] = field(default_factory=dict)
    open: dict[str, float] = field(default_factory=dict)
    stopping: bool = False

    def __post_init__(self) -> None:
        self._draw = random.Random(self.seed)
        self._lock = threading.RLock()
        self._number = 0
        self._task = flex.task(gpu=0.25, memory="1GiB", retries=self.retries)(work)
        self._gang = flex.task(gpu=0.5, memory="1GiB", gang=2, retries=self.retries)(member)
        actor = flex.actor(gpu=0.25, memory="1GiB", retries=self.retries)(Counting)
        self._actors = [actor.remote() for _ in range(ACTORS)]

    def begin(self) -> None:
        """Submit the first of everything; each that is done is followed by another."""
        for _ in range(TASKS_AT_ONCE):
            self._next_task()
        for _ in range(GANGS_AT_ONCE):
            self._next_gang()
        for index in range(ACTORS):
            self._next_step(index)

    def finish(self, timeout: float) -> None:
        """Submit nothing more, wait for what is under way, stop the actors."""
        self.stopping = True
        deadline = time.monotonic() + timeout
        while self.open and time.monotonic() < deadline:
            time.sleep(0.05)
        for actor in self._actors:
            actor.stop()

    def _submit(self, name: str, make: Any, right: Any, again: Any) -> None:
        with self._lock:
            if self.stopping:
                return
            self.submitted += 1
            call = f"{name}-{self.submitted}"
            self.open[call] = time.time()
            seconds = self._draw.uniform(*TASK_SECONDS)
        make(call, seconds).add_done_callback(lambda future: self._settled(call, future, right, again))

    def _settled(self, call: str, future: Any, right: Any, again: Any) -> None:
        error = future.exception()
        expected_loss = isinstance(error, LeaseLost) and call.startswith("step")
        with self._lock:
            self.resolved[call] += 1
            self.open.pop(call, None)
            self.done += 1
            self.lost_by_actors += expected_loss
        if error is not None and not expected_loss:
            self.wrong[call] = f"{type(error).__name__}: {error}"
        elif error is None and not right(call, future):
            self.wrong[call] = "another result than its own"
        if len(self.wrong) <= MOST_WRONG:
            again()

    def _next_task(self) -> None:
        size = LARGE if self._draw.random() < 0.1 else 0
        right = (lambda call, future: True) if size else (lambda call, future: future.result() == call)
        self._submit("task", lambda c, s: self._task.remote(self.log, c, s, size), right, self._next_task)

    def _next_gang(self) -> None:
        def right(call: str, future: Any) -> bool:
            return bool(future.result() == [f"{call}.0", f"{call}.1"])

        self._submit("gang", lambda c, s: self._gang.remote(self.log, c, s), right, self._next_gang)

    def _next_step(self, index: int) -> None:
        actor = self._actors[index]
        self._submit(
            f"step{index}",
            lambda c, s: actor.step.remote(self.log, c, s),
            lambda call, future: future.result()[0] == call,
            lambda: self._next_step(index),
        )
