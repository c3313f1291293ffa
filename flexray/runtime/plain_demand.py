"""Demand of plain Ray work that the pool may be in the way of.

Ray libraries that ask Ray for GPUs themselves (Ray Train, Ray Data, vLLM's Ray
executor) wait for ever while the pool has claimed all; ``flexray status`` shows it.
"""

from __future__ import annotations

from typing import Any

import ray

_ACCELERATORS = frozenset({"GPU", "NPU"})


def blocked_demand() -> list[dict[str, Any]]:
    """Unmet demand for accelerators, as ``{"resources": {...}, "count": n}``; the pool's own claims are left out.

    Reads Ray's autoscaler state, which is an alpha interface: where it does not answer,
    the list is empty.
    """
    try:
        from ray.autoscaler.v2.sdk import get_cluster_status

        status = get_cluster_status(ray.get_runtime_context().gcs_address)
        demands = status.resource_demands.ray_task_actor_demand
        found = [bundle for demand in demands for bundle in demand.bundles_by_count]
    except Exception:  # an alpha interface that may change or be absent: status must still work
        return []
    return [
        {"resources": dict(bundle.bundle), "count": int(bundle.count)}
        for bundle in found
        if _ACCELERATORS & {name.split("_group_")[0] for name in bundle.bundle}
    ]
