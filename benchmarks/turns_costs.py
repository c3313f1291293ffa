"""What turns cost, for ``turns.py``: steps while the turn is held, a holder that dies, a server without its process.

Every method is one round of a comparison, with both of its sides.
"""

from __future__ import annotations

import signal
import socket
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from timeit import Timer

import torch
from turns_tenant import Tenant

import flexray as flex
from flexray.devices.enforcers.enforcer import Cell
from flexray.devices.enforcers.turns import Turns
from flexray.devices.turns.keeper import TurnKeeper
from flexray.model.amounts import MemoryMiB, Share
from flexray.model.devices import Device, DeviceType, Family
from flexray.runtime import turns as turns_of_process
from flexray.runtime.torch_steps import take_turns
from flexray.runtime.turn_gate import Gate

DEVICE = Device("here/gpu0", "here", 0, DeviceType("acme/one", MemoryMiB(1024)), Family.GPU, "declared")
TURN_BAR_NS = 1000.0


@dataclass(frozen=True)
class Row:
    """One comparison: medians of both sides, of their difference and of their ratio over the rounds."""

    measure: str
    base: str
    base_value: float
    value: float
    unit: str
    difference: float
    ratio: float
    bar: str = ""
    met: bool | None = None


Pairs = list[tuple[float, float]]
"""Of each round: the other side's value, and that of turns."""


class Costs:
    """The comparisons, round by round."""

    def __init__(self) -> None:
        self.turn: Pairs = []
        self.linear: Pairs = []
        self.deep: Pairs = []
        self.renewals: Pairs = []
        self.crashed: Pairs = []
        self.stopped: Pairs = []

        self._agent = Tenant()
        self._agent.answer()

    def end(self) -> None:
        """Nothing is left."""
        self._agent.end()

    def one_round(self, seconds: float) -> None:
        """All of them; ``seconds`` for what is counted over time."""
        self._steps(2_000)
        self._losses()
        self._servers(seconds)

    def _steps(self, number: int) -> None:
        """Nanoseconds of a step while the turn is held, beside the same without: the best of many."""
        linear, deep = torch.nn.Linear(8, 8).eval(), torch.nn.Sequential(*(torch.nn.Linear(8, 8) for _ in range(50)))
        names = {"flex": flex, "linear": linear, "deep": deep.eval(), "x": torch.ones(1, 8)}
        with gate_of_its_own() as gate, torch.no_grad():

            def each(statement: str, count: int) -> float:
                return min(Timer(statement, globals=names).repeat(25, count)) / count * 1e9

            self.turn.append((each("pass", number), each("with flex.turn(): pass", number)))
            plain = each("linear(x)", number // 10), each("deep(x)", number // 50)
            undo = take_turns(torch, gate)
            hooked = each("linear(x)", number // 10), each("deep(x)", number // 50)
            for remove in undo:
                remove()
        self.linear.append((plain[0], hooked[0]))
        self.deep.append((plain[1] / 51, hooked[1] / 51))

    def _losses(self) -> None:
        """Milliseconds until the next has the turn: its holder has nothing more to do, is stopped, is killed."""
        with tempfile.TemporaryDirectory() as folder:
            keeper, holder = TurnKeeper(), Tenant()
            keeper.open("holder", f"{folder}/holder", "d", 500, 1000)
            keeper.open("next", f"{folder}/next", "d", 500, 1000)
            holder.answer()

            given = until_next(holder, folder, lambda: holder.tell("let go"))
            holder.answer()
            stopped = until_next(holder, folder, lambda: holder.signal(signal.SIGSTOP))
            holder.signal(signal.SIGCONT)
            holder.tell("let go")
            holder.answer()
            crashed = until_next(holder, folder, lambda: holder.signal(signal.SIGKILL))
            keeper.end()
            holder.end()
        self.stopped.append((given, stopped))
        self.crashed.append((given, crashed))

    def _servers(self, seconds: float) -> None:
        """Turns given back and asked for again a second: by a thread of a busy process, and by the server's own."""
        with tempfile.TemporaryDirectory() as folder:
            self._agent.tell("serve", f"{folder}/thread", 2 * seconds)
            self._agent.answer()
            inside = renewals(f"{folder}/thread", seconds)
            self._agent.answer()
            keeper = TurnKeeper()
            keeper.open("s", f"{folder}/process", "d", 1000, 1000)
            self.renewals.append((inside, renewals(f"{folder}/process", seconds)))
            keeper.end()

    def rows(self) -> list[Row]:
        """The comparisons."""
        step = row("with flex.turn(): pass, a step", "pass", self.turn, "ns")
        bar = {"bar": f"difference < {TURN_BAR_NS:,.0f} ns", "met": step.difference < TURN_BAR_NS}
        return [
            Row(**{**asdict(step), **bar}),
            row("one Linear, with torch's hooks", "without", self.linear, "ns"),
            row("50 Linear in a Sequential, per module, with torch's hooks", "without", self.deep, "ns"),
            row("the holder is killed: the next has the turn after", "it has nothing more to do", self.crashed, "ms"),
            row("the holder is stopped: the next has the turn after", "it has nothing more to do", self.stopped, "ms"),
            row("turns renewed a second, server a process", "a thread of a busy one", self.renewals, "/s"),
        ]


def row(measure: str, base: str, pairs: Pairs, unit: str) -> Row:
    """Medians over the rounds."""
    middle = statistics.median
    ratio, difference = middle(b / a for a, b in pairs), middle(b - a for a, b in pairs)
    return Row(measure, base, middle(a for a, _ in pairs), middle(b for _, b in pairs), unit, difference, ratio)


def until_next(holder: Tenant, folder: str, happens: Callable[[], None]) -> float:
    """Milliseconds from what happens to the holder of a turn until the slice that waits for one has it."""
    holder.tell("hold", f"{folder}/holder")
    holder.answer()
    with socket.socket(socket.AF_UNIX) as following:
        following.connect(f"{folder}/next")
        following.send(b"A\n")
        time.sleep(0.01)
        begun = time.monotonic()
        happens()
        following.recv(99)
        return (time.monotonic() - begun) * 1000


@contextmanager
def gate_of_its_own() -> Iterator[Gate]:
    """A gate of this process on a server that gives it every turn; ``flex.turn()`` uses it."""
    with tempfile.TemporaryDirectory() as folder:
        turns, cell = Turns(Path(folder)), Cell("own", (DEVICE,), Share(1000), Share(1000), MemoryMiB(1))
        gate = turns_of_process._open(turns.prepare(cell).turns)
        gate.begin()
        gate.end()
        yield gate
        gate.leave()
        turns.release(cell)
        turns_of_process._gate = None


def renewals(path: str, seconds: float) -> float:
    """Of one client, a second."""
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(path)
        client.send(b"A\n")
        client.recv(99)
        count, end = 0, time.monotonic() + seconds
        while time.monotonic() < end:
            client.send(b"R 0\nA\n")
            client.recv(99)
            count += 1
        return count / seconds
