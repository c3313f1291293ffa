from __future__ import annotations

import pytest

from flexray.model.amounts import MemoryMiB
from flexray.model.devices import Device, DeviceType, Family
from flexray.runtime.visible import RESOURCE_OF, variable_of


@pytest.mark.parametrize(
    ("backend", "family", "variable"),
    [
        ("nvidia", Family.GPU, "CUDA_VISIBLE_DEVICES"),
        ("amd", Family.GPU, "HIP_VISIBLE_DEVICES"),
        ("intel", Family.GPU, "ZE_AFFINITY_MASK"),
        ("ascend", Family.NPU, "ASCEND_RT_VISIBLE_DEVICES"),
        ("declared", Family.GPU, "CUDA_VISIBLE_DEVICES"),
        ("declared", Family.NPU, "ASCEND_RT_VISIBLE_DEVICES"),
    ],
)
def test_the_variable_is_the_makers_own(backend: str, family: Family, variable: str) -> None:
    device = Device("n/x0", "n", 0, DeviceType("acme/X1", MemoryMiB(1)), family, backend)
    assert variable_of(device) == variable and family in RESOURCE_OF
