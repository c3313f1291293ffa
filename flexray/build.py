"""The one place that chooses policies and makes a scheduler; the live pool and the simulator both call it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from flexray.config import PoolConfig
from flexray.core.scheduler import Scheduler
from flexray.core.state import CoreOptions
from flexray.policies import find_policy


def build_scheduler(
    config: PoolConfig, epoch: int = 1, record: Callable[[dict[str, Any]], None] | None = None
) -> Scheduler:
    """A scheduler core with the configured policy.

    ``epoch`` numbers the incarnation, so that slice ids of an earlier one never recur.
    Raises UnknownPolicy.
    """
    options = CoreOptions(
        policy=find_policy(config.policy),
        warm_seconds=config.warm_seconds,
        lease_term_seconds=config.lease_term_seconds,
        slice_prefix=f"s{epoch}.",
    )
    return Scheduler(options, record)
