"""What every enforcer answers, and the values it answers with.

An enforcer is one mechanism that holds slices to their part of a device: MIG, MPS, cgroups, ... It works on
the node, in the node agent's process, and never loads a vendor library there: it writes files and runs the
maker's commands. What has to happen inside a slice's process is plain data, a ``SliceSetup``.

    probe(devices) -> Support per device     tries it for real and leaves nothing behind
    prepare(cell) -> SliceSetup              makes what the slice needs; may be repeated
    resize(cell)                             a running slice gets another share or memory, or NotResizable
    usage(cell) -> Usage                     what the slice uses now
    release(cell)                            removes what prepare made; may be repeated, also after a crash
    sweep(keep)                              removes what earlier agents left behind and nobody needs
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from flexray.errors import DeviceError
from flexray.model.amounts import MemoryMiB, Share
from flexray.model.devices import Device
from flexray.model.isolation import Isolation, Strength
from flexray.model.partition import Profile


class NotResizable(DeviceError):
    """This mechanism cannot change what a running slice holds; the message says why and what to do instead."""


@dataclass(frozen=True, slots=True)
class Cell:
    """A slice as an enforcer sees it.

    Attributes:
        slice: its id.
        devices: one, or several whole ones.
        share: thousandths of each device that are the slice's own.
        burst: thousandths it may use while others leave them idle; at least ``share``.
        memory: MiB of each device.
        profile: the part it is on devices that are cut into fixed parts, or None.
        start: the first place of that part in the device's row of places; -1 where only amounts count.
    """

    slice: str
    devices: tuple[Device, ...]
    share: Share
    burst: Share
    memory: MemoryMiB
    profile: Profile | None = None
    start: int = -1


@dataclass(frozen=True, slots=True)
class Support:
    """Whether an enforcer works for a device here, found out by trying.

    Attributes:
        usable: whether it does.
        reason: what is missing or was refused, and what to do about it; "" when usable.
        memory: how strongly it limits memory here (its compute limit is as strong as its mechanism always is).
        profiles: the sizes of parts, where the device is cut into fixed ones.
    """

    usable: bool
    reason: str = ""
    memory: Strength = Strength.NONE
    profiles: tuple[Profile, ...] = ()


@dataclass(frozen=True, slots=True)
class SliceSetup:
    """What a slice's process is given, and does before anything else.

    Attributes:
        isolation: the mechanism that really holds it.
        launch: environment variables that must be there before the process starts (LD_PRELOAD, visible devices).
        env: variables that it sets first.
        join: files of cgroups into which it writes its process number, in this order.
        data_limit: MiB its heap may grow beyond what it is at start (RLIMIT_DATA, per process); 0: no limit.
        cores: host cores to bind to; () leaves the affinity alone.
        threads: number of threads numeric libraries may use; 0 leaves them alone.
        memory_fraction: part of the device's memory that torch's allocator may take; 0: no limit.
        turns: socket of the node's server of turns, or "".
        notes: what a person should know of the limits here, such as rounding.
    """

    isolation: Isolation = Isolation.NONE
    launch: dict[str, str] = field(default_factory=dict)
    env: dict[str, str] = field(default_factory=dict)
    join: tuple[str, ...] = ()
    data_limit: int = 0
    cores: tuple[int, ...] = ()
    threads: int = 0
    memory_fraction: float = 0.0
    turns: str = ""
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Usage:
    """What a slice uses. None means that nobody can tell, never 0.

    Attributes:
        busy_seconds: device-seconds used since the slice started, over all its devices (two busy cores of a
            two-core device for a second are one device-second).
        memory: MiB in use now, by all of its processes.
        out_of_memory: whether the kernel has ended processes of it because they needed more than it holds.
    """

    busy_seconds: float | None = None
    memory: int | None = None
    out_of_memory: bool = False


class Enforcer(Protocol):
    """One mechanism, on one node."""

    isolation: Isolation
    """The mechanism this is."""

    def probe(self, devices: Sequence[Device]) -> dict[str, Support]:
        """Device id -> whether it works there. Tries for real, leaves nothing behind, never raises."""

    def prepare(self, cell: Cell) -> SliceSetup:
        """Make what the slice needs. May be repeated for the same cell. Raises IsolationFailed, leaving nothing."""

    def resize(self, cell: Cell) -> None:
        """``cell`` with its new amounts. Raises NotResizable, changing nothing."""

    def usage(self, cell: Cell, pids: Collection[int]) -> Usage:
        """What the slice, whose processes these are, uses now. Never raises."""

    def release(self, cell: Cell) -> None:
        """Remove what ``prepare`` made; the slice's processes are gone. May be repeated. Raises IsolationFailed."""

    def sweep(self, keep: Collection[str]) -> None:
        """Remove what was made on this node for slices other than these, by agents that have died."""
