"""The host memory that a request books beside its device is what its slice may use."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

import flexray as flex

pytestmark = pytest.mark.usefixtures("pool")

CONFIG = {"fake_devices": "1xA100-80GB"}


def test_a_slice_that_uses_more_than_it_booked_is_ended_alone(tmp_path: Path) -> None:
    stay = tmp_path / "stay"
    stay.touch()

    @flex.task(gpu=0.25)
    def beside(stay: Path) -> int:
        block = bytearray(b"x") * (200 * 2**20)  # nothing is booked, so nothing is held to it
        while stay.exists():
            time.sleep(0.02)
        return len(block)

    @flex.task(gpu=0.25, request=flex.Request(host_memory="150MiB"), retries=3)
    def greedy(log: Path, mib: int) -> int:
        with log.open("a") as file:
            file.write("began\n")
        block = bytearray(b"x") * (mib * 2**20)
        time.sleep(1.0)
        return len(block)

    neighbour = beside.remote(stay)
    assert greedy.remote(tmp_path / "modest", 100).result(60) == 100 * 2**20
    with pytest.raises(flex.errors.MemoryLimitExceeded, match=r"host memory and had booked 150 MiB.*host_memory=") as e:
        greedy.remote(tmp_path / "log", 300).result(60)
    assert e.value.limit == 150 * 2**20 < e.value.used
    assert (tmp_path / "log").read_text() == "began\n", "it is not repeated: it would use as much again"
    stay.unlink()
    assert neighbour.result(60) == 200 * 2**20


def test_when_memory_runs_out_the_kernel_takes_a_slice_before_the_pool() -> None:
    import ray

    from flexray.runtime.protocol import SCHEDULER_NAME, agent_name

    def score() -> int:
        return int(Path("/proc/self/oom_score_adj").read_text())

    of_slice = flex.task(gpu=0.25)(score).remote().result(60)
    for name in (SCHEDULER_NAME, agent_name(flex.pool().nodes[0].id)):
        handle = ray.get_actor(name, namespace="flexray")
        of_pool = ray.get(handle.__ray_call__.remote(lambda self: (score(), os.getppid())), timeout=30)
        rays = int(Path(f"/proc/{of_pool[1]}/oom_score_adj").read_text())
        assert of_pool[0] == rays < of_slice == 1000
