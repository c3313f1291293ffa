"""A process for ``turns.py``: it takes turns as a slice's does, or hands them out as a busy node agent would.

It gets one order at a time and answers each.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
import timeit
from functools import partial
from multiprocessing.connection import Connection
from typing import Any

import torch

from flexray.devices.turns.server import TurnServer
from flexray.runtime.torch_steps import take_turns
from flexray.runtime.turn_gate import Gate

_spawn = multiprocessing.get_context("spawn")


class Work(torch.nn.Module):
    """A step of so many products of small matrices."""

    def __init__(self, products: int) -> None:
        super().__init__()
        self.products = products
        self.weight = torch.nn.Parameter(torch.eye(128))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for _ in range(self.products):
            x = x @ self.weight
        return x


def products_for(step_ms: float) -> int:
    """How many products take so long here now."""
    torch.set_num_threads(1)
    x, weight = torch.ones(128, 128), torch.eye(128)
    each = min(timeit.repeat(lambda: x @ weight, number=200, repeat=9)) / 200
    return max(1, round(step_ms / 1000 / each))


class Tenant:
    """The process, from outside."""

    def __init__(self) -> None:
        self._link, theirs = _spawn.Pipe()
        self._process = _spawn.Process(target=serve, args=(theirs,), daemon=True)
        self._process.start()
        theirs.close()

    def tell(self, *order: Any) -> None:
        """One order."""
        self._link.send(order)

    def answer(self) -> Any:
        """To the last order; the first answer of all is that it is ready."""
        return self._link.recv()

    def signal(self, number: signal.Signals) -> None:
        """Stop it, let it go on, or kill it."""
        assert self._process.pid is not None
        os.kill(self._process.pid, number)

    def end(self) -> None:
        """Gone."""
        self._process.kill()
        self._process.join()


def serve(link: Connection) -> None:
    """The process: orders until it is killed."""
    torch.set_num_threads(1)
    orders = {"run": run_steps, "hold": Holder(link).hold, "serve": partial(serve_turns, link)}
    link.send("ready")
    while True:
        name, *rest = link.recv()
        link.send(orders[name](*rest))


def run_steps(path: str, products: int, start: float, begin: float, end: float, stop: float) -> float:
    """Steps a second between ``begin`` and ``end`` of a loop that goes from ``start`` to ``stop``.

    It takes turns at the socket ``path`` by torch's hooks, without a word in the loop; "" takes none.
    """
    gate = Gate(path) if path else None
    undo = take_turns(torch, gate) if gate is not None else []
    model, x = Work(products).eval(), torch.ones(128, 128)
    ended = []
    with torch.no_grad():
        time.sleep(max(0.0, start - time.monotonic()))
        while time.monotonic() < stop:
            model(x)
            ended.append(time.monotonic())
    for remove in undo:
        remove()
    if gate is not None:
        gate.leave()
    return sum(begin <= at < end for at in ended) / (end - begin)


def serve_turns(link: Connection, path: str, seconds: float) -> str:
    """A server of turns in a thread of a process that has something else to do, as a node agent has."""
    reader, writer = os.pipe()
    server = TurnServer()
    server.obey({"op": "open", "slice": "s", "path": path, "device": "d", "share": 1000, "burst": 1000})
    thread = threading.Thread(target=server.serve, args=(reader, writer))
    thread.start()
    link.send("serves")
    number, end = 0, time.monotonic() + seconds
    while time.monotonic() < end:
        number += 1
    os.close(writer)
    thread.join()
    return "served"


class Holder:
    """Holds turns through one gate."""

    def __init__(self, link: Connection) -> None:
        self._link = link
        self._gates: dict[str, Gate] = {}

    def hold(self, path: str) -> str:
        """Say when it has one, and keep it until anything is said."""
        gate = self._gates[path] = self._gates.get(path) or Gate(path)
        gate.begin()
        self._link.send("held")
        self._link.recv()
        gate.end()
        return "let go"
