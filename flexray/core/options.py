"""What the core is told once."""

from __future__ import annotations

from dataclasses import dataclass

from flexray.core.policy import Policy
from flexray.model.devices import NewNode


@dataclass(frozen=True, slots=True)
class CoreOptions:
    """What the core is told once; built from PoolConfig by ``build_scheduler``.

    Attributes:
        policy: how places are scored.
        warm_seconds: an idle slice is stopped after this long.
        lease_term_seconds: a lease older than this is recalled for a request that waited this long.
        start_attempts: a request fails after this many slices failed to start for it.
        deadlock_seconds: a wait inside a slice is examined for a deadlock after this long.
        grace_seconds: what is taken back in the middle is stopped by force after this long.
        rematch_seconds: preemptible work is matched to device types again this often; 0: never.
        drain_seconds: work that runs to its end on a device that is to be empty has so long for that.
        min_run_seconds: a lease is not taken back for others before it has run for this long.
        patience_seconds: a request that has waited this long goes before running, preemptible work.
        slice_prefix: prefix of slice ids, unique for this incarnation.
        can_come: kinds of nodes that can be added, those to be preferred first.
    """

    policy: Policy
    warm_seconds: float = 300.0
    lease_term_seconds: float = 5.0
    start_attempts: int = 3
    deadlock_seconds: float = 1.0
    grace_seconds: float = 2.0
    rematch_seconds: float = 30.0
    patience_seconds: float = 3600.0
    drain_seconds: float = 300.0
    min_run_seconds: float = 1.0
    slice_prefix: str = "s"
    can_come: tuple[NewNode, ...] = ()
