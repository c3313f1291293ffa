"""The neutral process that starts a pool: ``bootstrap ADDRESS CONFIG_JSON``."""

from __future__ import annotations

import os
import sys

_SECONDS = 90.0
"""For the scheduler to start, on a node that may be busy with starting others."""


def main() -> None:
    """Create the scheduler actor, unless another process was faster, and wait until it answers."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    from flexray.config import PoolConfig
    from flexray.runtime.protocol import NAMESPACE, SCHEDULER_NAME
    from flexray.runtime.scheduler_actor import SchedulerActor
    from flexray.telemetry.settings import telemetry_variables

    address, config = sys.argv[1], PoolConfig.model_validate_json(sys.argv[2])
    ray.init(address=address, namespace=NAMESPACE, log_to_driver=False, logging_level="error")
    head = next((n["NodeID"] for n in ray.nodes() if n["Alive"] and "node:__internal_head__" in n["Resources"]), None)
    actor = ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=0, max_concurrency=10_000)(SchedulerActor)
    scheduler = actor.options(
        name=SCHEDULER_NAME,
        namespace=NAMESPACE,
        lifetime="detached",
        get_if_exists=True,
        scheduling_strategy=NodeAffinitySchedulingStrategy(head, soft=True) if head else "DEFAULT",
    ).remote(config, address, telemetry_variables(os.environ))
    ray.get(scheduler.open.remote(), timeout=_SECONDS)
    ray.shutdown()
