"""The doubles of makers' commands, scripted by a file."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

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
