"""Finding, starting and stopping the pool of a Ray cluster.

The pool is started by a process of its own, in a neutral directory and with a clean
environment, never by the user's driver: whatever starts a detached actor leaves its
working directory, sys.path and environment variables in it for ever.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Collection, Sequence
from typing import Any

import ray

from flexray.accounting.advice import Advice
from flexray.accounting.report import UsageTable
from flexray.config import PoolConfig
from flexray.errors import ClusterUnreachable, ConfigMismatch, IncompatibleVersion, NotThere, UsageError
from flexray.model.explanation import Explanation, StartEstimate
from flexray.model.happening import Happenings
from flexray.model.holding import Holding
from flexray.model.lease import RequestId
from flexray.model.plan import PlanAnswer
from flexray.model.request import Request
from flexray.model.snapshot import Snapshot
from flexray.runtime.asking import ask_scheduler, find_scheduler
from flexray.runtime.claims import claims_of_cluster, remove_claim
from flexray.runtime.protocol import NAMESPACE, Versions, Welcome, agent_name
from flexray.runtime.reach import check_cluster
from flexray.telemetry.settings import telemetry_variables

_START_SECONDS = 60.0
_LOOK_SECONDS = 0.3
_PASSED_ON = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "LD_LIBRARY_PATH", "VIRTUAL_ENV", "USER", "LOGNAME", "SHELL")
_NOT_PASSED_ON = ("RAY_JOB_CONFIG_JSON_ENV_VAR", "RAY_ADDRESS", "RAY_RUNTIME_ENV")


def connect_ray(address: str | None) -> bool:
    """Make sure this process is connected to Ray. True when this call made the connection.

    Raises ClusterUnreachable when there is no cluster at the address, and UsageError
    for addresses that flexray cannot use.
    """
    if ray.is_initialized():
        here = ray.get_runtime_context().gcs_address
        if address not in (None, "auto", here):
            raise UsageError(f"this process is connected to the Ray cluster at {here}, not {address}")
        return False
    if address is not None and address.startswith("ray://"):
        raise UsageError("ray:// is not supported; submit the script with `ray job submit`, or run it on the cluster")
    if address not in (None, "local"):
        check_cluster(address)
    try:
        ray.init(
            address=address, include_dashboard=False if address in (None, "local") else None, logging_level="error"
        )
    except (ConnectionError, ValueError, RuntimeError, ray.exceptions.RayError) as error:
        where = f"at {address}" if address else "here"
        raise ClusterUnreachable(f"cannot connect to a Ray cluster {where}: {error}") from error
    return True


def ensure_pool(config: PoolConfig) -> Any:
    """The scheduler actor of this cluster's pool, started if there is none."""
    try:
        return find_scheduler()
    except ClusterUnreachable:
        _bootstrap(config)
        return find_scheduler()


