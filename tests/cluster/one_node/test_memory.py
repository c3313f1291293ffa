"""A slice that uses more memory than it holds ends, alone, and its task learns why."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

import flexray as flex
from cluster.conftest import until

pytestmark = pytest.mark.usefixtures("pool")

CONFIG = {"cpu_devices": 1}
HOG = "import sys, time; block = bytearray(b'x') * (int(sys.argv[1]) * 2**20); time.sleep(600)"
"""A child that holds so many MiB."""


def with_children(log: str, count: int, each: int) -> None:
    """Start children, none of which is over the limit by itself, and wait for their end."""
    with Path(log).open("a") as file:
        file.write("began\n")
    children = [subprocess.Popen([sys.executable, "-c", HOG, str(each)]) for _ in range(count)]
    with Path(log).open("a") as file:
        file.write("".join(f"{child.pid}\n" for child in children))
    for child in children:
        child.wait()


def neighbour(log: str) -> str:
    while Path(log).exists():
        time.sleep(0.02)
    return flex.current().guarantee


def test_all_processes_of_a_slice_together_are_held_to_its_memory(tmp_path: Path) -> None:
    log, stay = tmp_path / "log", tmp_path / "stay"
    stay.touch()
    beside = flex.task(accelerator=0.25, memory="128MiB")(neighbour).remote(str(stay))
    greedy = flex.task(accelerator=0.25, memory="200MiB", retries=3)(with_children)
    with pytest.raises(flex.errors.MemoryLimitExceeded, match="holds 200 MiB; ask for more") as caught:
        greedy.remote(str(log), 3, 100).result(60)
    assert caught.value.limit == 200 * 2**20 < caught.value.used
    lines = log.read_text().split()
    assert lines.count("began") == 1, "it is not repeated: it would use as much again"
    until(lambda: not any(Path(f"/proc/{pid}/statm").exists() for pid in lines if pid.isdigit()))
    stay.unlink()
    assert "memory none" not in beside.result(60)


def test_within_its_memory_a_task_ends_as_it_likes(tmp_path: Path) -> None:
    @flex.task(accelerator=0.25, memory="400MiB")
    def modest() -> int:
        return len(bytearray(b"x") * (200 * 2**20))

    assert modest.remote().result(60) == 200 * 2**20
    until(lambda: all(queue.running == 0 for queue in flex.pool().queues))
