"""One client process's conversation with the scheduler: joins, tells it events, polls its messages.

Every step is asynchronous; answers come back through ``post``, in the client's router thread. What a call says may be
lost, and so may its answer: events are numbered and told again until they are acknowledged. When the scheduler answers
that it does not know the conversation (it was started again, or has taken this client for dead), the session joins it,
and begins with all that it holds and waits for. What runs on slices notices nothing of that.
"""

from __future__ import annotations

import secrets
import time
import uuid
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, Protocol

import ray

from flexray.errors import ClusterUnreachable, NotConnected
from flexray.model.events import Event
from flexray.model.lease import SessionId
from flexray.runtime.asking import ask_scheduler, find_scheduler
from flexray.runtime.numbered import Inbox, Outbox
from flexray.runtime.protocol import Environment, JoinAgain, SliceIdentity, Ticket
from flexray.runtime.seals import prove_inside

_LEAVE_SECONDS = 5.0
_RETRY_SECONDS = 0.5
#: The scheduler restarts by itself; after this long without an answer the pool is taken to be stopped.
_PATIENCE_SECONDS = 60.0

Post = Callable[..., None]
Later = Callable[[float, Callable[[], None]], None]


class Link(Protocol):
    """The way to the scheduler."""

    def call(self, method: str, args: tuple[Any, ...], done: Callable[[Any], None]) -> None:
        """Call it; ``done`` gets the answer, or an exception, in any thread."""

    def ask(self, method: str, args: tuple[Any, ...]) -> Any:
        """Its answer to a call, as soon as it is there. Raises ClusterUnreachable."""

    def look(self) -> None:
        """Find the scheduler anew. Raises ClusterUnreachable when there is none."""

    def live(self, ticket: Ticket) -> None:
        """Let it notice when this process dies."""

    def leave(self, ticket: Ticket) -> None:
        """Say that this process is done, if somebody listens."""

    def is_over(self) -> bool:
        """Whether nothing can be said any more."""


class RayLink:
    """The scheduler actor of the cluster that this process is connected to."""

    def __init__(self) -> None:
        self.scheduler = find_scheduler()
        self._life: Any = None

    def call(self, method: str, args: tuple[Any, ...], done: Callable[[Any], None]) -> None:
        """Call it; ``done`` gets the answer, or an exception, in a thread of Ray's."""
        getattr(self.scheduler, method).remote(*args)._on_completed(done)

    def ask(self, method: str, args: tuple[Any, ...]) -> Any:
        """Its answer to a call, as soon as it is there. Raises ClusterUnreachable."""
        return ask_scheduler(self.scheduler, method, *args)

    def look(self) -> None:
        """Find the scheduler anew. Raises ClusterUnreachable when there is none."""
        self.scheduler = find_scheduler()

    def live(self, ticket: Ticket) -> None:
        """It waits for an object that is never ready and that this process owns: that fails when the process dies."""
        self._life = self.scheduler.hold.remote(ticket)
        self.scheduler.watch.remote(ticket, [self._life])

    def leave(self, ticket: Ticket) -> None:
        """Say that this process is done, if somebody listens."""
        try:
            ask_scheduler(self.scheduler, "leave", ticket, within=_LEAVE_SECONDS)
        except ClusterUnreachable:  # it will notice our end by itself
            pass

    def is_over(self) -> bool:
        """Without Ray the next message would start a cluster of its own."""
        return not ray.is_initialized()


