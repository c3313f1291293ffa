"""The slice's side of turns, against a server that says what the test wants, on a clock that the test moves."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from flexray.runtime import turn_gate
from flexray.runtime.turn_gate import Gate

LONG = b"G 1000000000\n"
SHORT = b"G 10000\n"
TURN_AND_MORE = 0.011


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Server:
    """Hears and answers one gate."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(os.fspath(path))
        self.listener.listen()
        self.listener.settimeout(60)
        self.link: socket.socket | None = None

    def hears(self) -> bytes:
        if self.link is None:
            self.link, _ = self.listener.accept()
            self.link.settimeout(60)
        return self.link.recv(99)

    def says(self, text: bytes) -> None:
        assert self.link is not None
        self.link.sendall(text)

    def hangs_up(self) -> None:
        assert self.link is not None
        self.link.close()
        self.link = None

    def close(self) -> None:
        self.listener.close()
        if self.link is not None:
            self.link.close()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    made = Server(tmp_path / "s")
    yield made
    made.close()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    moved = Clock()
    monkeypatch.setattr(turn_gate, "monotonic", moved)
    return moved


@pytest.fixture
def gate(server: Server, clock: Clock) -> Iterator[Gate]:
    made = Gate(os.fspath(server.path))
    yield made
    made.forget()


def started(action: Callable[[], object]) -> threading.Thread:
    thread = threading.Thread(target=action, daemon=True)
    thread.start()
    return thread


def take(gate: Gate, server: Server, answer: bytes) -> None:
    """Begin a step in this thread; the answer is there before it waits."""
    answering = started(lambda: (server.hears(), server.says(answer)))
    gate.begin()
    answering.join()


def test_a_valid_turn_needs_no_word(gate: Gate, server: Server) -> None:
    take(gate, server, LONG)
    for _ in range(10):
        gate.end()
        gate.begin()
    assert gate._until > 0 and gate._held


def test_an_idle_turn_is_given_back_with_what_was_idle(gate: Gate, server: Server, clock: Clock) -> None:
    take(gate, server, LONG)
    gate.end()
    clock.now += 0.25
    assert server.hears() == b"R 250000\n"


def test_a_step_is_not_idle_however_long(gate: Gate, server: Server, clock: Clock) -> None:
    take(gate, server, LONG)
    clock.now += 100
    with gate._changed:
        gate._give_back_idle()
    assert gate._held
    gate.end()
    clock.now += 1
    assert server.hears() == b"R 1000000\n"


def test_what_the_device_still_does_is_not_idle(server: Server, clock: Clock) -> None:
    def slow() -> None:
        clock.now += 0.5

    gate = Gate(os.fspath(server.path), slow)
    take(gate, server, LONG)
    gate.end()
    clock.now += 0.25
    assert server.hears() == b"R 0\n"
    gate.forget()


