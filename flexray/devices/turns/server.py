"""The process that hands out the turns of a node's devices, over one Unix socket per slice.

A slice's processes connect to its socket and send lines, ``A`` (it wants a turn) and ``R <idle>`` (it gives it
back, and had nothing to do for the last so many microseconds). They get ``G <time>``: it is their turn for so many
microseconds. A turn is the slice's, not a process's: several of its processes may have it at once. A closed connection
gives back what it held. Anything else said ends the connection.

It is a process of its own, not a thread of the node agent: there every grant would wait for the interpreter's lock
behind whatever the agent does (benchmarks/turns.py measures both). The agent gives orders on standard
input and gets an answer to each on standard output, in order::

    {"op": "open", "slice": "s1", "path": "/...", "device": "n/gpu0", "share": 250, "burst": 1000}  -> {"ok": null}
    {"op": "close", "slice": "s1"}                                                                  -> {"ok": null}
    {"op": "report"}                                    -> {"ok": {"s1": {"over": ..., "used": ..., ...}}}

When standard input ends, so does it: the agent is gone, and so are its slices.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import socket
import struct
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from flexray.devices.turns.book import TurnBook
from flexray.errors import UsageError
from flexray.model.amounts import Share

MOST_CONNECTIONS = 256
"""Of one slice. Each is a file descriptor here, and they are everybody's."""
_LONGEST_LINE = 64
"""Bytes a client may send without ending its line."""
_MICROSECOND = 1_000
_READ = 4096


@dataclass(slots=True)
class Line:
    """One slice's socket, and the connections to it.

    Attributes:
        slice: its id.
        device: the device it takes turns at.
        path: of its socket.
        listener: the socket.
        connections: socket -> what it sent of a line that is not yet complete.
        waiting: connections that want a turn; a dict for its order.
        holding: those that have it.
    """

    slice: str
    device: str
    path: Path
    listener: socket.socket
    connections: dict[socket.socket, bytes] = field(default_factory=dict)
    waiting: dict[socket.socket, None] = field(default_factory=dict)
    holding: set[socket.socket] = field(default_factory=set)


