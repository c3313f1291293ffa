"""100 clients with 1,000 waiting requests each: how soon the scheduler answers, and whether it forgets any.

A real pool of one device, on a Ray of its own. A few processes hold the sessions, and say what clients say: each
request is asked for; each lease that is granted is handed back at once, so that the line moves all the time; at the end
what still waits is cancelled. Messages go out late, and some twice; some polls acknowledge nothing, so that the answers
come again. Meanwhile the pool's snapshot is asked for, which ``flexray status`` shows, and timed.

    lost      requests asked for, less those handed back, less those that the scheduler counts: while the line stands
    twice     leases of a request that had one before
    left      requests that it still counts when nobody wants any

python benchmarks/overload.py [--quick] [--json FILE]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import pickle
import random
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

PROCESSES = 4
CLASS = 16
"""Requests of one task class in a session: as many as a client asks for before any of them runs."""
TOGETHER = 50
"""Requests in one message."""
LATE = 0.2
"""Seconds that a message may be late."""
TWICE = 0.25
"""Part of the messages that are sent twice, and of the polls that acknowledge nothing."""
PAUSE = 0.1
BAR_MS = 1000.0


@dataclass(frozen=True)
class Row:
    """How the scheduler answered during one part of the run; milliseconds."""

    part: str
    sessions: int
    waiting: int
    asked: int
    status_p50: float
    status_worst: float


class Sessions:
    """Some sessions, in a process of their own (a Ray actor)."""

    def __init__(self, names: list[str], each: int) -> None:
        import ray

        from flexray.runtime.asking import find_scheduler
        from flexray.runtime.protocol import Environment

        self._scheduler = find_scheduler()
        self._home = Environment("overload", ray.get_runtime_context().get_job_id())
        self._names = names
        self._tickets: dict[str, Any] = {}
        self._outboxes: dict[str, Any] = {}
        self._telling = {name: asyncio.Lock() for name in names}
        self._each = each
        self._dice = random.Random(",".join(names))
        self._open: dict[str, set[str]] = {name: set() for name in names}
        self._granted: dict[str, set[str]] = {name: set() for name in names}
        self._twice = 0
        self._polls: list[asyncio.Task[None]] = []
        self._ending = False
        self._may_release = asyncio.Event()
        self._may_release.set()
        self._releasing = asyncio.Lock()
        self._released = 0

    async def join(self) -> int:
        """All sessions join; returns the process number."""
        from flexray.runtime.numbered import Outbox
        from flexray.runtime.protocol import Ticket

        epoch = await self._scheduler.open.remote()
        for name in self._names:
            ticket = self._tickets[name] = Ticket(name, epoch, 0, f"secret of {name}")
            self._outboxes[name] = Outbox()
            assert await self._scheduler.join.remote(ticket, self._home, 1, []) == 0
        self._polls = [asyncio.create_task(self._poll(name)) for name in self._names]
        return os.getpid()

    async def ask(self) -> int:
        """Every session asks for all it wants; returns how many requests that were."""
        return sum(await asyncio.gather(*map(self._ask, self._names)))

    async def stand(self) -> int:
        """Hand back nothing from now on; returns how many leases were handed back so far."""
        self._may_release.clear()
        async with self._releasing:
            return self._released

    async def cancel(self) -> int:
        """Every session gives up what still waits; returns how many requests that were."""
        self._may_release.set()
        return sum(await asyncio.gather(*map(self._cancel, self._names)))

    async def end(self) -> tuple[int, int]:
        """(requests that were granted, leases of requests that had one before); the sessions leave."""
        self._ending = True
        for ticket in self._tickets.values():
            await self._scheduler.leave.remote(ticket)
        await asyncio.gather(*self._polls)
        return sum(map(len, self._granted.values())), self._twice

    async def _ask(self, session: str) -> int:
        from flexray.model.events import RequestSubmitted
        from flexray.model.request import Request

        whole, home = Request(share=1000), self._home.id
        for first in range(0, self._each, TOGETHER):
            events = []
            for number in range(first, min(first + TOGETHER, self._each)):
                name = f"{session}.{number}"
                self._open[session].add(name)
                events.append(RequestSubmitted(name, session, home, f"f{number // CLASS}/x", whole))
            await self._tell(session, events)
        return self._each

    async def _cancel(self, session: str) -> int:
        from flexray.model.events import RequestCancelled

        names = sorted(self._open[session])
        for first in range(0, len(names), TOGETHER):
            await self._tell(session, [RequestCancelled(name) for name in names[first : first + TOGETHER]])
        return len(names)

    async def _tell(self, session: str, events: list[Any]) -> None:
        async with self._telling[session]:
            outbox = self._outboxes[session]
            for event in events:
                outbox.put(event)
            first, unsent = outbox.unsent()
            for _ in range(1 if self._dice.random() > TWICE else 2):
                await asyncio.sleep(self._dice.random() * LATE)
                taken = await self._scheduler.tell.remote(self._tickets[session], first, unsent)
                assert taken == first + len(unsent) - 1, "it does not know the session, or misses a message"
            outbox.acknowledge(taken)

    async def _poll(self, session: str) -> None:
        from flexray.model.events import LeaseReleased
        from flexray.runtime.numbered import Inbox
        from flexray.runtime.protocol import Granted

        inbox = Inbox()
        while not self._ending:
            known = inbox.taken if self._dice.random() > TWICE else 0
            answer = await self._scheduler.poll.remote(self._tickets[session], known)
            if not isinstance(answer, tuple):
                break  # the session has left
            for message in inbox.take(*answer):
                if not isinstance(message, Granted):
                    continue
                lease = message.order.lease.lease
                self._twice += lease.request in self._granted[session]
                self._granted[session].add(lease.request)
                self._open[session].discard(lease.request)
                await self._may_release.wait()
                async with self._releasing:
                    await self._tell(session, [LeaseReleased(lease)])
                    self._released += 1


def measure(part: str, sessions: int, scheduler: Any, going_on: Callable[[], bool]) -> Row:
    """Ask for the snapshot again and again while something goes on."""
    from flexray.runtime.reading import read_snapshot

    times, waiting = [], 0
    while True:
        begun = time.monotonic()
        snapshot = read_snapshot(scheduler)
        times.append((time.monotonic() - begun) * 1000)
        waiting = max(waiting, sum(queue.waiting for queue in snapshot.queues))
        if not going_on():
            return Row(part, sessions, waiting, len(times), statistics.median(times), max(times))
        time.sleep(PAUSE)


def run(sessions: int, each: int, seconds: float) -> dict[str, Any]:
    """The whole of it, on a pool that is there."""
    import ray

    import flexray as flex
    from flexray.runtime.asking import find_scheduler

    def call(method: str) -> list[Any]:
        return [getattr(one, method).remote() for one in actors]

    def pending(references: list[Any]) -> Callable[[], bool]:
        return lambda: len(ray.wait(references, num_returns=len(references), timeout=0)[0]) < len(references)

    names = [f"session{number}" for number in range(sessions)]
    make = ray.remote(num_cpus=0)(Sessions)
    actors = [make.remote(names[number::PROCESSES], each) for number in range(PROCESSES)]
    ray.get(call("join"), timeout=300)
    scheduler, rows = find_scheduler(), []
    asking = call("ask")
    rows.append(measure("requests arrive", sessions, scheduler, pending(asking)))
    asked = sum(ray.get(asking, timeout=60))
    until = time.monotonic() + seconds
    rows.append(measure("the line moves", sessions, scheduler, lambda: time.monotonic() < until))
    released = sum(ray.get(call("stand"), timeout=60))
    snapshot = flex.pool()
    lost = asked - released - sum(queue.waiting + queue.running for queue in snapshot.queues)
    cancelling = call("cancel")
    rows.append(measure("they are cancelled", sessions, scheduler, pending(cancelling)))
    cancelled = sum(ray.get(cancelling, timeout=60))
    left = settle(scheduler)
    granted, twice = map(sum, zip(*ray.get(call("end"), timeout=120), strict=True))
    return {
        "rows": [asdict(row) for row in rows],
        "asked": asked,
        "granted": granted,
        "cancelled": cancelled,
        "lost": lost,
        "twice": twice,
        "left": left,
        "snapshot_kib": len(pickle.dumps(snapshot)) / 1024,
    }


def settle(scheduler: Any) -> int:
    """How many requests the scheduler still has when nobody wants any: 0, unless it keeps what it should not."""
    from flexray.runtime.reading import read_snapshot

    deadline, have = time.monotonic() + 60, -1
    while have and time.monotonic() < deadline:
        have = sum(queue.waiting + queue.running for queue in read_snapshot(scheduler).queues)
        time.sleep(PAUSE)
    return have


def show(result: dict[str, Any]) -> None:
    """The table."""
    print(f"{'':<20}{'sessions':>9}{'waiting':>9}{'asked':>7}{'status p50':>12}{'worst':>9}   ms")
    for row in (Row(**row) for row in result["rows"]):
        times = f"{row.status_p50:>12.0f}{row.status_worst:>9.0f}"
        print(f"{row.part:<20}{row.sessions:>9}{row.waiting:>9}{row.asked:>7}{times}")
    print(
        f"\n{result['asked']} requests: {result['granted']} granted, {result['cancelled']} cancelled, "
        f"{result['lost']} lost, {result['twice']} granted twice, {result['left']} left at the end; "
        f"a snapshot has {result['snapshot_kib']:.0f} KiB"
    )
    good = not (result["lost"] or result["twice"] or result["left"])
    met = good and max(row["status_worst"] for row in result["rows"]) <= BAR_MS
    print(f"bar: status within {BAR_MS:.0f} ms, nothing forgotten: {'met' if met else 'missed'}")


def main() -> None:
    """Start Ray and a pool, run, stop both."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="20 sessions with 500 requests each")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="fxo", dir="/tmp") as folder:
        os.environ.update(RAY_AUTH_MODE="disabled", RAY_TMPDIR=folder, RAY_DEDUP_LOGS="0")
        os.environ["PYTHONPATH"] = os.pathsep.join((str(Path(__file__).parents[1]), str(Path(__file__).parent)))
        import ray

        import flexray as flex
        from flexray.runtime.pool import stop_pool

        ray.init(num_cpus=4, include_dashboard=False, log_to_driver=False, logging_level="error")
        try:
            flex.init(config={"fake_devices": "1xT4"})
            result = run(20, 500, 5.0) if options.quick else run(100, 1000, 30.0)
            flex.shutdown()
            stop_pool()
        finally:
            ray.shutdown()
    show(result)
    if options.json:
        options.json.write_text(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
