"""The slice's side of turns: where a process waits for its turn, and gives it back.

While a turn is valid, ``begin`` and ``end`` of a step look at the clock and nothing else. When it has run out, the next
``begin`` gives it back and asks again in one message, so that a slice between two steps still counts as
waiting. A thread gives back what is not used for a moment: there an idle slice's time begins to be lent.

A server that cannot be reached stops nobody: work goes on without turns until it can.
"""

from __future__ import annotations

import contextlib
import select
import socket
import threading
from collections.abc import Callable
from threading import get_ident
from time import monotonic

from flexray.devices.turns.book import HANG, SECOND, TURN

IDLE_S = 0.005
"""A turn in which no step runs for this long is given back. The gaps between the steps of one loop are shorter;
those of a loop that waits for its data or for requests are longer."""

RETRY_S = 1.0
"""How long work goes on without turns after the server could not be reached."""

PATIENCE_S = 30.0
"""A turn that has not come by then never will: the server is stuck. The longest true wait is the window of its
books (10 s) and a few slices that hang (2 s each)."""

_LEFT = 4
"""A training step's backward pass and update take up to this many times its forward pass: twice for the gradients, once
more for recomputed activations, and some."""

_TURN_S = TURN / SECOND
_HANG_S = HANG / SECOND
_ANSWER_S = 5.0
_QUICK_S = 0.001
"""Waiting for a device that has nothing to do is done within this."""


