"""A pool that was made up, and commands that look at it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from click.testing import CliRunner, Result

from flexray.cli import frame, main
from flexray.model.snapshot import DeviceView, NodeView, QueueView, RequestView, SliceView, Snapshot

GIB = 1024
NODE = "394abc0123456789"


def device(number: int, held: float = 0.0, **fields: Any) -> DeviceView:
    own: dict[str, Any] = {"state": "ready", "type": "nvidia/A100-80GB", "slices": (), **fields}
    memory = round(80 * GIB * held)
    return DeviceView(
        f"{NODE}/gpu{number}", NODE, own.pop("type"), "gpu", "fake", own.pop("state"), "none", held, 1 - held,
        80 * GIB, memory, 80 * GIB - memory, **own,
    )  # fmt: skip


def piece(name: str, number: int, share: float, state: str = "held", **fields: Any) -> SliceView:
    request, session = ("r-" + name, "S1") if state == "held" else ("", "")
    own: dict[str, Any] = {"busy": 0.1, "memory_used": 3 * GIB, "idle_seconds": 0.0, "burst": share, **fields}
    memory, task = round(80 * GIB * share), own.pop("task", "embed")
    return SliceView(
        name, NODE, (f"{NODE}/gpu{number}",), share, memory, state, "none", f"{task}/1/2", request, session, 940.0,
        **own,
    )  # fmt: skip


SNAPSHOT = Snapshot(
    1000.0,
    1,
    (NodeView(NODE, "host-a", 16, 8, ()),),
    (
        device(0, 0.75, slices=("s1.1", "s1.2")),
        device(1, 1.0, slices=("s1.3",)),
        device(2, state="sick", reason="Xid 79", type="nvidia/T4"),
    ),
    (
        piece("s1.1", 0, 0.5, busy=0.25),
        piece("s1.2", 0, 0.25, "idle", busy=0.0),
        piece("s1.3", 1, 1.0, task="train", busy=0.9, idle_seconds=240.0, user="eve", job="j1"),
    ),
    (QueueView("default", 1, 2, 1.5), QueueView("prod", 1, 0, 0.0, quota="2")),
    (
        RequestView("r9", "S1", "embed/1/2", "default", 0, "queued", "no_room", 1, "gpu=1", 970.0, 0),
        RequestView("r10", "S2", "train/1/2", "prod", 5, "queued", "devices_sick", 2, "gpu=2", 400.0, 1),
    ),
    (RequestView("r-s1.1", "S1", "embed/1/2", "default", 0, "leased", "", 0, "gpu=0.5", 900.0, 1),),
    notes=("a note",),
)


class Scheduler:
    """Answers as the pool's would; what it does not know is an attribute that a test sets."""

    def __init__(self) -> None:
        self.answers: dict[str, Callable[..., Any]] = {"snapshot": lambda: SNAPSHOT}


@pytest.fixture
def scheduler(monkeypatch: pytest.MonkeyPatch) -> Scheduler:
    made = Scheduler()
    monkeypatch.setattr(frame, "scheduler_at", lambda address: made)
    ask: Callable[..., Any] = lambda scheduler, method, *args, **kwargs: scheduler.answers[method](*args)  # noqa: E731
    monkeypatch.setattr("flexray.runtime.reading.ask_scheduler", ask)
    return made


@pytest.fixture
def flexray(scheduler: Scheduler) -> Callable[..., Result]:
    """Runs a command, whose exit code has to be ``code``."""

    def run(*arguments: str, code: int = 0) -> Result:
        done = CliRunner().invoke(main, list(arguments))
        assert done.exit_code == code, done.output
        return done

    return run
