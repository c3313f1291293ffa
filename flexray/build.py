"""The one place that chooses policies and makes a scheduler; the live pool and the simulator both call it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping

from flexray import catalog
from flexray.config import NewNodes, PoolConfig
from flexray.core.options import CoreOptions
from flexray.core.policy import Policy
from flexray.core.scheduler import Scheduler
from flexray.errors import UsageError
from flexray.model.amounts import MemoryMiB, parse_cpus, parse_memory
from flexray.model.devices import Family, NewNode
from flexray.policies import find_policy


def build_scheduler(config: PoolConfig, epoch: int = 1, record: Callable[[str], None] | None = None) -> Scheduler:
    """A scheduler core with the configured policy.

    ``epoch`` numbers the incarnation, so that slice ids of an earlier one never recur.
    Raises UnknownPolicy, and UsageError for a weight of a term that the policy has not.
    """
    options = CoreOptions(
        policy=_weighted(find_policy(config.policy), config.policy_weights),
        warm_seconds=config.warm_seconds,
        lease_term_seconds=config.lease_term_seconds,
        grace_seconds=config.grace_seconds,
        rematch_seconds=config.rematch_seconds,
        patience_seconds=config.patience_seconds,
        drain_seconds=config.drain_seconds,
        slice_prefix=f"s{epoch}.",
        can_come=tuple(map(_new_node, config.scaling.nodes)) if config.scaling is not None else (),
    )
    return Scheduler(options, record)


def _weighted(policy: Policy, weights: Mapping[str, float]) -> Policy:
    unknown = sorted(set(weights) - set(policy.weights))
    if unknown:
        raise UsageError(f"policy {policy.name} has no term {unknown[0]!r}; its terms: {', '.join(policy.weights)}")
    return dataclasses.replace(policy, weights={**policy.weights, **weights}) if weights else policy


def _new_node(node: NewNodes) -> NewNode:
    kind = catalog.find(node.type)
    memory = parse_memory(node.host_memory, "host_memory") if node.host_memory else MemoryMiB(0)
    family, labels = catalog.family_of(kind.name), tuple(sorted(node.labels.items()))
    if family is Family.CPU:
        raise UsageError(f"scaling: {node.type} is no accelerator that Ray counts; name types of GPUs and NPUs")
    return NewNode(kind, family, node.devices, parse_cpus(node.cpus), memory, labels)
