"""Whether a thread may wait for something: not where that would stop an event loop."""

from __future__ import annotations

import asyncio
import sys

from flexray.errors import UsageError


def refuse_on_event_loop(instead: str = "`await future` (or asyncio.gather)") -> None:
    """Raise UsageError in a coroutine, which says what to write instead.

    The cells of a notebook run on an event loop too, and may take their time there.
    """
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return
    if not is_notebook():
        raise UsageError(f"this blocks the event loop; write {instead} instead")


def is_notebook() -> bool:
    """Whether the kernel of a notebook runs this; what was not imported cannot be running."""
    ipython = sys.modules.get("IPython")
    return ipython is not None and getattr(ipython.get_ipython(), "kernel", None) is not None
