"""Two types of device on real Ray, and tasks that run at different speeds on them."""

from __future__ import annotations

import os
import signal
import time
from typing import Any

import pytest

import flexray as flex
from cluster.conftest import until

pytestmark = pytest.mark.usefixtures("pool")

CONFIG = {"fake_devices": "1xA100-80GB.1xT4", "linger_seconds": 0.02}


def on(kind: str, a100: float, t4: float) -> str:
    """Take so long, by type; returns the type."""
    here: str = flex.current().device.type.name
    time.sleep(t4 if "T4" in here else a100)
    return f"{kind} {here}"


def run_alone(task: flex.Task, *arguments: object) -> str:
    """Run a task and wait until its lease is back, so that the next one is placed afresh. Returns where it ran."""
    found: str = task.remote(*arguments).result(60).split()[1]
    until(lambda: all(one.state != "held" for one in flex.pool().slices))
    return found


@pytest.mark.parametrize(
    ("kind", "a100", "t4", "best"),
    [("usual", 0.05, 0.4, "nvidia/A100-80GB"), ("odd", 0.3, 0.03, "nvidia/T4")],
    ids=["as the catalog says", "against the catalog"],
)
def test_tasks_come_to_run_where_they_finish_first(kind: str, a100: float, t4: float, best: str) -> None:
    task = flex.task(gpu=1)(on).options(priority=int(kind == "odd"))  # a class of its own each
    places = [run_alone(task, kind, a100, t4) for _ in range(30)]
    assert places[20:].count(best) >= 9, places


def test_declared_throughput_decides_at_once() -> None:
    request = flex.Request(throughput={"nvidia/A100*": 0.1, "nvidia/T4": 1.0})
    task = flex.task(gpu=1, request=request)(on)
    assert task.remote("declared", 0.0, 0.0).result(60) == "declared nvidia/T4"


def all_is_saved(scheduler: Any) -> bool:
    """Whether the scheduler has kept everything it has measured, which it does every five seconds."""
    return bool(scheduler.shell._saved._observations == scheduler.shell._core.state.pool.speeds.observations)


def test_what_was_learnt_survives_the_scheduler() -> None:
    import ray

    from flexray.runtime import process
    from flexray.runtime.protocol import NAMESPACE, SCHEDULER_NAME

    task = flex.task(gpu=0.5, request=flex.Request(cpus=100))(on)
    for _ in range(14):
        run_alone(task, "kept", 0.3, 0.02)
    scheduler = ray.get_actor(SCHEDULER_NAME, namespace=NAMESPACE)
    until(lambda: ray.get(scheduler.__ray_call__.remote(all_is_saved)))
    epoch = flex.pool().epoch
    os.kill(ray.get(scheduler.__ray_call__.remote(lambda self: os.getpid())), signal.SIGKILL)
    until(lambda: process.client()._session.epoch > epoch, 60)
    assert task.remote("kept", 0.3, 0.02).result(60) == "kept nvidia/T4"
