"""A session whose Ray is gone says nothing more: the next message would start another cluster."""

from __future__ import annotations

from typing import Any

import pytest

from flexray.errors import NotConnected
from flexray.model.events import SessionClosed
from flexray.runtime import session as module
from flexray.runtime.protocol import Environment
from flexray.runtime.session import Session


class Silent:
    """A scheduler to which nothing may be said."""

    def __getattr__(self, name: str) -> Any:
        raise AssertionError(f"{name} was called without Ray")


def test_without_ray_nothing_is_sent_and_everything_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "find_scheduler", Silent)
    posted: list[tuple[Any, ...]] = []
    dead: list[BaseException] = []
    one = Session(
        Environment("E", "job"),
        lambda *call: posted.append(call),
        lambda seconds, call: None,
        lambda message: None,
        lambda: None,
        dead.append,
    )
    one.tell(SessionClosed(one.id))
    one.flush()
    one.flush()
    ((told, error),) = posted
    told(error)
    assert one.closed and isinstance(dead[0], NotConnected) and "Ray was shut down" in str(dead[0])
