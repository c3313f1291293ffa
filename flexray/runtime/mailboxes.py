"""The sessions that the scheduler knows: who they are, where they run, and what they have not been told yet."""

from __future__ import annotations

import asyncio
from typing import Any

from flexray.model.lease import EnvironmentId, SessionId, SliceId
from flexray.runtime.protocol import Caller, Environment


class Mailbox:
    """One session, and the messages for it that it has not acknowledged yet.

    Attributes:
        inside: the slice in whose process it runs; None outside of slices.
        life: what notices the death of its client.
        order: held while a message of it is taken in.
    """

    def __init__(self, secret: str, environment: Environment, inside: SliceId | None) -> None:
        self.secret = secret
        self.environment = environment
        self.inside = inside
        self.messages: list[tuple[int, Any]] = []
        self.sent = 0
        self.news = asyncio.Event()
        self.life: Any = None
        self.order = asyncio.Lock()

    def put(self, message: Any) -> None:
        """Add a message and wake the client's poll."""
        self.sent += 1
        self.messages.append((self.sent, message))
        self.news.set()

    async def after(self, seen: int, seconds: float) -> list[tuple[int, Any]]:
        """Messages after number ``seen``, which are acknowledged by that; waits so long for some."""
        self.messages = [(number, message) for number, message in self.messages if number > seen]
        if not self.messages:
            self.news.clear()
            try:
                await asyncio.wait_for(self.news.wait(), seconds)
            except asyncio.TimeoutError:
                return []
        return list(self.messages)


class Mailboxes:
    """Those of all sessions, and the environments that slices may be started in for them."""

    def __init__(self) -> None:
        self.by_session: dict[SessionId, Mailbox] = {}
        self.environments: dict[EnvironmentId, Environment] = {}

    def of(self, caller: Caller) -> Mailbox | None:
        """The mailbox of a session that is who it says."""
        mailbox = self.by_session.get(caller.session)
        return mailbox if mailbox is not None and mailbox.secret == caller.secret else None

    def open(self, caller: Caller, environment: Environment, inside: SliceId | None) -> None:
        """A session joins."""
        self.environments[environment.id] = environment
        self.by_session[caller.session] = Mailbox(caller.secret, environment, inside)

    def close(self, session: SessionId) -> bool:
        """A session has left; False for one that is not known."""
        mailbox = self.by_session.pop(session, None)
        if mailbox is None:
            return False
        mailbox.news.set()
        if not any(m.environment.id == mailbox.environment.id for m in self.by_session.values()):
            self.environments.pop(mailbox.environment.id, None)
        return True

    def send(self, session: SessionId, message: Any) -> None:
        """A message for a session, unless it has left."""
        mailbox = self.by_session.get(session)
        if mailbox is not None:
            mailbox.put(message)