def _bootstrap(config: PoolConfig) -> None:
    keep = {
        k: v for k, v in os.environ.items() if k in _PASSED_ON or (k.startswith("RAY_") and k not in _NOT_PASSED_ON)
    }
    keep.update(telemetry_variables(os.environ))
    address = ray.get_runtime_context().gcs_address
    command = [sys.executable, "-I", "-c", "from flexray.runtime.bootstrap import main; main()"]
    with tempfile.TemporaryDirectory(prefix="flexray-start-") as neutral:
        try:
            done = subprocess.run(
                [*command, address, config.model_dump_json()],
                cwd=neutral,
                env=keep,
                capture_output=True,
                text=True,
                timeout=_START_SECONDS * 2,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise ClusterUnreachable(f"the pool has not started within {_START_SECONDS * 2:g} s") from None
    if done.returncode:
        lines = done.stderr.strip().splitlines()
        raise ClusterUnreachable(f"the pool could not be started: {lines[-1] if lines else done.returncode}")


def greet(scheduler: Any, wanted: PoolConfig | None) -> Welcome:
    """Ask the pool what it is and compare. Raises IncompatibleVersion or ConfigMismatch with the difference."""
    welcome: Welcome = ask_scheduler(scheduler, "welcome", within=_START_SECONDS)
    mine = Versions.here(ray.__version__)
    if welcome.versions != mine:
        raise IncompatibleVersion(
            f"the pool runs {welcome.versions}, this process {mine}; use the same flexray, Ray and Python minor "
            f"version, or restart the pool with `flexray stop` and `flexray start`"
        )
    if wanted is not None:
        running = PoolConfig.model_validate(welcome.config)
        from flexray.config import config_difference

        different = config_difference(running, wanted)
        if different:
            raise ConfigMismatch(
                "the pool runs already with other settings: " + "; ".join(different) + ". Leave config out to use it "
                "as it is, or restart it with `flexray stop` and `flexray start`"
            )
    return welcome


def wait_ready(scheduler: Any) -> None:
    """Wait until every node has reported its devices."""
    lacking = ask_scheduler(scheduler, "ready", _START_SECONDS, within=2 * _START_SECONDS)
    if lacking:
        raise ClusterUnreachable(f"not every node has reported its devices within {_START_SECONDS:g} s: {lacking}")


def read_snapshot(scheduler: Any) -> Snapshot:
    """The pool now. Raises ClusterUnreachable when the scheduler does not answer."""
    snapshot: Snapshot = ask_scheduler(scheduler, "snapshot", within=_START_SECONDS)
    return snapshot


def read_history(scheduler: Any, since: float = 0.0) -> tuple[Holding, ...]:
    """Leases that ended at that time (seconds since 1970) or later, oldest first; of the latest 5,000."""
    found: tuple[Holding, ...] = ask_scheduler(scheduler, "history", since, within=_START_SECONDS)
    return found


def read_happenings(scheduler: Any, epoch: int = 0, after: int = 0) -> Happenings:
    """What has happened after a number of an incarnation of the scheduler, of the latest 2,000 events and commands."""
    found: Happenings = ask_scheduler(scheduler, "happenings", epoch, after, within=_START_SECONDS)
    return found


def read_usage(scheduler: Any, by: Sequence[str], since: float) -> UsageTable:
    """What was held and used since a time (seconds since 1970). Raises UsageError for what nothing can be summed by."""
    table: UsageTable = ask_scheduler(scheduler, "usage", list(by), since, within=_START_SECONDS)
    return table


def read_advice(scheduler: Any) -> tuple[Advice, ...]:
    """How much task classes should ask for."""
    advice: tuple[Advice, ...] = ask_scheduler(scheduler, "advice", within=_START_SECONDS)
    return advice


def read_explanation(scheduler: Any, request: str) -> Explanation:
    """Where a request is and why, or how it ended. Raises NotThere for one that the pool does not know."""
    found: Explanation | None = ask_scheduler(scheduler, "explain", request, within=_START_SECONDS)
    if found is None:
        raise NotThere(
            f"no request {request!r} is known: there never was one, or it has ended and many after it. "
            f"`flexray requests` lists those that wait and run"
        )
    return found


def read_starts(scheduler: Any, requests: Sequence[str]) -> dict[RequestId, StartEstimate]:
    """When waiting requests are expected to start, as far as they are known and few enough wait for that."""
    found: dict[RequestId, StartEstimate] = ask_scheduler(scheduler, "starts", list(requests), within=_START_SECONDS)
    return found


def read_plan(scheduler: Any, request: Request) -> PlanAnswer:
    """When and where a request would start."""
    answer: PlanAnswer = ask_scheduler(scheduler, "plan", request, within=_START_SECONDS)
    return answer


def read_queues(scheduler: Any) -> list[dict[str, Any]]:
    """The pool's queues as they were configured."""
    queues: list[dict[str, Any]] = ask_scheduler(scheduler, "queues", within=_START_SECONDS)
    return queues


def change_queues(scheduler: Any, change: dict[str, Any], dry_run: bool = False) -> list[str]:
    """Change the pool's queues, or say what that would do. Raises UsageError for what makes no sense."""
    told: list[str] = ask_scheduler(scheduler, "change_queues", change, dry_run, within=_START_SECONDS, again=dry_run)
    return told


def change_cordons(scheduler: Any, change: dict[str, Any]) -> list[str]:
    """Cordon or uncordon devices (see ``cordoning.asked``); their ids. Raises UsageError for what names nothing."""
    names: list[str] = ask_scheduler(scheduler, "change_cordons", change, within=_START_SECONDS, again=False)
    return names


def wait_empty(scheduler: Any, devices: Collection[str]) -> None:
    """Wait until no slice is left on any of these devices."""
    while any(device.slices for device in read_snapshot(scheduler).devices if device.id in devices):
        time.sleep(_LOOK_SECONDS)


def stop_pool() -> bool:
    """Stop the pool of the connected cluster: slices, agents, claims, scheduler. False when there is none.

    Safe to call twice, and when the scheduler is dead or restarting.
    """
    try:
        scheduler = find_scheduler()
    except ClusterUnreachable:
        scheduler = None
    if scheduler is not None:
        try:
            ray.get(scheduler.close.remote(), timeout=_START_SECONDS)
        except ray.exceptions.RayError:  # dead or restarting: what it would have done is done below
            pass
        ray.kill(scheduler, no_restart=True)
    left = [n["name"] for n in ray.util.list_named_actors(all_namespaces=True) if n["namespace"] == NAMESPACE]
    for name in left:
        if name.startswith(agent_name("")):
            _close_agent(name)
    claims = claims_of_cluster()
    for name, _ in claims:
        remove_claim(name)
    _wait_gone()
    return scheduler is not None or bool(left) or bool(claims)


def _close_agent(name: str) -> None:
    try:
        agent = ray.get_actor(name, namespace=NAMESPACE)
        ray.get(agent.close.remote(), timeout=30)
        ray.kill(agent)
    except (ValueError, ray.exceptions.RayError):  # gone already
        return


def _wait_gone() -> None:
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        if not any(n["namespace"] == NAMESPACE for n in ray.util.list_named_actors(all_namespaces=True)):
            return
        time.sleep(0.05)
