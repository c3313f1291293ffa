"""The doubles of makers' commands, scripted by a file, and of the kernel's files on their devices."""

from __future__ import annotations

import json
import os
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from flexray.devices.enforcers.dmem import CGROUP, MemoryGroups
from flexray.devices.enforcers.kfd import KFD
from flexray.model.amounts import MemoryMiB
from flexray.model.devices import Device, DeviceType, Family

DOUBLES = Path(__file__).parents[1] / "doubles"
VARIABLES = {"npu-smi": "FAKE_NPU_STATE", "amd-smi": "FAKE_AMD_STATE", "xpu-smi": "FAKE_XPU_STATE"}


@dataclass(frozen=True)
class Double:
    """One maker's command, first on the PATH of what is started from now on."""

    state: Path

    def set(self, **state: Any) -> None:
        """Replace the state, in one step."""
        fresh = self.state.with_suffix(".new")
        fresh.write_text(json.dumps(state))
        os.replace(fresh, self.state)

    def get(self) -> dict[str, Any]:
        state: dict[str, Any] = json.loads(self.state.read_text())
        return state

    def calls(self) -> list[str]:
        """What npu-smi was asked."""
        return Path(f"{self.state}.log").read_text().splitlines()


def install(command: str, folder: Path, patch: pytest.MonkeyPatch) -> Double:
    """Put the double of one command on the PATH, alone of the doubles."""
    bin_folder = folder / f"bin-{command}"
    bin_folder.mkdir(exist_ok=True)
    script = bin_folder / command
    script.write_text(
        f'#!/bin/sh\nexec {sys.executable} -S -E {DOUBLES / command} "$@"\n'
    )  # starts in a tenth of the time
    script.chmod(0o755)
    patch.setenv("PATH", f"{bin_folder}:{os.environ['PATH']}")
    state = folder / f"{command}.json"
    patch.setenv(VARIABLES[command], str(state))
    return Double(state)


def npus(*chips: dict[str, Any], **state: Any) -> dict[str, Any]:
    """A state of npu-smi: so many Ascend 910B3, or what is given of each."""
    return {"npus": [{"id": index, "name": "910B3", **chip} for index, chip in enumerate(chips)], **state}


def gpu(number: int, **values: Any) -> dict[str, Any]:
    """An MI300X of amd-smi; its number there, its bus and its place among the kernel's nodes may differ."""
    shown = {"gpu": number, "bdf": f"0000:{5 + number:02x}:00.0", "node_id": number + 2, "name": "AMD Instinct MI300X"}
    return {**shown, "mib": 196592, **values}


def xpu(number: int, **values: Any) -> dict[str, Any]:
    """A Max 1550 of xpu-smi."""
    name = "Intel(R) Data Center GPU Max 1550"
    return {"id": number, "bdf": f"0000:{77 + number:02x}:00.0", "name": name, "mib": 131072, "tiles": 2, **values}


def npu_device(number: int = 0, name: str = "910B3", gib: int = 64) -> Device:
    """The chip that the double of npu-smi shows."""
    kind = DeviceType(f"ascend/{name}", MemoryMiB(gib * 1024))
    return Device(f"n/npu{number}", "n", number, kind, Family.NPU, "ascend", key=f"{number}.0")


def amd_device(number: int = 0, bus: str = "0000:05:00.0") -> Device:
    kind = DeviceType("amd/MI300X", MemoryMiB(196592))
    return Device(f"n/gpu{number}", "n", number, kind, Family.GPU, "amd", key=bus)


def intel_device(number: int = 0, bus: str = "0000:4d:00.0") -> Device:
    kind = DeviceType("intel/Max-1550", MemoryMiB(131072))
    return Device(f"n/gpu{number}", "n", number, kind, Family.GPU, "intel", key=bus)


def kernel_gpu(root: Path, node: int, **properties: int) -> None:
    """A GPU in the files of the kernel's compute driver: an MI300X (304 units on 8 dies) unless said otherwise."""
    folder = root / KFD / "topology/nodes" / str(node)
    folder.mkdir(parents=True)
    shown = {"simd_count": 1216, "simd_per_cu": 4, "num_xcc": 8, "gfx_target_version": 90402, "location_id": 5 << 8}
    (folder / "properties").write_text("".join(f"{key} {value}\n" for key, value in {**shown, **properties}.items()))
    (folder / "gpu_id").write_text(f"{1000 + node}\n")


def kernel_cpu(root: Path, node: int) -> None:
    """A processor among the nodes, as every machine has."""
    kernel_gpu(root, node, simd_count=0, simd_per_cu=0, location_id=0)


def memory_groups(root: Path, *regions: str) -> MemoryGroups:
    """Groups over a double of the kernel's files with these regions of device memory."""
    (root / CGROUP).mkdir(parents=True, exist_ok=True)
    (root / CGROUP / "dmem.capacity").write_text("".join(f"{region} 68719476736\n" for region in regions))
    return MemoryGroups(root, "n", rmdir=shutil.rmtree)


def limits(root: Path, slice_id: str) -> dict[str, str]:
    """The last limit written for each region of a slice's group."""
    lines = (root / CGROUP / "flexray-dmem-n" / slice_id / "dmem.max").read_text().splitlines()
    return dict(line.split() for line in lines)
