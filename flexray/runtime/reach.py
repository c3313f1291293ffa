"""Connecting to a Ray cluster. Whether one answers is asked before ``ray.init``, which would retry for minutes."""

from __future__ import annotations

import atexit
import importlib
import os
from typing import Any

import ray

from flexray.errors import ClusterUnreachable, UsageError

_SECONDS = 5.0
_ALIVE = "/ray.rpc.NodeInfoGcsService/CheckAlive"


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
    if address == "auto":
        _use_token_of_machine()
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


def connect_until_exit(address: str) -> None:
    """The same for a process that shows nothing of what others print: Ray's own exit waits half a second for that."""
    if connect_ray(address):
        atexit.register(ray.shutdown)


def _use_token_of_machine() -> None:
    """As Ray does for a cluster of this machine: the token in ``~/.ray`` counts where RAY_AUTH_MODE is not set."""
    raylet: Any = importlib.import_module("ray._raylet")  # its stub does not have all that is in it
    if "RAY_AUTH_MODE" not in os.environ and raylet.AuthenticationTokenLoader.instance().has_token(
        ignore_auth_mode=True
    ):
        os.environ["RAY_AUTH_MODE"] = "token"
        raylet.Config.initialize("")  # what this process has read of its environment before


def check_cluster(address: str) -> None:
    """Ask the cluster's control service whether it is alive.

    Raises UsageError for what is no address, ClusterUnreachable when nothing, or
    something else than a Ray head, answers within five seconds, or it wants another token.
    """
    import grpc
    from ray._private.grpc_utils import init_grpc_channel

    target = _resolve(address)
    channel = init_grpc_channel(target)
    try:
        channel.unary_unary(_ALIVE)(b"", timeout=_SECONDS)
    except grpc.RpcError as error:
        code = error.code()
        if code in (grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED):
            raise ClusterUnreachable(
                f"the Ray cluster at {target} wants another token than this process has: set RAY_AUTH_MODE=token, and "
                f"the cluster's token in RAY_AUTH_TOKEN or the path of its file in RAY_AUTH_TOKEN_PATH"
            ) from None
        raise ClusterUnreachable(
            f"no Ray cluster answers at {target} ({code.name.lower()}); start one with `ray start --head`, "
            f"or leave the address out"
        ) from None
    finally:
        channel.close()


def _resolve(address: str) -> str:
    """``auto`` becomes the address of the cluster on this machine."""
    if address == "auto":
        from ray._private.services import canonicalize_bootstrap_address

        found = canonicalize_bootstrap_address(address)
        if not found:
            raise ClusterUnreachable("no Ray cluster runs on this machine; start one with `ray start --head`")
        return str(found)
    _, _, port = address.rpartition(":")
    if not port.isdigit() or ":" not in address:
        raise UsageError(f"address={address!r} is not HOST:PORT, 'auto' or 'local'")
    return address
