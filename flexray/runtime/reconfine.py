"""What a slice's own process changes of its limits when the slice gets another size."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from flexray.devices.enforcers.enforcer import NotResizable, SliceSetup
from flexray.runtime.memory_fraction import limit_memory

_STATUS = Path("/proc/self/status")


def reconfine(before: SliceSetup, after: SliceSetup) -> None:
    """Go from one setup to the next. Raises NotResizable, changing nothing.

    Variables are for children; libraries that read them when they were loaded keep what they read, but for torch's
    number of threads, which is set.
    """
    if before.data_limit != after.data_limit:
        _limit_data(before.data_limit, after.data_limit)
    os.environ.update(after.env)
    torch = sys.modules.get("torch")
    if after.threads and torch is not None:
        torch.set_num_threads(after.threads)
    if before.memory_fraction != after.memory_fraction:
        limit_memory(after.memory_fraction or 1.0)


def _limit_data(before: int, after: int) -> None:
    """MiB that the heap may grow; 0: no limit."""
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    if not after:
        most = hard
    elif before and soft != resource.RLIM_INFINITY:
        most = soft + ((after - before) << 20)  # the limit counts from what the process had at its start
    else:
        most = _heap() + (after << 20)
    if hard != resource.RLIM_INFINITY and most > hard:
        raise NotResizable("its heap was limited for good when it started (RLIMIT_DATA); ask for a new slice")
    resource.setrlimit(resource.RLIMIT_DATA, (most, hard))


def _heap() -> int:
    """Bytes."""
    line = next(line for line in _STATUS.read_text().splitlines() if line.startswith("VmData:"))
    return int(line.split()[1]) << 10
