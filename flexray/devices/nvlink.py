"""How the NVIDIA GPUs of a node are connected: NVLink as NVML tells it, NUMA nodes as the kernel does.

NVML's own ``nvmlDeviceGetNumaNodeId`` is another thing: the node that a GPU's memory forms on
machines where it is host memory too.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flexray.model.devices import Device

Ask = Callable[[Callable[[Any], Any]], Any]
"""Puts a question to NVML; None where this GPU or driver cannot answer it."""

SYSFS = Path("/sys/bus/pci/devices")
"""Where the kernel describes devices on the PCI bus."""

_MOST_LINKS = 36
"""NVML_NVLINK_MAX_LINKS."""
_GPU, _SWITCH = 0, 2
"""NVML_NVLINK_DEVICE_TYPE_GPU and _SWITCH: what is at the other end of a link."""
_NO_BUS = 0xFFFFFFFF
"""PCI domain that drivers give for a switch which the node itself cannot see."""

Bus = tuple[int, int, int]
"""PCI domain, bus and device of a GPU; the texts for them differ in the width of the domain."""


@dataclass(frozen=True, slots=True)
class Wiring:
    """Where one GPU is connected.

    Attributes:
        bus: its place on the PCI bus.
        numa: NUMA node of the host, -1 unknown.
        peers: (place of another GPU, active links that lead straight to it).
        switched: active links to an NVSwitch.
    """

    bus: Bus
    numa: int = -1
    peers: tuple[tuple[Bus, int], ...] = ()
    switched: int = 0


def read_wiring(ask: Ask, handle: Any, sysfs: Path = SYSFS) -> Wiring | None:
    """Where a GPU is connected; None when NVML does not tell its place on the bus. Raises NVML's errors for faults."""
    pci = ask(lambda nvml: nvml.nvmlDeviceGetPciInfo(handle))
    if pci is None:
        return None
    bus = _parse_bus(str(pci.busId))
    peers: Counter[Bus] = Counter()
    switched = 0
    for link in range(_MOST_LINKS):
        active = ask(_about_link("State", handle, link))
        if active is None:  # a GPU answers for the links that it has
            break
        if not active:
            continue
        end = ask(_about_link("RemotePciInfo", handle, link))
        kind = ask(_about_link("RemoteDeviceType", handle, link))
        remote = None if end is None else _parse_bus(str(end.busId))
        if kind == _SWITCH or (kind is None and remote is not None and remote[0] == _NO_BUS):
            switched += 1
        elif remote is not None and kind in (_GPU, None):
            peers[remote] += 1
    return Wiring(bus, _numa(bus, sysfs), tuple(sorted(peers.items())), switched)


def connect(devices: list[Device], wirings: Mapping[str, Wiring]) -> list[Device]:
    """The devices with ``numa`` and ``links`` filled in, from the wiring of each device's ``key``.

    GPUs at switches are linked with each other by as many links as the one with fewer has. Where only one
    side of a link is known to NVML, it counts.
    """
    known = [device for device in devices if device.key in wirings]
    connected = []
    for device in devices:
        mine = wirings.get(device.key)
        if mine is not None:
            lanes = [(other.index, _lanes(mine, wirings[other.key])) for other in known if other.key != device.key]
            links = tuple(sorted((index, count) for index, count in lanes if count))
            device = dataclasses.replace(device, numa=mine.numa, links=links)
        connected.append(device)
    return connected


def _about_link(what: str, handle: Any, link: int) -> Callable[[Any], Any]:
    return lambda nvml: getattr(nvml, f"nvmlDeviceGetNvLink{what}")(handle, link)


def _lanes(one: Wiring, other: Wiring) -> int:
    direct = max(dict(one.peers).get(other.bus, 0), dict(other.peers).get(one.bus, 0))
    return direct + min(one.switched, other.switched)


def _parse_bus(text: str) -> Bus:
    """``00000000:3B:00.0`` -> (0, 59, 0)."""
    domain, bus, device = text.rsplit(".", 1)[0].split(":")
    return int(domain, 16), int(bus, 16), int(device, 16)


def _numa(bus: Bus, sysfs: Path) -> int:
    """The kernel's word, which is -1 on machines with one NUMA node, or where the firmware does not say."""
    domain, number, device = bus
    try:
        return max(-1, int((sysfs / f"{domain:04x}:{number:02x}:{device:02x}.0" / "numa_node").read_text()))
    except (OSError, ValueError):
        return -1
