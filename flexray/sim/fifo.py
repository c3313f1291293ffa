"""Plain first come, first served, as a yardstick: one line for everybody, and whoever is first holds up the rest.

A job goes to the node with the fewest free devices of those that have enough. Nothing is ever taken back.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Sequence

from flexray.errors import UsageError
from flexray.sim.fair_shares import Stay
from flexray.sim.philly import TeamJob


def first_come_first_served(jobs: Sequence[TeamJob], nodes: int, per_node: int, start: float) -> list[Stay]:
    """What becomes of jobs, in the order given, on equal nodes.

    Args:
        jobs: in order of arrival.
        start: seconds from being given a place until the work begins.
    """
    if any(job.devices > per_node for job in jobs):
        raise UsageError(f"a job asks for more than the {per_node} devices of a node")
    free = [per_node] * nodes
    line: deque[TeamJob] = deque()
    ends: list[tuple[float, int, int, int]] = []
    stays: list[Stay] = []
    coming = deque(jobs)
    while coming or ends:
        now = min([job.came for job in list(coming)[:1]] + [end for end, *_ in ends[:1]])
        while ends and ends[0][0] <= now:
            _, _, node, devices = heapq.heappop(ends)
            free[node] += devices
        while coming and coming[0].came <= now:
            line.append(coming.popleft())
        while line and (fitting := [(room, n) for n, room in enumerate(free) if room >= line[0].devices]):
            job, (_, node) = line.popleft(), min(fitting)
            free[node] -= job.devices
            begin, end = now + start, now + start + job.seconds
            heapq.heappush(ends, (end, len(stays), node, job.devices))
            stays.append(Stay(job.team, job.devices, job.came, end, ((begin, end),)))
    return stays
