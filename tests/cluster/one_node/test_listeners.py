"""Nothing of flexray listens on the network: its processes listen where any process of Ray's does, and nowhere else."""

from __future__ import annotations

import os
import stat
import sys
from pathlib import Path
from typing import Any

import pytest

import flexray as flex
from flexray.devices.enforcers.turns import SOCKET
from flexray.runtime.notes import notes_directory
from flexray.runtime.protocol import NAMESPACE, agent_name
from flexray.runtime.session import find_scheduler

pytestmark = [
    pytest.mark.usefixtures("pool"),
    pytest.mark.skipif(sys.platform != "linux", reason="/proc/net says who listens"),
]

CONFIG = {"cpu_devices": 1, "isolation": {"cpu/*": "turns"}}
WAIT = 60
_LISTEN = "0A"


def listens_at(pid: int) -> list[str]:
    """Addresses, without ports, at which a process takes connections over the network."""
    own = set()
    for one in Path(f"/proc/{pid}/fd").iterdir():
        try:
            own.add(os.readlink(one))
        except FileNotFoundError:  # closed meanwhile
            continue
    found = []
    for table in ("tcp", "tcp6", "udp", "udp6"):
        for line in Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]:
            words = line.split()
            listening = words[3] == _LISTEN if table.startswith("tcp") else True
            if listening and f"socket:[{words[9]}]" in own:
                found.append(f"{table} {words[1].partition(':')[0]}")
    return sorted(found)


def children(pid: int) -> list[int]:
    return [
        int(word) for task in Path(f"/proc/{pid}/task").iterdir() for word in (task / "children").read_text().split()
    ]


def pid_of(actor: Any) -> int:
    import ray

    found: int = ray.get(actor.__ray_call__.remote(lambda self: os.getpid()), timeout=WAIT)
    return found


def test_nothing_listens_that_is_not_rays() -> None:
    import ray

    @ray.remote(num_cpus=0)
    class Plain:
        def pid(self) -> int:
            return os.getpid()

    @flex.task(accelerator=0.25, gang=2)
    def together() -> tuple[int, str]:
        return os.getpid(), os.environ["MASTER_PORT"]

    @flex.actor(accelerator=0.25)
    class Slice:
        def look(self) -> tuple[int, str]:
            return os.getpid(), os.environ[SOCKET]

    plain = Plain.remote()
    rays_own = listens_at(ray.get(plain.pid.remote(), timeout=WAIT))
    one = Slice.remote()
    pid, socket = one.look.remote().result(WAIT)
    members = together.remote().result(WAIT)
    node = ray.get_runtime_context().get_node_id()
    agent = pid_of(ray.get_actor(agent_name(node), namespace=NAMESPACE))
    helpers = children(agent)
    words = [Path(f"/proc/{child}/cmdline").read_bytes() for child in helpers]
    assert any(b"devices.turns.server" in word for word in words), "the server of turns runs"
    for process in (pid_of(find_scheduler()), agent, pid, *(member for member, _ in members)):
        assert listens_at(process) == rays_own
    for child in helpers:
        assert listens_at(child) == []
    # What it listens at instead is a file that only its user reaches.
    assert stat.S_IMODE(os.stat(socket).st_mode) == 0o600
    for folder in (Path(socket).parent, notes_directory(node), notes_directory(node).parent):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    kept = [file for file in notes_directory(node).rglob("*") if file.is_file()]
    assert kept and all(stat.S_IMODE(file.stat().st_mode) == 0o600 for file in kept)
    one.stop()
    ray.kill(plain)
