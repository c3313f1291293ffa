"""The bound on what waits in a client, and what is said of it."""

from __future__ import annotations

import threading
import time
from types import SimpleNamespace
from typing import Any

import pytest

from flexray.config import PoolConfig
from flexray.errors import BacklogFull
from flexray.model.explanation import Explanation
from flexray.model.lease import RequestId, SessionId
from flexray.model.request import Request
from flexray.runtime.call import Call, Kind, Phase, describe_call
from flexray.runtime.engine import Engine
from flexray.runtime.packing import PackedFunction
from flexray.runtime.targets import Target


def engine(**settings: Any) -> tuple[Engine, Target]:
    """An engine whose scheduler never grants anything."""
    made = Engine(PoolConfig(**settings), lambda *args: None, lambda seconds, function: None)
    environment = SimpleNamespace(id="environment")
    said = {"tell": lambda event: None, "flush": lambda: None}
    made.leases.session = SimpleNamespace(id=SessionId("me"), environment=environment, **said)  # type: ignore[assignment]
    return made, Target("key", "f", Request(), PackedFunction("k", b"", ()), print, 3, None)


def submit(made: Engine, target: Target, number: int) -> Call:
    call = Call(None, target, number)  # type: ignore[arg-type]
    made.submit(call)
    return call


def test_a_full_backlog_raises_and_says_what_to_do() -> None:
    made, target = engine(max_backlog=3)
    for number in range(3):
        submit(made, target, number)
    with pytest.raises(BacklogFull, match=r"3 tasks wait .*max_backlog.*f\.map\(\).*block"):
        submit(made, target, 3)
    assert made.calls.waiting == len(target.backlog) == 3


def test_a_full_backlog_blocks_until_there_is_room_if_so_configured() -> None:
    made, target = engine(max_backlog=3, backlog_full="block")
    first, *_ = [submit(made, target, number) for number in range(3)]
    through = threading.Event()
    blocked = threading.Thread(target=lambda: (submit(made, target, 3), through.set()))
    blocked.start()
    time.sleep(0.15)
    assert not through.is_set()
    with made.calls.step():
        made.calls.settle(first, Kind.VALUE, None)
    assert through.wait(10)
    blocked.join(10)


@pytest.mark.parametrize(
    ("phase", "ahead", "said"),
    [
        (Phase.SENT, 1, "1 call of the same task goes first"),
        (Phase.BACKLOG, 2, "room; 2 calls of the same task go first"),
        (Phase.SENT, 0, ""),
    ],
)
def test_an_explanation_says_how_many_calls_go_first(phase: Phase, ahead: int, said: str) -> None:
    found = Explanation("r", "leased" if phase is Phase.SENT else "queued", needs="" if phase is Phase.SENT else "room")
    assert describe_call(phase, ahead, found, RequestId("r")).needs == said
