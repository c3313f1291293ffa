"""A slice's process confines itself: in a child, since there is no way back."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

PROGRAM = """
import json, os, resource, sys, threading
from flexray.devices.enforcers.enforcer import SliceSetup
from flexray.errors import IsolationFailed
from flexray.runtime.confine import confine, limit_heap
assert not {"torch", "numpy"} & set(sys.modules), "they read their limits when they are imported"
setup = SliceSetup(**{k: tuple(v) if isinstance(v, list) else v for k, v in json.loads(sys.argv[1]).items()})
waiting = threading.Thread(target=threading.Event().wait, daemon=True)
waiting.start()
try:
    confine(setup, "s1")
    limit_heap(setup.data_limit)
except IsolationFailed as error:
    print(json.dumps({"failed": str(error)}))
    sys.exit()
found = {
    "env": {name: os.environ.get(name) for name in ("A", "FLEXRAY_SLICE")},
    "affinity": [sorted(os.sched_getaffinity(int(task))) for task in os.listdir("/proc/self/task")],
    "pid": os.getpid(),
}
def take(mib):
    try:
        return len(bytearray(mib << 20)) >> 20
    except MemoryError:
        return "MemoryError"
found["memory"] = [take(60), take(400), take(60)]
print(json.dumps(found))
"""


def confined(**setup: Any) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, json.dumps(setup)], capture_output=True, text=True, timeout=60, check=True
    )
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_everything_is_done_before_anything_else(tmp_path: Path) -> None:
    group, other = tmp_path / "cgroup.procs", tmp_path / "other"
    group.touch()
    other.touch()
    core = min(os.sched_getaffinity(0))
    found = confined(env={"A": "1"}, join=[str(group), str(other)], cores=[core, 999], data_limit=100, threads=1)
    assert found["env"] == {"A": "1", "FLEXRAY_SLICE": "s1"}
    assert group.read_text() == other.read_text() == str(found["pid"])
    assert found["affinity"] == [[core]] * 2, "threads that were there before, too"
    assert found["memory"] == [60, "MemoryError", 60], "it fails cleanly, and the process goes on"


def test_what_is_not_asked_is_left_alone() -> None:
    found = confined()
    assert found["affinity"] == [sorted(os.sched_getaffinity(0))] * 2
    assert found["memory"] == [60, 400, 60]


def test_cores_that_it_may_not_use_leave_its_affinity_alone() -> None:
    assert confined(cores=[999])["affinity"] == [sorted(os.sched_getaffinity(0))] * 2


@pytest.mark.parametrize("name", ["gone/cgroup.procs", "."])
def test_a_group_that_cannot_be_joined_is_told_by_its_file(tmp_path: Path, name: str) -> None:
    file = str(tmp_path / name)
    assert f"{file}: the slice cannot join its group" in confined(join=[file])["failed"]
