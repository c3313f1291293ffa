"""The clients of a scheduler: the calls they keep open, what their code needs, and how their deaths are noticed."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Any

from flexray.model.events import Event
from flexray.model.lease import LeaseId, SessionId
from flexray.runtime.conversations import Conversations
from flexray.runtime.protocol import Environment, JoinAgain, Ticket

_POLL_SECONDS = 20.0
_SILENCE_LOOKS = 4
"""A client is heard of so often, at least, within the time after which it is taken for dead."""
_AT_ONCE = 200
"""Events of one message that are taken in before somebody else is heard."""

_log = logging.getLogger("flexray")


class Clients:
    """Those who have a session.

    Args:
        apply: feeds the core.
        on_change: told of each session that has opened (True) or closed (False).
        runs_under: whether a session is in the process of the slice of a lease.
        timeout: seconds of silence after which a client is taken for dead.
    """

    def __init__(
        self,
        epoch: int,
        apply: Callable[[Event], None],
        on_change: Callable[[SessionId, bool], None],
        runs_under: Callable[[Ticket, LeaseId], bool],
        timeout: float,
    ) -> None:
        self._on_change, self._timeout = on_change, timeout
        self._conversations = Conversations(epoch, apply, self._changed, self._has_news, time.monotonic, runs_under)
        self._news: dict[SessionId, asyncio.Event] = {}
        self._lives: dict[SessionId, asyncio.Task[None]] = {}
        #: by id: what the code of those who are there needs.
        self.environments: dict[str, Environment] = {}

    def join(self, ticket: Ticket, environment: Environment, first: int, events: list[Event]) -> int | JoinAgain:
        """Begin a conversation (see ``Conversations.join``)."""
        answer = self._conversations.join(ticket, environment, first, events)
        if isinstance(answer, int):
            self.environments[environment.id] = environment
        return answer

    async def tell(self, ticket: Ticket, first: int, events: list[Event]) -> int | JoinAgain:
        """Events of a client (see ``Conversations.tell``)."""
        known = self._conversations.open.get(ticket.session)
        if known is None:
            return self._conversations.tell(ticket, first, events)
        async with known.turn:  # a long message lets others in between, but not the session's next one
            for start in range(0, len(events) - _AT_ONCE, _AT_ONCE):
                self._conversations.tell(ticket, first + start, events[start : start + _AT_ONCE])
                await asyncio.sleep(0)
            start = max(0, (len(events) - 1) // _AT_ONCE * _AT_ONCE)
            return self._conversations.tell(ticket, first + start, events[start:])

    async def poll(self, ticket: Ticket, seen: int) -> tuple[int, list[Any]] | JoinAgain:
        """Messages for a client after number ``seen``; waits for some."""
        answer = self._conversations.poll(ticket, seen)
        if isinstance(answer, JoinAgain) or answer[1]:
            return answer
        news = self._news[ticket.session]
        news.clear()
        try:
            await asyncio.wait_for(news.wait(), min(_POLL_SECONDS, self._timeout / _SILENCE_LOOKS))
        except asyncio.TimeoutError:
            pass
        return self._conversations.poll(ticket, seen)

    async def hold(self, ticket: Ticket) -> None:
        """Never returns while the session lives. The client owns the returned reference and hands it to ``watch``."""
        news = self._news.get(ticket.session) if self._conversations.owns(ticket) else None
        while news is not None and self._news.get(ticket.session) is news:
            await asyncio.sleep(3600)

    def watch(self, ticket: Ticket, life: Any) -> None:
        """Notice the client's death: a reference it owns and that is never ready fails when its owner dies."""
        session = ticket.session
        if self._conversations.owns(ticket) and session not in self._lives:
            self._lives[session] = asyncio.create_task(self._mourn(session, life))

    async def _mourn(self, session: SessionId, life: Any) -> None:
        try:
            await life  # unbounded: the life of the client
        except Exception:  # OwnerDied, or whatever else Ray says of a reference whose owner is gone
            self._conversations.leave(session)

    def put(self, session: SessionId, message: Any) -> None:
        """A message for a client, if it is there."""
        self._conversations.put(session, message)

    def leave(self, ticket: Ticket) -> None:
        """Close a session: its requests end, its slices are stopped."""
        if self._conversations.owns(ticket):
            self._conversations.leave(ticket.session)

    def leave_silent(self) -> None:
        """Close the sessions of clients that have fallen silent. Call it often."""
        for session in self._conversations.leave_silent(self._timeout):
            _log.warning("flexray: client %s has not been heard of and is taken for dead", session)

    def leave_all(self) -> None:
        """Close every session."""
        for session in list(self._conversations.open):
            self._conversations.leave(session)

    def _changed(self, session: SessionId, opened: bool) -> None:
        self._on_change(session, opened)
        if opened:
            self._news[session] = asyncio.Event()
            return
        used = {one.environment.id for one in self._conversations.open.values()}
        self.environments = {name: one for name, one in self.environments.items() if name in used}
        self._news.pop(session).set()
        life = self._lives.pop(session, None)
        if life is not None and life is not asyncio.current_task():
            life.cancel()

    def _has_news(self, session: SessionId) -> None:
        if session in self._news:
            self._news[session].set()
