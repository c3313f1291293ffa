"""Huawei Ascend NPUs through Huawei's command ``npu-smi`` (part of the driver).

A device is a chip, known by its card and its place on it; its index is the logical number that
``ASCEND_RT_VISIBLE_DEVICES`` and Ray use. DCMI, the C library beneath the command, is not loaded: it would add
nothing that is needed here. Not run on hardware.
"""

from __future__ import annotations

import time

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
from flexray.devices.commands import CommandFailed, Run, find_command, number, run_command, seconds_left
from flexray.devices.npu_smi import (
    Chip,
    memory_size,
    memory_used,
    parse_fields,
    parse_mapping,
    parse_processes,
)
from flexray.devices.visible import ASCEND, visible_to_ray
from flexray.model.condition import Fault, Severity
from flexray.model.devices import Device, Family

PROBE_S = 20.0
"""Seconds all questions of a probe may take together."""
ASK_S = 4.0
"""Seconds for one question about one chip."""

_HINT = "install the Ascend driver, which brings it, or put /usr/local/bin on the PATH of Ray"
_WELL = {"OK", "WARNING", "GENERAL WARNING"}
"""What ``npu-smi`` calls a chip that can work; worse are Alarm, Critical and UNKNOWN."""
_WORST = "CRITICAL"
_DOUBLE_BIT = "Double Bit Error Count"


class AscendBackend:
    """Finds and watches Ascend NPUs."""

    name = "ascend"

    def __init__(self, run: Run = run_command) -> None:
        """Args: run: how commands are run."""
        self._run = run

    def probe(self, facts: NodeFacts) -> ProbeResult:
        """The chips Ray may use: those of its ``ASCEND_RT_VISIBLE_DEVICES``, and no more than it declares.

        A chip that does not answer has no identity here and is only counted in the reason.
        """
        end = time.monotonic() + PROBE_S
        try:
            chips = parse_mapping(self._ask(seconds_left(end), "info", "-m"))
        except CommandFailed as error:
            missing = error.status is ProbeStatus.LIBRARY_MISSING
            return ProbeResult(error.status, reason=f"{error}: {_HINT}" if missing else str(error))
        found, lost = [], []
        for chip in chips:
            try:
                found.append(self._read(facts.node, chip, end))
            except Exception as error:
                lost.append(f"NPU {chip.key}: {error}")
        if not chips:
            return ProbeResult(ProbeStatus.NO_DEVICES, reason="npu-smi works and lists no chip")
        chosen = visible_to_ray(facts, found, "NPU", ASCEND)
        if not chosen and not lost:
            return ProbeResult(ProbeStatus.NO_DEVICES, reason=f"none of {len(found)} NPUs is visible to Ray")
        return ProbeResult(ProbeStatus.OK if chosen else ProbeStatus.BROKEN, tuple(chosen), "; ".join(lost))

    def health(self, device: Device) -> Health:
        """Not well when it does not answer, or its own verdict is worse than a warning."""
        try:
            fields = parse_fields(self._ask(ASK_S, "info", "-t", "health", *chip_words(device)))
        except Exception as error:
            return Health(ok=False, reason=str(error) or repr(error))
        verdict = fields.get("Health", fields.get("Health Status", ""))
        if verdict.upper() in _WELL:
            return Health(ok=True)
        code = fields.get("Error Code", "NA")
        severity = Severity.CONDEMNS if verdict.upper() == _WORST else Severity.PASSING
        found = Fault("" if code == "NA" else code, severity, f"npu-smi says {verdict or 'nothing'}")
        return Health.of([*self._memory_faults(device), found])

    def _memory_faults(self, device: Device) -> list[Fault]:
        """Memory errors that could not be corrected: npu-smi counts them apart from its verdict."""
        try:
            fields = parse_fields(self._ask(ASK_S, "info", "-t", "ecc", *chip_words(device)))
        except Exception:  # chips without such counts; the verdict stands
            return []
        count = sum(int(number(value) or 0) for name, value in fields.items() if name.endswith(_DOUBLE_BIT))
        said = f"{count} memory errors that could not be corrected (double-bit); reset the NPU"
        return [Fault("ECC", Severity.CONDEMNS, said)] if count else []

    def sample(self, device: Device) -> Sample:
        """Use of the whole chip, its memory to one per cent; of a chip that is cut up the figures mean little."""
        try:
            usages = parse_fields(self._ask(ASK_S, "info", "-t", "usages", *chip_words(device)))
            processes = parse_processes(self._ask(ASK_S, "info", "-t", "proc-mem", *chip_words(device)))
            return Sample(
                utilisation=number(usages.get("Aicore Usage Rate(%)")),
                memory_used=memory_used(usages),
                processes=tuple(ProcessUse(pid, processes[pid]) for pid in sorted(processes)),
            )
        except Exception:  # a lost chip has no figures; health says why
            return Sample()

    def _read(self, node: str, chip: Chip, end: float) -> Device:
        words = ("-i", str(chip.card), "-c", str(chip.chip))
        usages = parse_fields(self._ask(min(ASK_S, seconds_left(end)), "info", "-t", "usages", *words))
        return Device(
            id=device_id(node, Family.NPU, chip.logic),
            node=node,
            index=chip.logic,
            type=catalog.type_from_product("ascend", chip.name, memory_size(usages)),
            family=Family.NPU,
            backend=self.name,
            key=chip.key,
        )

    def _ask(self, seconds: float, *words: str) -> str:
        return self._run([find_command("npu-smi", "/usr/local/bin", "/usr/local/sbin"), *words], seconds)


def chip_words(device: Device) -> tuple[str, ...]:
    """How commands name the chip of a device. Raises ValueError for a key of another maker."""
    card, _, chip = device.key.partition(".")
    if not (card.isdigit() and chip.isdigit()):
        raise ValueError(f"npu-smi knows no chip {device.key!r} ({device.id})")
    return ("-i", card, "-c", chip)
