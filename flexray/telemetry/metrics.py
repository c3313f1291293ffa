"""Every metric of the pool, as one table: whatever counts, exports, documents or alerts reads it.

Names and units follow the conventions of OpenTelemetry (dots, UCUM units); ``prometheus_name`` is what Prometheus makes
of them. No label holds what users write, but for names of queues, which operators configure.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Kind(str, Enum):
    """What a metric is."""

    GAUGE = "gauge"
    """What there is now."""
    COUNTER = "counter"
    """How much there was since this scheduler was started."""
    HISTOGRAM = "histogram"
    """How long something took, each time."""


SECONDS = (0.005, 0.02, 0.1, 0.5, 1.0, 2.0, 5.0, 15.0, 60.0, 300.0, 1800.0, 7200.0)
"""Buckets of what people wait for."""
_INSTANTS = (0.0002, 0.001, 0.005, 0.02, 0.05, 0.1, 0.25, 1.0, 5.0)
"""Buckets of what the scheduler does."""


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric.

    Attributes:
        unit: in UCUM: ``s``, ``By``, ``1`` for fractions, ``{device}`` and the like for counts.
        labels: names of its attributes; each has few values.
        buckets: upper bounds, of a histogram.
    """

    name: str
    kind: Kind
    unit: str
    labels: tuple[str, ...]
    description: str
    buckets: tuple[float, ...] = ()


_G, _C, _H = Kind.GAUGE, Kind.COUNTER, Kind.HISTOGRAM
_DEVICE = ("device", "type", "node")
_ROWS = (
    Metric("flexray.pool.devices", _G, "{device}", ("type", "state"), "Devices of the pool."),
    Metric("flexray.pool.compute.held", _G, "{device}", ("type",), "Compute that slices hold."),
    Metric("flexray.pool.compute.idle", _G, "{device}", ("type",), "Compute held by warm slices that nobody uses."),
    Metric(
        "flexray.pool.compute.wasted",
        _G,
        "{device}",
        ("type",),
        "Compute of slices whose holder has used hardly any of it for a minute.",
    ),
    Metric("flexray.pool.memory.size", _G, "By", ("type",), "Memory of the pool's devices."),
    Metric("flexray.pool.memory.held", _G, "By", ("type",), "Memory of devices that slices hold."),
    Metric("flexray.device.state", _G, "1", (*_DEVICE, "state"), "1 for the state that a device is in."),
    Metric("flexray.device.compute.held", _G, "1", _DEVICE, "Fraction of a device that slices hold."),
    Metric("flexray.device.compute.used", _G, "1", _DEVICE, "Fraction of a device that its slices use."),
    Metric("flexray.device.memory.size", _G, "By", _DEVICE, "Memory of a device."),
    Metric("flexray.device.memory.held", _G, "By", _DEVICE, "Memory of a device that slices hold."),
    Metric("flexray.device.memory.used", _G, "By", _DEVICE, "Memory of a device that its slices use."),
    Metric("flexray.device.slices", _G, "{slice}", _DEVICE, "Slices on a device."),
    Metric("flexray.slices", _G, "{slice}", ("state",), "Slices."),
    Metric("flexray.queue.waiting", _G, "{request}", ("queue",), "Requests of a queue that wait."),
    Metric("flexray.queue.running", _G, "{request}", ("queue",), "Requests of a queue that hold a lease."),
    Metric("flexray.queue.waiting.oldest", _G, "s", ("queue",), "For how long the oldest in a queue's line waits."),
    Metric("flexray.queue.devices.held", _G, "{device}", ("queue",), "Devices, and parts of them, that a queue has."),
    Metric("flexray.queue.compute.held", _G, "{device}", ("queue",), "The same in units of nvidia/A100-80GB."),
    Metric("flexray.queue.compute.quota", _G, "{device}", ("queue",), "Compute that a queue's quota guarantees."),
    Metric("flexray.queue.compute.entitled", _G, "{device}", ("queue",), "Compute that is a queue's fair share now."),
    Metric("flexray.queue.compute.borrowed", _G, "{device}", ("queue",), "Compute that a queue has beyond its quota."),
    Metric("flexray.queue.quota.utilization", _G, "1", ("queue",), "Compute that a queue has, as part of its quota."),
    Metric("flexray.requests.waiting", _G, "{request}", ("reason",), "Requests that wait, by the first one's reason."),
    Metric("flexray.leases", _G, "{lease}", (), "Leases that are held."),
    Metric("flexray.clients", _G, "{client}", (), "Clients that are connected."),
    Metric("flexray.scheduler.epoch", _G, "1", (), "How often the scheduler was started."),
    Metric("flexray.requests.submitted", _C, "{request}", ("queue",), "Requests for a lease, or a gang's leases."),
    Metric("flexray.requests.ended", _C, "{request}", ("queue", "reason"), "Requests that are over, and why."),
    Metric("flexray.leases.granted", _C, "{lease}", ("queue",), "Leases that were given."),
    Metric("flexray.leases.lost", _C, "{lease}", ("reason",), "Leases that ended without their holder's wish."),
    Metric("flexray.leases.recalled", _C, "{lease}", ("reason",), "Leases asked back, to end when what runs is done."),
    Metric("flexray.preemptions", _C, "{lease}", ("reason",), "Leases taken back in the middle of their work."),
    Metric("flexray.tasks.run", _C, "{task}", ("queue",), "Tasks that ran to their end."),
    Metric("flexray.tasks.run.time", _C, "s", ("queue",), "Time that tasks ran, those that ran to their end."),
    Metric("flexray.slices.started", _C, "{slice}", ("type",), "Slices that were started."),
    Metric("flexray.slices.failed", _C, "{slice}", ("type",), "Slices that could not be started."),
    Metric("flexray.slices.stopped", _C, "{slice}", ("reason",), "Slices that the pool stopped."),
    Metric("flexray.slices.ended", _C, "{slice}", ("cause",), "Slices that ended unasked: died, timeout, memory, ..."),
    Metric("flexray.slices.memory_kills", _C, "{slice}", ("kind",), "Slices ended for using more memory than theirs."),
    Metric("flexray.request.wait.duration", _H, "s", ("queue",), "From request to lease.", SECONDS),
    Metric("flexray.slice.start.duration", _H, "s", ("type",), "From the order to a slice's first answer.", SECONDS),
    Metric("flexray.scheduler.cycle.lag", _H, "s", (), "From an event to the cycle that looks at it.", _INSTANTS),
    Metric("flexray.scheduler.decide.duration", _H, "s", (), "What a cycle takes to decide.", _INSTANTS),
)
METRICS: dict[str, Metric] = {metric.name: metric for metric in _ROWS}

_SUFFIX = {"s": "_seconds", "By": "_bytes"}


def prometheus_name(metric: Metric) -> str:
    """The name of a metric as OpenTelemetry's exporter has it, of a histogram without ``_bucket`` and the like.

    Ray puts ``ray_`` before it.
    """
    name = base_name(metric)
    return f"{name}_total" if metric.kind is Kind.COUNTER else name


def base_name(metric: Metric) -> str:
    """The same without the ``_total`` that exporters add to counters."""
    return metric.name.replace(".", "_") + _SUFFIX.get(metric.unit, "")
