"""AMD GPUs through AMD's command ``amd-smi`` (part of ROCm); its Python module is never imported.

A device is known by its place on the PCI bus, which every ``amd-smi`` command and the kernel's files take for its
name. Its index is HIP's: the order of the kernel's compute nodes, not that of ``amd-smi``'s own numbers.
Not run on hardware: the answers follow AMD's documentation and captures of others.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from flexray import catalog
from flexray.devices.backend import (
    Health,
    NodeFacts,
    ProbeResult,
    ProbeStatus,
    ProcessUse,
    Sample,
    device_id,
)
from flexray.devices.commands import CommandFailed, Run, find_command, number, parse_json, run_command, seconds_left
from flexray.devices.visible import HIP, visible_to_ray
from flexray.model.condition import Fault, Severity
from flexray.model.devices import Device, Family

PROBE_S = 15.0
"""Seconds all questions of a probe may take together."""
ASK_S = 4.0
"""Seconds for one question about one device."""

_HINT = "install ROCm's amd-smi package, or put /opt/rocm/bin on the PATH of Ray"


class AmdBackend:
    """Finds and watches AMD GPUs."""

    name = "amd"

    def __init__(self, run: Run = run_command) -> None:
        """Args: run: how commands are run."""
        self._run = run

    def probe(self, facts: NodeFacts) -> ProbeResult:
        """The GPUs Ray may use: those of its ``HIP_VISIBLE_DEVICES``, and no more than it declares."""
        end = time.monotonic() + PROBE_S
        try:
            rows = _rows(self._ask(seconds_left(end), "list"))
            if not rows:
                return ProbeResult(ProbeStatus.NO_DEVICES, reason="amd-smi works and lists no GPU")
            details = _rows(self._ask(seconds_left(end), "static", "--asic", "--vram"))
            found = _devices(facts.node, rows, {row.get("gpu"): row for row in details})
        except CommandFailed as error:
            missing = error.status is ProbeStatus.LIBRARY_MISSING
            return ProbeResult(error.status, reason=f"{error}: {_HINT}" if missing else str(error))
        except Exception as error:  # words of another release must not break the other makers
            return ProbeResult(ProbeStatus.BROKEN, reason=f"amd-smi answers in an unknown form: {error!r}")
        chosen = visible_to_ray(facts, found, "GPU", HIP)
        if not chosen:
            reason = f"none of {len(found)} GPUs is visible to Ray ({HIP} names HIP's numbers)"
            return ProbeResult(ProbeStatus.NO_DEVICES, reason=reason)
        return ProbeResult(ProbeStatus.OK, tuple(chosen))

    def health(self, device: Device) -> Health:
        """Not well when it does not answer or has uncorrected memory errors."""
        try:
            errors = number(self._metric(device, "--ecc").get("ecc", {}).get("total_uncorrectable_count"))
        except Exception as error:
            return Health(ok=False, reason=str(error) or repr(error))
        if errors:
            said = f"{errors:.0f} uncorrected memory errors since the driver was loaded; reset the GPU"
            return Health.of([Fault("ECC", Severity.CONDEMNS, said)])
        return Health(ok=True)

    def sample(self, device: Device) -> Sample:
        """Use of the whole GPU, and of each process what the kernel's driver says."""
        try:
            metric = self._metric(device, "--usage", "--mem-usage")
            listed = _rows(self._ask(ASK_S, "process", "-g", device.key))
            used = number(metric.get("mem_usage", {}).get("used_vram"))
            return Sample(
                utilisation=number(metric.get("usage", {}).get("gfx_activity")),
                memory_used=None if used is None else int(used),
                processes=tuple(_processes(listed)),
            )
        except Exception:  # a lost GPU has no figures; health says why
            return Sample()

    def _metric(self, device: Device, *what: str) -> Mapping[str, Any]:
        rows = _rows(self._ask(ASK_S, "metric", "-g", device.key, *what))
        if not rows:
            raise CommandFailed(ProbeStatus.BROKEN, f"amd-smi does not know {device.key} any more")
        return rows[0]

    def _ask(self, seconds: float, *words: str) -> Any:
        text = self._run([find_command("amd-smi", "/opt/rocm/bin"), *words, "--json"], seconds)
        return parse_json("amd-smi", text)


def _rows(answer: Any) -> list[dict[str, Any]]:
    """One object per GPU: newer releases wrap the list as ``gpu_data``."""
    rows = answer.get("gpu_data", []) if isinstance(answer, dict) else answer
    return [row for row in rows if isinstance(row, dict)]


def _devices(node: str, rows: list[dict[str, Any]], details: Mapping[Any, Mapping[str, Any]]) -> list[Device]:
    """The devices in HIP's order."""
    ordered = sorted(rows, key=lambda row: (number(row.get("node_id")) or 0.0, number(row.get("gpu")) or 0.0))
    devices = []
    for index, row in enumerate(ordered):
        detail = details.get(row.get("gpu"), {})
        memory = number(detail.get("vram", {}).get("size"))
        if not memory:
            raise CommandFailed(ProbeStatus.BROKEN, f"amd-smi does not tell the memory of {row.get('bdf')}")
        name = str(detail.get("asic", {}).get("market_name", ""))
        devices.append(
            Device(
                id=device_id(node, Family.GPU, index),
                node=node,
                index=index,
                type=catalog.type_from_product("amd", name, int(memory)),
                family=Family.GPU,
                backend=AmdBackend.name,
                key=str(row["bdf"]).lower(),
            )
        )
    return devices


def _processes(rows: list[dict[str, Any]]) -> list[ProcessUse]:
    """Processes of ``amd-smi process``; one line of text stands for none. Memory is given in bytes."""
    uses: dict[int, int | None] = {}
    for row in rows:
        for entry in row.get("process_list", []):
            info = entry.get("process_info") if isinstance(entry, dict) else None
            if not isinstance(info, dict) or number(info.get("pid")) is None:
                continue
            used = number(info.get("memory_usage", {}).get("vram_mem"))
            uses[int(info["pid"])] = None if used is None else int(used) // 2**20
    return [ProcessUse(pid, uses[pid]) for pid in sorted(uses)]
