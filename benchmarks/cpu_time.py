"""Who used the processor: CPU seconds of the processes of a local cluster, read from /proc.

Groups: the client's threads (main, router, Ray's own), the scheduler, the slices' user
threads and the rest of them, and Ray's daemons.
"""

from __future__ import annotations

import os
import threading
from pathlib import Path

_TICK = os.sysconf("SC_CLK_TCK")

CLIENT_MAIN = "client: the caller's thread"
CLIENT_ROUTER = "client: flexray's router thread"
CLIENT_RAY = "client: Ray's threads (submission, replies)"
SCHEDULER = "scheduler"
SLICES = "slices"
DAEMONS = "raylet, GCS, agents"


def cpu_by_group() -> dict[str, float]:
    """CPU seconds used so far, by group, of this process and of what Ray runs beside it."""
    used = dict.fromkeys((CLIENT_MAIN, CLIENT_ROUTER, CLIENT_RAY, SCHEDULER, SLICES, DAEMONS), 0.0)
    routers = {t.native_id for t in threading.enumerate() if t.name == "flexray-router"}
    for task in Path("/proc/self/task").iterdir():
        number = int(task.name)
        group = CLIENT_MAIN if number == os.getpid() else CLIENT_ROUTER if number in routers else CLIENT_RAY
        used[group] += _seconds(task / "stat")
    for process in Path("/proc").iterdir():
        if process.name.isdigit() and int(process.name) != os.getpid():
            group = _group_of(process)
            if group:
                used[group] += _seconds(process / "stat")
    return used


def _group_of(process: Path) -> str:
    try:
        line = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return ""
    if "ray::Scheduler" in line:
        return SCHEDULER
    if "ray::Slice" in line:
        return SLICES
    known = ("ray::", "raylet", "gcs_server", "ray/dashboard", "ray/_private")
    return DAEMONS if any(part in line for part in known) else ""


def _seconds(stat: Path) -> float:
    try:
        fields = stat.read_text().rsplit(")", 1)[1].split()
    except OSError:  # it ended meanwhile
        return 0.0
    return (int(fields[11]) + int(fields[12])) / _TICK
