"""Questions to the scheduler, by name: it may be restarting just now, which takes seconds and is no answer."""

from __future__ import annotations

import time
from typing import Any

import ray

from flexray.errors import ClusterUnreachable, FlexrayError, InternalError
from flexray.runtime.protocol import NAMESPACE, SCHEDULER_NAME

RESTART_SECONDS = 30.0
"""A restart of the scheduler takes less than this, or it does not come back."""
_RETRY_SECONDS = 0.2
_WHAT_TO_DO = (
    "look at `ray status` and the scheduler's log in Ray's log directory, or restart the pool with `flexray stop` and "
    "`flexray start`"
)


def find_scheduler() -> Any:
    """The pool's scheduler actor. Raises ClusterUnreachable when this cluster has no pool."""
    try:
        return ray.get_actor(SCHEDULER_NAME, namespace=NAMESPACE)
    except ValueError:
        raise ClusterUnreachable(
            "this Ray cluster has no flexray pool; start one with `flexray start` or flex.init()"
        ) from None


def ask_scheduler(
    scheduler: Any,
    method: str,
    *args: Any,
    within: float = RESTART_SECONDS,
    again: bool = True,
    late: type[FlexrayError] = ClusterUnreachable,
) -> Any:
    """Its answer. Raises the scheduler's own FlexrayError, and ClusterUnreachable when none comes in time.

    Args:
        again: whether the question may be repeated when nobody knows whether it has arrived.
        late: what is raised instead when the scheduler is there and takes longer.
    """
    deadline = time.monotonic() + within
    while True:
        left = max(deadline - time.monotonic(), 0.001)
        try:
            return ray.get(getattr(scheduler, method).remote(*args), timeout=left)
        except ray.exceptions.GetTimeoutError:
            text = f"the pool's scheduler has not answered within {within:g} s; {_WHAT_TO_DO}"
            raise late(text) from None
        except ray.exceptions.ActorUnavailableError:
            if not again:
                text = "the pool's scheduler died meanwhile; see whether it was done, and try again"
                raise ClusterUnreachable(text) from None
            if left <= _RETRY_SECONDS:
                text = f"the pool's scheduler has not come back within {within:g} s; {_WHAT_TO_DO}"
                raise ClusterUnreachable(text) from None
            time.sleep(_RETRY_SECONDS)
        except ray.exceptions.RayTaskError as error:
            if isinstance(error.cause, FlexrayError):
                raise error.cause from None
            raise InternalError(
                f"the pool's scheduler failed at {method!r}: {error.cause}; please report it"
            ) from error
        except ray.exceptions.RayError as error:
            raise ClusterUnreachable(f"the pool's scheduler is gone: {error}") from error
