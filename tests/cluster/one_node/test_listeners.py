"""Nothing of flexray listens on the network: its processes listen where any process of Ray's does, and nowhere else."""

from __future__ import annotations

import contextlib
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
    found: list[int] = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # a thread that has ended meanwhile
            found += map(int, (task / "children").read_text().split())
    return found


def modes_below(folder: Path) -> set[int]:
    """Of all files."""
    found = set()
    for file in folder.rglob("*"):
        with contextlib.suppress(FileNotFoundError):
            if file.is_file():
                found.add(stat.S_IMODE(file.stat().st_mode))
    return found


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
    def together() -> tuple[str, list[str]]:
        return os.environ["MASTER_PORT"], listens_at(os.getpid())

    @flex.actor(accelerator=0.25)
    class Slice:
        def look(self) -> tuple[str, list[str]]:
            return os.environ[SOCKET], listens_at(os.getpid())

    plain = Plain.remote()
    rays_own = listens_at(ray.get(plain.pid.remote(), timeout=WAIT))
    one = Slice.remote()
    socket, found = one.look.remote().result(WAIT)
    assert [found, *(each for _, each in together.remote().result(WAIT))] == [rays_own] * 3
    node = ray.get_runtime_context().get_node_id()
    agent = pid_of(ray.get_actor(agent_name(node), namespace=NAMESPACE))
    assert listens_at(agent) == listens_at(pid_of(find_scheduler())) == rays_own
    helpers = {}
    for child in children(agent):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # a command that has ended meanwhile
            helpers[Path(f"/proc/{child}/cmdline").read_bytes()] = listens_at(child)
    assert any(b"devices.turns.server" in words for words in helpers), "the server of turns runs"
    assert not any(helpers.values())
    # What it listens at instead is a file that only its user reaches.
    assert stat.S_IMODE(os.stat(socket).st_mode) == 0o600
    for folder in (Path(socket).parent, notes_directory(node), notes_directory(node).parent):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert modes_below(notes_directory(node)) == {0o600}
    one.stop()
    ray.kill(plain)
