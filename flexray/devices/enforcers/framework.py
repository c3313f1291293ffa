"""CPU devices where the kernel gives nothing better: affinity, and how many threads numeric libraries use.

A slice is bound to its device's cores and libraries are told their number of threads. The code in the slice can
widen its affinity and start more threads, slices of one device share its cores, and memory is not limited.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence

from flexray.devices.enforcers.enforcer import Cell, NotResizable, SliceSetup, Support, Usage
from flexray.errors import IsolationFailed
from flexray.model.devices import Device
from flexray.model.isolation import Isolation

THREAD_VARIABLES = (
    "OMP_NUM_THREADS",  # OpenMP: torch, scikit-learn
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",  # Accelerate on macOS
    "RAYON_NUM_THREADS",  # Rust libraries: tokenizers
)
"""What numeric libraries read, once, when they are loaded."""


class Framework:
    """Binds to all cores of the devices and limits threads to the share of them, at least one.

    Slices of one device are bound to the same cores: binding each to some of them would
    let two quarters of a four-core device land on one core.
    """

    isolation = Isolation.FRAMEWORK

    def probe(self, devices: Sequence[Device]) -> dict[str, Support]:
        """It works wherever a device has host cores."""
        return {device.id: Support(bool(device.cores), "" if device.cores else "no host cores") for device in devices}

    def prepare(self, cell: Cell) -> SliceSetup:
        """Nothing is made on the node."""
        cores = tuple(sorted({core for device in cell.devices for core in device.cores}))
        if not cores:
            raise IsolationFailed(f"{', '.join(device.id for device in cell.devices)} has no host cores")
        threads = max(1, (cell.share * len(cores) + 500) // 1000)
        return SliceSetup(
            isolation=Isolation.FRAMEWORK,
            env=dict.fromkeys(THREAD_VARIABLES, str(threads)),
            cores=cores if hasattr(os, "sched_setaffinity") else (),  # macOS cannot bind; threads are still limited
            threads=threads,
        )

    def resize(self, cell: Cell) -> None:
        """Libraries read their number of threads once."""
        raise NotResizable("thread counts are read once, when a library is loaded; ask for a new slice instead")

    def usage(self, cell: Cell, pids: Collection[int]) -> Usage:
        """The kernel counts for nobody here."""
        return Usage()

    def release(self, cell: Cell) -> None:
        """Nothing was made."""

    def sweep(self, keep: Collection[str]) -> None:
        """Nothing was made."""
