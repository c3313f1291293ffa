"""Intel GPUs of several tiles: a slice sees some tiles of its card, each with its own compute and memory.

Level Zero reads ``ZE_AFFINITY_MASK=<card>.<tile>`` when it is loaded; numbers of cards are those of the whole machine.
The two-part names need its composite view of devices (by default every tile is a device of its own, and the mask
means something else), so that is set as well. Code can lift the mask before it loads the library. Where the kernel
limits device memory, a slice has none on other tiles, whatever it does to its mask.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Collection, Sequence

from flexray.devices.commands import CommandFailed, Run, number, run_command
from flexray.devices.enforcers.dmem import MemoryGroups
from flexray.devices.enforcers.enforcer import Cell, NotResizable, SliceSetup, Support, Usage
from flexray.devices.intel import IntelBackend
from flexray.devices.visible import LEVEL_ZERO
from flexray.errors import IsolationFailed
from flexray.model.amounts import WHOLE, MemoryMiB
from flexray.model.devices import Device
from flexray.model.isolation import Isolation, Strength
from flexray.model.partition import Profile, slots_share

SECONDS = 10.0
"""Time limit of a question to ``xpu-smi``."""

_HIERARCHY = {"ZE_FLAT_DEVICE_HIERARCHY": "COMPOSITE"}
_BUS = re.compile(r"[0-9a-f]{4,8}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]")
_MIB = 2**20


class Tiles:
    """Gives slices tiles. The core chooses which; nothing but memory limits is made on the node."""

    isolation = Isolation.TILES

    def __init__(self, groups: MemoryGroups, run: Run = run_command) -> None:
        """Args: groups: limit the slices' memory where the kernel can. run: runs xpu-smi."""
        self._groups = groups
        self._xpu = IntelBackend(run)
        self._lock = threading.Lock()

    def probe(self, devices: Sequence[Device]) -> dict[str, Support]:
        """Asks for the number of tiles; whether a mask takes effect only a program on the GPU could tell."""
        return {device.id: self._support(device) for device in devices}

    def prepare(self, cell: Cell) -> SliceSetup:
        """The mask with the slice's tiles, or with whole cards."""
        if not cell.devices or not all(_BUS.fullmatch(device.key) for device in cell.devices):
            raise IsolationFailed(f"{cell.slice}: not a card that xpu-smi knows: {[d.id for d in cell.devices]}")
        if cell.share >= WHOLE:
            cards = ",".join(str(device.index) for device in cell.devices)
            return SliceSetup(self.isolation, env={LEVEL_ZERO: cards, **_HIERARCHY})
        if cell.profile is None or cell.start < 0:
            raise IsolationFailed(f"{cell.slice}: {cell.devices[0].id} is cut into tiles, and it was given none")
        card = cell.devices[0].index
        tiles = range(cell.start, cell.start + cell.profile.width)
        return SliceSetup(
            self.isolation,
            env={LEVEL_ZERO: ",".join(f"{card}.{tile}" for tile in tiles), **_HIERARCHY},
            join=self._limit(cell, tiles),
            notes=(f"tiles {', '.join(map(str, tiles))} of card {card}",),
        )

    def resize(self, cell: Cell) -> None:
        """Never: the mask was read when the process started."""
        raise NotResizable(
            "isolation tiles: a process keeps the tiles that it started with; "
            "end the slice and start its work again on one of the new size"
        )

    def usage(self, cell: Cell, pids: Collection[int]) -> Usage:
        """Memory, where the kernel counts it."""
        return Usage(memory=self._groups.used(cell.slice))

    def release(self, cell: Cell) -> None:
        """Remove the limit on memory."""
        with self._lock:
            self._groups.remove(cell.slice)

    def sweep(self, keep: Collection[str]) -> None:
        """Remove the limits of other slices."""
        with self._lock:
            self._groups.sweep(keep)

    def _support(self, device: Device) -> Support:
        if not _BUS.fullmatch(device.key):
            return Support(False, f"{device.key or 'it'} is no place on the PCI bus, by which xpu-smi knows cards")
        try:
            count = int(number(self._xpu.ask(SECONDS, "discovery", "-d", device.key).get("number_of_tiles")) or 0)
        except CommandFailed as error:
            return Support(False, str(error))
        if count < 2:
            return Support(False, "the card has one tile; its parts share it")
        with self._lock:
            limited = not self._groups.refusal(device)
        return Support(
            True, memory=Strength.HARD if limited else Strength.HARD_PROCESS, profiles=_profiles(device, count)
        )

    def _limit(self, cell: Cell, tiles: range) -> tuple[str, ...]:
        """The file to join by; () where the kernel does not limit memory tile by tile."""
        regions = self._groups.regions(cell.devices[0])
        if len(regions) <= tiles[-1]:
            return ()
        each = cell.memory * _MIB // len(tiles)
        limits = {region: each if place in tiles else 0 for place, region in enumerate(regions)}
        with self._lock:
            return (self._groups.make(cell.slice, limits),)


def _profiles(device: Device, count: int) -> tuple[Profile, ...]:
    """Some tiles of a card, but not all: ``1t`` of two is half of it."""
    return tuple(
        Profile(
            f"{width}t",
            slots_share(width, count),
            MemoryMiB(device.type.memory * width // count),
            width,
            tuple(range(count - width + 1)),
        )
        for width in range(1, count)
    )
