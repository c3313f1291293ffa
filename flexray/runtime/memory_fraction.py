"""A slice's part of its device's memory, told to torch in the slice's process: a limit of torch's own allocator.

It is set when torch first uses the device, not before: to set it at once would take the device,
which costs memory and makes forked children unable to use it.
"""

from __future__ import annotations

import sys
from functools import partial
from types import ModuleType
from typing import Any

from flexray.runtime.after_import import after_import

_TORCH_DEVICES = ("cuda", "xpu", "npu")
"""Torch's modules of devices that have a memory fraction; AMD's are ``cuda`` too."""


def limit_memory(fraction: float) -> None:
    """Have torch keep to this part of each visible device, now or when it is imported; 0 < fraction <= 1."""
    after_import("torch", partial(apply_memory_fraction, fraction))
    after_import("torch_npu", partial(apply_memory_fraction, fraction))  # brings torch.npu


def apply_memory_fraction(fraction: float, torch: ModuleType | None = None) -> None:
    """Set it for every kind of device that this torch knows; a later call changes it.

    Args:
        fraction: part of each device's memory, over 0 and at most 1.
        torch: the module; the imported one when omitted.
    """
    module: Any = torch if torch is not None and hasattr(torch, "cuda") else sys.modules.get("torch")
    for name in _TORCH_DEVICES:
        device: Any = getattr(module, name, None)
        if hasattr(device, "_lazy_call") and hasattr(device, "set_per_process_memory_fraction"):
            device._lazy_call(partial(_set, device, float(fraction)))


def _set(device: Any, fraction: float) -> None:
    for index in range(device.device_count()):
        device.set_per_process_memory_fraction(fraction, index)
