"""What Huawei's command ``npu-smi`` prints, read: it has no machine-readable form.

The shapes are those of captures of releases 23 to 25 and of the command's own source. A device is a chip: cards
carry one or two, named by (card, chip) in commands and by a logical number in ``ASCEND_RT_VISIBLE_DEVICES``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from flexray.devices.backend import ProbeStatus
from flexray.devices.commands import CommandFailed, failure, number


@dataclass(frozen=True, slots=True)
class Chip:
    """One chip.

    Attributes:
        card: number of its card (NPU ID).
        chip: its number on the card.
        logic: its number in masks.
        physical: its number in ``/dev/davinci<number>``.
        name: what it is called.
    """

    card: int
    chip: int
    logic: int
    physical: int
    name: str

    @property
    def key(self) -> str:
        """``<card>.<chip>``: what ``npu-smi`` calls it."""
        return f"{self.card}.{self.chip}"


_MAPPING = ("NPU ID", "Chip ID", "Chip Logic ID", "Chip Phy-ID", "Chip Name")


def parse_mapping(text: str) -> list[Chip]:
    """The chips of ``npu-smi info -m``; controllers (``Mcu``) have no logical number and are left out."""
    lines = [line for line in text.splitlines() if line.strip()]
    header = next((place for place, line in enumerate(lines) if "Chip ID" in line), None)
    if header is None:
        raise failure("npu-smi", text)
    columns = [name for name in _MAPPING if name in lines[header]]
    chips = []
    for line in lines[header + 1 :]:
        cells = dict(zip(columns, line.split(None, len(columns) - 1), strict=False))
        logic = cells.get("Chip Logic ID", cells.get("Chip Phy-ID", "-"))
        if logic.isdigit() and cells["NPU ID"].isdigit() and cells["Chip ID"].isdigit():
            physical = cells.get("Chip Phy-ID", logic)
            name = cells.get("Chip Name", "").strip()
            chips.append(Chip(int(cells["NPU ID"]), int(cells["Chip ID"]), int(logic), int(physical), name))
    return chips


def parse_fields(text: str) -> dict[str, str]:
    """The ``name : value`` lines of ``npu-smi info -t ...``, of the first chip where there are several."""
    fields: dict[str, str] = {}
    for line in text.splitlines():
        name, colon, value = line.partition(" : " if " : " in line else ":")
        if colon and not line.lstrip().startswith("Process id"):
            fields.setdefault(name.strip(), value.strip())
    return fields


def parse_processes(text: str) -> dict[int, int]:
    """Process id -> MiB, of ``npu-smi info -t proc-mem``. Raises CommandFailed for other words."""
    found = re.findall(r"Process id\s*:\s*(\d+).*?Process memory\(MB\)\s*:\s*(\d+)", text)
    if not found and "No process" not in text and "Chip ID" not in text:
        raise failure("npu-smi", text)
    return {int(pid): int(used) for pid, used in found}


def memory_size(usages: dict[str, str]) -> int:
    """MiB of a chip's memory, of ``npu-smi info -t usages``. Raises CommandFailed where it is not told."""
    return _memory(usages)[0]


def memory_used(usages: dict[str, str]) -> int | None:
    """MiB of that memory in use, to one per cent of it."""
    size, kind = _memory(usages)
    rate = number(usages.get(f"{kind} Usage Rate(%)"))
    return None if rate is None else round(size * rate / 100)


def _memory(usages: dict[str, str]) -> tuple[int, str]:
    """The size of a chip's memory and its kind: the 910s have HBM (and some DDR besides), the 310s DDR."""
    for kind in ("HBM", "DDR", "Memory"):
        size = number(usages.get(f"{kind} Capacity(MB)"))
        if size:
            return int(size), kind
    raise CommandFailed(ProbeStatus.BROKEN, "npu-smi does not tell the memory of a chip")


@dataclass(frozen=True, slots=True)
class Template:
    """A kind of virtual NPU: AI cores, GiB of memory, AI CPUs."""

    name: str
    cores: int
    gigabytes: int
    cpus: int


_TEMPLATE = re.compile(r"^\s*\|\s*(vir\w+)\s*\|?\s*(\d+)\s*\|?\s*(\d+)\s*\|?\s*(\d+)\b", re.MULTILINE)


def parse_templates(text: str) -> list[Template]:
    """The rows of ``npu-smi info -t template-info``."""
    return [Template(name, int(cores), int(gb), int(cpus)) for name, cores, gb, cpus in _TEMPLATE.findall(text)]


@dataclass(frozen=True, slots=True)
class Split:
    """How a chip is cut.

    Attributes:
        cores: AI cores of the chip.
        cpus: its AI CPUs; 0 where the driver does not tell.
        virtual: its virtual NPUs by id, with their templates.
    """

    cores: int
    cpus: int
    virtual: dict[int, str]


_AMOUNTS = re.compile(r"^\s*\|\s*\d+/(\d+)\s+\S+\s+(?:\d+/(\d+)|NA/NA)\s", re.MULTILINE)
"""AI cores, memory, AI CPUs, each free/total."""
_VIRTUAL = re.compile(r"^\s*\|\s*(\d+)\s*\|\s*\w+\s*\|\s*\w+\s*\|\s*\w+\s*\|\s*(vir\w+)\s*\|", re.MULTILINE)


def parse_split(text: str) -> Split:
    """``npu-smi info -t info-vnpu``. Raises CommandFailed for other words."""
    amounts = _AMOUNTS.search(text)
    if amounts is None:
        raise failure("npu-smi", text)
    virtual = {int(number): template for number, template in _VIRTUAL.findall(text)}
    return Split(int(amounts[1]), int(amounts[2] or 0), virtual)
