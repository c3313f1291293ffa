"""Making a slice's prints reach the driver that submitted the task.

Ray's log monitor tags a worker's output with the job that created the worker; for a
slice that is the pool's own job, which has no driver. A line ``:job_id:<hex>`` re-tags
everything that follows, ``:actor_name:<name>`` sets the prefix that drivers see. This
is a private format of Ray (ray/_private/log_monitor.py, ray_constants.py): it is used
here and nowhere else, and one test watches it.
"""

from __future__ import annotations

import sys


def tag_output(job: str, name: str) -> None:
    """Send what this process prints from now on to the drivers of a job, under a name."""
    from ray._private import ray_constants

    for stream in (sys.stdout, sys.stderr):
        print(f"{ray_constants.LOG_PREFIX_JOB_ID}{job}", file=stream)
        print(f"{ray_constants.LOG_PREFIX_ACTOR_NAME}{name}", file=stream, flush=True)
