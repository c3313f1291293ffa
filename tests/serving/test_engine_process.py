"""An engine's process is brought up, watched, and brought up again, with all that it has started."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from flexray.errors import StartFailed
from flexray.serving import engine_process
from flexray.serving.engine_process import EngineProcess, health

ENGINE = Path(__file__).resolve().parents[1] / "doubles" / "openai_engine.py"
Make = Callable[..., EngineProcess]


@pytest.fixture
def make(monkeypatch: pytest.MonkeyPatch) -> Iterator[Make]:
    """Makes engines, which end with the test. The path of a socket has to be short."""
    monkeypatch.setattr(engine_process, "_HEALTH_SECONDS", 0.2)
    monkeypatch.setattr(engine_process, "_FIRST_PAUSE", 0.1)
    folder, made = Path(tempfile.mkdtemp(prefix="fx")), list[EngineProcess]()

    def one(*flags: str, turn: Any = contextlib.nullcontext, seconds: float = 60.0) -> EngineProcess:
        path = folder / f"{len(made)}.sock"
        command = lambda: [sys.executable, str(ENGINE), "--served-model-name", "m", "--uds", str(path), *flags]  # noqa: E731
        made.append(EngineProcess("m", command, os.environ, path, turn, seconds))
        return made[-1]

    yield one
    for engine in made:
        engine.stop()
    shutil.rmtree(folder)


def until(holds: Callable[[], object], seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "it did not become true"
        time.sleep(0.02)


def group(leader: int) -> list[int]:
    """Processes of a group that are no zombies."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            state, _, its_group, *_ = stat.read_text().rpartition(")")[2].split()
            if int(its_group) == leader and state != "Z":
                found.append(int(stat.parent.name))
    return found


def test_it_serves_once_it_has_started_and_is_gone_once_it_is_stopped(make: Make) -> None:
    engine = make("--child")
    engine.start()
    assert engine.up and engine.starts == 1 and health(engine.socket) == 200
    assert len(group(engine.pid)) == 2
    engine.stop()
    assert not engine.up
    until(lambda: not group(engine.pid))
    assert health(engine.socket) is None


def test_killed_it_comes_back_and_nothing_of_the_first_is_left(make: Make) -> None:
    engine = make("--child")
    engine.start()
    first = engine.pid
    os.kill(first, signal.SIGKILL)
    until(lambda: engine.starts == 2 and engine.up)
    assert engine.pid != first and health(engine.socket) == 200
    assert not group(first)


def test_one_that_says_it_is_ill_is_started_again(make: Make) -> None:
    engine = make()
    engine.start()
    ask(engine, b'{"prompt": "sick"}')
    until(lambda: engine.starts == 2 and engine.up)
    assert health(engine.socket) == 200


def test_one_that_fails_to_start_says_what_its_log_says(make: Make) -> None:
    engine = make("--fails")
    with pytest.raises(StartFailed, match=r"(?s)ended with 1: .*there is no such model.*\.log"):
        engine.start()
    assert not engine.up


def test_one_that_is_too_slow_is_ended(make: Make) -> None:
    engine = make("--start-seconds", "600", "--child", seconds=0.5)
    with pytest.raises(StartFailed, match="does not serve after"):
        engine.start()
    until(lambda: not group(engine.pid))


def test_it_tries_again_until_it_starts(make: Make) -> None:
    engine = make()
    engine.start()
    socket, parent = engine.socket, engine.socket.parent
    away = parent.with_name(parent.name + "-away")
    parent.rename(away)  # no place for its log: the next start fails
    os.kill(engine.pid, signal.SIGKILL)
    until(lambda: "No such file" in engine.why)
    assert not engine.up
    away.rename(parent)
    until(lambda: engine.up)
    assert health(socket) == 200


def test_each_start_has_the_turn_and_gives_it_back_when_it_serves(make: Make) -> None:
    happened: list[str] = []

    @contextlib.contextmanager
    def turn() -> Iterator[None]:
        happened.append("begins")
        yield
        happened.append("serves" if engine.up else "failed")

    engine = make(turn=turn)
    engine.start()
    os.kill(engine.pid, signal.SIGKILL)
    until(lambda: len(happened) == 4)
    assert happened == ["begins", "serves"] * 2


def ask(engine: EngineProcess, body: bytes) -> None:
    import socket

    with socket.socket(socket.AF_UNIX) as line:
        line.settimeout(30)
        line.connect(str(engine.socket))
        line.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
        assert line.recv(100).startswith(b"HTTP/1.1 200")
