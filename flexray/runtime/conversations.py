"""The scheduler's side of its conversations with clients: who is there, what is new, what is to be told. No Ray here.

A message belongs to a conversation (``Ticket``). One that the scheduler does not know is answered with JoinAgain,
whatever it says: the client joins then, beginning with all that it holds and waits for.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Any

from flexray.errors import UsageError
from flexray.model.events import Event, SessionClosed, SessionOpened
from flexray.model.lease import LeaseId, SessionId
from flexray.runtime.numbered import Inbox, Outbox
from flexray.runtime.protocol import Environment, JoinAgain, Ticket
from flexray.runtime.rights import may_say

#: The scheduler looks about once a second; a longer time between two looks is one in which it could not.
_STOOD_STILL_SECONDS = 2.5


class Conversation:
    """With one client. ``heard``: when anything came from it last."""

    def __init__(self, ticket: Ticket, environment: Environment, now: float) -> None:
        self.ticket, self.environment, self.heard = ticket, environment, now
        self.inbox = Inbox()
        #: held while a message is taken in.
        self.turn = asyncio.Lock()
        self.outbox: Outbox[Any] = Outbox()


class Conversations:
    """With all clients.

    Args:
        apply: feeds the core.
        on_change: told of each session that has opened (True) or closed (False).
        on_news: told of each session for which there is a message, or that is closed.
        clock: seconds.
        runs_under: whether a session is in the process of the slice of a lease.
    """

    def __init__(
        self,
        epoch: int,
        apply: Callable[[Event], None],
        on_change: Callable[[SessionId, bool], None],
        on_news: Callable[[SessionId], None],
        clock: Callable[[], float],
        runs_under: Callable[[Ticket, LeaseId], bool],
    ) -> None:
        self._epoch, self._apply, self._clock, self._runs_under = epoch, apply, clock, runs_under
        self._on_change, self._on_news = on_change, on_news
        self._looked = clock()
        self.open: dict[SessionId, Conversation] = {}

    def join(self, ticket: Ticket, environment: Environment, first: int, events: list[Event]) -> int | JoinAgain:
        """Begin a conversation, with what the client has: the number of the last message that was taken.

        Repeated, it does nothing twice. A client that joins anew has given up the conversation before, if there is one.
        Raises UsageError where the name is another client's.
        """
        known = self.open.get(ticket.session)
        if known is not None and not self.owns(ticket):
            raise UsageError(f"session {ticket.session} is another client's")
        if ticket.epoch != self._epoch or (known is not None and known.ticket.joins > ticket.joins):
            return JoinAgain(self._epoch)
        if known is not None and known.ticket.joins < ticket.joins:
            self.leave(ticket.session)
        if ticket.session not in self.open:
            self.open[ticket.session] = Conversation(ticket, environment, self._clock())
            whose = (environment.user, environment.submission or environment.job)
            self._apply(SessionOpened(ticket.session, environment.id, *whose))
            self._on_change(ticket.session, True)
        return self.tell(ticket, first, events)

    def tell(self, ticket: Ticket, first: int, events: list[Event]) -> int | JoinAgain:
        """Events of a client, numbered from ``first``: the number of the last one that was taken, now or before."""
        conversation = self._known(ticket)
        if conversation is None:
            return JoinAgain(self._epoch)
        for event in conversation.inbox.take(first, events):
            if may_say(event, ticket.session, conversation.environment.id, partial(self._runs_under, ticket)):
                self._apply(event)
        return conversation.inbox.taken

    def poll(self, ticket: Ticket, seen: int) -> tuple[int, list[Any]] | JoinAgain:
        """(number of the first, messages) for a client after number ``seen``, which acknowledges those before."""
        conversation = self._known(ticket)
        if conversation is None:
            return JoinAgain(self._epoch)
        conversation.outbox.acknowledge(seen)
        return conversation.outbox.unacknowledged()

    def put(self, session: SessionId, message: Any) -> None:
        """A message for a client, if it is there."""
        conversation = self.open.get(session)
        if conversation is not None:
            conversation.outbox.put(message)
            self._on_news(session)

    def leave(self, session: SessionId) -> None:
        """End a conversation: the client's requests end, its slices are stopped."""
        if self.open.pop(session, None) is not None:
            self._apply(SessionClosed(session))
            self._on_change(session, False)
            self._on_news(session)

    def leave_silent(self, seconds: float) -> list[SessionId]:
        """End those with clients that have not been heard of for so long.

        Call it often: while this process itself stood still nobody could be heard, and that time does not count.
        """
        now = self._clock()
        stalled = now - self._looked
        if stalled > max(_STOOD_STILL_SECONDS, seconds / 4):
            for one in self.open.values():
                one.heard = min(one.heard + stalled, now)
        self._looked = now
        before = now - seconds
        silent = [session for session, one in self.open.items() if one.heard < before]
        for session in silent:
            self.leave(session)
        return silent

    def owns(self, ticket: Ticket) -> bool:
        """Whether a ticket is of the client that has this session, in whatever conversation."""
        known = self.open.get(ticket.session)
        return known is not None and known.ticket.secret == ticket.secret

    def _known(self, ticket: Ticket) -> Conversation | None:
        conversation = self.open.get(ticket.session)
        if conversation is None or conversation.ticket != ticket:
            return None
        conversation.heard = self._clock()
        return conversation
