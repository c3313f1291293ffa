"""Scripted devices, shipped for tests, examples and trying things out without hardware.

The inventory comes from configuration or from the Ray node label ``flexray.fake``.
Faults come from a JSON file that is read at every call, so that a test can break and
mend a device while it is in use::

    {"gpu0": {"health": "XID 79", "utilisation": 37, "memory_used": 1024}}

A key is a device's family and index, or its bare index. Nothing is ever enforced.

A type may end in ``_nv`` and a number: ``8xA100-80GB_nv4`` are two groups of four, within
which every device is linked with every other as by NVLink, on a NUMA node of their own.
"""

from __future__ import annotations

import difflib
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flexray import catalog
from flexray.devices.backend import Health, NodeFacts, ProbeResult, ProbeStatus, Sample, device_id
from flexray.errors import UsageError
from flexray.model.devices import Device, DeviceType, Family, group_links

FAKE_LABEL = "flexray.fake"
"""Ray node label with a fake inventory."""

MAX_DEVICES = 1024
"""Most fake devices of one node: a slip of the keyboard must not fill the memory."""

_SEPARATORS = re.compile(r"[.+,]")
_PART = re.compile(r"(?!\d+\s*x?$)(?:(\d{1,6})\s*x\s*)?([A-Za-z0-9](?:[A-Za-z0-9_/-]*[A-Za-z0-9])?)")
_LINKED = re.compile(r"(.+)_nv(\d{1,6})")


@dataclass(frozen=True, slots=True)
class FakePart:
    """Equal devices that follow each other. ``linked``: how many of them form a fully linked group; 1: no links."""

    count: int
    type: DeviceType
    linked: int = 1


def parse_fake(spec: str) -> list[FakePart]:
    """Parse ``2xA100-80GB.2xT4`` or ``4xA100-80GB_nv2`` into counts, types and sizes of linked groups.

    Parts are separated by ``.`` (all a Ray label allows), ``+`` or ``,``; a part without a
    number means one. A type is a name of the catalog, or ``<maker>/<model>`` with neutral
    values. Raises UsageError for anything else.
    """
    result: list[FakePart] = []
    for text in map(str.strip, _SEPARATORS.split(spec)):
        match = _PART.fullmatch(text)
        if match is None:
            raise UsageError(f'fake devices "{spec}": "{text}" is not of the form 2xA100-80GB')
        count = int(match[1] or 1)
        name, linked = _without_links(match[2])
        if count < 1:
            raise UsageError(f'fake devices "{spec}": "{text}" asks for no device')
        if "/" not in name and not catalog.is_known(name):
            raise UsageError(f'fake devices "{spec}": no type "{name}" in the catalog{_suggest(name)}')
        if linked is not None and (linked < 2 or count % linked):
            raise UsageError(
                f'fake devices "{spec}": "{text}" links groups of {linked}; '
                f"the size must be at least 2 and divide the number of devices, {count}"
            )
        result.append(FakePart(count, catalog.find(name), linked or 1))
    if sum(part.count for part in result) > MAX_DEVICES:
        raise UsageError(f'fake devices "{spec}": more than {MAX_DEVICES} on one node')
    return result


def fake_spec(facts: NodeFacts) -> str:
    """The fake inventory of a node, or "": configuration first, then the label."""
    return facts.fake or facts.labels.get(FAKE_LABEL, "")


class FakeBackend:
    """Devices that exist only in a spec, with faults from a script."""

    name = "fake"

    def __init__(self, script: str | Path | None = None) -> None:
        """Args: script: path of the JSON file with faults and figures; it need not exist yet."""
        self._script = Path(script) if script else None

    def probe(self, facts: NodeFacts) -> ProbeResult:
        """The devices of the spec, in its order, numbered within their family."""
        spec = fake_spec(facts)
        if not spec:
            return ProbeResult(ProbeStatus.NO_DEVICES, reason="no fake devices asked for")
        try:
            parts = parse_fake(spec)
        except UsageError as error:
            return ProbeResult(ProbeStatus.BROKEN, reason=str(error))
        devices: list[Device] = []
        numbers = dict.fromkeys(Family, 0)
        groups = 0
        for part in parts:
            family = catalog.family_of(part.type.name)
            devices += [
                _device(facts.node, family, numbers[family] + position, position, part, groups)
                for position in range(part.count)
            ]
            numbers[family] += part.count
            groups += part.count // part.linked if part.linked > 1 else 0
        return ProbeResult(ProbeStatus.OK, tuple(devices))

    def health(self, device: Device) -> Health:
        """Well, unless the script has a ``health`` for it; a script that cannot be read is a fault too."""
        try:
            reason = self._scripted(device).get("health", "")
        except (OSError, ValueError) as error:
            return Health(ok=False, reason=f"script {self._script}: {error}")
        return Health(ok=not reason, reason=str(reason))

    def sample(self, device: Device) -> Sample:
        """What the script says: ``utilisation`` in per cent, ``memory_used`` in MiB, else None."""
        try:
            scripted = self._scripted(device)
            used, memory = scripted.get("utilisation"), scripted.get("memory_used")
            return Sample(None if used is None else float(used), None if memory is None else int(memory))
        except (OSError, ValueError, TypeError):
            return Sample()

    def _scripted(self, device: Device) -> dict[str, Any]:
        """The script's entry for a device. Raises OSError or ValueError when the script cannot be read."""
        if self._script is None:
            return {}
        try:
            script = json.loads(self._script.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return {}
        if not isinstance(script, dict):
            raise ValueError("not a JSON object")
        entry = script.get(f"{device.family.value}{device.index}", script.get(str(device.index), {}))
        if not isinstance(entry, dict):
            raise ValueError(f"the entry of {device.id} is not a JSON object")
        return entry


def _device(node: str, family: Family, index: int, position: int, part: FakePart, groups: int) -> Device:
    """The device at ``position`` of a part, ``groups`` linked groups being there before it."""
    return Device(
        id=device_id(node, family, index),
        node=node,
        index=index,
        type=part.type,
        family=family,
        backend=FakeBackend.name,
        key=f"FAKE-{node}-{family.value}{index}",
        numa=groups + position // part.linked if part.linked > 1 else -1,
        links=group_links(index, position, part.linked),
    )


def _without_links(name: str) -> tuple[str, int | None]:
    """A type's name without ``_nv<size>``, and the size, or None where there is none."""
    match = _LINKED.fullmatch(name)
    return (name, None) if match is None else (match[1], int(match[2]))


def _suggest(name: str) -> str:
    names = [entry.name.split("/", 1)[1] for entry in catalog.CATALOG]
    close = difflib.get_close_matches(name.upper(), names, n=3, cutoff=0.5)
    hint = f"; did you mean {' or '.join(close)}?" if close else ""
    return f"{hint} (a type of your own is written maker/model)"
