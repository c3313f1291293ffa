"""Device backends: one file per maker, one table.

A backend finds devices, watches them and says how a slice is confined to its part.
Vendor libraries are imported inside the backend's own functions, on first use.
"""

from __future__ import annotations

from flexray.devices.amd import AmdBackend
from flexray.devices.ascend import AscendBackend
from flexray.devices.backend import DeviceBackend
from flexray.devices.cpu import CpuBackend
from flexray.devices.declared import DeclaredBackend
from flexray.devices.fake import FakeBackend
from flexray.devices.intel import IntelBackend
from flexray.devices.nvidia import NvidiaBackend

BACKENDS: dict[str, type[DeviceBackend]] = {
    "nvidia": NvidiaBackend,
    "amd": AmdBackend,
    "intel": IntelBackend,
    "ascend": AscendBackend,
    "declared": DeclaredBackend,
    "fake": FakeBackend,
    "cpu": CpuBackend,
}
"""name -> backend. To add a maker, add its file and its line."""
