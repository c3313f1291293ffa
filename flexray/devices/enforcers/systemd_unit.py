"""A part of the cgroup tree that systemd hands over: for hosts where it owns the tree, and for users without root.

systemd starts a unit with ``Delegate=yes`` whose only process waits for this one's end; in the
unit's group everything is as in ``cgroup_v2``. The unit ends with the agent's process; slices
in it are left to whoever ends them. A user's own systemd can only move processes that it
started, so Ray must run under it (``systemd-run --user --scope ray start ...``).
"""

from __future__ import annotations

import os
from pathlib import Path

from flexray.devices.enforcers.cgroup_v2 import CgroupV2
from flexray.devices.enforcers.command import CommandFailed, Run
from flexray.devices.enforcers.control_files import make, write
from flexray.errors import IsolationFailed

_KEEPER = "keeper"
_SECONDS = 10.0


class SystemdUnit(CgroupV2):
    """Groups in a unit of systemd's.

    Args:
        root: where cgroup v2 is mounted.
        run: runs systemd's commands.
        uid: whose systemd: 0 is the system's.
    """

    name = "systemd unit"

    def __init__(self, root: Path, run: Run, uid: int) -> None:
        super().__init__(root)
        self._root, self._run = root, run
        self._whose = () if uid == 0 else ("--user",)
        self._unit = f"flexray-{uid}-{os.getpid()}.service"
        self._started = False

    def start(self) -> None:
        """Raises IsolationFailed when systemd is not there, refuses, or hands over no ``cpu`` controller."""
        if self._started:
            return
        properties = ("Delegate=cpu memory", "KillMode=process", "Type=exec")
        try:
            self._run(
                "systemd-run", *self._whose, "--quiet", "--collect", f"--unit={self._unit}",
                *(word for each in properties for word in ("-p", each)),
                "tail", f"--pid={os.getpid()}", "-f", "/dev/null",
                timeout=_SECONDS,
            )  # fmt: skip
            self._started = True
            self.base = self._root / self._show("ControlGroup").lstrip("/")
            make(self.base / _KEEPER)  # a group that hands controllers down may have no process of its own
            write(self.base / _KEEPER / "cgroup.procs", self._show("MainPID"))
            super().start()
        except (CommandFailed, IsolationFailed) as error:
            self.close()
            raise IsolationFailed(str(error)) from None

    def close(self) -> None:
        """End the unit."""
        if self._started:
            self._started = False
            try:
                self._run("systemctl", *self._whose, "stop", self._unit, timeout=_SECONDS)
            except CommandFailed:
                pass  # it ends with this process

    def _show(self, name: str) -> str:
        found = self._run("systemctl", *self._whose, "show", "-p", name, "--value", self._unit, timeout=_SECONDS)
        if not found.strip():
            raise IsolationFailed(f"systemd does not tell the {name} of {self._unit}")
        return found.strip()
