"""A cgroup v2 tree in an ordinary folder: groups are made with the kernel's files and removed with them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

_FILES = {
    "cpu": {"cpu.max": "max 100000", "cpu.weight": "100", "cpu.stat": "usage_usec 0\nuser_usec 0\n"},
    "memory": {
        "memory.max": "max",
        "memory.swap.max": "max",
        "memory.oom.group": "0",
        "memory.current": "0",
        "memory.events": "low 0\nhigh 0\nmax 0\noom 0\noom_kill 0\noom_group_kill 0\n",
    },
}


def mount(base: Path, controllers: str, patch: pytest.MonkeyPatch) -> Path:
    """Make ``base`` a mounted cgroup v2 with these controllers."""
    real_mkdir, real_rmdir = os.mkdir, os.rmdir

    def fill(group: Path, available: str) -> None:
        files = {"cgroup.controllers": available, "cgroup.subtree_control": "", "cgroup.procs": ""}
        for name in available.split() if group != base else ():
            files |= _FILES.get(name, {})
        for name, text in files.items():
            (group / name).write_text(text)

    def mkdir(path: str | Path, mode: int = 0o777, **rest: object) -> None:
        real_mkdir(path, mode)
        if base in Path(path).parents:
            # The last write of several stays in a fake file: "+memory" comes after "+cpu".
            handed = (Path(path).parent / "cgroup.subtree_control").read_text()
            fill(Path(path), {"": "", "+cpu": "cpu", "+memory": "cpu memory"}[handed])

    def rmdir(path: str | Path, **rest: object) -> None:
        group = Path(path)
        if base in group.parents and group.is_dir() and not any(entry.is_dir() for entry in group.iterdir()):
            for entry in group.iterdir():
                entry.unlink()
        real_rmdir(path)

    base.mkdir(parents=True)
    fill(base, controllers)
    patch.setattr(os, "mkdir", mkdir)
    patch.setattr(os, "rmdir", rmdir)
    return base
