"""How Ray counts the devices of each family, and how a process is told which of a maker's devices it sees."""

from __future__ import annotations

from flexray.devices.visible import ASCEND, CUDA, HIP, LEVEL_ZERO
from flexray.model.devices import Device, Family

RESOURCE_OF = {Family.GPU: "GPU", Family.NPU: "NPU"}
"""Family -> Ray's resource."""

_VARIABLE = {"nvidia": CUDA, "amd": HIP, "intel": LEVEL_ZERO, "ascend": ASCEND}
_VARIABLE_OF_FAMILY = {Family.GPU: CUDA, Family.NPU: ASCEND}
"""For devices of which only Ray knows; Ray itself takes a GPU that no maker's library shows for NVIDIA's."""


def variable_of(device: Device) -> str:
    """The variable that limits which devices of this kind a process sees. Only for families Ray knows."""
    return _VARIABLE.get(device.backend) or _VARIABLE_OF_FAMILY[device.family]
