"""A call as a member of a gang, in its slice: what its environment says while it runs, and where the members meet."""

from __future__ import annotations

import contextlib
import os
import socket
import sys
from collections.abc import Callable, Iterator
from types import CoroutineType
from typing import Any

import ray

from flexray.runtime.protocol import Member


def meeting_place() -> str:
    """``host:port`` where this process can listen for the others: an address that other nodes reach, a free port."""
    with socket.socket() as free:
        free.bind(("", 0))
        return f"{ray.util.get_node_ip_address()}:{free.getsockname()[1]}"


def run_as(member: Member, call: Callable[[], Any]) -> Any:
    """Run a call with the environment of a member, also the rest of it where it is a coroutine."""
    with _environment(member):
        result = call()
    return _finish_as(member, result) if isinstance(result, CoroutineType) else result


async def _finish_as(member: Member, coroutine: Any) -> Any:
    with _environment(member):
        return await coroutine  # unbounded: user code


@contextlib.contextmanager
def _environment(member: Member) -> Iterator[None]:
    """What ``torch.distributed.init_process_group()`` looks for; afterwards as it was, and no group is left open."""
    host, _, port = member.rendezvous.rpartition(":")
    said = {
        "MASTER_ADDR": host,
        "MASTER_PORT": port,
        "RANK": str(member.rank),
        "WORLD_SIZE": str(member.world_size),
        "LOCAL_RANK": str(member.local_rank),
        "LOCAL_WORLD_SIZE": str(member.local_size),
    }
    before = {name: os.environ.get(name) for name in said}
    os.environ.update(said)
    try:
        yield
    finally:
        _leave_group()
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _leave_group() -> None:
    """Destroy a process group that the task has left open: its peers notice, and the next attempt makes another."""
    distributed = sys.modules.get("torch.distributed")
    if distributed is None or not distributed.is_available() or not distributed.is_initialized():
        return
    with contextlib.suppress(Exception):  # peers that are gone take no leave
        distributed.destroy_process_group()
