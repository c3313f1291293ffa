"""Turns: what shares slices get, what a step costs, and what the server's own process is good for.

    python benchmarks/turns.py [--quick] [--json FILE]

Slices are bare processes that run steps of a small torch model on the CPU, one thread each, as if on one device; the
enforcer and its server are the real ones, and the model's steps take turns by torch's hooks, without a word in the
loop. *Held* is what the server billed; *speed* is steps a second beside a process alone without turns, so it has the
costs of turns in it. On a device with kernels of its own nothing but one slice would run in a turn; here, too.

Costs are the best of rounds, in nanoseconds per step, less the same loop with an empty call.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import socket
import tempfile
import threading
import time
import timeit
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

import flexray as flex
from flexray.devices.enforcers.enforcer import Cell
from flexray.devices.enforcers.turns import Turns
from flexray.devices.turns.keeper import TurnKeeper
from flexray.devices.turns.server import TurnServer
from flexray.model.amounts import MemoryMiB, Share
from flexray.model.devices import Device, DeviceType, Family
from flexray.runtime.torch_steps import take_turns
from flexray.runtime.turn_gate import Gate
from flexray.runtime.turns import enter_turns

DEVICE = Device("here/gpu0", "here", 0, DeviceType("acme/one", MemoryMiB(1024)), Family.GPU, "declared")
SHORT_MS, LONG_MS = 2.0, 300.0
_spawn = multiprocessing.get_context("spawn")


@dataclass(frozen=True)
class Tenant:
    """Thousandths of the device, guaranteed and at most, and how long a step is."""

    share: int
    burst: int = 1000
    step_ms: float = SHORT_MS


CASES: dict[str, tuple[Tenant, ...]] = {
    "25 / 75": (Tenant(250), Tenant(750)),
    "20 / 30 / 50": (Tenant(200), Tenant(300), Tenant(500)),
    "25, capped, alone": (Tenant(250, 250),),
    "25, may burst, alone": (Tenant(250),),
    "25 with steps of 300 ms / 75": (Tenant(250, step_ms=LONG_MS), Tenant(750)),
}


@dataclass(frozen=True)
class Obtained:
    """What one slice of a case got."""

    case: str
    asked: float
    held: float
    lent: float
    speed: float


@dataclass(frozen=True)
class Cost:
    """Nanoseconds (or what its name says) of one thing."""

    what: str
    value: float


class Work(torch.nn.Module):
    """A step that takes about so many milliseconds: some products of small matrices."""

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


def tenant(path: str, products: int, seconds: float, link: Connection) -> None:
    """A slice's process: says when it is ready, works from when it is told, says how many steps it did."""
    enter_turns(path)
    torch.set_num_threads(1)
    model, x = Work(products).eval(), torch.ones(128, 128)
    with torch.no_grad():
        x @ model.weight
        link.send("ready")
        end = link.recv() + seconds
        steps, begun = 0, time.monotonic()
        while time.monotonic() < end:
            model(x)
            steps += 1
    link.send((steps, time.monotonic() - begun))


def run_case(name: str, tenants: tuple[Tenant, ...], seconds: float, alone: dict[float, float]) -> list[Obtained]:
    """All tenants at once for so many seconds; ``alone``: step length -> steps a second without turns."""
    with tempfile.TemporaryDirectory() as folder:
        turns = Turns(Path(folder))
        cells = [Cell(f"s{n}", (DEVICE,), Share(t.share), Share(t.burst), MemoryMiB(1)) for n, t in enumerate(tenants)]
        paths = [turns.prepare(cell).turns for cell in cells]
        before = turns.held()
        done, window = run_tenants([(p, t.step_ms) for p, t in zip(paths, tenants, strict=True)], seconds)
        held = turns.held()
        for cell in cells:
            turns.release(cell)
    found = []
    for cell, each, (steps, took) in zip(cells, tenants, done, strict=True):
        used = held[cell.slice].used - before[cell.slice].used
        lent = held[cell.slice].lent - before[cell.slice].lent
        speed = steps / took / alone[each.step_ms]
        found.append(Obtained(name, each.share / 1000, used / window, lent / window, speed))
    return found


def run_tenants(work: list[tuple[str, float]], seconds: float) -> tuple[list[tuple[int, float]], float]:
    """(steps, seconds) of each, and the seconds from the first's start to the last's end."""
    products = {step: products_for(step) for _, step in work}
    links, processes = [], []
    for path, step in work:
        ours, theirs = _spawn.Pipe()
        processes.append(_spawn.Process(target=tenant, args=(path, products[step], seconds, theirs)))
        processes[-1].start()
        links.append(ours)
    for link in links:
        link.recv()
    begun = time.monotonic()
    for link in links:
        link.send(begun)
    done = [link.recv() for link in links]
    window = max(took for _, took in done)
    for process in processes:
        process.join()
    return done, window


