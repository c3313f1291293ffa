"""Files and folders of the kernel's control groups: writing that fails says where and why."""

from __future__ import annotations

import os
import time
from pathlib import Path

from flexray.errors import IsolationFailed

_POLL_SECONDS = 0.01


def write(path: Path, text: str) -> None:
    """In one call of the kernel, so that its refusal is seen here. Raises IsolationFailed."""
    try:
        file = os.open(path, os.O_WRONLY | os.O_TRUNC)
        try:
            os.write(file, text.encode())
        finally:
            os.close(file)
    except OSError as error:
        raise IsolationFailed(f"{path}: cannot write {text!r}: {error.strerror}") from None


def read(path: Path) -> str:
    """Raises IsolationFailed."""
    try:
        return path.read_text().strip()
    except OSError as error:
        raise IsolationFailed(f"{path}: cannot be read: {error.strerror}") from None


def make(path: Path) -> bool:
    """Whether it was not there. Raises IsolationFailed."""
    try:
        os.mkdir(path)
    except FileExistsError:
        return False
    except OSError as error:
        raise IsolationFailed(f"{path}: cannot be made: {error.strerror}") from None
    return True


def remove(path: Path, seconds: float = 0.0) -> None:
    """A group with the groups in it, none of which has a process. Nothing is done when it is not there.

    Args:
        path: its folder; the kernel's files in it go with it.
        seconds: how long to wait for processes that are about to end. IsolationFailed is raised after that.
    """
    deadline = time.monotonic() + seconds
    while True:
        try:
            _remove_now(path)
            return
        except OSError as error:
            if time.monotonic() >= deadline:
                raise IsolationFailed(f"{path}: cannot be removed, processes are in it: {error.strerror}") from None
        time.sleep(_POLL_SECONDS)


def remove_if_empty(path: Path) -> bool:
    """Whether it is gone: it had no groups and no processes."""
    try:
        os.rmdir(path)
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True


def groups_in(path: Path) -> list[Path]:
    """Folders of the groups in a group, by name; none where it is not there."""
    try:
        return sorted(entry for entry in path.iterdir() if entry.is_dir())
    except OSError:
        return []


def _remove_now(path: Path) -> None:
    for inner in groups_in(path):
        _remove_now(inner)
    try:
        os.rmdir(path)
    except FileNotFoundError:
        pass
