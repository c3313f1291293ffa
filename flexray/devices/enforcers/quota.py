"""The kernel's CPU quota: so much time in each period."""

from __future__ import annotations

from flexray.devices.enforcers.cpu_amounts import MILLI

PERIOD_US = 50_000
"""Within a period a slice works and then waits. A shorter one waits less at a time, but the kernel hands out
quota in pieces of 5 ms and holds short periods less exactly."""
_LEAST_QUOTA_US = 1_000
"""The kernel takes no smaller quota; and no period over a second, which it fits exactly."""


def quota_of(cap: int) -> tuple[int | None, int]:
    """(quota, period) in microseconds for a cap in thousandths of a core; no quota for cap 0."""
    if not cap:
        return None, PERIOD_US
    period = max(PERIOD_US, -(-_LEAST_QUOTA_US * MILLI // cap))
    return cap * period // MILLI, period
