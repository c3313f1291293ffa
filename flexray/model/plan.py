"""What would become of a request that nobody has submitted: what ``flexray plan`` and ``flex.plan()`` give.

The fields are an interface (docs/explain.md): ``--json`` prints them under these names.
"""

from __future__ import annotations

from dataclasses import dataclass

from flexray.model.explanation import StartEstimate, describe_seconds


@dataclass(frozen=True, slots=True)
class Alternative:
    """Another request that would start now.

    Attributes:
        change: what is different: ``devices``, ``share``, ``memory``, ``types``, ``queue``, ``isolation``, ``cpus``,
            ``host_memory`` or ``gang``.
        asked: the whole request, as ``Request.describe`` puts it.
        queue: its queue.
        node, devices, type: where it would go.
    """

    change: str
    asked: str
    queue: str
    node: str
    devices: tuple[str, ...]
    type: str


@dataclass(frozen=True, slots=True)
class PlanAnswer:
    """When and where a request would start.

    Attributes:
        asked, queue: the request.
        starts: ``now`` (there is room), ``later`` (when others end or give way), ``unknown`` (nobody can tell when), or
            ``never`` (``message`` says why).
        start: seconds from now with their basis, node and devices; of ``never``, no more than why.
        type: device type it would be on; "" where that is not known, or there is no device.
        message: why it can never run here, or "".
        removed: how many devices each reason rules out for good.
        alternatives: other requests that would start now, one for each change that helps; () for ``now``.
    """

    asked: str
    queue: str
    starts: str
    start: StartEstimate
    type: str
    message: str
    removed: tuple[tuple[str, int], ...]
    alternatives: tuple[Alternative, ...]

    def __str__(self) -> str:
        lines = [f"{self.asked} in queue {self.queue}: {self._when()}"]
        if self.removed:
            lines.append("never fits: " + ", ".join(f"{count} by {name}" for name, count in self.removed))
        if self.starts == "later":
            lines.append(str(self.start))
        for one in self.alternatives:
            where = ", ".join(one.devices) or one.node
            queue = f" in queue {one.queue}" if one.queue != self.queue else ""
            lines.append(f"would start now with other {one.change}: {one.asked}{queue}, on {where} ({one.type})")
        if not self.alternatives and self.starts != "now":
            lines.append("nothing near it would start now")
        return "\n  ".join(lines)

    def _when(self) -> str:
        where = f" on {', '.join(self.start.devices) or self.start.node} ({self.type})"
        if self.starts == "now":
            return f"would start now{where}"
        if self.starts == "later" and self.start.seconds is not None:
            return f"would start in about {describe_seconds(self.start.seconds)}{where}"
        return f"would never start: {self.message}" if self.starts == "never" else f"would wait: {self.start.why}"
