"""What the environment of a member says while it runs, and what is left of it afterwards."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from flexray.runtime.membership import run_as
from flexray.runtime.protocol import Member

MEMBER = Member(2, 4, "fd00::1:4000", 1, 2)
SAID = {
    "MASTER_ADDR": "fd00::1",
    "MASTER_PORT": "4000",
    "RANK": "2",
    "WORLD_SIZE": "4",
    "LOCAL_RANK": "1",
    "LOCAL_WORLD_SIZE": "2",
}


def seen() -> dict[str, str | None]:
    return {name: os.environ.get(name) for name in SAID}


@pytest.fixture(autouse=True)
def before(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, str | None]]:
    monkeypatch.setenv("RANK", "mine")
    monkeypatch.delenv("MASTER_ADDR", raising=False)
    found = seen()
    yield found
    assert seen() == found, "every test leaves it as it was"


class Torch:
    """A torch.distributed whose group the task has left open, or not."""

    def __init__(self, group: bool) -> None:
        self.group, self.destroyed = group, 0

    def module(self) -> Any:
        def destroy() -> None:
            self.group, self.destroyed = False, self.destroyed + 1
            raise RuntimeError("a peer is gone")

        yes, there = (lambda: True), (lambda: self.group)
        return SimpleNamespace(is_available=yes, is_initialized=there, destroy_process_group=destroy)


def raises() -> None:
    raise ValueError("mine")


async def later(wait: Callable[[], Any]) -> Any:
    await wait()
    return seen()


def test_a_call_finds_what_torch_looks_for() -> None:
    assert run_as(MEMBER, seen) == SAID


def test_also_after_it_has_waited() -> None:
    assert asyncio.run(run_as(MEMBER, lambda: later(lambda: asyncio.sleep(0)))) == SAID


def test_also_an_exception_leaves_the_environment_as_it_was() -> None:
    with pytest.raises(ValueError, match="mine"):
        run_as(MEMBER, raises)


@pytest.mark.parametrize("group", [True, False])
def test_a_group_that_is_left_open_is_destroyed(monkeypatch: pytest.MonkeyPatch, group: bool) -> None:
    torch = Torch(group)
    monkeypatch.setitem(sys.modules, "torch.distributed", torch.module())
    with pytest.raises(ValueError, match="mine"):
        run_as(MEMBER, raises)
    assert torch.destroyed == group