def test_a_turn_over_is_given_back_and_asked_for_in_one(
    server: Server, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(turn_gate, "IDLE_S", 60.0)
    done: list[str] = []
    gate = Gate(os.fspath(server.path), lambda: done.append("synchronised"))
    take(gate, server, SHORT)
    gate.end()
    clock.now += TURN_AND_MORE
    heard: list[bytes] = []
    answering = started(lambda: (heard.append(server.hears()), server.says(LONG)))
    gate.begin()
    answering.join()
    assert (heard, done) == ([b"R 0\nA\n"], ["synchronised"])
    gate.forget()


def test_steps_nest(gate: Gate, server: Server, clock: Clock) -> None:
    take(gate, server, SHORT)
    clock.now += TURN_AND_MORE
    gate.begin()  # the turn is over; this is part of the step that has begun in it
    gate.end()
    assert gate._busy
    gate.end()
    assert not gate._busy
    gate.end()  # one too many does nothing


def test_a_training_step_stays_open_after_its_forward_pass(gate: Gate, server: Server, clock: Clock) -> None:
    take(gate, server, LONG)
    begun = clock.now
    clock.now += 1
    gate.stay_open(begun)
    gate.end()
    clock.now += 3.9
    with gate._changed:
        gate._give_back_idle()
    assert gate._held
    gate.rest()
    clock.now += 0.02
    assert server.hears() == b"R 20000\n"


def test_one_that_never_comes_to_rest_is_over_some_day(gate: Gate, server: Server, clock: Clock) -> None:
    take(gate, server, LONG)
    gate.stay_open(clock.now - 1)
    gate.end()
    clock.now += 4.5
    assert server.hears() == b"R 500000\n"


def test_threads_join_a_step(gate: Gate, server: Server) -> None:
    take(gate, server, LONG)
    other = started(lambda: (gate.begin(), gate.end()))
    other.join()
    assert list(gate._busy) == [threading.get_ident()]


def test_after_the_turn_threads_wait_for_the_steps_that_run(gate: Gate, server: Server, clock: Clock) -> None:
    take(gate, server, SHORT)
    clock.now += TURN_AND_MORE
    other = started(lambda: (gate.begin(), gate.end()))
    while not gate._waiting:
        pass
    assert other.is_alive()
    gate.end()
    assert server.hears() == b"R 0\nA\n"
    server.says(LONG)
    other.join()


def test_a_step_that_waits_for_another_thread_gets_no_deadlock(gate: Gate, server: Server, clock: Clock) -> None:
    take(gate, server, SHORT)
    clock.now += 100  # past the time in which threads wait for each other's steps
    part = started(lambda: (gate.begin(), gate.end()))
    part.join()
    gate.end()


def test_several_threads_ask_once(gate: Gate, server: Server) -> None:
    several = [started(gate.begin) for _ in range(5)]
    assert server.hears() == b"A\n"
    while gate._waiting < 5:
        pass
    server.says(LONG)
    for thread in several:
        thread.join()
    assert len(gate._busy) == 5


def test_without_a_server_work_goes_on(tmp_path: Path, clock: Clock) -> None:
    gate = Gate(os.fspath(tmp_path / "nobody"))
    gate.begin()
    gate.end()
    assert not gate._held


def test_a_server_that_ends_stops_nobody_and_is_found_again(gate: Gate, server: Server, clock: Clock) -> None:
    waiting = started(lambda: (gate.begin(), gate.end()))
    assert server.hears() == b"A\n"
    server.hangs_up()
    waiting.join()
    clock.now += 2
    take(gate, server, LONG)
    assert gate._held


def test_a_server_that_never_answers_stops_nobody(gate: Gate, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turn_gate, "PATIENCE_S", -1.0)
    gate.begin()
    assert not gate._held and server.hears() == b"A\n"


def test_an_error_while_it_waits_leaves_no_step_behind(gate: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(gate, "_ask", interrupt)
    with pytest.raises(KeyboardInterrupt):
        gate.begin()
    assert not gate._busy and not gate._waiting


def test_an_error_of_the_device_shows_and_ends_the_step(server: Server, clock: Clock) -> None:
    def broken() -> None:
        raise RuntimeError("CUDA error")

    gate = Gate(os.fspath(server.path), broken)
    take(gate, server, LONG)
    with pytest.raises(RuntimeError, match="CUDA error"):
        gate.__exit__(None, None, None)
    assert not gate._busy
    gate.forget()


def test_a_forked_child_asks_for_itself(gate: Gate, server: Server) -> None:
    take(gate, server, LONG)
    child = os.fork()
    if not child:
        gate.forget()
        gate.begin()
        os._exit(0)
    connection, _ = server.listener.accept()
    assert connection.recv(99) == b"A\n"
    connection.sendall(LONG)
    assert os.waitpid(child, 0)[1] == 0
    connection.close()
    assert gate._held


def test_a_process_that_ends_gives_its_turn_back_at_once(gate: Gate, server: Server) -> None:
    take(gate, server, LONG)
    gate.leave()
    assert server.hears() == b""
    gate.leave()
