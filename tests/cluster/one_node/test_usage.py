"""What a lease held and used is counted once, also over a restart of the scheduler; the commands say so."""

from __future__ import annotations

import getpass
import json
import time
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

import flexray as flex
from cluster.conftest import until
from flexray.cli import main
from flexray.runtime import process
from flexray.runtime.reading import read_history, read_snapshot

pytestmark = pytest.mark.usefixtures("pool")

CONFIG = {"cpu_devices": 1, "linger_seconds": 0}


def flexray(*arguments: str) -> str:
    done = CliRunner().invoke(main, [*arguments, "--address", "auto"])
    assert done.exit_code == 0, done.output
    return done.output


def usage(**of: str) -> list[dict[str, Any]]:
    found = json.loads(flexray("usage", "--by", ",".join(of), "--json"))
    return [row for row in found["rows"] if row["key"] == list(of.values())]


def spin(end: str) -> None:
    """Keeps a processor busy until a file is there."""
    while not Path(end).exists():
        until_then = time.monotonic() + 0.05
        while time.monotonic() < until_then:
            pass


def test_a_lease_over_a_restart_of_the_scheduler(tmp_path: Path) -> None:
    import ray

    end, link = tmp_path / "end", process.client()._link
    future = flex.task(accelerator=0.5)(spin).remote(str(end))
    of = {"user": getpass.getuser(), "job": ray.get_runtime_context().get_job_id(), "class": "spin"}
    until(lambda: sum(row["busy"] for row in usage(**of)) > 0)
    epoch = read_snapshot(link.scheduler).epoch
    assert "grant lease" in flexray("events") and "spin" in flexray("requests")
    assert [(one.user, one.job) for one in read_snapshot(link.scheduler).slices] == [(of["user"], of["job"])]
    assert flexray("top").startswith("1 devices on 1 nodes: 0.50 held")
    ray.kill(link.scheduler, no_restart=False)
    until(lambda: read_snapshot(link.scheduler).epoch != epoch and bool(usage(**of)))
    end.touch()
    future.result(timeout=60)
    until(lambda: bool(read_history(link.scheduler)))
    (holding,) = read_history(link.scheduler)
    assert (holding.task_class.partition("/")[0], holding.share, holding.ended) == ("spin", 0.5, "released")
    (row,) = usage(**of)
    assert row["guaranteed"] == pytest.approx(holding.device_seconds, abs=0.5)
    assert read_history(link.scheduler, holding.end + 1) == ()
