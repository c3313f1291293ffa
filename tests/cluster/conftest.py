"""Clusters of several nodes on this machine, each in a directory of its own."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import flexray as flex
from flexray.model.snapshot import Snapshot


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Every test here starts Ray."""
    for item in items:
        if "tests/cluster" in str(item.path):
            item.add_marker(pytest.mark.ray)


@pytest.fixture(scope="package", autouse=True)
def ray_environment() -> Iterator[None]:
    """No token, a short private directory (socket paths are limited), nothing left behind in this process."""
    saved = dict(os.environ)
    directory = tempfile.mkdtemp(prefix="fxc", dir="/tmp")
    tests = Path(__file__).parents[1]  # slices import what these tests define by name, and flexray from beside them
    path = os.pathsep.join((str(tests.parent), str(tests)))
    os.environ.update(RAY_AUTH_MODE="disabled", RAY_TMPDIR=directory, RAY_DEDUP_LOGS="0", PYTHONPATH=path)
    yield
    os.environ.clear()
    os.environ.update(saved)
    shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """A head without devices and two nodes with two declared GPUs and two declared NPUs each."""
    import ray
    from ray.cluster_utils import Cluster

    checks = {
        "health_check_initial_delay_ms": 0,
        "health_check_period_ms": 500,
        "health_check_timeout_ms": 5000,  # a busy machine is no dead node; one that is killed refuses at once
        "health_check_failure_threshold": 3,
    }
    head = {"num_cpus": 4, "include_dashboard": False, "_system_config": checks}
    made = Cluster(initialize_head=True, head_node_args=head)
    for _ in range(2):
        made.add_node(num_cpus=8, num_gpus=2, resources={"NPU": 2})
    ray.init(address=made.address, log_to_driver=False, logging_level="error")
    yield made
    flex.shutdown()
    ray.shutdown()
    made.shutdown()


def until(holds: Callable[[], Any], seconds: float = 60.0) -> Any:
    """Poll until ``holds()`` is true; fails with what it last was."""
    from flexray.runtime import process

    deadline = time.monotonic() + seconds
    while True:
        value = holds()
        if value:
            return value
        if time.monotonic() > deadline:
            pytest.fail(f"not within {seconds} s: {value!r}; {flex.pool() if process.connected() else 'no pool'}")
        time.sleep(0.05)


def ready(snapshot: Snapshot, family: str) -> list[str]:
    """Ids of the devices of a family that take work."""
    return [d.id for d in snapshot.devices if d.family == family and d.state == "ready"]


@pytest.fixture(scope="module")
def pool(cluster: Any) -> Any:
    """The cluster with a pool that has claimed every device."""
    flex.init()
    until(lambda: len(ready(flex.pool(), "gpu")) == 4 and len(ready(flex.pool(), "npu")) == 4, 60)
    return cluster


@pytest.fixture(autouse=True)
def books_are_exact(request: pytest.FixtureRequest) -> Iterator[None]:
    """After each test the scheduler's books equal the sum of its slices."""
    yield
    from flexray.runtime import process

    client = process.connected()
    if client is not None:
        import ray

        ray.get(client._link.scheduler.check.remote())
