"""Which code and variables a client's tasks need, found once when it connects."""

from __future__ import annotations

import getpass
import hashlib
import json
import os
from typing import Any

import ray

from flexray.model.lease import EnvironmentId
from flexray.runtime.protocol import Environment

_UNPACKED_PACKAGES = "runtime_resources"  # where Ray unpacks working_dir and py_modules on a node
_SUBMISSION = "job_submission_id"  # where Ray's jobs have it in their metadata
_NOT_CODE = frozenset({"_ray_commit", "eager_install", "config", "excludes", "worker_process_setup_hook"})


def capture_environment(share: bool) -> Environment:
    """The environment of this process's Ray job.

    It contains the job's id, so that equal names in two jobs never meet in one slice,
    unless ``share`` is set and everything in it is content-addressed.
    """
    context = ray.get_runtime_context()
    runtime_env = {key: value for key, value in dict(context.runtime_env).items() if key not in _NOT_CODE and value}
    paths = tuple(path for path in _driver_paths() if _UNPACKED_PACKAGES not in path)
    job = context.get_job_id()
    scope = "" if share and not paths and _content_addressed(runtime_env) else job
    text = json.dumps([scope, runtime_env, paths], sort_keys=True, default=str)
    name = hashlib.blake2b(text.encode(), digest_size=8).hexdigest()
    return Environment(
        EnvironmentId(name), job, runtime_env, paths, _user(), _job_config().metadata.get(_SUBMISSION, "")
    )


def with_variables(runtime_env: dict[str, Any], variables: dict[str, str]) -> dict[str, Any]:
    """A runtime environment with more variables, which go before its own."""
    if not variables:
        return runtime_env
    return {**runtime_env, "env_vars": {**runtime_env.get("env_vars", {}), **variables}}


def _driver_paths() -> list[str]:
    """Directories the driver added to sys.path, which Ray puts on the path of the job's workers."""
    return list(_job_config().py_driver_sys_path)


def _job_config() -> Any:
    from ray._private.worker import global_worker

    return global_worker.core_worker.get_job_config()


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user may have a number and no name
        return str(os.getuid())


def _content_addressed(runtime_env: dict[str, Any]) -> bool:
    uris = [runtime_env.get("working_dir", ""), *runtime_env.get("py_modules", [])]
    return bool(runtime_env.get("working_dir")) and all(str(uri).startswith(("gcs://", "https://", "")) for uri in uris)
