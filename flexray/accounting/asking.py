"""Whose requests leases are of: sessions, what they asked for, and in which queue that is by now.

What the core holds of a request is decided when it takes an event in, and told at the end of the cycle. So is here
what becomes of requests that were cancelled or whose lease was handed back: the commands have overruled that by then.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from flexray.model.events import QueuesConfigured, RequestSubmitted, SessionOpened
from flexray.model.lease import LeaseId, RequestId, SessionId
from flexray.model.queue import leaves_of


@dataclass(slots=True)
class Asked:
    """A request that is not over, as far as accounts need it.

    Attributes:
        user, job: those of its session.
        share: thousandths of each device that it asks for.
        held: how many leases it has; of a gang, several.
        ending: whether it gets no more.
    """

    id: RequestId
    session: SessionId
    user: str
    job: str
    queue: str
    task_class: str
    gang: bool
    share: int
    held: int = 0
    ending: bool = False


class Asking:
    """Sessions that are open, and their requests that are not over."""

    def __init__(self) -> None:
        self.requests: dict[RequestId, Asked] = {}
        self._sessions: dict[SessionId, tuple[str, str]] = {}
        self._of_session: dict[SessionId, dict[RequestId, None]] = {}
        self._leaves, self._heir = leaves_of(())
        self._cancelled: list[RequestId] = []
        self._handed_back: dict[LeaseId, Asked] = {}

    def of(self, lease: LeaseId) -> Asked | None:
        """What a lease is of; members of a gang ``g`` have leases of ``g.0``, ``g.1`` and so on."""
        return self.requests.get(lease.request) or self.requests.get(RequestId(lease.request.rpartition(".")[0]))

    def is_open(self, session: SessionId) -> bool:
        """Whether a session is there."""
        return session in self._sessions

    def opened(self, event: SessionOpened) -> None:
        """A session is there."""
        self._sessions.setdefault(event.session, (event.user, event.job))

    def closed(self, session: SessionId) -> None:
        """It is gone, and with it all that it asked for."""
        for request in self._of_session.pop(session, {}):
            self.requests.pop(request, None)
        self._sessions.pop(session, None)

    def submitted(self, event: RequestSubmitted) -> None:
        """A request, unless it is known or nobody's."""
        if event.id in self.requests or event.session not in self._sessions:
            return
        asked, (user, job) = event.request, self._sessions[event.session]
        queue = asked.queue if asked.queue in self._leaves else self._heir
        gang = asked.gang is not None
        self.requests[event.id] = Asked(
            event.id, event.session, user, job, queue, event.task_class, gang, asked.share
        )  # fmt: skip
        self._of_session.setdefault(event.session, {})[event.id] = None

    def configured(self, event: QueuesConfigured) -> Iterator[Asked]:
        """Other queues: the requests that are in another one now."""
        self._leaves, self._heir = leaves_of(event.queues)
        for asked in self.requests.values():
            if asked.queue not in self._leaves:
                asked.queue = self._heir
                yield asked

    # -- the end of requests -------------------------------------------------------------------

    def cancelled(self, request: RequestId) -> None:
        """Nobody wants it any more, unless it has a lease by the end of the cycle."""
        self._cancelled.append(request)

    def handed_back(self, lease: LeaseId, asked: Asked) -> None:
        """Its lease was released: it is over, unless that had been taken back already."""
        self._handed_back[lease] = asked

    def goes_on(self, lease: LeaseId) -> None:
        """The lease was taken back, and the request starts again."""
        self._handed_back.pop(lease, None)

    def ends(self, asked: Asked) -> None:
        """It gets no more leases; it is over with the last that it has."""
        asked.ending = True
        if not asked.held:
            self.requests.pop(asked.id, None)
            self._of_session.get(asked.session, {}).pop(asked.id, None)

    def cycle_over(self) -> None:
        """Nothing overrules any more what was said."""
        for asked in self._handed_back.values():
            self.ends(asked)
        for asked in [self.requests[name] for name in self._cancelled if name in self.requests]:
            if asked.gang or not asked.held:
                self.ends(asked)
        self._handed_back.clear()
        self._cancelled.clear()

    def forget(self) -> None:
        """Another scheduler is told everything anew; but of queues."""
        self.requests, self._of_session, self._sessions = {}, {}, {}
