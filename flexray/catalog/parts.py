"""The fixed parts that known device types can be cut into, each with the public document its figures come from.

NVIDIA's MIG: a part has some of the compute slots and some of the memory places of the device (``Profile``). Memory is
here the same for each place, the device's memory divided by their number; the driver keeps a little of it, and a node
counts with what its driver says. Parts that differ in media engines only (``+me``) are left out.

Ascend's vNPU templates: AI cores, memory, and AI CPUs (``AICPU``), wherever they are on the chip. Our books know one
share, so a template's share is its part of the AI cores or of the AI CPUs, whichever is more: what fits by that fits
by both. It costs one combination that the chip allows, on 910B2: vir12_3c_32g, vir06_1c_16g and twice vir03_1c_8g.
"""

from __future__ import annotations

from dataclasses import dataclass

from flexray.catalog.types import CATALOG
from flexray.model.amounts import MemoryMiB
from flexray.model.isolation import Isolation
from flexray.model.partition import Profile, slots_share

_MIG = "NVIDIA Multi-Instance GPU user guide, supported profiles and placements"
_VNPU = "Huawei MindCluster documentation, vNPU templates; amounts as in HAMi's device-configmap.yaml"


@dataclass(frozen=True, slots=True)
class _Mig:
    """A part as the maker's table has it: name, compute slots, memory places, and where it may begin."""

    name: str
    slots: int
    width: int
    starts: tuple[int, ...]


def _seven(memory: tuple[str, str, str, str]) -> tuple[_Mig, ...]:
    """The parts of a device with 7 compute slots and 8 memory places; the names follow the memory of 1, 2, 4, 8."""
    one, two, four, eight = memory
    return (
        _Mig(f"1g.{one}gb", 1, 1, (0, 1, 2, 3, 4, 5, 6)),
        _Mig(f"1g.{two}gb", 1, 2, (0, 2, 4, 6)),
        _Mig(f"2g.{two}gb", 2, 2, (0, 2, 4)),
        _Mig(f"3g.{four}gb", 3, 4, (0, 4)),
        _Mig(f"4g.{four}gb", 4, 4, (0,)),
        _Mig(f"7g.{eight}gb", 7, 8, (0,)),
    )


def _four(memory: tuple[str, str, str]) -> tuple[_Mig, ...]:
    """The parts of a device with 4 compute slots and 4 memory places."""
    one, two, four = memory
    return (
        _Mig(f"1g.{one}gb", 1, 1, (0, 1, 2, 3)),
        _Mig(f"2g.{two}gb", 2, 2, (0, 2)),
        _Mig(f"4g.{four}gb", 4, 4, (0,)),
    )


_OF_40, _OF_80 = ("5", "10", "20", "40"), ("10", "20", "40", "80")
_OF_94, _OF_96 = ("12", "24", "47", "94"), ("12", "24", "48", "96")
_OF_141, _OF_180 = ("18", "35", "71", "141"), ("23", "45", "90", "180")

_MIG_PARTS: dict[str, tuple[_Mig, ...]] = {
    "nvidia/A30": _four(("6", "12", "24")),
    "nvidia/A100-40GB": _seven(_OF_40),
    "nvidia/A100-80GB": _seven(_OF_80),
    "nvidia/H100-80GB": _seven(_OF_80),
    "nvidia/H100-PCIe-80GB": _seven(_OF_80),
    "nvidia/H100-NVL-94GB": _seven(_OF_94),
    "nvidia/GH200-96GB": _seven(_OF_96),
    "nvidia/H20-96GB": _seven(_OF_96),
    "nvidia/H200-141GB": _seven(_OF_141),
    "nvidia/H200-NVL-141GB": _seven(_OF_141),
    "nvidia/B200": _seven(_OF_180),
    "nvidia/RTX-PRO-6000": _four(("24", "48", "96")),
}


@dataclass(frozen=True, slots=True)
class _Chip:
    """AI cores and AI CPUs of a chip (0: not published), and its templates: (name, AI cores, AI CPUs, MiB)."""

    cores: int
    cpus: int
    templates: tuple[tuple[str, int, int, int], ...]


_VNPU_PARTS: dict[str, _Chip] = {
    "ascend/910A": _Chip(
        30, 0, (("vir02", 2, 0, 2184), ("vir04", 4, 0, 4369), ("vir08", 8, 0, 8738), ("vir16", 16, 0, 17476))
    ),
    "ascend/910B2": _Chip(
        24, 6, (("vir03_1c_8g", 3, 1, 8192), ("vir06_1c_16g", 6, 1, 16384), ("vir12_3c_32g", 12, 3, 32768))
    ),
    "ascend/910B3": _Chip(20, 7, (("vir05_1c_16g", 5, 1, 16384), ("vir10_3c_32g", 10, 3, 32768))),
    "ascend/910B4": _Chip(20, 7, (("vir05_1c_8g", 5, 1, 8192), ("vir10_3c_16g", 10, 3, 16384))),
    "ascend/310P3": _Chip(8, 7, (("vir01", 1, 1, 3072), ("vir02", 2, 2, 6144), ("vir04", 4, 4, 12288))),
}


def profiles_of(type_name: str) -> tuple[Profile, ...]:
    """The parts that a type can be cut into, smallest first; () for one that cannot, or is not known."""
    return _PROFILES.get(type_name, ())


def cut_by(type_name: str) -> Isolation:
    """The mechanism that cuts a type into its parts; NONE for a type that cannot be."""
    if type_name in _MIG_PARTS:
        return Isolation.MIG
    return Isolation.VNPU if type_name in _VNPU_PARTS else Isolation.NONE


SOURCES = {Isolation.MIG: _MIG, Isolation.VNPU: _VNPU}
"""The public document of the parts that a mechanism makes."""


def _of_mig(parts: tuple[_Mig, ...], memory: int) -> tuple[Profile, ...]:
    slots, places = parts[-1].slots, parts[-1].width
    return tuple(
        [
            Profile(
                one.name, slots_share(one.slots, slots), MemoryMiB(memory * one.width // places), one.width, one.starts
            )
            for one in parts
        ]
    )


def _of_chip(chip: _Chip) -> tuple[Profile, ...]:
    return tuple(
        [
            Profile(name, max(slots_share(cores, chip.cores), slots_share(cpus, chip.cpus or 1)), MemoryMiB(memory))
            for name, cores, cpus, memory in chip.templates
        ]
    )


_MEMORY = {entry.name: entry.type.memory for entry in CATALOG}
_PROFILES: dict[str, tuple[Profile, ...]] = {
    **{name: _of_mig(parts, _MEMORY[name]) for name, parts in _MIG_PARTS.items()},
    **{name: _of_chip(chip) for name, chip in _VNPU_PARTS.items()},
}
