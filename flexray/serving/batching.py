"""``flex.serving.batch``: marks a method whose calls run together."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from flexray.errors import InvalidRequest

M = TypeVar("M", bound=Callable[..., Any])
BATCH_MARK = "__flexray_batch__"


def batch(max_size: int = 8, wait_seconds: float = 0.01) -> Callable[[M], M]:
    """Have calls of a method of a deployment run together: it gets a list of their arguments, and returns a list.

        @flex.serving.batch(max_size=16, wait_seconds=0.005)
        def classify(self, images: list) -> list: ...

    Callers pass one argument each and get one result each. They are collected in the replica by Serve's own batching
    and travel to the slice as one call, while the slice works on the ones before.

    Args:
        max_size: of a batch. ``max_ongoing_requests`` of the deployment should be twice that.
        wait_seconds: how long the first of a batch waits for others.
    """
    if isinstance(max_size, bool) or not isinstance(max_size, int) or max_size < 1:
        raise InvalidRequest(f"max_size={max_size!r} must be a whole number, 1 or more")
    if isinstance(wait_seconds, bool) or not isinstance(wait_seconds, (int, float)) or wait_seconds < 0:
        raise InvalidRequest(f"wait_seconds={wait_seconds!r} must be a number of seconds, 0 or more")

    def mark(method: M) -> M:
        setattr(method, BATCH_MARK, (max_size, wait_seconds))
        return method

    return mark
