"""Enforcers: one file per mechanism, one table.

To add a mechanism, add its file and its place in the table: best first, the first one that works for a device
holds its slices.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from flexray.devices.enforcers.cgroup import Cgroup
from flexray.devices.enforcers.cu_mask import CuMask
from flexray.devices.enforcers.dmem import Dmem, MemoryGroups
from flexray.devices.enforcers.duty import Duty
from flexray.devices.enforcers.enforcer import Enforcer
from flexray.devices.enforcers.fraction import Fraction
from flexray.devices.enforcers.framework import Framework
from flexray.devices.enforcers.hami import Hami
from flexray.devices.enforcers.mig import Mig
from flexray.devices.enforcers.mps import Mps
from flexray.devices.enforcers.tiles import Tiles
from flexray.devices.enforcers.turns import Turns
from flexray.devices.enforcers.vnpu import Vnpu

Maker = Callable[[str, Path], Enforcer]
"""Makes an enforcer for a node, with a private directory that outlives the process."""

ENFORCERS: dict[str, tuple[Maker, ...]] = {
    "cpu": (
        lambda node, state: Cgroup(state=state),
        lambda node, state: Duty(state=state),
        lambda node, state: Framework(state=state),
        lambda node, state: Turns(state),  # behind one that works everywhere: for those who ask for them
    ),
    "nvidia": (
        lambda node, state: Mig(state),
        lambda node, state: Mps(state),
        lambda node, state: Hami(state),
        lambda node, state: Turns(state),
        lambda node, state: Fraction(),
    ),
    "ascend": (
        lambda node, state: Turns(state),
        lambda node, state: Fraction(),
        lambda node, state: Vnpu(state),  # for those who ask: whether plain processes can use them is not proven
    ),
    "amd": (
        lambda node, state: CuMask(MemoryGroups(node=node)),
        lambda node, state: Dmem(MemoryGroups(node=node)),
        lambda node, state: Turns(state),
        lambda node, state: Fraction(),
    ),
    "intel": (
        lambda node, state: Tiles(MemoryGroups(node=node)),
        lambda node, state: Dmem(MemoryGroups(node=node)),
        lambda node, state: Turns(state),
        lambda node, state: Fraction(),
    ),
}
"""Backend -> its enforcers, best first. Backends that are not here (declared, fake) enforce nothing."""
