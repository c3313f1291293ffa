"""Devices that plain Ray work uses, or that the pool leaves to it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

import flexray as flex
from flexray.cli import main

from .conftest import ready, until

COMMAND = [str(Path(sys.executable).parent / "flexray")]


@pytest.fixture(scope="module")
def node() -> Iterator[str]:
    """One node with two declared GPUs; its address."""
    import ray
    from ray.cluster_utils import Cluster

    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 4, "num_gpus": 2, "include_dashboard": False})
    ray.init(address=made.address, log_to_driver=False, logging_level="error")
    yield made.address
    ray.shutdown()
    made.shutdown()


@pytest.fixture
def two_gpus(node: str) -> Iterator[str]:
    """The address of a cluster whose two GPUs are Ray's; the pool that a test makes of them ends with it."""
    import ray

    from flexray.runtime.pool import stop_pool

    until(lambda: ray.available_resources().get("GPU") == 2)
    yield node
    flex.shutdown()
    stop_pool()


def flexray(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*COMMAND, *arguments], capture_output=True, text=True, timeout=120, check=False)


def test_a_busy_card_joins_when_it_falls_free_and_stop_gives_all_back(two_gpus: str, tmp_path: Path) -> None:
    import ray

    release = tmp_path / "release"

    @ray.remote(num_gpus=1, num_cpus=0)
    def busy() -> str:

        while not release.exists():
            time.sleep(0.05)
        return os.environ["CUDA_VISIBLE_DEVICES"]

    plain = busy.remote()
    until(lambda: ray.available_resources().get("GPU", 0) <= 1)

    started = flexray("start", "--address", two_gpus)
    assert started.returncode == 0, started.stderr
    flex.init()
    until(lambda: len(ready(flex.pool(), "gpu")) == 1)
    assert [d.state for d in flex.pool().devices].count("unclaimed") == 1

    @flex.task(gpu=1)
    def where() -> str:
        return os.environ["CUDA_VISIBLE_DEVICES"]

    first = where.remote().result(60)
    release.touch()
    assert {first, ray.get(plain, timeout=60)} == {"0", "1"}, "they never shared a card"
    until(lambda: len(ready(flex.pool(), "gpu")) == 2)

    status, table = [CliRunner().invoke(main, ["status", "--address", two_gpus, *form]) for form in (["--json"], [])]
    assert {d["state"] for d in json.loads(status.stdout)["devices"]} == {"ready"}
    assert "declared/gpu" in table.stdout

    flex.shutdown()
    assert "stopped" in flexray("stop", "--address", two_gpus).stdout
    assert "no pool" in flexray("stop", "--address", two_gpus).stdout
    gone = flexray("status", "--address", two_gpus)
    assert gone.returncode == 1 and "flexray start" in gone.stderr and "Traceback" not in gone.stderr
    ray.get([busy.remote() for _ in range(2)], timeout=60)  # both cards are Ray's again


def test_some_devices_can_be_left_to_ray(two_gpus: str) -> None:
    import ray

    flex.init(config={"leave_to_ray": {"GPU": 1}})
    until(lambda: len(ready(flex.pool(), "gpu")) == 1)
    assert len(flex.pool().devices) == 1

    @ray.remote(num_gpus=1, num_cpus=0)
    def plain() -> int:
        return 1

    assert ray.get(plain.remote(), timeout=60) == 1


def driver(address: str, code: str) -> Any:
    script = f"import flexray as flex\nflex.init({address!r})\n{code}\n"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_driver_that_ends_gives_back_what_it_held(two_gpus: str) -> None:
    flex.init()
    until(lambda: len(ready(flex.pool(), "gpu")) == 2)
    code = "class A:\n  def f(self): return 1\na = flex.actor(gpu=1)(A).remote()\nprint(a.f.remote().result(60))"
    assert driver(two_gpus, code).strip().endswith("1")
    until(lambda: not flex.pool().slices)
    assert all(d.share_held == 0 for d in flex.pool().devices)
