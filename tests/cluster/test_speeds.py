"""Two types of device on real Ray, and tasks that run at different speeds on them."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator

import pytest

import flexray as flex


@pytest.fixture(scope="module")
def two_types() -> Iterator[None]:
    """One fake A100 and one fake T4."""
    import ray

    ray.init(num_cpus=4, include_dashboard=False, log_to_driver=False, logging_level="error")
    flex.init(config={"fake_devices": "1xA100-80GB.1xT4", "linger_seconds": 0.02})
    yield
    flex.shutdown()
    ray.shutdown()


def on(kind: str, a100: float, t4: float) -> str:
    """Take so long, by type; returns the type."""
    here: str = flex.current().device.type.name
    time.sleep(t4 if "T4" in here else a100)
    return f"{kind} {here}"


@pytest.mark.parametrize(
    ("kind", "a100", "t4", "best"),
    [("usual", 0.05, 0.4, "nvidia/A100-80GB"), ("odd", 0.5, 0.05, "nvidia/T4")],
    ids=["as the catalog says", "against the catalog"],
)
def test_tasks_come_to_run_where_they_finish_first(
    two_types: None, kind: str, a100: float, t4: float, best: str
) -> None:
    task = flex.task(gpu=1)(on).options(priority=int(kind == "odd"))  # a class of its own each
    places = []
    for _ in range(30):
        places.append(task.remote(kind, a100, t4).result(60).split()[1])
        time.sleep(0.1)  # the lease goes back
    assert places[20:].count(best) >= 9, places


def test_declared_throughput_decides_at_once(two_types: None) -> None:
    request = flex.Request(throughput={"nvidia/A100*": 0.1, "nvidia/T4": 1.0})
    task = flex.task(gpu=1, request=request)(on)
    assert task.remote("declared", 0.0, 0.0).result(60) == "declared nvidia/T4"


def test_what_was_learnt_survives_the_scheduler(two_types: None) -> None:
    import ray

    from cluster.conftest import until
    from flexray.runtime import process
    from flexray.runtime.protocol import NAMESPACE, SCHEDULER_NAME

    task = flex.task(gpu=0.5, request=flex.Request(cpus=100))(on)
    for _ in range(14):
        task.remote("kept", 0.5, 0.02).result(60)
        time.sleep(0.1)
    time.sleep(6)  # it is saved every five seconds
    scheduler = ray.get_actor(SCHEDULER_NAME, namespace=NAMESPACE)
    epoch = flex.pool().epoch
    os.kill(ray.get(scheduler.__ray_call__.remote(lambda self: os.getpid())), signal.SIGKILL)
    until(lambda: process.client()._session.epoch > epoch, 60)
    assert task.remote("kept", 0.5, 0.02).result(60) == "kept nvidia/T4"
