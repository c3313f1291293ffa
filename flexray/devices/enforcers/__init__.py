"""Enforcers: one file per mechanism, one table.

To add a mechanism, add its file and its place in the table: best first, the first one that works for a device
holds its slices.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from flexray.devices.enforcers.enforcer import Enforcer
from flexray.devices.enforcers.framework import Framework
from flexray.devices.enforcers.turns import Turns

Maker = Callable[[str, Path], Enforcer]
"""Makes an enforcer for a node, with a private directory that outlives the process."""

ENFORCERS: dict[str, tuple[Maker, ...]] = {
    "nvidia": (lambda node, state: Turns(state),),
    "declared": (lambda node, state: Turns(state),),
    # Framework works everywhere: turns come behind it, for those who ask for them.
    "cpu": (lambda node, state: Framework(), lambda node, state: Turns(state)),
}
"""Backend -> its enforcers, best first. Backends that are not here (fake) enforce nothing."""