class TurnServer:
    """Books of all devices and the connections of all slices. One thread."""

    def __init__(self, clock: Callable[[], int] = time.monotonic_ns) -> None:
        self._clock = clock
        self._selector = selectors.DefaultSelector()
        self._books: dict[str, TurnBook] = {}
        self._lines: dict[str, Line] = {}

    def serve(self, orders: int, answers: int) -> None:
        """Hand out turns until the descriptor ``orders`` ends; answers go to ``answers``. Leaves no socket behind."""
        reader = _Orders(orders, answers, self.obey)
        self._selector.register(orders, selectors.EVENT_READ, reader.read)
        try:
            while reader.open:
                for key, _ in self._selector.select(self._patience()):
                    key.data()
                self._advance()
        finally:
            for name in list(self._lines):
                self._close(name)

    def obey(self, order: Mapping[str, Any]) -> Any:
        """One order of the agent's."""
        op = order.get("op")
        if op == "open":
            return self._open(order)
        if op == "close":
            return self._close(order["slice"])
        if op == "report":
            return self._report()
        raise UsageError(f"unknown order {op!r}: expected open, close or report")

    def _open(self, order: Mapping[str, Any]) -> None:
        """A slice comes, or gets other amounts."""
        name, device, path = str(order["slice"]), str(order["device"]), Path(order["path"])
        line = self._lines.get(name)
        if line is not None and (line.device, line.path) != (device, path):
            self._close(name)
            line = None
        if line is None:
            line = Line(name, device, path, _listen(path))
            self._lines[name] = line
            self._selector.register(line.listener, selectors.EVENT_READ, lambda: self._accept(line))
        book = self._books.setdefault(device, TurnBook())
        book.join(name, Share(int(order["share"])), Share(int(order["burst"])), self._clock())

    def _close(self, name: str) -> None:
        line = self._lines.pop(name, None)
        if line is None:
            return
        self._books[line.device].leave(name)
        if all(other.device != line.device for other in self._lines.values()):
            del self._books[line.device]
        for each in (line.listener, *line.connections):
            self._selector.unregister(each)
            each.close()
        line.path.unlink(missing_ok=True)

    def _report(self) -> dict[str, dict[str, float]]:
        """Slice -> seconds since it came, used, lent; number of turns."""
        now, found = self._clock(), {}
        for book in self._books.values():
            for name, account in book.accounts(now).items():
                found[name] = {
                    "over": (now - account.joined) / 1e9,
                    "used": account.used / 1e9,
                    "lent": account.lent / 1e9,
                    "turns": account.turns,
                }
        return found

    def _accept(self, line: Line) -> None:
        try:
            connection, _ = line.listener.accept()
        except OSError:  # it has gone again, or there are no descriptors: it tries again
            return
        connection.setblocking(False)
        if len(line.connections) >= MOST_CONNECTIONS or not _is_ours(connection):
            connection.close()
            return
        line.connections[connection] = b""
        self._selector.register(connection, selectors.EVENT_READ, lambda: self._hear(line, connection))

    def _hear(self, line: Line, connection: socket.socket) -> None:
        if connection not in line.connections:  # closed while others of the same moment were heard
            return
        try:
            said = connection.recv(_READ)
        except BlockingIOError:
            return
        except OSError:
            said = b""
        *whole, rest = (line.connections[connection] + said).split(b"\n")
        line.connections[connection] = rest
        understood = bool(said) and len(rest) <= _LONGEST_LINE
        for message in whole:
            if connection not in line.connections:  # the answer to the message before could not be sent
                return
            understood = understood and self._take(line, connection, message)
        if not understood and connection in line.connections:
            self._drop(line, connection)

    def _take(self, line: Line, connection: socket.socket, message: bytes) -> bool:
        """One message; False when it is none."""
        kind, _, number = message.partition(b" ")
        if message == b"A":
            self._ask(line, connection)
        elif kind == b"R" and number.isdigit():
            self._give_back(line, connection, int(number) * _MICROSECOND)
        else:
            return False
        return True

    def _ask(self, line: Line, connection: socket.socket) -> None:
        book, now = self._books[line.device], self._clock()
        if book.holder == line.slice and now < book.end and line.holding:
            line.holding.add(connection)
            self._tell(line, connection, book.end - now)
            return
        line.waiting[connection] = None
        book.ask(line.slice, now)

    def _give_back(self, line: Line, connection: socket.socket, idle: int) -> None:
        if connection in line.holding:
            line.holding.discard(connection)
            if not line.holding:
                self._books[line.device].give_back(line.slice, self._clock(), idle)

    def _drop(self, line: Line, connection: socket.socket) -> None:
        self._give_back(line, connection, 0)
        line.waiting.pop(connection, None)
        if not line.waiting:
            self._books[line.device].withdraw(line.slice)
        del line.connections[connection]
        self._selector.unregister(connection)
        connection.close()

    def _advance(self) -> None:
        """Give every free device to whoever is next."""
        now = self._clock()
        for book in self._books.values():
            while name := book.next(now):
                line = self._lines[name]
                granted = list(line.waiting)
                line.waiting.clear()
                line.holding.update(granted)
                for connection in granted:
                    self._tell(line, connection, book.end - now)

    def _tell(self, line: Line, connection: socket.socket, length: int) -> None:
        try:
            connection.send(b"G %d\n" % (length // _MICROSECOND))
        except OSError:  # it is gone, or never reads
            self._drop(line, connection)

    def _patience(self) -> float | None:
        """Seconds until something is due although nobody says anything; None: never."""
        now = self._clock()
        due = [at for at in (book.wake(now) for book in self._books.values()) if at is not None]
        return max(0.0, (min(due) - now) / 1e9) if due else None


class _Orders:
    """Lines of the agent's, and an answer to each."""

    def __init__(self, orders: int, answers: int, obey: Callable[[Mapping[str, Any]], Any]) -> None:
        self._orders, self._answers, self._obey = orders, answers, obey
        self._partial = b""
        self.open = True

    def read(self) -> None:
        said = os.read(self._orders, _READ)
        *whole, self._partial = (self._partial + said).split(b"\n")
        for line in whole:
            _write(self._answers, json.dumps(self._answer(line)).encode() + b"\n")
        self.open = bool(said)

    def _answer(self, line: bytes) -> dict[str, Any]:
        try:
            return {"ok": self._obey(json.loads(line))}
        except Exception as error:  # an order that cannot be obeyed must not take everybody's turns away
            return {"error": f"{type(error).__name__}: {error}"}


def _write(descriptor: int, data: bytes) -> None:
    while data:
        data = data[os.write(descriptor, data) :]


def _listen(path: Path) -> socket.socket:
    """A socket at the path, in place of one that a server left there which is gone."""
    listener = socket.socket(socket.AF_UNIX)
    try:
        path.unlink(missing_ok=True)
        listener.bind(os.fspath(path))
        path.chmod(0o600)
        listener.listen(MOST_CONNECTIONS)
        listener.setblocking(False)
    except OSError:
        listener.close()
        raise
    return listener


def _is_ours(connection: socket.socket) -> bool:
    """Whether the same user is at the other end. The folder is private already; this holds also where it is not."""
    option = getattr(socket, "SO_PEERCRED", None)
    if option is None:  # not Linux
        return True
    _, user, _ = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, option, struct.calcsize("3i")))
    return bool(user == os.getuid())


def main() -> None:
    """Serve the process that started this one."""
    with contextlib.suppress(KeyboardInterrupt, BrokenPipeError):
        TurnServer().serve(0, 1)


if __name__ == "__main__":
    main()
