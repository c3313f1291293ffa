"""NVIDIA GPUs through NVML (package ``nvidia-ml-py``, imported on first use).

A device is known by its UUID; its index is NVML's, the order of the PCI bus, which CUDA
follows only with ``CUDA_DEVICE_ORDER=PCI_BUS_ID``. Slices of one GPU are time-sliced by
the driver and nothing is enforced: isolation NONE.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

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
from flexray.devices.nvidia_health import DriverEvents, fault_of_error, faults_now, faults_of_events
from flexray.devices.nvlink import SYSFS, Wiring, connect, read_wiring
from flexray.devices.visible import CUDA, visible_to_ray
from flexray.errors import BackendUnavailable
from flexray.model.devices import Device, DeviceState, Family

T = TypeVar("T")

_MIB = 2**20
_NO_SAMPLES = (0, 6)
"""How NVML says that no process used the GPU: NVML_ERROR_NOT_FOUND, and in nvidia-ml-py an error NVML_SUCCESS."""


class _Unavailable(BackendUnavailable):
    """NVML cannot be used at all; ``status`` says which part is missing."""

    def __init__(self, status: ProbeStatus, reason: str) -> None:
        super().__init__(reason)
        self.status = status


class NvidiaBackend:
    """Finds and watches NVIDIA GPUs. NVML stays initialised for the life of the process."""

    name = "nvidia"

    def __init__(self, sysfs: Path = SYSFS) -> None:
        """Args: sysfs: where the kernel describes PCI devices."""
        self._sysfs = sysfs
        self._nvml: Any = None
        self._events = DriverEvents()
        #: NVML index -> the device last seen there, so that a lost one keeps its identity.
        self._known: dict[int, Device] = {}
        #: UUID -> where that GPU is connected, read when it is first seen and again after it was lost.
        self._wirings: dict[str, Wiring] = {}
        #: UUID -> time (microseconds, NVML's clock) of the last sample of its processes' utilisation.
        self._sampled: dict[str, int] = {}

    def probe(self, facts: NodeFacts) -> ProbeResult:
        """The GPUs Ray may use: ``facts.visible`` of them, and no more than Ray declares.

        Ray numbers the visible GPUs in the order of its mask, so a smaller declared number
        means the first of them. A GPU that cannot be read is LOST if it was seen before; otherwise it has
        no identity and is only counted in the reason.
        """
        try:
            count = self._call(lambda nvml: nvml.nvmlDeviceGetCount())
            if not count:
                return ProbeResult(ProbeStatus.NO_DEVICES, reason="the NVIDIA driver is loaded and finds no GPU")
            found, lost = self._scan(facts, count)
        except _Unavailable as error:
            return ProbeResult(error.status, reason=str(error))
        except Exception as error:  # whatever a vendor library raises must not break the others
            return ProbeResult(ProbeStatus.BROKEN, reason=f"NVML failed: {_say(error)}")
        if not found and not lost:
            return ProbeResult(ProbeStatus.NO_DEVICES, reason=f"none of {count} GPUs is visible to Ray")
        reason = "; ".join(lost)
        return ProbeResult(ProbeStatus.OK if found else ProbeStatus.BROKEN, tuple(found), reason)

    def health(self, device: Device) -> Health:
        """What the driver has reported of the GPU since the last look, and what its state says now."""
        try:
            handle = self._handle(device)
            self._events.register(self._library(), handle, device.key)
            now = faults_now(self._optional, handle)
            pids = sorted(self._memory_of_processes(handle)[0])
        except Exception as error:  # whatever a vendor library raises says that something is wrong
            now, pids = [fault_of_error(self._nvml, error)], []
        seen = [] if self._nvml is None else self._events.take(self._nvml, device.key)
        return Health.of([*faults_of_events(seen, pids), *now])

    def sample(self, device: Device) -> Sample:
        """Use of the whole GPU; NVML cannot tell the utilisation of a GPU in MIG mode."""
        try:
            handle = self._handle(device)
            rates = self._optional(lambda nvml: nvml.nvmlDeviceGetUtilizationRates(handle))
            memory = self._optional(lambda nvml: nvml.nvmlDeviceGetMemoryInfo(handle))
            processes = self._processes(handle, device.key)
        except Exception:  # a lost GPU has no figures; health says why
            return Sample()
        return Sample(
            utilisation=None if rates is None else float(rates.gpu),
            memory_used=None if memory is None else int(memory.used) // _MIB,
            processes=processes,
        )

    def _scan(self, facts: NodeFacts, count: int) -> tuple[list[Device], list[str]]:
        """The devices Ray may use, and a sentence for each that cannot be read."""
        found: list[Device] = []
        lost: list[str] = []
        for index in range(count):
            try:
                device = self._read(facts.node, index)
                self._known[index] = device
            except Exception as error:
                lost.append(f"GPU {index}: {_say(error)}")
                known = self._known.get(index)
                if known is None:
                    continue
                self._wirings.pop(known.key, None)
                device = dataclasses.replace(known, state=DeviceState.LOST, reason=_say(error))
            found.append(device)
        return connect(visible_to_ray(facts, found, "GPU", CUDA, _is_named), self._wirings), lost

    def _read(self, node: str, index: int) -> Device:
        handle = self._call(lambda nvml: nvml.nvmlDeviceGetHandleByIndex(index))
        memory = self._call(lambda nvml: nvml.nvmlDeviceGetMemoryInfo(handle))
        name = self._call(lambda nvml: nvml.nvmlDeviceGetName(handle))
        key = str(self._call(lambda nvml: nvml.nvmlDeviceGetUUID(handle)))
        self._learn_wiring(key, handle)
        return Device(
            id=device_id(node, Family.GPU, index),
            node=node,
            index=index,
            type=catalog.type_from_nvml(str(name), int(memory.total) // _MIB),
            family=Family.GPU,
            backend=self.name,
            key=key,
        )

    def _learn_wiring(self, key: str, handle: Any) -> None:
        """Once: up to 36 links, three questions each, are too many for every probe. A fault is not remembered."""
        if key in self._wirings:
            return
        invalid = self._library().NVMLError_InvalidArgument

        def ask(question: Callable[[Any], Any]) -> Any:
            try:
                return self._optional(question)
            except invalid:  # a link that this GPU does not have
                return None

        with contextlib.suppress(Exception):  # not knowing it costs speed; the GPU works
            wiring = read_wiring(ask, handle, self._sysfs)
            if wiring is not None:
                self._wirings[key] = wiring

    def _handle(self, device: Device) -> Any:
        return self._call(lambda nvml: nvml.nvmlDeviceGetHandleByUUID(device.key))

    def _processes(self, handle: Any, key: str) -> tuple[ProcessUse, ...]:
        """Processes that compute on the GPU, those of MPS clients too, each once."""
        uses, plain = self._memory_of_processes(handle)
        busy = self._busy(handle, key)
        if busy is not None:  # a process without samples was idle; of MPS clients that is not known
            busy = {**dict.fromkeys(plain, 0.0), **busy}
        return tuple(ProcessUse(pid, uses[pid], (busy or {}).get(pid)) for pid in sorted(uses))

    def _memory_of_processes(self, handle: Any) -> tuple[dict[int, int | None], list[int]]:
        """Process -> MiB it uses, where NVML tells; and which of them are no clients of MPS."""
        plain = self._optional(lambda nvml: nvml.nvmlDeviceGetComputeRunningProcesses(handle)) or []
        mps = self._optional(lambda nvml: nvml.nvmlDeviceGetMPSComputeRunningProcesses(handle)) or []
        uses = {
            int(process.pid): None if process.usedGpuMemory is None else int(process.usedGpuMemory) // _MIB
            for process in [*mps, *plain]
        }
        return uses, [int(process.pid) for process in plain]

    def _busy(self, handle: Any, key: str) -> dict[int, float] | None:
        """Process -> mean per cent of the compute units since the last look; None where NVML does not tell."""
        since = self._sampled.get(key, 0)
        try:
            samples = self._optional(lambda nvml: nvml.nvmlDeviceGetProcessUtilization(handle, since))
        except self._library().NVMLError as error:
            if error.value not in _NO_SAMPLES:
                raise
            samples = []
        if samples is None:
            return None
        found: dict[int, list[int]] = {}
        for sample in samples:
            found.setdefault(int(sample.pid), []).append(int(sample.smUtil))
        self._sampled[key] = max((int(sample.timeStamp) for sample in samples), default=since)
        return {pid: sum(values) / len(values) for pid, values in found.items()}

    def _optional(self, ask: Callable[[Any], T]) -> T | None:
        """``ask``, or None where this GPU, driver or user cannot answer the question."""
        nvml = self._library()
        try:
            return self._call(ask)
        except (nvml.NVMLError_NotSupported, nvml.NVMLError_FunctionNotFound, nvml.NVMLError_NoPermission):
            return None

    def _call(self, ask: Callable[[Any], T]) -> T:
        """``ask`` with NVML, initialised again when something else in the process shut it down."""
        nvml = self._library()
        try:
            return ask(nvml)
        except nvml.NVMLError_Uninitialized:
            self._nvml = None
            self._events.forget()
            return ask(self._library())

    def _library(self) -> Any:
        """NVML, imported and initialised on first use. Raises _Unavailable with the missing part."""
        if self._nvml is not None:
            return self._nvml
        try:
            import pynvml  # type: ignore[import-untyped, import-not-found, unused-ignore]
        except ImportError as error:
            reason = "the Python package nvidia-ml-py is not installed: pip install nvidia-ml-py"
            raise _Unavailable(ProbeStatus.LIBRARY_MISSING, reason) from error
        try:
            pynvml.nvmlInit()
        except pynvml.NVMLError_LibraryNotFound as error:
            reason = "libnvidia-ml.so.1 is not found; it comes with the NVIDIA driver"
            raise _Unavailable(ProbeStatus.LIBRARY_MISSING, reason) from error
        except pynvml.NVMLError_DriverNotLoaded as error:
            raise _Unavailable(ProbeStatus.DRIVER_MISSING, "the NVIDIA driver is not loaded") from error
        self._nvml = pynvml
        return pynvml


def _is_named(device: Device, name: str) -> bool:
    """Whether a name in the mask means the device: its index, or its UUID, of which the beginning is enough."""
    return name == str(device.index) or (name.startswith("GPU-") and device.key.startswith(name))


def _say(error: Exception) -> str:
    return str(error) or type(error).__name__
