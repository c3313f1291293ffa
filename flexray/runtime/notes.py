"""What a slice notes about itself where it can be read after its death.

One small file per slice in a private directory of the node, mapped into memory: which
call is running, and the cause when the slice ends itself. Writing a note costs well
under a microsecond; the node agent reads it once the process is gone.
"""

from __future__ import annotations

import mmap
import struct
from pathlib import Path

from flexray.devices.private import only_mine, own_folder

_LAYOUT = struct.Struct("<q16s")  # number of the running call or -1, cause
_NOTHING = -1


def notes_directory(node: str) -> Path:
    """Where the slices of a node leave their notes; private to the user. Raises DeviceError where it cannot be."""
    return own_folder(node)


def all_notes() -> Path:
    """Where the directories are of all nodes that this user has, or had, on this machine."""
    return own_folder()


class Notes:
    """The writing side, in the slice's process."""

    def __init__(self, path: Path) -> None:
        with open(path, "w+b", opener=only_mine) as file:
            file.write(_LAYOUT.pack(_NOTHING, b""))
            file.flush()
            self._map = mmap.mmap(file.fileno(), _LAYOUT.size)

    def running(self, call: int | None) -> None:
        """Note that a call has started, or (None) that nothing runs."""
        struct.pack_into("<q", self._map, 0, _NOTHING if call is None else call)

    def cause(self, cause: str) -> None:
        """Note why the slice is about to end itself."""
        struct.pack_into("<16s", self._map, 8, cause.encode()[:16])


def read_notes(path: Path) -> tuple[tuple[int, ...], str]:
    """Calls that were running, and the cause, from a dead slice's notes; then remove them."""
    try:
        data = path.read_bytes()
        path.unlink()
        call, cause = _LAYOUT.unpack(data)
    except (OSError, struct.error):
        return (), ""
    return (() if call == _NOTHING else (call,)), cause.rstrip(b"\0").decode(errors="replace")
