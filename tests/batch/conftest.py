"""``examples/cluster.yaml`` on a machine of its own: this one, reached through doubles of ssh and rsync."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples/cluster.yaml"
DOUBLES = Path(__file__).with_name("doubles")
BIN = Path(sys.executable).parent  # not resolved: the environment's own


@dataclass(frozen=True)
class Machine:
    """Where a user sits, and the cluster that is made from there.

    Attributes:
        folder: the user's own.
        env: with which commands are run there.
        dashboard: address of the cluster's dashboard.
    """

    folder: Path
    env: dict[str, str]
    dashboard: str

    def run(self, *command: str, timeout: float = 120) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command, cwd=self.folder, env=self.env, capture_output=True, text=True, timeout=timeout, check=False
        )


@pytest.fixture(scope="package")
def machine() -> Iterator[Machine]:
    """No cluster yet: the first ``ray submit --start`` makes it."""
    folder = Path(tempfile.mkdtemp(prefix="fxb", dir="/tmp"))  # socket paths must stay short
    here, home, temporary = (folder / name for name in ("here", "home", "tmp"))
    install(home / "flexray/bin")
    temporary.mkdir()
    (here / "dist").mkdir(parents=True)
    (here / "constraints.txt").touch()
    (here / "cluster.yaml").write_text(for_here(yaml.safe_load(EXAMPLE.read_text())))
    ports = dict(zip(("port", "dashboard-port", "dashboard-agent-listen-port"), free_ports(3), strict=True))
    options = " ".join(f"--{name}={port}" for name, port in ports.items())
    env = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")}
    env |= {"HOME": str(home), "PATH": os.pathsep.join((str(DOUBLES), str(BIN), env["PATH"])), "REAL_BIN": str(BIN)}
    env |= {"RAY_AUTH_MODE": "disabled", "RAY_prestart_worker_first_driver": "0"}
    env |= {"RAY_USAGE_STATS_ENABLED": "0", "PYTHONPATH": str(ROOT)}
    env |= {"RAY_TMPDIR": str(temporary), "TMPDIR": str(temporary), "RAY_PORTS": f"{options} --num-cpus=4"}
    yield Machine(here, env, f"http://127.0.0.1:{ports['dashboard-port']}")
    stop(home / "ray.pid")
    shutil.rmtree(folder, ignore_errors=True)


def install(target: Path) -> None:
    """What the setup commands would install: they find it there already."""
    target.mkdir(parents=True)
    (target / "ray").symlink_to(DOUBLES / "head/ray")
    for name in ("python", "flexray"):
        (target / name).write_text(f'#!/bin/sh\nexec "{BIN / name}" "$@"\n')
        (target / name).chmod(0o755)


def for_here(config: dict[str, object]) -> str:
    """The example with what it says is to be changed, and no workers."""
    config["provider"] = {"type": "local", "head_ip": "127.0.0.1", "worker_ips": []}
    config["auth"] = {"ssh_user": "nobody"}
    config |= {"min_workers": 0, "max_workers": 0}
    return yaml.safe_dump(config)


def free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("", 0)) for _ in range(count)]
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def stop(pid_file: Path) -> None:
    """End what the double of Ray has started, all of it."""
    if not pid_file.exists():
        return
    pid = int(pid_file.read_text())
    try:
        os.kill(pid, signal.SIGTERM)  # it ends the node's processes before itself
        for _ in range(100):
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                break
            time.sleep(0.1)
        os.killpg(pid, signal.SIGKILL)
    except (ProcessLookupError, FileNotFoundError):
        return
