"""The health of an NVIDIA GPU: the driver's events since the last look (Xid, double-bit ECC), and its state now."""

from __future__ import annotations

import contextlib
import ctypes
from collections.abc import Callable
from typing import Any

from flexray.devices.faults import xid_fault
from flexray.model.condition import Fault, Severity

Ask = Callable[[Callable[[Any], Any]], Any]
"""Asks NVML; what this GPU, driver or user cannot answer is None."""

_UNCORRECTED, _VOLATILE = 1, 0
"""NVML_MEMORY_ERROR_TYPE_UNCORRECTED since the driver was loaded (NVML_VOLATILE_ECC)."""

_XID, _DOUBLE_BIT = 0x8, 0x2
"""nvmlEventTypeXidCriticalError, nvmlEventTypeDoubleBitEccError."""

_DOUBLE_BIT_XID = 48
"""The Xid of a double-bit error, for which GPUs have an event of its own."""

_TOO_HOT = 0x20 | 0x40
"""nvmlClocksEventReasonSwThermalSlowdown, nvmlClocksEventReasonHwThermalSlowdown."""


class DriverEvents:
    """What the driver reports of the GPUs that were registered. Not thread-safe."""

    def __init__(self) -> None:
        self._set: Any = None
        #: address of NVML's handle -> UUID of the GPU that is registered.
        self._registered: dict[int, str] = {}
        #: UUID -> events that nobody has asked for yet: (type, data).
        self._seen: dict[str, list[tuple[int, int]]] = {}

    def register(self, nvml: Any, handle: Any, key: str) -> None:
        """Take notice of a GPU's events from now on; once."""
        if key in self._registered.values():
            return
        with contextlib.suppress(nvml.NVMLError_NotSupported, nvml.NVMLError_FunctionNotFound):
            if self._set is None:
                self._set = nvml.nvmlEventSetCreate()
            wanted = (_XID | _DOUBLE_BIT) & int(nvml.nvmlDeviceGetSupportedEventTypes(handle))
            nvml.nvmlDeviceRegisterEvents(handle, wanted, self._set)
            self._registered[_address(handle)] = key

    def take(self, nvml: Any, key: str) -> list[tuple[int, int]]:
        """The events of a GPU since this was last asked: (type, data)."""
        while self._set is not None:
            try:
                event = nvml.nvmlEventSetWait_v2(self._set, 0)
            except nvml.NVMLError_Timeout:
                break
            except nvml.NVMLError:  # the driver was reset: its events are gone, and the GPUs register anew
                self.forget()
                break
            of = self._registered.get(_address(event.device))
            if of is not None:
                self._seen.setdefault(of, []).append((int(event.eventType), int(event.eventData)))
        return self._seen.pop(key, [])

    def forget(self) -> None:
        """Start anew: after NVML was initialised again, sets and handles are worth nothing."""
        self._set = None
        self._registered.clear()


def faults_of_events(events: list[tuple[int, int]], pids: list[int]) -> list[Fault]:
    """What events mean. The process that a fault hit is known only where a single one uses the GPU (``pids``)."""
    alone = pids[0] if len(pids) == 1 else 0
    return [xid_fault(_DOUBLE_BIT_XID if kind == _DOUBLE_BIT else data, alone) for kind, data in events]


def faults_now(ask: Ask, handle: Any) -> list[Fault]:
    """What the state of a GPU that answers says."""
    found = []
    errors = ask(lambda nvml: nvml.nvmlDeviceGetTotalEccErrors(handle, _UNCORRECTED, _VOLATILE))
    if errors:
        said = f"{errors} uncorrected ECC memory errors since the driver was loaded; reset the GPU"
        found.append(Fault("ECC", Severity.CONDEMNS, said))
    rows = ask(lambda nvml: nvml.nvmlDeviceGetRemappedRows(handle))
    if rows is not None and rows[3]:
        found.append(Fault("ECC", Severity.CONDEMNS, "a memory row could not be remapped"))
    elif rows is not None and rows[2]:
        found.append(Fault("ECC", Severity.PASSING, "a memory row is to be remapped; reset the GPU to have it done"))
    reasons = ask(lambda nvml: nvml.nvmlDeviceGetCurrentClocksEventReasons(handle))
    if reasons is not None and reasons & _TOO_HOT:
        found.append(Fault("thermal", Severity.NOTE, "it runs slower because it is too hot"))
    return found


def fault_of_error(nvml: Any, error: Exception) -> Fault:
    """What an error of NVML means: a GPU that is lost, or not there any more, is gone; others may pass."""
    said = str(error) or type(error).__name__
    gone = nvml is not None and isinstance(error, (nvml.NVMLError_GpuIsLost, nvml.NVMLError_NotFound))
    return Fault("", Severity.GONE if gone else Severity.PASSING, said if gone else f"NVML failed: {said}")


def _address(handle: Any) -> int:
    return int(ctypes.cast(handle, ctypes.c_void_p).value or 0)
