"""What one way of serving did: every answer and every load as measured, and the figures made of them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Answer:
    """One request's answer. Times in seconds after the start of the stream.

    Attributes:
        number: the request's place in the stream.
        model: the model that answered.
        device: where the model was.
        label: what it answered.
        due: when the request arrived.
        began, ended: the model's call, measured in the process that ran it.
        received: when the answer was back.
    """

    number: int
    model: str
    device: str
    label: int
    due: float
    began: float
    ended: float
    received: float

    @property
    def latency(self) -> float:
        """Seconds from the request's arrival to its answer."""
        return self.received - self.due


@dataclass(frozen=True, slots=True)
class Hold:
    """A model's stay on a device. Times in seconds after the start of the stream; negative ones are before it.

    Attributes:
        model, device: who held what.
        share: how much of the device.
        asked: when the room was asked for.
        started: when its process was there and began to import libraries.
        imported: when it began to load the model.
        ready: when it could answer.
        left: when the room was given back.
    """

    model: str
    device: str
    share: float
    asked: float
    started: float
    imported: float
    ready: float
    left: float

    def counted_from(self, start: float) -> Hold:
        """The same with ``start`` as its zero."""
        times = (self.asked, self.started, self.imported, self.ready, self.left)
        return Hold(self.model, self.device, self.share, *(at - start for at in times))


@dataclass(frozen=True, slots=True)
class Side:
    """One way of serving the stream: ``title``, and everything that was measured."""

    title: str
    devices: tuple[str, ...]
    answers: tuple[Answer, ...]
    holds: tuple[Hold, ...]

    @property
    def wall(self) -> float:
        """Seconds from the start of the stream to the last answer."""
        return max((answer.received for answer in self.answers), default=0.0)

    @property
    def per_second(self) -> float:
        """Answers per second of ``wall``."""
        return len(self.answers) / self.wall if self.wall else 0.0

    @property
    def loads(self) -> int:
        """How often a model was loaded, before the stream and during it."""
        return len(self.holds)

    @property
    def swaps(self) -> tuple[Hold, ...]:
        """The loads that happened during the stream."""
        return tuple(hold for hold in self.holds if hold.asked >= 0)

    @property
    def setup(self) -> float:
        """Seconds that the loads before the stream took."""
        early = [hold for hold in self.holds if hold.asked < 0]
        return max(h.ready for h in early) - min(h.asked for h in early) if early else 0.0

    @property
    def in_use(self) -> float:
        """Part of all device time within ``wall`` in which a model call ran on the device, in [0, 1]."""
        busy = sum(covered((a.began, a.ended) for a in self.answers if a.device == device) for device in self.devices)
        return self._of_device_time(busy)

    @property
    def swapping(self) -> float:
        """Part of all device time within ``wall`` in which a device waited for a model to be there, in [0, 1]."""
        lost = sum(covered((h.asked, h.ready) for h in self.swaps if h.device == device) for device in self.devices)
        return self._of_device_time(lost)

    @property
    def call(self) -> float:
        """Mean seconds of one model call."""
        return sum(a.ended - a.began for a in self.answers) / len(self.answers) if self.answers else 0.0

    def latency(self, part: float) -> float:
        """Seconds within which ``part`` (in [0, 1]) of the requests were answered."""
        return percentile([answer.latency for answer in self.answers], part)

    def within(self, seconds: float) -> float:
        """Part of the requests answered within ``seconds``, in [0, 1]."""
        quick = sum(answer.latency <= seconds for answer in self.answers)
        return quick / len(self.answers) if self.answers else 0.0

    def as_dict(self) -> dict[str, Any]:
        """The figures, for JSON; names carry the units."""
        return {
            "title": self.title,
            "served": len(self.answers),
            "wall_seconds": round(self.wall, 3),
            "served_per_second": round(self.per_second, 3),
            "latency_p50_ms": round(self.latency(0.50) * 1e3, 2),
            "latency_p95_ms": round(self.latency(0.95) * 1e3, 2),
            "within_100_ms": round(self.within(0.1), 4),
            "loads": self.loads,
            "loads_during_stream": len(self.swaps),
            "device_time_in_use": round(self.in_use, 4),
            "device_time_swapping": round(self.swapping, 4),
            "model_call_mean_ms": round(self.call * 1e3, 3),
            "setup_seconds": round(self.setup, 3),
        }

    def _of_device_time(self, seconds: float) -> float:
        total = len(self.devices) * self.wall
        return seconds / total if total else 0.0


def percentile(values: Sequence[float], part: float) -> float:
    """The smallest of the values that ``part`` (in [0, 1]) of them do not exceed; 0.0 of no values."""
    if not values:
        return 0.0
    rank = math.ceil(part * len(values))
    return sorted(values)[max(0, rank - 1)]


def covered(spans: Iterable[tuple[float, float]]) -> float:
    """Seconds that at least one of the spans covers: calls that share a device count once."""
    total, reached = 0.0, -math.inf
    for began, ended in sorted(spans):
        total += max(0.0, ended - max(began, reached))
        reached = max(reached, ended)
    return total
