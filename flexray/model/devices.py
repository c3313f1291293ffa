"""Devices, their types and what one node offers of them."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from flexray.model.amounts import MemoryMiB, MilliCpus
from flexray.model.isolation import MECHANISMS, Guarantee, Isolation, Strength
from flexray.model.partition import Profile


class Family(str, Enum):
    """What a request can ask for by keyword; follows the resource names Ray uses."""

    GPU = "gpu"
    """Graphics processors of any maker (Ray's ``GPU``)."""
    NPU = "npu"
    """Neural processors (Ray's ``NPU``: Huawei Ascend)."""
    CPU = "cpu"
    """Host cores standing in for an accelerator."""
    ANY = "any"
    """Any accelerator; only requests use it."""


class DeviceState(str, Enum):
    """Whether a device of the inventory can take work."""

    READY = "ready"
    """Claimed from Ray and healthy."""
    UNCLAIMED = "unclaimed"
    """Known, but still used by plain Ray work; it joins when it falls free."""
    RELEASED = "released"
    """Given back to Ray after idling, so that its node may leave; claimed again when it is needed."""
    SUSPECT = "suspect"
    """A fault that may pass; nothing new is placed there, what runs goes on."""
    CORDONED = "cordoned"
    """An operator wants nothing new there; what runs goes on."""
    SICK = "sick"
    """A fault that condemns it; its work moves off."""
    DRAINING = "draining"
    """An operator wants it empty; its work moves off."""
    DRAINED = "drained"
    """Nothing is left on it; it waits until it has been well for a while, or until the operator returns it."""
    LOST = "lost"
    """It is gone; what ran there has ended."""


#: States in which work that is still there is to go on elsewhere.
MOVES_OFF = frozenset({DeviceState.SICK, DeviceState.DRAINING, DeviceState.DRAINED, DeviceState.LOST})


@dataclass(frozen=True, slots=True)
class DeviceType:
    """A kind of device.

    Attributes:
        name: maker and model, such as ``nvidia/A100-80GB`` or ``cpu/x86_64``.
        memory: device memory in MiB.
        speed: nominal throughput relative to ``nvidia/A100-80GB`` = 1.0; a prior, replaced by measurement.
    """

    name: str
    memory: MemoryMiB
    speed: float = 1.0


@dataclass(frozen=True, slots=True)
class Device:
    """One physical accelerator on one node, or a part of the CPU standing in for one.

    Attributes:
        id: unique in the cluster and stable while the node lives: ``<node>/<family><index>``.
        node: id of the node.
        index: position on the node within its family, as the visible-devices variable counts.
        isolation: the mechanism that holds its slices to their share.
        memory_limit: how strongly something beside that mechanism holds them to their memory.
        profiles: the sizes of the parts it is cut into; () where a slice may have any size.
        key: what the maker calls it (UUID), or "".
        cores: host cores that stand in for the device; () for real accelerators.
        numa: NUMA node of the host that the device hangs on; -1 where nobody knows.
        links: (index of another device of the node and family, direct links to it such as NVLink lanes), by index.
        reason: why it takes no work, in words; "" while it does.
    """

    id: str
    node: str
    index: int
    type: DeviceType
    family: Family
    backend: str
    isolation: Isolation = Isolation.NONE
    state: DeviceState = DeviceState.READY
    key: str = ""
    cores: tuple[int, ...] = ()
    numa: int = -1
    links: tuple[tuple[int, int], ...] = ()
    memory_limit: Strength = Strength.NONE
    profiles: tuple[Profile, ...] = ()
    reason: str = ""

    @property
    def guarantee(self) -> Guarantee:
        """How strongly slices of it are held to their share and memory."""
        compute, memory = MECHANISMS[self.isolation]
        return Guarantee(compute, max(memory, self.memory_limit, key=lambda strength: strength.rank))


def group_links(index: int, position: int, size: int) -> tuple[tuple[int, int], ...]:
    """Links of a device in a row of fully linked groups, one link a pair; for devices that are only described.

    Args:
        index: of the device; those of its row follow each other.
        position: in its row, from 0.
        size: devices of a group; 1 gives no links.
    """
    first = index - position % size
    return tuple((other, 1) for other in range(first, first + size) if other != index)


@dataclass(frozen=True, slots=True)
class BackendReport:
    """What one backend found on a node: how many devices, or the reason there are none."""

    backend: str
    found: int
    reason: str = ""


@dataclass(frozen=True, slots=True)
class ForeignProcess:
    """A process on a pooled device that belongs to no slice.

    Attributes:
        device: id of the device.
        memory: MiB of the device's memory when it was first seen; None where its maker does not say.
        since: when it was first seen, in seconds since 1970.
    """

    device: str
    pid: int
    memory: int | None
    since: float


@dataclass(frozen=True, slots=True)
class DeviceNote:
    """Something that was seen on a device and does not condemn it, such as the fault of an application.

    Attributes:
        device: id of the device.
        what: the fault, in words.
        at: when it was seen, in seconds since 1970.
    """

    device: str
    what: str
    at: float


@dataclass(frozen=True, slots=True)
class Cordon:
    """An operator's word that a device takes nothing new. It outlives the node's leaving, and the scheduler.

    Attributes:
        device: id of the device.
        node: the name of its node, by which a device without a key is known again when its node comes back.
        key: what the maker calls the device (UUID), by which it is known again wherever it comes back; or "".
        reason: the operator's, or "".
        drain: whether its work is to move off, too.
    """

    device: str
    node: str = ""
    key: str = ""
    reason: str = ""
    drain: bool = False

    def describe(self) -> str:
        """One line, for people."""
        return f"{'drained' if self.drain else 'cordoned'} by an operator{': ' if self.reason else ''}{self.reason}"


@dataclass(frozen=True, slots=True)
class Inventory:
    """What one node offers to the pool, who else uses it, and what was seen on it lately."""

    node: str
    name: str
    devices: tuple[Device, ...] = ()
    cpus: MilliCpus = MilliCpus(0)
    host_memory: MemoryMiB = MemoryMiB(0)
    reports: tuple[BackendReport, ...] = ()
    foreign: tuple[ForeignProcess, ...] = ()
    notes: tuple[DeviceNote, ...] = ()


@dataclass(frozen=True, slots=True)
class NewNode:
    """A kind of node that Ray's autoscaler can add to the pool: so many devices of one type, and what is beside them.

    ``labels``: what Ray calls it by, as a label selector; () where it needs none.
    """

    type: DeviceType
    family: Family
    devices: int
    cpus: MilliCpus = MilliCpus(0)
    host_memory: MemoryMiB = MemoryMiB(0)
    labels: tuple[tuple[str, str], ...] = ()
