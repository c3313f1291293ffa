"""A limit of a process's heap, RLIMIT_DATA: over it allocations fail cleanly and the process lives.

It counts private writable memory, touched or not, per process; memory shared between processes
and mapped files are not counted (setrlimit(2); the kernel counts mappings since 4.7).
"""

from __future__ import annotations

import functools
import subprocess
import sys

from flexray.model.isolation import Strength

_TRIAL = """
import resource
resource.setrlimit(resource.RLIMIT_DATA, (64 << 20, 64 << 20))
try:
    bytearray(256 << 20)
except MemoryError:
    print("held")
"""


@functools.lru_cache(maxsize=1)
def data_limit_strength() -> Strength:
    """How strongly it holds here, tried once in a child: per process, or not at all."""
    try:
        done = subprocess.run(
            [sys.executable, "-S", "-E", "-c", _TRIAL], capture_output=True, text=True, timeout=30.0, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return Strength.NONE
    return Strength.HARD_PROCESS if done.stdout.strip() == "held" else Strength.NONE
