"""Processes of slices, recorded on disk, so that a new agent can end what an earlier one left behind."""

from __future__ import annotations

import json
from pathlib import Path

from flexray.errors import DeviceError
from flexray.runtime.last_words import words_of
from flexray.runtime.notes import notes_directory
from flexray.runtime.processes import Process, end_all, family


def _record(node: str, slice_id: str) -> Path:
    return notes_directory(node) / f"{slice_id}.process"


def record_process(node: str, slice_id: str, process: Process) -> None:
    """Remember a slice's process until it is known to be gone."""
    _record(node, slice_id).write_text(json.dumps(process))


def forget_process(node: str, slice_id: str) -> None:
    """The slice's processes are gone."""
    _record(node, slice_id).unlink(missing_ok=True)


def end_leftovers(node: str, timeout: float) -> None:
    """End every recorded process of this node and its descendants. Raises DeviceError if one cannot be ended."""
    for path in sorted(notes_directory(node).glob("*.process")):
        slice_id = path.name.removesuffix(".process")
        try:
            process = Process(*json.loads(path.read_text()))
        except (OSError, ValueError, TypeError):
            process = Process(-1, -1)  # damaged: its marked descendants can still be found
        members = family(process, slice_id)
        if not end_all(members, timeout):
            raise DeviceError(f"processes {[p.pid for p in members]} of slice {slice_id} cannot be ended")
        path.unlink(missing_ok=True)
        (notes_directory(node) / slice_id).unlink(missing_ok=True)
        words_of(notes_directory(node), slice_id).unlink(missing_ok=True)
