"""One client process's connection to the scheduler: joins, tells it events, polls its messages.

Every step is asynchronous; answers come back through ``post``, in the client's router
thread. When a new incarnation of the scheduler answers, the session joins it and calls
``on_lost``: leases of the old one are void.
"""

from __future__ import annotations

import secrets
import time
import uuid
from collections.abc import Callable
from typing import Any

import ray

from flexray.errors import ClusterUnreachable, NotConnected
from flexray.model.events import Event
from flexray.model.lease import SessionId
from flexray.runtime.protocol import NAMESPACE, SCHEDULER_NAME, Caller, Environment, SliceIdentity
from flexray.runtime.seals import prove_inside

_JOIN_SECONDS = 30.0
_RETRY_SECONDS = 0.5
#: The scheduler restarts by itself; after this long without an answer the pool is taken to be stopped.
_PATIENCE_SECONDS = 60.0

Post = Callable[..., None]


class Session:
    """The connection. ``post(function, *args)`` runs a function in the router thread, ``later`` after a delay."""

    def __init__(
        self,
        environment: Environment,
        post: Post,
        later: Callable[[float, Callable[[], None]], None],
        on_message: Callable[[Any], None],
        on_lost: Callable[[], None],
        on_dead: Callable[[BaseException], None],
        identity: SliceIdentity | None = None,
    ) -> None:
        """``identity``: of the slice in whose process this is."""
        self.id = SessionId(uuid.uuid4().hex[:10])
        self._caller = Caller(self.id, secrets.token_hex(16))
        self._inside = prove_inside(identity.slice, identity.key, self.id) if identity is not None else None
        self.environment = environment
        self.epoch = 0
        #: how often it has joined: answers to what was said before the last time mean nothing.
        self._joins = 0
        self._post, self._later = post, later
        self._on_message, self._on_lost, self._on_dead = on_message, on_lost, on_dead
        self._seen = 0
        self._life: Any = None
        self._outbox: list[Event] = []
        self._joining = False
        self._silent_since: float | None = None
        self.closed = False
        self.scheduler = find_scheduler()

    def open(self) -> None:
        """Join for the first time; blocks until the scheduler has answered."""
        try:
            self.epoch = ray.get(self._join(), timeout=_JOIN_SECONDS)
        except ray.exceptions.RayError as error:
            raise ClusterUnreachable(f"the pool's scheduler does not answer: {error}") from error
        self._live()

    def _join(self) -> Any:
        return self.scheduler.join.remote(self._caller, self.environment, self._inside)

    def _live(self) -> None:
        self._life = self.scheduler.hold.remote(self._caller)
        self.scheduler.watch.remote(self._caller, [self._life])
        self._poll()

    def tell(self, event: Event) -> None:
        """Queue an event; it goes out with the next ``flush``."""
        self._outbox.append(event)

    def flush(self) -> None:
        """Send queued events in one message."""
        if not self._is_over() and self._outbox and not self._joining:
            events, self._outbox = self._outbox, []
            ref, joins = self.scheduler.tell.remote(self._caller, self.epoch, events), self._joins
            ref._on_completed(lambda answer: self._post(self._told, answer, joins))

    def close(self) -> None:
        """Leave; the scheduler takes everything back."""
        self.flush()
        self.closed = True
        try:
            ray.get(self.scheduler.leave.remote(self._caller), timeout=5.0)
        except ray.exceptions.RayError:  # the scheduler will notice our end by itself
            pass

    def _told(self, answer: Any, joins: int) -> None:
        if answer is not True and joins == self._joins:
            self._rejoin()

    def _poll(self) -> None:
        if not self._is_over():
            ref, joins = self.scheduler.poll.remote(self._caller, self.epoch, self._seen), self._joins
            ref._on_completed(lambda answer: self._post(self._polled, answer, joins))

    def _polled(self, answer: Any, joins: int) -> None:
        if self.closed or joins != self._joins:
            return
        if not isinstance(answer, list):
            self._rejoin()
            return
        for number, message in answer:
            if number > self._seen:
                self._seen = number
                self._on_message(message)
        self._poll()

    def _rejoin(self) -> None:
        """The scheduler restarted, or took us for dead: start over with it."""
        if self._joining or self.closed:
            return
        self._joining = True
        self._silent_since = time.monotonic()
        self._try_join()

    def _try_join(self) -> None:
        if self._is_over():
            return
        try:
            self.scheduler = find_scheduler()
        except ClusterUnreachable as error:
            self._not_joined(error)
            return
        ref = self._join()
        ref._on_completed(lambda answer: self._post(self._joined, answer))

    def _joined(self, answer: Any) -> None:
        if not isinstance(answer, int):
            self._not_joined(answer)
            return
        self.epoch, self._seen, self._outbox, self._joining = answer, 0, [], False
        self._joins += 1
        self._on_lost()
        self._live()

    def _not_joined(self, error: Any) -> None:
        assert self._silent_since is not None
        if time.monotonic() - self._silent_since < _PATIENCE_SECONDS and not isinstance(error, ClusterUnreachable):
            self._later(_RETRY_SECONDS, self._try_join)
            return
        self.closed = True
        gone = ClusterUnreachable("the pool was stopped, or its scheduler is gone for good")
        gone.__cause__ = error if isinstance(error, BaseException) else None
        self._on_dead(gone)

    def _is_over(self) -> bool:
        """Whether nothing can be said any more. Without Ray the next message would start a cluster of its own."""
        if not self.closed and not ray.is_initialized():
            self.closed = True
            gone = NotConnected("Ray was shut down in this process, and its connection to the pool with it")
            self._post(self._on_dead, gone)
        return self.closed


def find_scheduler() -> Any:
    """The pool's scheduler actor. Raises ClusterUnreachable when this cluster has no pool."""
    try:
        return ray.get_actor(SCHEDULER_NAME, namespace=NAMESPACE)
    except ValueError:
        raise ClusterUnreachable(
            "this Ray cluster has no flexray pool; start one with `flexray start` or flex.init()"
        ) from None
