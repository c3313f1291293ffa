"""Reading what a finished call left: small results, and references to large ones, which may be lost."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import ray
from ray.exceptions import ObjectLostError, RayError, RaySystemError

from flexray.errors import LeaseLost, TaskError
from flexray.runtime.call import Call, Kind, value_of
from flexray.runtime.protocol import NAMESPACE


class ResultLost(LeaseLost):
    """The result of a finished call is gone. Never reaches a user: it is made again, or LeaseLost says why not."""

    def __init__(self, call: Call, outcome: Any, why: str) -> None:
        super().__init__(f"the result of {call.target.name} is lost: {why}")
        self.call, self.outcome, self.why = call, outcome, why


def outcome_of(call: Call) -> tuple[Kind, Any]:
    """The outcome of a finished call, which may be replaced at any moment where its result is large."""
    if call.large is None:
        return call.outcome
    with call.client.lock:
        return call.outcome


def read(call: Call, kind: Kind, outcome: Any, get: Callable[[Any], Any] = ray.get) -> Any:
    """The value of an outcome. Raises ResultLost, or what the call failed with when its result was made again."""
    if kind is Kind.ERROR:
        failure = call.failure()
        assert failure is not None
        try:
            raise failure
        finally:
            del failure, call  # or the traceback's frames would keep each other alive
    try:
        check_owners(call, outcome)
        if kind is Kind.PARTS:
            return [get(part) if of is Kind.REFERENCE else value_of(of, part) for of, part in outcome]
        return get(outcome) if kind is Kind.REFERENCE else value_of(kind, outcome)
    except ObjectLostError as error:
        raise ResultLost(call, outcome, "the node that held it died or left") from error
    except RaySystemError as error:
        raise TaskError(f"the result of {call.target.name} cannot be unpickled here: {error}") from error
    except RayError as error:
        raise LeaseLost(f"the result of {call.target.name} cannot be fetched: {error}") from error


def check_owners(call: Call, outcome: Any) -> None:
    """Raises ResultLost when a result refers to objects that its task made, and these have ended with their slice."""
    for name in call.large.slices if call.large is not None else ():
        try:
            ray.get_actor(name, namespace=NAMESPACE)
        except ValueError:
            raise ResultLost(
                call,
                outcome,
                "it refers to objects or actors that the task made itself (ray.put, .remote()), which ended with its "
                "slice; return the values instead of references to them",
            ) from None
