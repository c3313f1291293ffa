"""CPU devices, the weakest way: a slice is bound to its device's cores and told how many threads to use.

The code in the slice can widen its affinity and start more threads, and slices of one device
share its cores. The other enforcers of CPU devices begin with the same and add a limit.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Collection, Sequence
from pathlib import Path

from flexray.devices.enforcers.command import Run, run_command
from flexray.devices.enforcers.cpu_amounts import cores_of, device_seconds, no_cores, threads_of
from flexray.devices.enforcers.data_limit import data_limit_strength
from flexray.devices.enforcers.enforcer import Cell, NotResizable, SliceSetup, Support, Usage
from flexray.devices.enforcers.process_use import cpu_seconds, private_memory
from flexray.model.devices import Device
from flexray.model.isolation import Isolation, Strength

THREAD_VARIABLES = (
    "OMP_NUM_THREADS",  # OpenMP: torch, scikit-learn
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",  # Accelerate on macOS
    "RAYON_NUM_THREADS",  # Rust libraries: tokenizers
)
"""What numeric libraries read, once, when they are loaded."""

_SLEEPS_WHILE_IT_WAITS = {"OMP_WAIT_POLICY": "PASSIVE", "KMP_BLOCKTIME": "0"}
"""OpenMP's threads, GNU's and Intel's, spin at the end of each operation until the last is there. In a slice whose
threads share a quota or their cores with others, that uses up what the last one needs."""


def told(cell: Cell) -> SliceSetup:
    """Bound to all cores of the devices, with as many threads as its cap fills, and a limit of its heap.

    Slices of one device are bound to the same cores: binding each to some of them would let two
    quarters of a four-core device land on one core. Raises IsolationFailed for devices without cores.
    """
    cores, threads = cores_of(cell), threads_of(cell)
    limited = data_limit_strength() is not Strength.NONE
    return SliceSetup(
        isolation=Isolation.FRAMEWORK,
        env=dict.fromkeys(THREAD_VARIABLES, str(threads)) | _SLEEPS_WHILE_IT_WAITS,
        data_limit=cell.memory * len(cell.devices) if limited else 0,
        cores=cores if hasattr(os, "sched_setaffinity") else (),  # macOS cannot bind; threads are still limited
        threads=threads,
    )


class Framework:
    """Nothing on the node; everything it does is in the slice's setup."""

    isolation = Isolation.FRAMEWORK

    def __init__(self, root: Path = Path("/"), run: Run = run_command, state: Path = Path("/run/flexray")) -> None:
        """Args: root: ``proc`` is read there. run, state: not needed here."""
        self._proc = root / "proc"

    def probe(self, devices: Sequence[Device]) -> dict[str, Support]:
        """Works wherever a device has cores; memory is limited where the kernel can limit a heap."""
        memory = data_limit_strength()
        return {
            device.id: Support(False, reason) if (reason := no_cores(device)) else Support(True, memory=memory)
            for device in devices
        }

    def prepare(self, cell: Cell) -> SliceSetup:
        """Affinity and thread counts."""
        return dataclasses.replace(told(cell), notes=("its code can widen its affinity and start more threads",))

    def resize(self, cell: Cell) -> None:
        """Libraries read their number of threads once."""
        raise NotResizable(
            f"slice {cell.slice} was told its threads and its memory when it started, and libraries read them once; "
            "end it and ask for another size"
        )

    def usage(self, cell: Cell, pids: Collection[int]) -> Usage:
        """From the processes' own accounts."""
        seconds = cpu_seconds(self._proc, pids)
        busy = None if seconds is None else device_seconds(cell, seconds)
        return Usage(busy, private_memory(self._proc, pids))

    def release(self, cell: Cell) -> None:
        """Nothing was made."""

    def sweep(self, keep: Collection[str]) -> None:
        """Nothing was made."""