class Gate:
    """This process's turns. Thread-safe: its threads share them.

    A thread's steps nest; only the outermost counts. While one thread is in a step others join it, for their
    steps may be parts of it (DataParallel); after the turn's end they first wait for it to finish.
    """

    def __init__(self, path: str, synchronise: Callable[[], None] = lambda: None) -> None:
        """Connects to nothing yet.

        Args:
            path: the slice's socket.
            synchronise: returns when the device has done what it was given, so that a turn is not over before.
        """
        self._path = path
        self._synchronise = synchronise
        self._link: socket.socket | None = None
        self.forget()

    def forget(self) -> None:
        """In the child of a fork: it has no turn, no thread and no connection of its own yet."""
        if self._link is not None:
            self._link.close()
        #: Guards everything but the two looks without it in ``begin`` and ``end``.
        self._changed = threading.Condition()
        #: Thread -> how deep it is in steps; each thread writes its own entry only.
        self._busy: dict[int, int] = {}
        self._until = 0.0
        self._last = 0.0
        self._open_until = 0.0
        self._waiting = 0
        self._held = False
        self._asked = False
        self._link = None
        self._drain_s = _HANG_S

    def leave(self) -> None:
        """The process ends, which may take its time: others need not wait for it."""
        with self._changed:
            self._lose(self._link)

    # -- steps -----------------------------------------------------------------------------

    def begin(self) -> None:
        """A step begins: returns when it is this process's turn."""
        me, busy = get_ident(), self._busy
        if me in busy:
            busy[me] += 1
            return
        busy[me] = 1
        if monotonic() >= self._until:
            try:
                self._enter()
            except BaseException:  # interrupted
                busy.pop(me, None)
                raise

    def end(self) -> None:
        """It is over."""
        me, busy = get_ident(), self._busy
        depth = busy.get(me, 0)
        if depth > 1:
            busy[me] = depth - 1
        else:
            self._outermost_ends(me)

    def _outermost_ends(self, thread: int) -> None:
        self._last = monotonic()
        self._busy.pop(thread, None)
        if self._waiting:
            with self._changed:
                self._changed.notify_all()

    #: ``with gate:`` is a step, over when what it gave the device to do is. Not a call of ``begin``: calls cost.
    __enter__ = begin

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        me = get_ident()
        if self._busy.get(me) != 1:
            self.end()
            return
        try:
            self._synchronise()
        finally:
            self._outermost_ends(me)

    def stay_open(self, begun: float) -> None:
        """A training step's forward pass, begun then (``time.monotonic()``), is done: the rest follows soon."""
        now = monotonic()
        self._open_until = now + _LEFT * (now - begun)

    def rest(self) -> None:
        """That rest is done, or does not come: a step's end for sure."""
        self._last = monotonic()
        self._open_until = 0.0

    # -- turns -----------------------------------------------------------------------------

    def _enter(self) -> None:
        """Wait for a turn, or for what another thread has."""
        with self._changed:
            self._waiting += 1
            self._changed.notify_all()  # this thread counts as waiting from now on
            patience = monotonic() + PATIENCE_S
            try:
                while (now := monotonic()) >= self._until:
                    if self._asked:
                        self._wait_for_answer(patience - now)
                    elif len(self._busy) <= self._waiting:
                        self._ask()
                    elif self._held and now < self._until + self._drain_s:
                        self._changed.wait(self._until + self._drain_s - now)
                    else:  # a step of theirs may be waiting for this one, and will again
                        self._drain_s = _TURN_S
                        return
            finally:
                self._waiting -= 1

    def _wait_for_answer(self, patience: float) -> None:
        if patience <= 0:
            self._lose(self._link)
        else:
            self._changed.wait(patience)

    def _ask(self) -> None:
        """Give back what is held and ask for more. The lock is held."""
        if self._link is None and not self._connect():
            self._until = monotonic() + RETRY_S
            return
        if self._held:
            with contextlib.suppress(Exception):  # the device's error is the user's to see, at their own next call
                self._synchronise()
        self._send(b"R 0\nA\n" if self._held else b"A\n")
        self._asked, self._held = self._link is not None, False

    def _connect(self) -> bool:
        link = socket.socket(socket.AF_UNIX)
        try:
            link.settimeout(_ANSWER_S)
            link.connect(self._path)
        except OSError:
            link.close()
            return False
        self._link = link
        threading.Thread(target=self._watch, args=(link,), name="flexray-turns", daemon=True).start()
        return True

    def _send(self, message: bytes) -> None:
        try:
            if self._link is not None:
                self._link.sendall(message)
        except OSError:
            self._lose(self._link)

    def _lose(self, link: socket.socket | None) -> None:
        """The connection is gone: a while without turns. The lock is held."""
        if link is None or link is not self._link:
            return
        with contextlib.suppress(OSError):
            link.shutdown(socket.SHUT_RDWR)  # wakes the thread that watches it, which closes it
        self._link, self._held, self._asked = None, False, False
        self._until = monotonic() + RETRY_S
        self._changed.notify_all()

    # -- the thread beside it ----------------------------------------------------------------

    def _watch(self, link: socket.socket) -> None:
        """Take in turns; give back one that nobody uses."""
        poll, rest = select.poll(), b""
        poll.register(link, select.POLLIN)
        while True:
            if not poll.poll(IDLE_S * 1000 if self._held else None):
                with self._changed:
                    self._give_back_idle()
                continue
            try:
                said = link.recv(4096)
            except OSError:
                said = b""
            with self._changed:
                if link is not self._link or not said:
                    self._lose(link)
                    link.close()
                    return
                *whole, rest = (rest + said).split(b"\n")
                for line in whole:
                    self._take(line)

    def _take(self, line: bytes) -> None:
        """``G <microseconds>``."""
        now = monotonic()
        self._until, self._last = now + int(line[2:]) / 1e6, now
        self._held, self._asked = True, False
        self._changed.notify_all()

    def _give_back_idle(self) -> None:
        """The lock is held. What is looked at first matters: ``begin`` marks its thread busy, then looks at the end."""
        since = max(self._last, self._open_until)
        now = monotonic()
        if not self._held or self._busy or now < since + IDLE_S:
            return
        until, self._until = self._until, 0.0
        if self._busy:
            self._until = until
            return
        with contextlib.suppress(Exception):  # as in _ask
            self._synchronise()
        synchronised = monotonic()
        idle = synchronised - since if synchronised - now < _QUICK_S else 0.0
        self._held = False
        self._send(b"R %d\n" % round(idle * 1e6))
