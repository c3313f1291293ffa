"""Processes of slices, recorded on disk, so that a new agent can end what an earlier one left behind.

Also what an agent of another node left that was on this machine: Ray gives a node that was cut off and comes back a new
id, and nothing may be placed on its devices before all that ran there is gone.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

from flexray.devices.private import only_mine
from flexray.errors import DeviceError
from flexray.runtime.last_words import words_of
from flexray.runtime.notes import all_notes, notes_directory
from flexray.runtime.processes import Process, end_all, family, identify, is_alive

_OWNER = "agent"
_RECORD = ".process"


def _record(node: str, slice_id: str) -> Path:
    return notes_directory(node) / f"{slice_id}{_RECORD}"


def record_process(node: str, slice_id: str, process: Process) -> None:
    """Remember a slice's process until it is known to be gone."""
    with open(_record(node, slice_id), "w", opener=only_mine) as file:
        json.dump(process, file)


def forget_process(node: str, slice_id: str) -> None:
    """The slice's processes are gone."""
    _record(node, slice_id).unlink(missing_ok=True)


def end_leftovers(node: str, timeout: float) -> None:
    """End what earlier agents have left: every recorded process and its descendants, of this node and of dead ones.

    From now on this process owns the node's records. Raises DeviceError for a process that cannot be ended.
    """
    here = notes_directory(node)
    _end_recorded(here, timeout)
    with open(here / _OWNER, "w", opener=only_mine) as file:
        json.dump([identify(os.getpid()), _namespace()], file)
    for other in sorted(all_notes().iterdir()):
        if other != here and _is_orphaned(other):
            _end_recorded(other, timeout)
            (other / _OWNER).unlink(missing_ok=True)


def _end_recorded(directory: Path, timeout: float) -> None:
    for path in sorted(directory.glob(f"*{_RECORD}")):
        slice_id = path.name.removesuffix(_RECORD)
        try:
            process = Process(*json.loads(path.read_text()))
        except (OSError, ValueError, TypeError):
            process = Process(-1, -1)  # damaged: its marked descendants can still be found
        members = family(process, slice_id)
        if not end_all(members, timeout):
            raise DeviceError(f"processes {[p.pid for p in members]} of slice {slice_id} cannot be ended")
        path.unlink(missing_ok=True)
        (directory / slice_id).unlink(missing_ok=True)
        words_of(directory, slice_id).unlink(missing_ok=True)


def _is_orphaned(directory: Path) -> bool:
    """Whether the agent whose records these are is dead; where that cannot be told, it is not."""
    try:
        owner, namespace = json.loads((directory / _OWNER).read_text())
        return bool(namespace == _namespace() and not is_alive(Process(*owner)))
    except (OSError, ValueError, TypeError):
        return False


def _namespace() -> str:
    """Process ids mean nothing in another one."""
    return os.readlink("/proc/self/ns/pid")
