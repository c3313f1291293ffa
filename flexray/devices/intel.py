"""Intel GPUs through Intel's command ``xpu-smi`` (XPU Manager).

A device is known by its place on the PCI bus; its index is ``xpu-smi``'s, the order of Level Zero. A card with
several tiles is one device. Not run on hardware: the answers follow the XPU Manager's documentation and source.
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
from flexray.devices.commands import (
    CommandFailed,
    Run,
    failure,
    find_command,
    number,
    parse_json,
    run_command,
    seconds_left,
)
from flexray.devices.visible import LEVEL_ZERO, visible_to_ray
from flexray.model.condition import Fault, Severity
from flexray.model.devices import Device, Family

PROBE_S = 15.0
"""Seconds all questions of a probe may take together."""
ASK_S = 4.0
"""Seconds for one question about one device."""

_HINT = "install Intel's xpu-smi package (XPU Manager)"
_SICK = {"critical", "failed"}


class IntelBackend:
    """Finds and watches Intel GPUs."""

    name = "intel"

    def __init__(self, run: Run = run_command) -> None:
        """Args: run: how commands are run."""
        self._run = run

    def probe(self, facts: NodeFacts) -> ProbeResult:
        """The GPUs Ray may use: those of its ``ZE_AFFINITY_MASK``, and no more than it declares."""
        end = time.monotonic() + PROBE_S
        try:
            listed = self.ask(seconds_left(end), "discovery").get("device_list") or []
            cards = [row for row in listed if _is_card(row)]
            found = [self._read(facts.node, row, end) for row in cards]
        except CommandFailed as error:
            missing = error.status is ProbeStatus.LIBRARY_MISSING
            return ProbeResult(error.status, reason=f"{error}: {_HINT}" if missing else str(error))
        except Exception as error:  # words of another release must not break the other makers
            return ProbeResult(ProbeStatus.BROKEN, reason=f"xpu-smi answers in an unknown form: {error!r}")
        if not found:
            return ProbeResult(ProbeStatus.NO_DEVICES, reason="xpu-smi works and lists no GPU")
        chosen = visible_to_ray(facts, found, "GPU", LEVEL_ZERO)
        if not chosen:
            reason = f"none of {len(found)} GPUs is visible to Ray ({LEVEL_ZERO} names whole cards by number)"
            return ProbeResult(ProbeStatus.NO_DEVICES, reason=reason)
        return ProbeResult(ProbeStatus.OK, tuple(chosen))

    def health(self, device: Device) -> Health:
        """Not well when it does not answer or a component of it is critical."""
        try:
            answer = self.ask(ASK_S, "health", "-d", device.key)
        except Exception as error:
            return Health(ok=False, reason=str(error) or repr(error))
        return Health.of(
            _fault(name, str(part.get("description") or part["status"]))
            for name, part in sorted(answer.items())
            if isinstance(part, dict) and str(part.get("status", "")).lower() in _SICK
        )

    def sample(self, device: Device) -> Sample:
        """Use of the whole card."""
        try:
            busy, used = _figures(self.ask(ASK_S, "stats", "-d", device.key))
            processes = self.ask(ASK_S, "ps", "-d", device.key).get("device_util_by_proc_list") or []
            return Sample(busy, None if used is None else int(used), tuple(_processes(processes)))
        except Exception:  # a lost GPU has no figures; health says why
            return Sample()

    def ask(self, seconds: float, *words: str) -> dict[str, Any]:
        """The answer to one ``xpu-smi`` command. Raises CommandFailed."""
        answer = parse_json("xpu-smi", self._run([find_command("xpu-smi", "/usr/bin"), *words, "-j"], seconds))
        if not isinstance(answer, dict):
            raise failure("xpu-smi", str(answer))
        if "error" in answer:  # it ends with 0 all the same
            raise failure("xpu-smi", str(answer["error"]))
        return answer

    def _read(self, node: str, row: Mapping[str, Any], end: float) -> Device:
        bus = str(row["pci_bdf_address"]).lower()
        size = number(self.ask(seconds_left(end), "discovery", "-d", bus).get("memory_physical_size_byte"))
        if not size:
            raise CommandFailed(ProbeStatus.BROKEN, f"xpu-smi does not tell the memory of {bus}")
        index = int(row["device_id"])
        return Device(
            id=device_id(node, Family.GPU, index),
            node=node,
            index=index,
            type=catalog.type_from_product("intel", str(row.get("device_name", "")), int(size) // 2**20),
            family=Family.GPU,
            backend=self.name,
            key=bus,
        )


def _fault(part: str, said: str) -> Fault:
    """A part that is critical. Of memory that means errors that could not be corrected; heat and power may pass.

    The counters of errors themselves (``xpu-smi stats -r``) are not asked: drivers may never answer that.
    """
    if part == "memory":
        return Fault("ECC", Severity.CONDEMNS, f"memory: {said}; reset the GPU")
    return Fault("", Severity.PASSING, f"{part}: {said}")


def _is_card(row: Mapping[str, Any]) -> bool:
    """Not a virtual function, nor something that is no GPU."""
    kinds = (row.get("device_type", "GPU"), row.get("device_function_type", "physical"))
    return kinds == ("GPU", "physical")


def _figures(stats: Mapping[str, Any]) -> tuple[float | None, float | None]:
    """(per cent busy, MiB used): of the card, or of its tiles together where only they are told."""
    card = _metrics(stats.get("device_level"))
    tiles = [_metrics(tile.get("data_list")) for tile in stats.get("tile_level") or []]
    busy = [t["XPUM_STATS_GPU_UTILIZATION"] for t in tiles if "XPUM_STATS_GPU_UTILIZATION" in t]
    used = [t["XPUM_STATS_MEMORY_USED"] for t in tiles if "XPUM_STATS_MEMORY_USED" in t]
    return (
        card.get("XPUM_STATS_GPU_UTILIZATION", sum(busy) / len(busy) if busy else None),
        card.get("XPUM_STATS_MEMORY_USED", sum(used) if used else None),
    )


def _metrics(rows: Any) -> dict[str, float]:
    found = {str(row.get("metrics_type")): number(row.get("value")) for row in rows or []}
    return {name: value for name, value in found.items() if value is not None}


def _processes(rows: list[Mapping[str, Any]]) -> list[ProcessUse]:
    """Processes of ``xpu-smi ps``, which counts itself among them. Memory is given in kB."""
    uses: dict[int, int | None] = {}
    for row in rows:
        if str(row.get("process_name", "")).rpartition("/")[2] != "xpu-smi":
            used = number(row.get("mem_size"))
            uses[int(row["process_id"])] = None if used is None else int(used) // 1024
    return [ProcessUse(pid, uses[pid]) for pid in sorted(uses)]
