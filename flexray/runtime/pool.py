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
from typing import Any

import ray

from flexray.config import PoolConfig, config_difference
from flexray.errors import ClusterUnreachable, ConfigMismatch, IncompatibleVersion
from flexray.runtime.asking import ask_scheduler, find_scheduler
from flexray.runtime.claims import claims_of_cluster, remove_claim
from flexray.runtime.protocol import NAMESPACE, Versions, Welcome, agent_name
from flexray.telemetry.settings import telemetry_variables

_START_SECONDS = 60.0
_PASSED_ON = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "LD_LIBRARY_PATH", "VIRTUAL_ENV", "USER", "LOGNAME", "SHELL")
_NOT_PASSED_ON = ("RAY_JOB_CONFIG_JSON_ENV_VAR", "RAY_ADDRESS", "RAY_RUNTIME_ENV")


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