class Session:
    """The conversation.

    Args:
        post: runs a function in the router thread; ``later`` does after a delay.
        guard: the lock under which events are told.
        facts: all that a scheduler has to know which knows nothing of this client; called with the lock held.
        clock: seconds, never falling.
        identity: of the slice in whose process this is.
    """

    def __init__(
        self,
        environment: Environment,
        link: Link,
        post: Post,
        later: Later,
        guard: AbstractContextManager[Any],
        facts: Callable[[], list[Event]],
        on_message: Callable[[Any], None],
        on_dead: Callable[[BaseException], None],
        name: str = "",
        clock: Callable[[], float] = time.monotonic,
        identity: SliceIdentity | None = None,
    ) -> None:
        self.id = SessionId(name or uuid.uuid4().hex[:10])
        self.environment = environment
        self.link = link
        self.closed = False
        self._post, self._later, self._guard, self._clock = post, later, guard, clock
        self._facts, self._on_message, self._on_dead = facts, on_message, on_dead
        inside = prove_inside(identity.slice, identity.key, self.id) if identity is not None else None
        self._ticket = Ticket(self.id, 0, 0, secrets.token_hex(16), inside)
        self._outbox: Outbox[Event] = Outbox()
        self._inbox = Inbox()
        self._joining = False
        self._resending = False
        self._silent_since: float | None = None

    @property
    def epoch(self) -> int:
        """Of the scheduler that it has joined last."""
        return self._ticket.epoch

    def open(self) -> None:
        """Join for the first time; blocks until the scheduler has answered."""
        while isinstance(answer := self.link.ask("join", self._joining_message()), JoinAgain):
            self._ticket = self._ticket._replace(epoch=answer.epoch)
        self._begin()

    def tell(self, event: Event) -> None:
        """Queue an event; it goes out with the next ``flush``."""
        self._outbox.put(event)

    def flush(self) -> None:
        """Send queued events in one message."""
        if not self._outbox.has_unsent or self._joining or self._is_over():
            return
        first, events = self._outbox.unsent()
        ticket, last = self._ticket, first + len(events) - 1
        self.link.call("tell", (ticket, first, events), lambda answer: self._post(self._told, answer, ticket, last))

    def close(self) -> None:
        """Leave; the scheduler takes everything back."""
        self.flush()
        self.closed = True
        self.link.leave(self._ticket)

    # -- answers ---------------------------------------------------------------------------------

    def _told(self, answer: Any, ticket: Ticket, last: int) -> None:
        with self._guard:
            if self.closed or ticket != self._ticket or self._joining:
                return
            if isinstance(answer, JoinAgain):
                self._join_again(answer.epoch)
                return
            if isinstance(answer, int):
                self._silent_since = None
                self._outbox.acknowledge(answer)
            if not isinstance(answer, int) or answer < last:
                self._tell_again_later(answer)

    def _tell_again_later(self, answer: Any) -> None:
        """Something did not arrive, or nobody knows whether it has."""
        if not self._resending and self._may_go_on(answer):
            self._resending = True
            self._later(_RETRY_SECONDS, self._tell_again)

    def _tell_again(self) -> None:
        with self._guard:
            self._resending = False
            self._outbox.rewind()
            self.flush()

    def _poll(self) -> None:
        if not self._is_over() and not self._joining:
            ticket = self._ticket
            self.link.call("poll", (ticket, self._inbox.taken), lambda answer: self._post(self._polled, answer, ticket))

    def _polled(self, answer: Any, ticket: Ticket) -> None:
        if self.closed or ticket != self._ticket or self._joining:
            return
        if isinstance(answer, JoinAgain):
            with self._guard:
                self._join_again(answer.epoch)
        elif isinstance(answer, tuple):
            self._silent_since = None
            for message in self._inbox.take(*answer):
                self._on_message(message)
            self._poll()
        elif self._may_go_on(answer):
            self._later(_RETRY_SECONDS, lambda: self._poll_again(ticket))

    def _poll_again(self, ticket: Ticket) -> None:
        if ticket == self._ticket:
            self._poll()

    # -- joining again -----------------------------------------------------------------------------

    def _join_again(self, epoch: int) -> None:
        """The scheduler knows nothing of this client: begin anew with it, with what is held and waited for."""
        self._joining, self._silent_since = True, None
        self._ticket = self._ticket._replace(epoch=epoch, joins=self._ticket.joins + 1)
        self._outbox, self._inbox = Outbox(), Inbox()
        for fact in self._facts():
            self._outbox.put(fact)
        self._join()

    def _join(self) -> None:
        with self._guard:
            if self._is_over():
                return
            message = self._joining_message()
        self.link.call("join", message, lambda answer: self._post(self._joined, answer, message[0]))

    def _joining_message(self) -> tuple[Ticket, Environment, int, list[Event]]:
        self._outbox.rewind()
        return self._ticket, self.environment, *self._outbox.unsent()

    def _joined(self, answer: Any, ticket: Ticket) -> None:
        with self._guard:
            if self.closed or not self._joining or ticket != self._ticket:
                return
            if isinstance(answer, int):
                self._outbox.acknowledge(answer)
                self._begin()
                self.flush()
            elif isinstance(answer, JoinAgain):  # it was started again since
                self._ticket = self._ticket._replace(epoch=answer.epoch)
                self._join()
            elif self._may_go_on(answer):
                self._later(_RETRY_SECONDS, self._join)

    def _begin(self) -> None:
        self._joining, self._silent_since = False, None
        self.link.live(self._ticket)
        self._poll()

    # -- the end -----------------------------------------------------------------------------------

    def _may_go_on(self, error: Any) -> bool:
        """Whether to try again after a call that has failed; finds the scheduler anew."""
        if self._is_over():
            return False
        if self._silent_since is None:
            self._silent_since = self._clock()
        if self._clock() - self._silent_since < _PATIENCE_SECONDS:
            try:
                self.link.look()
                return True
            except ClusterUnreachable as missing:
                error = missing
        self.closed = True
        gone = ClusterUnreachable("the pool was stopped, or its scheduler is gone for good")
        gone.__cause__ = error if isinstance(error, BaseException) else None
        self._post(self._on_dead, gone)
        return False

    def _is_over(self) -> bool:
        if not self.closed and self.link.is_over():
            self.closed = True
            gone = NotConnected("Ray was shut down in this process, and its connection to the pool with it")
            self._post(self._on_dead, gone)
        return self.closed
