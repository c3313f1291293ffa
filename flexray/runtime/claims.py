"""Claims: one detached, named placement group per pooled device, pinned to its node.

Ray has no way to ask for device 2: a claim takes what is free, and a probe inside it
learns which one that is. A busy device's claim stays pending and is met when the
device falls free. A claim outlives agent and scheduler; a new agent adopts it by name.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import ray
from ray.util.placement_group import (
    PlacementGroup,
    get_placement_group,
    placement_group,
    placement_group_table,
    remove_placement_group,
)
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

NOMINAL = 0.001
"""What a slice asks Ray for inside a claim, so that Ray sets the visible device; shares live in flexray's books."""

_PREFIX = "flexray"


@dataclass(slots=True)
class Claim:
    """One claimed device. ``index`` is the visible-device id Ray gave it, None until probed."""

    resource: str
    group: PlacementGroup
    index: str | None = None


def claim_name(node: str, resource: str, number: int) -> str:
    """Name of a claim's placement group."""
    return f"{_PREFIX}:{node}:{resource}:{number}"


def claims_of_cluster() -> list[tuple[str, str]]:
    """(name, node) of all claims that exist, of all nodes, dead ones included."""
    found = []
    for entry in placement_group_table().values():
        name = entry["name"]
        if name.startswith(f"{_PREFIX}:") and entry["state"] != "REMOVED":
            found.append((name, name.split(":")[1]))
    return sorted(found)


def remove_claim(name: str) -> None:
    """Give a device back to Ray. Slices in it must be gone first, or they would restart for ever."""
    try:
        remove_placement_group(get_placement_group(name))
    except ValueError:  # removed by somebody else meanwhile
        return


def make_or_adopt_claim(node: str, resource: str, number: int) -> Claim:
    """The claim of that name, made if there is none. It may be pending."""
    name = claim_name(node, resource, number)
    try:
        return Claim(resource, get_placement_group(name))
    except ValueError:
        group = placement_group(
            [{resource: 1}],
            name=name,
            lifetime="detached",
            bundle_label_selector=[{"ray.io/node-id": node}],
        )
        return Claim(resource, group)


def in_claim(claim: Claim) -> dict[str, Any]:
    """Ray options that put an actor or task on the claimed device."""
    amount: dict[str, Any] = (
        {"num_gpus": NOMINAL} if claim.resource == "GPU" else {"resources": {claim.resource: NOMINAL}}
    )
    return {**amount, "scheduling_strategy": PlacementGroupSchedulingStrategy(claim.group, 0)}


def probe_index(claim: Claim) -> Any:
    """An ObjectRef of the visible-device id of a claim that is met."""
    # A worker of its own for each: one that is used again still sees the device of its first task.
    probe = ray.remote(num_cpus=0, max_calls=1, max_retries=2)(_visible_device)
    return probe.options(**in_claim(claim)).remote(claim.resource)


def _visible_device(resource: str) -> str:
    ids = ray.get_runtime_context().get_accelerator_ids().get(resource, [])
    return str(ids[0]) if ids else ""
