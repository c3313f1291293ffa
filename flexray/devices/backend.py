"""What every device backend answers, and the values it answers with.

Missing library, missing driver and "no devices" are different answers, never
exceptions: a broken vendor library must not break anything else.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import Enum
from typing import Protocol

from flexray.model.condition import Fault, Severity, worst
from flexray.model.devices import Device, Family


def device_id(node: str, family: Family, index: int) -> str:
    """The id of a device: ``<node>/<family><index>``."""
    return f"{node}/{family.value}{index}"


class ProbeStatus(str, Enum):
    """How a probe went."""

    OK = "ok"
    """Devices were found."""
    NO_DEVICES = "no_devices"
    """The backend works here; the node has none of its devices."""
    LIBRARY_MISSING = "library_missing"
    """The vendor's library is not installed."""
    DRIVER_MISSING = "driver_missing"
    """The library is there, the driver is not loaded."""
    BROKEN = "broken"
    """The library or driver is there and fails."""


@dataclass(frozen=True, slots=True)
class NodeFacts:
    """What a backend may know about its node.

    Attributes:
        node: id of the node in the cluster.
        resources: what Ray says the node has, such as ``{"GPU": 4.0, "CPU": 16.0}``.
        labels: Ray's node labels.
        cores: host cores the node's processes may use.
        host_memory: MiB of host memory.
        cpu_devices: how many CPU stand-ins to make here (0: none).
        fake: fake inventory spec such as ``2xA100-80GB.2xT4`` (see ``fake.py``), or "".
        visible: the masks Ray was started with, by their variable (``{"CUDA_VISIBLE_DEVICES": "0,2"}``); a maker
            whose variable is missing has all of its devices visible.
    """

    node: str
    resources: dict[str, float] = field(default_factory=dict)
    labels: dict[str, str] = field(default_factory=dict)
    cores: tuple[int, ...] = ()
    host_memory: int = 0
    cpu_devices: int = 0
    fake: str = ""
    visible: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ProbeResult:
    """Devices found on a node, or the reason there are none."""

    status: ProbeStatus
    devices: tuple[Device, ...] = ()
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Health:
    """Whether a device can take work, and what is wrong when it cannot.

    Attributes:
        faults: what is wrong now, or was seen since the last look; a device that is not well and names none has one
            that may pass.
    """

    ok: bool
    reason: str = ""
    faults: tuple[Fault, ...] = ()

    @classmethod
    def of(cls, faults: Iterable[Fault]) -> Health:
        """The health of a device with these faults: well, if none is more than a note."""
        found = tuple(faults)
        bad = [fault for fault in found if fault.severity is not Severity.NOTE]
        return cls(not bad, "; ".join(fault.describe() for fault in bad), found)

    @property
    def fault(self) -> Fault | None:
        """The worst fault."""
        return worst([*self.faults]) or (None if self.ok else Fault("", Severity.PASSING, self.reason))


@dataclass(frozen=True, slots=True)
class ProcessUse:
    """One process on a device. None when the driver does not say.

    Attributes:
        pid: its number, as the host counts.
        memory: MiB.
        utilisation: per cent of the device's compute units that it kept busy since the last sample.
    """

    pid: int
    memory: int | None
    utilisation: float | None = None


@dataclass(frozen=True, slots=True)
class Sample:
    """Use of a device at one instant. None means the backend cannot tell, never 0.

    Attributes:
        utilisation: per cent of time in which the device did anything.
        memory_used: MiB.
        processes: who uses it.
    """

    utilisation: float | None = None
    memory_used: int | None = None
    processes: tuple[ProcessUse, ...] = ()


class DeviceBackend(Protocol):
    """The code for one maker. Holds no state about slices; the core's books do."""

    name: str

    def probe(self, facts: NodeFacts) -> ProbeResult:
        """Find the node's devices. Never raises: what went wrong is in the result."""

    def health(self, device: Device) -> Health:
        """Whether the device can take work now."""

    def sample(self, device: Device) -> Sample:
        """How much of the device is in use now."""
