"""What a slice knows of a call that runs there, and of finished calls that their client has not fetched."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from flexray.model.lease import SessionId
from flexray.runtime.checkpoints import Checkpoints
from flexray.runtime.current import StopFlag
from flexray.runtime.protocol import Code, Token

Outcome = tuple[Code, Any]
#: Who made a call: (session, epoch, grant). The same session may hold the slice again later, under another grant.
Holder = tuple[SessionId, int, int]
_NOBODY: Holder = (SessionId(""), 0, 0)


@dataclass(slots=True, eq=False)
class Run:
    """One call on this slice: ``enter`` sets its context, ``call`` does the work and returns the raw result."""

    id: int
    call: Callable[[], Any]
    enter: Callable[[Run], None]
    timeout: float | None
    holder: Holder = _NOBODY
    flag: StopFlag = field(default_factory=StopFlag)
    started: float | None = None
    taken: bool = False
    done: bool = False
    timed_out: bool = False
    giving_way: bool = False
    task: asyncio.Task[Any] | None = None
    #: what it stores and finds, and whom it tells; None until it asks.
    checkpoints: Checkpoints | None = None


def holder_of(token: Token) -> Holder:
    """Whose calls come under a token."""
    return token.session, token.epoch, token.grant


class Outbox:
    """Finished calls of one holder that its client does not know of yet. Closed when the slice has another holder."""

    def __init__(self) -> None:
        self.done: list[tuple[Run, Outcome]] = []
        self.unfinished = 0
        self.ran = 0
        self.seconds = 0.0
        #: of the calls finished lately.
        self.mean_seconds = 0.0
        self.some = threading.Event()
        self.all = threading.Event()
        #: seconds that a finished call may wait for others.
        self.patience = 0.0
        self.closed = False
