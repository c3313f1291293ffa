"""A made-up pool for the dashboard: as many devices and requests as are wanted, which change from look to look."""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from flexray.dashboard.source import Source
from flexray.errors import UsageError
from flexray.model.explanation import Explanation, StartEstimate
from flexray.model.holding import Holding
from flexray.model.lease import LeaseId, RequestId, SessionId, SliceId
from flexray.model.snapshot import ClassView, DeviceView, NodeView, QueueView, RequestView, SliceView, Snapshot

PER_NODE = 8
MEMORY = 81_920
LISTED = 1_000
"""Requests in line that a snapshot lists, as the scheduler's do."""
QUEUES = ("prod", "research", "batch", "eval", "training", "notebooks")
TASKS = ("embed", "generate", "finetune", "score", "train", "rank")
TYPES = ("nvidia/A100-80GB", "nvidia/H100-80GB", "ascend/910B")
SHARES = (0.25, 0.25, 0.5, 0.5, 1.0)
RUNNING = 0.8
"""Part of the requests that run at most."""
_MOVED = 20
"""Requests that end, and as many that start, between two looks."""
_RUN_SECONDS = 240.0


class MadeUp:
    """Devices that are booked as far as shares fit, and requests that wait for the rest."""

    def __init__(self, devices: int, requests: int, seed: int = 1) -> None:
        self._random = random.Random(seed)
        self._began = time.time()
        self._nodes = [f"{one:08x}{'0' * 20}" for one in range(1, -(-devices // PER_NODE) + 1)]
        self._devices = [f"{self._nodes[one // PER_NODE]}/gpu{one % PER_NODE}" for one in range(devices)]
        self._free = dict.fromkeys(self._devices, 1.0)
        self._numbers = iter(range(1, 1_000_000_000))
        self._running: dict[str, tuple[RequestView, SliceView]] = {}
        self.ended: list[Holding] = []
        self._waiting: list[RequestView] = []
        for device in self._devices:
            while len(self._running) < RUNNING * requests and self._free[device] > 0 and self._random.random() < 0.92:
                self._start(device, self._began - self._random.random() * _RUN_SECONDS)
        while len(self._waiting) + len(self._running) < requests:
            self._waiting.append(self._request(self._began - self._random.random() * 900))

    def _request(self, submitted: float) -> RequestView:
        queue, task = self._random.choice(QUEUES), self._random.choice(TASKS)
        asked = f"gpu={self._random.choice(SHARES):g}, memory=8192MiB"
        name = f"r{next(self._numbers)}"
        return RequestView(name, "s-made-up", f"{task}/1", queue, 0, "queued", "no_room", 0, asked, submitted, 1)

    def _start(self, device: str, since: float) -> None:
        fitting = [share for share in SHARES if share <= self._free[device]]
        if not fitting:
            return
        share = self._random.choice(fitting)
        self._free[device] -= share
        asked = replace(self._request(since - 5), state="leased", wait_reason="")
        node = device.rpartition("/")[0]
        memory = int(MEMORY * share)
        piece = SliceView(
            f"s1.{asked.id[1:]}",
            node,
            (device,),
            share,
            memory,
            "held",
            "mps",
            asked.task_class,
            asked.id,
            "s-made-up",
            since,
        )
        self._running[asked.id] = (asked, piece)

    def step(self) -> None:
        """Some requests end, others start where they were."""
        now = time.time()
        for name in self._random.sample(sorted(self._running), min(_MOVED, len(self._running))):
            asked, piece = self._running.pop(name)
            self._free[piece.devices[0]] += piece.share
            self.ended.append(_holding(asked, piece, now))
            self._start(piece.devices[0], now)

    def snapshot(self) -> Snapshot:
        """As it is now; what slices use is another number at every look."""
        now = time.time()
        pieces = [self._used(piece) for _, piece in self._running.values()]
        held: dict[str, list[SliceView]] = {device: [] for device in self._devices}
        for piece in pieces:
            held[piece.devices[0]].append(piece)
        waiting = [replace(one, position=place) for place, one in enumerate(self._waiting[:LISTED], start=1)]
        return Snapshot(
            now,
            1,
            tuple(
                NodeView(name, f"node-{place:04}", 64.0, 40.0, ()) for place, name in enumerate(self._nodes, start=1)
            ),
            tuple(self._device(place, name, held[name]) for place, name in enumerate(self._devices)),
            tuple(pieces),
            tuple(self._queue(name) for name in QUEUES),
            tuple(waiting),
            tuple(asked for asked, _ in self._running.values()),
            classes=self._classes(),
        )

    def _used(self, piece: SliceView) -> SliceView:
        busy = piece.share * (0.55 + 0.4 * self._random.random())
        return replace(piece, busy=busy, memory_used=int(piece.memory * 0.8), idle_seconds=0.0)

    def _device(self, place: int, name: str, pieces: list[SliceView]) -> DeviceView:
        share, memory = sum(piece.share for piece in pieces), sum(piece.memory for piece in pieces)
        node = name.rpartition("/")[0]
        kind = TYPES[place // PER_NODE % len(TYPES)]
        sick = place % 199 == 17
        return DeviceView(
            name,
            node,
            kind,
            "gpu",
            "nvidia",
            "sick" if sick else "ready",
            "mps",
            share,
            1.0 - share,
            MEMORY,
            memory,
            MEMORY - memory,
            tuple(piece.id for piece in pieces),
            "compute is limited while others want it; memory is limited",
            "XID 79: the GPU has fallen off the bus" if sick else "",
        )

    def _queue(self, name: str) -> QueueView:
        held = sum(piece.share for asked, piece in self._running.values() if asked.queue == name)
        fair = len(self._devices) / len(QUEUES)
        running = sum(asked.queue == name for asked, _ in self._running.values())
        waiting = sum(asked.queue == name for asked in self._waiting)
        figures = (held, fair, fair * 0.8, max(0.0, held - fair * 0.8))
        return QueueView(name, waiting, running, held, "root", f"{fair * 0.8:.0f} devices", "", 1.0, *figures)

    def _classes(self) -> tuple[ClassView, ...]:
        found: dict[tuple[str, str], list[RequestView]] = {}
        for one in self._waiting:
            found.setdefault((one.task_class.split("/")[0], one.queue), []).append(one)
        rows = sorted(found.items(), key=lambda item: -len(item[1]))
        return tuple(
            ClassView(task, queue, 0, each[0].asked, len(each), "no_room", min(one.submitted for one in each))
            for (task, queue), each in rows
        )

    def explain(self, name: str) -> Explanation:
        """Where a request is; as much of it as can be made up."""
        if name in self._running:
            _, piece = self._running[name]
            scores = (("fit", 0.62), ("speed", 0.91), ("scarcity", 0.4))
            return Explanation(
                name, "leased", "", devices=piece.devices, lease=LeaseId(RequestId(name), 1), scores=scores
            )
        place = next((place for place, one in enumerate(self._waiting, start=1) if one.id == name), 0)
        if not place:
            raise UsageError(f"no request {name!r} is known")
        needs = "a slice on a device that could hold it has to end"
        busy = (("no_room", len(self._devices)),)
        start = StartEstimate(60.0 + place, "learnt", learnt=3)
        return Explanation(name, "queued", "no_room", place, needs, busy=busy, estimated_start=start)

    def source(self) -> Source:
        """As the dashboard asks for it."""

        async def snapshot() -> Snapshot:
            self.step()
            return self.snapshot()

        async def explanation(name: str) -> Explanation:
            return self.explain(name)

        async def starts(names: Sequence[str]) -> dict[str, StartEstimate]:
            return {name: StartEstimate(60.0 + place, "learnt", learnt=3) for place, name in enumerate(names)}

        async def history(since: float) -> list[Holding]:
            return [one for one in self.ended if one.end >= since]

        async def demand() -> list[dict[str, Any]]:
            return []

        async def change(asked: dict[str, Any]) -> list[str]:
            raise UsageError("nothing can be changed in a made-up pool")

        return Source(snapshot, explanation, starts, history, demand, change)


def _holding(asked: RequestView, piece: SliceView, end: float) -> Holding:
    return Holding(
        LeaseId(RequestId(asked.id), asked.attempt),
        SessionId(asked.session),
        "someone",
        "",
        asked.queue,
        asked.task_class,
        SliceId(piece.id),
        piece.node,
        piece.devices,
        TYPES[0],
        piece.share,
        piece.since,
        end,
        "released",
    )