def costs(quick: bool) -> list[Cost]:
    """What a step costs while the turn is valid."""
    with gate_of_its_own() as gate, torch.no_grad():
        linear, deep = torch.nn.Linear(8, 8).eval(), torch.nn.Sequential(*(torch.nn.Linear(8, 8) for _ in range(50)))
        x = torch.ones(1, 8)
        number = 2_000 if quick else 20_000

        def begin_end() -> None:
            gate.begin()
            gate.end()

        def turn() -> None:
            with flex.turn():
                pass

        empty = per_call(lambda: None, number)
        found = [
            Cost("gate.begin() and gate.end()", per_call(begin_end, number) - empty),
            Cost("with flex.turn(): pass, in a slice", per_call(turn, number) - empty),
            Cost("an empty call, to compare", empty),
        ]
        plain = per_call(lambda: linear(x), number), per_call(lambda: deep(x), number // 20)
        undo = take_turns(torch, gate)
        hooked = per_call(lambda: linear(x), number), per_call(lambda: deep(x), number // 20)
        for remove in undo:
            remove()
        found.append(Cost("torch's hooks, one Linear", hooked[0] - plain[0]))
        found.append(Cost("torch's hooks, 50 Linear in a Sequential, per module", (hooked[1] - plain[1]) / 51))
    return found


def per_call(call: Callable[[], object], number: int) -> float:
    """Nanoseconds, the best of rounds: what others on the machine take is no cost of the call."""
    return min(timeit.repeat(call, number=number, repeat=15)) / number * 1e9


@contextmanager
def gate_of_its_own() -> Iterator[Gate]:
    """A gate of this process on a server that gives it every turn; ``flex.turn()`` uses it."""
    with tempfile.TemporaryDirectory() as folder:
        turns, cell = Turns(Path(folder)), Cell("own", (DEVICE,), Share(1000), Share(1000), MemoryMiB(1))
        path = turns.prepare(cell).turns
        from flexray.runtime import turns as process

        gate = process._open(path)
        gate.begin()
        gate.end()
        yield gate
        turns.release(cell)
        process._gate = None


def renewals(seconds: float) -> list[Cost]:
    """Turns given back and asked for again a second: by the server's process, and by a thread of a busy process."""
    with tempfile.TemporaryDirectory() as folder:
        keeper = TurnKeeper()
        keeper.open("s", f"{folder}/process", "d", 1000, 1000)
        apart = rate(f"{folder}/process", seconds)
        keeper.end()
        ours, theirs = _spawn.Pipe()
        agent = _spawn.Process(target=busy_agent, args=(f"{folder}/thread", theirs), daemon=True)
        agent.start()
        ours.recv()
        inside = rate(f"{folder}/thread", seconds)
        agent.kill()
        agent.join()
    return [
        Cost("renewals a second, server in a process of its own", apart),
        Cost("renewals a second, server in a thread beside one that computes", inside),
    ]


def busy_agent(path: str, link: Connection) -> None:
    """A node agent that has something else to do, with the server in a thread."""
    import os

    reader, _ = os.pipe()
    server = TurnServer()
    server.obey({"op": "open", "slice": "s", "path": path, "device": "d", "share": 1000, "burst": 1000})
    threading.Thread(target=server.serve, args=(reader, 1), daemon=True).start()
    link.send("ready")
    number = 0
    while True:
        number += 1


def rate(path: str, seconds: float) -> float:
    """Renewals a second of one client."""
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


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a fifth of the time; long steps are cut off by its end")
    parser.add_argument("--json", type=Path, metavar="FILE")
    arguments = parser.parse_args()
    seconds = 3.0 if arguments.quick else 15.0
    alone = {}
    for step in (SHORT_MS, LONG_MS):
        [(steps, took)], _ = run_tenants([("", step)], max(3.0, seconds / 3))
        alone[step] = steps / took
    obtained = [one for name, case in CASES.items() for one in run_case(name, case, seconds, alone)]
    spent = [*costs(arguments.quick), *renewals(1.0 if arguments.quick else 3.0)]
    show(obtained, spent)
    if arguments.json:
        rows = {"obtained": [asdict(one) for one in obtained], "costs": [asdict(one) for one in spent]}
        arguments.json.write_text(json.dumps(rows, indent=2))


def show(obtained: list[Obtained], spent: list[Cost]) -> None:
    """Two tables."""
    table = Table("case", "asked %", "held %", "of it lent %", "speed %", title="Shares")
    for one in obtained:
        table.add_row(one.case, *(f"{100 * value:.1f}" for value in (one.asked, one.held, one.lent, one.speed)))
    costs_table = Table("what", "ns, or a second", title="Costs")
    for each in spent:
        costs_table.add_row(each.what, f"{each.value:,.0f}")
    Console().print(table, costs_table)


if __name__ == "__main__":
    main()
