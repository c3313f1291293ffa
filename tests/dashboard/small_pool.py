"""A pool of two nodes with what the dashboard has to show: use, borrowing, waiting, a fault, a preemption."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from aiohttp.test_utils import TestServer

from flexray.dashboard.access import Access
from flexray.dashboard.server import Dashboard
from flexray.dashboard.source import Source
from flexray.errors import ClusterUnreachable, UsageError
from flexray.model.explanation import Explanation, StartEstimate
from flexray.model.holding import Holding
from flexray.model.lease import LeaseId, RequestId, SessionId, SliceId
from flexray.model.snapshot import (
    ClassView,
    DeviceView,
    NodeView,
    Preemption,
    QueueView,
    RequestView,
    SliceView,
    Snapshot,
)

NODES = ("aaaaaa1111", "bbbbbb2222")
A100 = "nvidia/A100-80GB"


def device(name: str, held: float, slices: tuple[str, ...] = (), state: str = "ready", reason: str = "") -> DeviceView:
    memory = int(81920 * held)
    node = name.partition("/")[0]
    return DeviceView(
        name,
        node,
        A100,
        "gpu",
        "fake",
        state,
        "mps",
        held,
        1 - held,
        81920,
        memory,
        81920 - memory,
        slices,
        "soft",
        reason,
    )


def piece(name: str, place: str, share: float, request: str, busy: float | None, task: str = "train") -> SliceView:
    node, since = place.partition("/")[0], time.time() - 90
    state = "held" if request else "idle"
    session = "s1" if request else ""
    return SliceView(
        name, node, (place,), share, int(81920 * share), state, "mps", f"{task}/1", request, session, since, share, busy
    )


def request(name: str, queue: str, task: str = "train", reason: str = "", position: int = 0) -> RequestView:
    state = "queued" if reason else "leased"
    return RequestView(
        name, "s1", f"{task}/1", queue, 0, state, reason, position, "gpu=0.5", time.time() - 120, 0 if reason else 1
    )


class SmallPool:
    """The pool; a test changes ``shot`` and ``away``, and reads ``changed`` and ``looks``."""

    def __init__(self) -> None:
        a, b = NODES
        self.away = ""
        self.changed: list[dict[str, Any]] = []
        self.looks = 0
        self.ended: list[Holding] = []
        self.shot = Snapshot(
            now=time.time(),
            epoch=1,
            nodes=(NodeView(a, "alpha", 16, 8, ()), NodeView(b, "beta", 16, 16, ())),
            devices=(
                device(f"{a}/gpu0", 0.75, ("s1.1", "s1.2")),
                device(f"{a}/gpu1", 1.0, ("s1.3",)),
                device(f"{b}/gpu0", 0.0),
                device(f"{b}/gpu1", 0.0, state="sick", reason="XID 79: fallen off the bus"),
            ),
            slices=(
                piece("s1.1", f"{a}/gpu0", 0.5, "r1", 0.25),
                piece("s1.2", f"{a}/gpu0", 0.25, "r2", 0.25, "embed"),
                piece("s1.3", f"{a}/gpu1", 1.0, "r3", None, "score"),
            ),
            queues=(
                QueueView("prod", 0, 1, 0.5, "root", "2 devices", "", 1.0, 0.5, 2.0, 2.0, 0.0),
                QueueView("research", 2, 2, 1.25, "root", "1 devices", "", 1.0, 1.25, 2.0, 1.0, 0.25),
            ),
            waiting=(
                request("w1", "research", "tune", "no_room", 1),
                request("w2", "research", "tune", "queue_limit", 2),
            ),
            running=(request("r1", "prod"), request("r2", "research", "embed"), request("r3", "research", "score")),
            preemptions=(
                Preemption(
                    time.time(),
                    "priority",
                    "r1",
                    "prod",
                    LeaseId(RequestId("v1"), 1),
                    "research",
                    "s0.9",
                    (f"{a}/gpu0",),
                    12.5,
                ),
            ),
            notes=("waits for two clients",),
            classes=(ClassView("tune", "research", 0, "gpu=0.5", 2, "no_room", time.time() - 120),),
        )

    def end(self, name: str) -> None:
        """A request ends as it should."""
        (held,) = [one for one in self.shot.slices if one.request == name]
        (view,) = [one for one in self.shot.running if one.id == name]
        now = time.time()
        self.ended.append(
            Holding(
                LeaseId(RequestId(name), 1),
                SessionId("s1"),
                "ann",
                "",
                view.queue,
                view.task_class,
                SliceId(held.id),
                held.node,
                held.devices,
                A100,
                held.share,
                held.since,
                now,
                "released",
            )
        )
        places = set(held.devices)
        self.shot = dataclasses.replace(
            self.shot,
            now=now,
            slices=tuple(one for one in self.shot.slices if one is not held),
            running=tuple(one for one in self.shot.running if one is not view),
            devices=tuple(
                device(one.id, one.share_held - held.share, tuple(s for s in one.slices if s != held.id))
                if one.id in places
                else one
                for one in self.shot.devices
            ),
        )

    def source(self) -> Source:
        async def snapshot() -> Snapshot:
            self.looks += 1
            if self.away:
                raise ClusterUnreachable(self.away)
            return dataclasses.replace(self.shot, now=time.time())

        async def explanation(name: str) -> Explanation:
            if name == "w1":
                start = StartEstimate(90.0, "declared", declared=1, node=NODES[0], devices=(f"{NODES[0]}/gpu1",))
                needs = "a slice on a device that could hold it has to end"
                return Explanation(
                    "w1",
                    "queued",
                    "no_room",
                    1,
                    needs,
                    queue="research",
                    queue_position=1,
                    busy=(("no_room", 2),),
                    estimated_start=start,
                )
            if name == "r1":
                scores = (("fit", 0.75), ("speed", 0.5))
                return Explanation(
                    "r1",
                    "leased",
                    lease=LeaseId(RequestId("r1"), 1),
                    devices=(f"{NODES[0]}/gpu0",),
                    scores=scores,
                    queue="prod",
                    preemptions=self.shot.preemptions,
                )
            if any(one.request == name for one in self.ended):
                return Explanation(name, "done", message="")
            raise UsageError(f"no request {name!r} is known")

        async def starts(names: Sequence[str]) -> dict[str, StartEstimate]:
            return {name: StartEstimate(90.0, "declared", declared=1) for name in names if name == "w1"}

        async def history(since: float) -> list[Holding]:
            return [one for one in self.ended if one.end >= since]

        async def demand() -> list[dict[str, Any]]:
            return [{"resources": {"GPU": 1.0}, "count": 3}]

        async def change(asked: dict[str, Any]) -> list[str]:
            self.changed.append(asked)
            return [str(asked.get("cordon") or asked.get("uncordon"))]

        return Source(snapshot, explanation, starts, history, demand, change)


@asynccontextmanager
async def served(
    pool: SmallPool, token: str = "", host: str = "127.0.0.1", changes: bool = False
) -> AsyncIterator[str]:
    """Its dashboard on a free port; where that is. ``host`` is what it believes to listen on."""
    server = TestServer(Dashboard(pool.source(), Access(host, 8266, token), changes).app())
    await server.start_server()
    try:
        yield str(server.make_url("/")).rstrip("/")
    finally:
        await server.close()
