"""Which devices of a node Ray may use: the masks it was started with, and how many it declares."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping

from flexray.devices.backend import NodeFacts
from flexray.model.devices import Device

CUDA, HIP, LEVEL_ZERO, ASCEND = (
    "CUDA_VISIBLE_DEVICES",
    "HIP_VISIBLE_DEVICES",
    "ZE_AFFINITY_MASK",
    "ASCEND_RT_VISIBLE_DEVICES",
)
MASKS = (CUDA, HIP, LEVEL_ZERO, ASCEND)
"""The variables by which Ray, and a user who starts it, limit what a process sees of a maker's devices."""
_SELECTOR = re.compile(r"(?:level_zero:)?(\d+(?:,\d+)*)")


def masks_of(environment: Mapping[str, str]) -> dict[str, str]:
    """The masks that are set in an environment; an empty one says nothing, as Ray leaves it to processes without.

    Like Ray, it takes numbers in oneAPI's selector for Level Zero's mask where that is not set.
    """
    masks = {name: environment[name] for name in MASKS if environment.get(name)}
    selected = _SELECTOR.fullmatch(environment.get("ONEAPI_DEVICE_SELECTOR", ""))
    return {LEVEL_ZERO: selected[1], **masks} if selected else masks


def visible_to_ray(
    facts: NodeFacts,
    found: list[Device],
    resource: str,
    variable: str,
    is_named: Callable[[Device, str], bool] = lambda device, name: name == str(device.index),
) -> list[Device]:
    """The devices Ray was started with: the first of its mask, as many as it declares, by index.

    Args:
        facts: of the node.
        found: what the maker's driver knows.
        resource: Ray's name for such devices.
        variable: the mask that Ray obeys for them.
        is_named: whether a name in the mask means the device.
    """
    mask = facts.visible.get(variable)
    if mask is not None:
        names = [name.strip() for name in mask.split(",")]
        found = list(dict.fromkeys(device for name in names for device in found if is_named(device, name)))
    declared = facts.resources.get(resource)
    chosen = found if declared is None else found[: max(0, math.floor(declared))]
    return sorted(chosen, key=lambda device: device.index)
