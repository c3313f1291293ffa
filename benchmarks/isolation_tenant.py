"""What the benchmark of isolation holds: a process that confines itself as a slice does, and works or takes memory.

Started by ``isolation.py``, told what to do by lines of JSON, and answers with lines of JSON.
"""

from __future__ import annotations

import json
import os
import sys
import time
from typing import Any

from flexray.devices.enforcers.enforcer import SliceSetup
from flexray.runtime.confine import confine, limit_heap

WIDTH, BATCH = 512, 64
TAIL_SECONDS = 0.3
"""Goes on for so long after it has measured, so that a neighbour who began later is not alone at its end."""


def main() -> None:
    """``work``: infer until told otherwise; ``take SETUP MIB``: take memory, once."""
    if sys.argv[1] == "take":
        take(setup_of(json.loads(sys.argv[2])), sys.argv[3], int(sys.argv[4]))
        return
    infer = model()
    answer({"ready": os.getpid()})
    for line in sys.stdin:
        order = json.loads(line)
        if "setup" in order:
            confine(setup_of(order["setup"]), "benchmark")
            answer({"confined": True})
        else:
            answer(measure(infer, order["start"], order["seconds"]))


def setup_of(plain: dict[str, Any]) -> SliceSetup:
    """As the node made it."""
    fields: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in plain.items()}
    return SliceSetup(**fields)


def model() -> Any:
    """A function that infers one batch with a small network."""
    import torch

    layers = [layer for _ in range(4) for layer in (torch.nn.Linear(WIDTH, WIDTH), torch.nn.ReLU())]
    network, batch = torch.nn.Sequential(*layers).eval(), torch.randn(BATCH, WIDTH)

    def infer() -> None:
        with torch.inference_mode():
            network(batch)

    infer()
    return infer


def measure(infer: Any, start: float, seconds: float) -> dict[str, float]:
    """Infer from before ``start`` (monotonic clock) until after ``seconds``; CPU seconds and batches in between."""
    while time.monotonic() < start:
        infer()
    used, begun, batches = time.process_time(), time.monotonic(), 0
    while time.monotonic() - begun < seconds:
        infer()
        batches += 1
    found = {"cpu": time.process_time() - used, "wall": time.monotonic() - begun, "batches": batches}
    while time.monotonic() < start + seconds + TAIL_SECONDS:
        infer()
    return found


def take(setup: SliceSetup, how: str, mib: int) -> None:
    """Take so many MiB, ``at once``, ``in steps`` or in ``three processes``, and say what came of it."""
    confine(setup, "benchmark")
    limit_heap(setup.data_limit)
    if how == "three processes":
        children = [os.fork() for _ in range(3)]
        if 0 in children:
            grab(mib // 3, 1)
            time.sleep(0.5)  # until the others have theirs
            os._exit(0)
        codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
        answer({"outcome": "killed" if -9 in codes else "MemoryError" if any(codes) else "nothing"})
        return
    try:
        grab(mib, 1 if how == "at once" else mib)
        answer({"outcome": "nothing"})
    except MemoryError:
        answer({"outcome": "MemoryError"})


def grab(mib: int, pieces: int) -> list[bytearray]:
    """Memory that is really written to."""
    return [bytearray(b"x") * ((mib << 20) // pieces) for _ in range(pieces)]


def answer(line: dict[str, Any]) -> None:
    """Tell the benchmark."""
    print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
