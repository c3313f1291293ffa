"""Folders and files on a node that nobody but their user reads or writes, wherever they are: also under ``/tmp``.

Whoever can make files there first could otherwise choose what an agent reads after a crash, which processes it ends,
and which sockets its slices talk to.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from pathlib import Path

from flexray.errors import DeviceError


def own_folder(*names: str) -> Path:
    """A folder of this user's under the machine's temporary one, private at each level. Raises DeviceError."""
    path = private_folder(Path(tempfile.gettempdir()) / f"flexray-{os.getuid()}")
    for name in names:
        path = private_folder(path / name)
    return path


def private_folder(path: Path) -> Path:
    """The folder, made where it is missing, which only this user may enter from now on.

    Raises DeviceError where it is another user's, a link (its owner could turn it elsewhere), or no folder.
    """
    try:
        if not path.parent.exists():
            private_folder(path.parent)
        with contextlib.suppress(FileExistsError):
            path.mkdir(mode=0o700)
        found = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        try:  # by the descriptor: nobody can put something else in its place meanwhile
            if os.fstat(found).st_uid != os.geteuid():
                raise DeviceError(_refusal(path))
            os.fchmod(found, 0o700)
        finally:
            os.close(found)
    except (NotADirectoryError, PermissionError):
        raise DeviceError(_refusal(path)) from None
    except OSError as error:  # Linux says ELOOP of a link, others EMLINK
        raise DeviceError(_refusal(path) if path.is_symlink() else f"{path} cannot be made: {error}") from None
    return path


def only_mine(path: str, flags: int) -> int:
    """An ``opener`` for ``open()``: a file that it makes is its user's only."""
    return os.open(path, flags, 0o600)


def _refusal(path: Path) -> str:
    return (
        f"{path} is a link, no folder, or another user's: what flexray keeps there has to be private. Remove it, "
        "or set TMPDIR, for Ray's processes, to a folder of your own"
    )
