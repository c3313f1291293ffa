"""What the pool is asked, and told to change, by name: no session is needed for it.

Commands that only read start with little else than this.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any

from flexray.errors import NotThere
from flexray.runtime.asking import ask_scheduler

if TYPE_CHECKING:  # an answer brings its own module: a command imports what it shows, and starts the sooner
    from flexray.accounting.advice import Advice
    from flexray.accounting.report import UsageTable
    from flexray.model.explanation import Explanation, StartEstimate
    from flexray.model.happening import Happenings
    from flexray.model.holding import Holding
    from flexray.model.lease import RequestId
    from flexray.model.plan import PlanAnswer
    from flexray.model.request import Request
    from flexray.model.snapshot import Snapshot

_WITHIN_SECONDS = 60.0
_LOOK_SECONDS = 0.3


def read_snapshot(scheduler: Any) -> Snapshot:
    """The pool now. Raises ClusterUnreachable when the scheduler does not answer."""
    snapshot: Snapshot = ask_scheduler(scheduler, "snapshot", within=_WITHIN_SECONDS)
    return snapshot


def read_history(scheduler: Any, since: float = 0.0) -> tuple[Holding, ...]:
    """Leases that ended at that time (seconds since 1970) or later, oldest first; of the latest 5,000."""
    found: tuple[Holding, ...] = ask_scheduler(scheduler, "history", since, within=_WITHIN_SECONDS)
    return found


def read_happenings(scheduler: Any, epoch: int = 0, after: int = 0) -> Happenings:
    """What has happened after a number of an incarnation of the scheduler, of the latest 2,000 events and commands."""
    found: Happenings = ask_scheduler(scheduler, "happenings", epoch, after, within=_WITHIN_SECONDS)
    return found


def read_usage(scheduler: Any, by: Sequence[str], since: float) -> UsageTable:
    """What was held and used since a time (seconds since 1970). Raises UsageError for what nothing can be summed by."""
    table: UsageTable = ask_scheduler(scheduler, "usage", list(by), since, within=_WITHIN_SECONDS)
    return table


def read_advice(scheduler: Any) -> tuple[Advice, ...]:
    """How much task classes should ask for."""
    advice: tuple[Advice, ...] = ask_scheduler(scheduler, "advice", within=_WITHIN_SECONDS)
    return advice


def read_explanation(scheduler: Any, request: str) -> Explanation:
    """Where a request is and why, or how it ended. Raises NotThere for one that the pool does not know."""
    found: Explanation | None = ask_scheduler(scheduler, "explain", request, within=_WITHIN_SECONDS)
    if found is None:
        raise NotThere(
            f"no request {request!r} is known: there never was one, or it has ended and many after it. "
            f"`flexray requests` lists those that wait and run"
        )
    return found


def read_starts(scheduler: Any, requests: Sequence[str]) -> dict[RequestId, StartEstimate]:
    """When waiting requests are expected to start, as far as they are known and few enough wait for that."""
    found: dict[RequestId, StartEstimate] = ask_scheduler(scheduler, "starts", list(requests), within=_WITHIN_SECONDS)
    return found


def read_plan(scheduler: Any, request: Request) -> PlanAnswer:
    """When and where a request would start."""
    answer: PlanAnswer = ask_scheduler(scheduler, "plan", request, within=_WITHIN_SECONDS)
    return answer


def read_queues(scheduler: Any) -> list[dict[str, Any]]:
    """The pool's queues as they were configured."""
    queues: list[dict[str, Any]] = ask_scheduler(scheduler, "queues", within=_WITHIN_SECONDS)
    return queues


def change_queues(scheduler: Any, change: dict[str, Any], dry_run: bool = False) -> list[str]:
    """Change the pool's queues, or say what that would do. Raises UsageError for what makes no sense."""
    told: list[str] = ask_scheduler(scheduler, "change_queues", change, dry_run, within=_WITHIN_SECONDS, again=dry_run)
    return told


def change_cordons(scheduler: Any, change: dict[str, Any]) -> list[str]:
    """Cordon or uncordon devices (see ``cordoning.asked``); their ids. Raises UsageError for what names nothing."""
    names: list[str] = ask_scheduler(scheduler, "change_cordons", change, within=_WITHIN_SECONDS, again=False)
    return names


def wait_empty(scheduler: Any, devices: Collection[str]) -> None:
    """Wait until no slice is left on any of these devices."""
    while any(device.slices for device in read_snapshot(scheduler).devices if device.id in devices):
        time.sleep(_LOOK_SECONDS)
