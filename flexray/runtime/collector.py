"""Keeps Python's garbage collector from stopping the scheduler for long.

A full collection looks at every object there is: half a second where the books of a hundred
thousand busy devices are in memory. They are in no cycles, so there is nothing to find.
"""

from __future__ import annotations

import gc
import time

#: A full collection that takes longer is not to look at the same objects again.
_LONG_SECONDS = 0.02
#: Objects made before the youngest are looked at, and how often the older are: a decision makes some hundreds, and
#: nearly all of them go by themselves.
_THRESHOLDS = (20_000, 20, 50)


def keep_collections_short() -> None:
    """Leave out of later collections what is there now, and what survives a full one that takes long.

    Such objects are freed all the same when nobody refers to them any more. What is lost is those that are part of a
    cycle just then, a few for each long collection.
    """
    began = 0.0

    def notice(phase: str, info: dict[str, int]) -> None:
        nonlocal began
        if info["generation"] < 2:
            return
        if phase == "start":
            began = time.perf_counter()
        elif time.perf_counter() - began > _LONG_SECONDS:
            gc.freeze()

    gc.set_threshold(*_THRESHOLDS)
    gc.freeze()
    gc.callbacks.append(notice)
