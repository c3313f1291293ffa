"""Known device types: memory, nominal speed and the fixed parts they can be cut into, each with its public source.

A nominal speed is a prior: measured throughput replaces it as tasks run. Types that
are not known get neutral values, so that nothing depends on being in the table.
"""

from __future__ import annotations

import re

from flexray.catalog.parts import cut_by, profiles_of
from flexray.catalog.types import ALIASES, CATALOG, NEUTRAL_SPEED, CatalogEntry
from flexray.model.amounts import MemoryMiB
from flexray.model.devices import DeviceType, Family

__all__ = [
    "CATALOG",
    "NEUTRAL_MEMORY",
    "NEUTRAL_SPEED",
    "CatalogEntry",
    "cut_by",
    "family_of",
    "find",
    "is_known",
    "lookup",
    "profiles_of",
    "type_from_nvml",
    "type_from_product",
]

NEUTRAL_MEMORY = MemoryMiB(16 * 1024)
"""Memory (MiB) given to a type that is neither known nor measured."""

_BY_NAME: dict[str, DeviceType] = {entry.name: entry.type for entry in CATALOG}
_FOLDED: dict[str, DeviceType] = {
    **{alias: _BY_NAME[name] for alias, name in ALIASES.items()},
    **{name.split("/", 1)[1].lower(): kind for name, kind in _BY_NAME.items()},
    **{name.lower(): kind for name, kind in _BY_NAME.items()},
}
_FAMILIES = {"ascend": Family.NPU, "cpu": Family.CPU}
_DECLARED_NPU = "declared/npu"
_MEMORY_SUFFIX = re.compile(r"-\d+GB$")
_BRANDS = {"NVIDIA", "TESLA", "GEFORCE", "FAKE"}
_FORM = re.compile(r"SXM\d?|PCIE|HBM\d\w?|\d+GB|GENERATION")
_PRODUCT_NOISE = {
    "ascend": {"ASCEND"},
    "amd": {"AMD", "INSTINCT", "OAM", "MCM", "AC", "MBA"},
    "intel": {"INTEL", "DATA", "CENTER", "GPU", "GRAPHICS"},
}
"""Words of product names that do not tell models apart, in upper case."""
_SAME_SIZE = 0.15
"""Drivers report up to a tenth less memory than the datasheet (ECC, reserve); further off is another product."""


def lookup(name: str) -> DeviceType | None:
    """The type of exactly this full name (``nvidia/T4``), or None."""
    return _BY_NAME.get(name)


def is_known(name: str) -> bool:
    """Whether ``find`` has figures for this name, instead of neutral values."""
    return name.strip().lower() in _FOLDED


def find(short: str) -> DeviceType:
    """The type of a full or short name, in any case: ``A100-80GB``, ``t4``, ``nvidia/T4``.

    A short name of several sizes means the smallest. An unknown name gives neutral values,
    16 GiB and speed 1.0, as ``unknown/<short>``, or under its own name if it names a maker.
    """
    name = short.strip() or "unknown"
    known = _FOLDED.get(name.lower())
    if known is not None:
        return known
    return DeviceType(name if "/" in name else f"unknown/{name}", NEUTRAL_MEMORY, NEUTRAL_SPEED)


def family_of(name: str) -> Family:
    """The family of a type by its maker: Ascend makes NPUs, ``cpu/...`` is host cores, the rest are GPUs.

    Of what only Ray declares, ``declared/npu`` says it itself.
    """
    if name.lower() == _DECLARED_NPU:
        return Family.NPU
    return _FAMILIES.get(name.split("/", 1)[0].lower(), Family.GPU)


def type_from_nvml(name: str, memory_mib: int) -> DeviceType:
    """The type of a device by the product name and the total memory (MiB) that NVML reports.

    The memory is always the measured one. A product that is not in the catalog becomes
    ``nvidia/<product name>`` with neutral speed.
    """
    words = [word for word in re.split(r"[^A-Za-z0-9.]+", name) if word]
    while words and words[0].upper() in _BRANDS:
        words.pop(0)
    kept = [word for word in words if not _FORM.fullmatch(word.upper())]
    model = "-".join(kept).lower()
    if model == "h100" and "PCIE" in {word.upper() for word in words}:
        model = "h100-pcie"  # the one model whose PCIe card has a catalog row of its own
    return _measured("nvidia", model, "-".join(words), memory_mib)


def type_from_product(maker: str, name: str, memory_mib: int) -> DeviceType:
    """The type of a device by the product name and the total memory (MiB) that its maker's command reports.

    ``Ascend 910B3``, ``AMD Instinct MI300X OAM``, ``Intel(R) Data Center GPU Max 1550``. The memory is always the
    measured one. A product that is not in the catalog becomes ``<maker>/<product name>`` with neutral speed; one
    of quite another size (a partition of a card) has its size in its name.
    """
    plain = re.sub(r"\((R|TM)\)", "", name, flags=re.IGNORECASE)
    words = [re.sub(r"^Ascend(?=\d)", "", word) for word in re.split(r"[^A-Za-z0-9.]+", plain) if word]
    model = "-".join(word for word in words if word.upper() not in _PRODUCT_NOISE[maker])
    sized = f"{model}-{memory_mib / 1024:.0f}GB" if _sizes(f"{maker}/{model}") else model
    return _measured(maker, model, sized, memory_mib)


def _measured(maker: str, model: str, otherwise: str, memory_mib: int) -> DeviceType:
    """The catalog's type of a model with the measured memory; neutral as ``<maker>/<otherwise>`` when there is none."""
    entry = _closest(f"{maker}/{model}", memory_mib)
    if entry is None:
        return DeviceType(f"{maker}/{otherwise or 'unknown'}", MemoryMiB(memory_mib), NEUTRAL_SPEED)
    return DeviceType(entry.name, MemoryMiB(memory_mib), entry.type.speed)


def _closest(model: str, memory_mib: int) -> CatalogEntry | None:
    """The catalog's size of a maker's model that is nearest to the measured memory, if one is near."""

    def distance(entry: CatalogEntry) -> float:
        return abs(entry.type.memory - memory_mib) / entry.type.memory

    best = min(_sizes(model), key=distance, default=None)
    return best if best is not None and distance(best) <= _SAME_SIZE else None


def _sizes(model: str) -> list[CatalogEntry]:
    """The catalog's rows of a maker's model."""
    return [entry for entry in CATALOG if _MEMORY_SUFFIX.sub("", entry.name).lower() == model.lower()]
