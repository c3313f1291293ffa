"""What a slice's process says when it dies of what it runs, where it can be read afterwards.

A crash in native code goes through Python's fault handler, which writes down what happened and where; ``os._exit`` is
noted with its code. Of a process that somebody kills (SIGKILL) there are no last words.
"""

from __future__ import annotations

import faulthandler
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from flexray.devices.private import only_mine

_MOST_FRAMES = 3
_FRAME = re.compile(r'^  File "(?P<file>.*)", line (?P<line>\d+) in (?P<name>.*)$')
_FATAL = "Fatal Python error: "
_EXIT = "exit "
#: Frames from here on are flexray's own way to the user's code.
_OWN = str(Path(__file__).parent)


def words_of(directory: Path, slice_id: str) -> Path:
    """Where a slice's last words are."""
    return directory / f"{slice_id}.words"


def note_last_words(path: Path) -> None:
    """In the slice's process: from now on write them down."""
    file = open(path, "wb", buffering=0, opener=only_mine)  # noqa: SIM115 (open as long as the process lives)
    faulthandler.enable(file, all_threads=False)
    os.register_at_fork(after_in_child=faulthandler.disable)  # a child's crash is not the slice's
    os._exit = _noting(os._exit, file, os.getpid())  # type: ignore[assignment]


def _noting(leave: Callable[[int], NoReturn], file: Any, pid: int) -> Callable[[int], NoReturn]:
    def _exit(status: int) -> NoReturn:
        if os.getpid() == pid:  # a forked child ends itself, not the slice
            file.write(f"{_EXIT}{status}\n".encode())
        leave(status)

    return _exit


def last_words(path: Path, error: Exception) -> str:
    """How a slice's process ended, for people; removes what it wrote.

    Args:
        error: what Ray says of its end.
    """
    try:
        text = path.read_text(errors="replace")
    except OSError:
        text = ""
    path.unlink(missing_ok=True)
    if text.startswith(_EXIT):
        return f"its code ended the process with os._exit({text[len(_EXIT) :].strip()})"
    if text.startswith(_FATAL):
        return _crash(text.splitlines())
    if type(error).__name__ == "OutOfMemoryError":
        return "Ray's memory monitor stopped it, since its node was running out of memory"
    return "its process was killed from outside (SIGKILL; also what the kernel does when memory runs out), or exited"


def _crash(lines: list[str]) -> str:
    frames: list[str] = []
    for match in filter(None, map(_FRAME.match, lines)):
        if match["file"].startswith(_OWN) or len(frames) == _MOST_FRAMES:
            break
        frames.append(f"{match['name']} ({match['file']}:{match['line']})")
    where = ", called by ".join(frames)
    return f"its process crashed: {lines[0].removeprefix(_FATAL)}{f' in {where}' if where else ''}"
