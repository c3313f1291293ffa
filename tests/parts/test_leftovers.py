"""What agents that died have left is ended before a new one begins; what others own is left alone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from flexray.runtime import notes
from flexray.runtime.leftovers import end_leftovers, record_process
from flexray.runtime.processes import MARK, Process, identify


@pytest.fixture(autouse=True)
def own_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))


@pytest.fixture
def running() -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """A slice's process: its id, and the process."""
    name = f"s{uuid.uuid4().hex}.1"
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, env={MARK: name})
    yield name, process
    process.kill()
    process.wait(10)


def left_by(owner: Process | None, node: str, running: tuple[str, subprocess.Popen[bytes]]) -> None:
    """A node's records, of an agent with that process."""
    name, process = running
    found = identify(process.pid)
    assert found is not None
    record_process(node, name, found)
    if owner is not None:
        space = os.readlink("/proc/self/ns/pid")
        (notes.notes_directory(node) / "agent").write_text(json.dumps([owner, space]))


@pytest.mark.parametrize("node", ["the same", "another"])
def test_what_a_dead_agent_left_is_ended(
    node: str, running: tuple[str, subprocess.Popen[bytes]], tmp_path: Path
) -> None:
    """A node that was cut off comes back to its machine as another one."""
    left_by(Process(2**22 + 7, 1), node, running)
    end_leftovers("the same", 10)
    assert running[1].wait(10) < 0
    assert not list(tmp_path.rglob("*.process"))


@pytest.mark.parametrize("known", [True, False])
def test_what_another_agent_owns_is_left_alone(known: bool, running: tuple[str, subprocess.Popen[bytes]]) -> None:
    """Several clusters may be on one machine; records without an owner are of a version that did not say."""
    left_by(identify(os.getpid()) if known else None, "another", running)
    end_leftovers("here", 10)
    assert running[1].poll() is None


def test_a_damaged_record_is_found_by_its_mark(running: tuple[str, subprocess.Popen[bytes]]) -> None:
    left_by(None, "here", running)
    (notes.notes_directory("here") / f"{running[0]}.process").write_text("{")
    end_leftovers("here", 10)
    assert running[1].wait(10) < 0
