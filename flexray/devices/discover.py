"""Which backends a node asks, and in which order."""

from __future__ import annotations

import math
from collections.abc import Mapping

from flexray.devices import BACKENDS
from flexray.devices.backend import DeviceBackend, NodeFacts, ProbeResult, ProbeStatus
from flexray.devices.declared import RAY_FAMILIES
from flexray.devices.fake import fake_spec
from flexray.model.devices import BackendReport, Device, Family

Discovery = tuple[tuple[Device, ...], tuple[BackendReport, ...]]
"""A node's devices, and what each backend that was asked had to say."""

VENDORS: dict[str, Family] = {
    "nvidia": Family.GPU,
    "amd": Family.GPU,
    "intel": Family.GPU,
    "ascend": Family.NPU,
}
"""Backends of real hardware -> the family Ray counts their devices in; the first that finds any has the family."""


def make_backends() -> dict[str, DeviceBackend]:
    """One instance of every backend; they remember what they saw, so keep them for the life of a process."""
    return {name: backend() for name, backend in BACKENDS.items()}


def discover(facts: NodeFacts, backends: Mapping[str, DeviceBackend] | None = None) -> Discovery:
    """Find a node's devices. Never raises: what went wrong is in the reports.

    A fake inventory excludes everything else. Otherwise makers' backends are asked for the
    families Ray says the node has, Ray's word is taken for a family in which none finds
    devices, and only a node with nothing at all gets CPU stand-ins.

    Args:
        facts: what is known of the node.
        backends: the instances to ask; new ones when omitted.
    """
    using = make_backends() if backends is None else backends
    reports: list[BackendReport] = []

    def ask(name: str, families: set[Family]) -> list[Device]:
        result = _probe(using[name], facts)
        devices = [device for device in result.devices if device.family in families]
        reports.append(BackendReport(name, len(devices), result.reason or _default_reason(result)))
        return devices

    if fake_spec(facts):
        return tuple(ask("fake", set(Family))), tuple(reports)
    devices: list[Device] = []
    missing = {family for name, family in RAY_FAMILIES.items() if _whole(facts.resources.get(name, 0.0))}
    for name, family in VENDORS.items():
        if family in missing and (found := ask(name, {family})):
            devices += found
            missing.discard(family)
    if missing or not devices:
        devices += ask("declared", missing)
    if not devices and facts.cpu_devices > 0:
        devices += ask("cpu", {Family.CPU})
    return tuple(devices), tuple(reports)


def _probe(backend: DeviceBackend, facts: NodeFacts) -> ProbeResult:
    try:
        return backend.probe(facts)
    except Exception as error:  # a backend with a bug must not hide the devices of the others
        return ProbeResult(ProbeStatus.BROKEN, reason=f"{type(error).__name__}: {error}")


def _default_reason(result: ProbeResult) -> str:
    return "" if result.status is ProbeStatus.OK else result.status.value.replace("_", " ")


def _whole(amount: float) -> bool:
    """Whether Ray declares at least one whole device; NaN and infinity are left to the declared backend to refuse."""
    return not math.isfinite(amount) or amount >= 1
