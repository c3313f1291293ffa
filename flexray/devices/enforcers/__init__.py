"""Enforcers: one file per mechanism, one table.

To add a mechanism, add its file and its place in the table: best first, the first one that works for a device
holds its slices.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from flexray.devices.enforcers.enforcer import Enforcer
from flexray.devices.enforcers.framework import Framework

Maker = Callable[[str, Path], Enforcer]
"""Makes an enforcer for a node, with a private directory that outlives the process."""

ENFORCERS: dict[str, tuple[Maker, ...]] = {
    "cpu": (lambda node, state: Framework(),),
}
"""Backend -> its enforcers, best first. Backends that are not here (declared, fake) enforce nothing."""
