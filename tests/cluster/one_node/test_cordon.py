"""Operators cordon, drain and uncordon devices of a running pool, by the commands."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

import flexray as flex
from cluster.conftest import until
from flexray.cli import main
from flexray.model.snapshot import Snapshot
from flexray.runtime import process
from flexray.runtime.reading import read_snapshot

pytestmark = pytest.mark.usefixtures("pool")

CONFIG = {"fake_devices": "2xA100-80GB", "grace_seconds": 1}


def flexray(*arguments: str, code: int = 0) -> str:
    done = CliRunner().invoke(main, [*arguments, "--address", "auto"])
    assert done.exit_code == code, done.output
    return done.output


def now() -> Snapshot:
    """The pool, of whose scheduler is there by then."""
    return read_snapshot(process.client()._link.scheduler)


def states() -> dict[str, str]:
    return {device.id.rpartition("/")[2]: device.state for device in now().devices}


def short(name: str) -> str:
    """``394abc/gpu0``, as status shows it."""
    (device,) = [device for device in flex.pool().devices if device.id.endswith(f"/{name}")]
    return f"{device.node[:6]}/{name}"


def work(end: str) -> str:
    """Runs until a file is there, and gives way when asked; says where it ran last."""
    Path(f"{end}.{flex.current().device.index}").touch()
    while not Path(end).exists():
        if flex.current().should_yield():
            raise flex.errors.Preempted
        time.sleep(0.02)
    return str(flex.current().device.index)


def test_work_moves_off_a_drained_device_and_comes_back_when_it_is_uncordoned(tmp_path: Path) -> None:
    end = tmp_path / "end"
    task = flex.task(gpu=1, request=flex.Request(preemptible=True))(work)
    futures = [task.remote(str(end)) for _ in range(2)]
    until(lambda: len(list(tmp_path.iterdir())) == 2)
    told: list[dict[str, Any]] = json.loads(flexray("drain", short("gpu0"), "--reason", "new fan", "--wait", "--json"))
    assert [(d["state"], d["slices"], d["reason"]) for d in told] == [
        ("drained", [], "drained by an operator: new fan")
    ]
    until(lambda: [one.wait_reason for one in flex.pool().waiting] == ["devices_sick"])
    assert "is drained: drained by an operator: new fan" in flexray("status")
    end.touch()
    assert flex.get(futures, timeout=60) == ["1", "1"]
    assert ": ready" in flexray("uncordon", short("gpu0"))
    assert flex.get([task.remote(str(end)) for _ in range(4)], timeout=60)


def test_a_cordon_outlives_the_scheduler() -> None:
    import ray

    assert "cordoned (cordoned by an operator)" in flexray("cordon", short("gpu1"))
    assert states() == {"gpu0": "ready", "gpu1": "cordoned"}
    epoch = now().epoch
    ray.kill(process.client()._link.scheduler, no_restart=False)
    until(lambda: now().epoch != epoch and states() == {"gpu0": "ready", "gpu1": "cordoned"})
    node = flex.pool().nodes[0]
    flexray("uncordon", node.id)
    assert states() == {"gpu0": "ready", "gpu1": "ready"}
    assert len(json.loads(flexray("cordon", node.name, "--json"))) == 2
    flexray("uncordon", node.id[:8])


def test_what_is_not_there_gets_one_line_with_a_suggestion() -> None:
    wrong = f"{short('gpu0')}0"
    for command in ("cordon", "drain", "uncordon"):
        said = flexray(command, wrong, code=3).strip()
        assert said.startswith(f"flexray: there is no device or node {wrong!r}. Did you mean {short('gpu0')!r}?")
        assert "\n" not in said
