"""flexray: one pool of accelerators on Ray.

    import flexray as flex

    @flex.task(gpu=0.25, memory="4GiB")
    def embed(batch): ...

    vectors = flex.get([embed.remote(batch) for batch in batches])

Importing this module does not import ray; the first call that needs the pool does.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from flexray.config import PoolConfig
    from flexray.executor import Executor
    from flexray.future import DoneFuture, Future, Stream, as_completed, get, wait
    from flexray.model.explanation import Explanation
    from flexray.model.gang import Gang
    from flexray.model.plan import PlanAnswer
    from flexray.model.request import Request
    from flexray.model.snapshot import Snapshot
    from flexray.progress import progress
    from flexray.runtime.current import Current, current
    from flexray.runtime.turns import turn
    from flexray.tasks import Actor, ActorHandle, Task, actor, task

__version__ = "0.1.0"

_LAZY = {
    "Actor": "flexray.tasks",
    "ActorHandle": "flexray.tasks",
    "Current": "flexray.runtime.current",
    "DoneFuture": "flexray.future",
    "Executor": "flexray.executor",
    "Explanation": "flexray.model.explanation",
    "Future": "flexray.future",
    "Gang": "flexray.model.gang",
    "PlanAnswer": "flexray.model.plan",
    "PoolConfig": "flexray.config",
    "Request": "flexray.model.request",
    "Snapshot": "flexray.model.snapshot",
    "Stream": "flexray.future",
    "Task": "flexray.tasks",
    "actor": "flexray.tasks",
    "as_completed": "flexray.future",
    "current": "flexray.runtime.current",
    "errors": "flexray.errors",
    "get": "flexray.future",
    "progress": "flexray.progress",
    "serving": "flexray.serving",
    "task": "flexray.tasks",
    "turn": "flexray.runtime.turns",
    "wait": "flexray.future",
}

__all__ = [
    "Actor",
    "ActorHandle",
    "Current",
    "DoneFuture",
    "Executor",
    "Explanation",
    "Future",
    "Gang",
    "PlanAnswer",
    "PoolConfig",
    "Request",
    "Snapshot",
    "Stream",
    "Task",
    "actor",
    "as_completed",
    "current",
    "errors",
    "get",
    "init",
    "plan",
    "pool",
    "progress",
    "serving",
    "shutdown",
    "task",
    "turn",
    "wait",
]


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'flexray' has no attribute {name!r}")
    module = importlib.import_module(_LAZY[name])
    value = module if name in ("errors", "serving") else getattr(module, name)
    globals()[name] = value
    return value


def init(address: str | None = None, *, config: PoolConfig | Mapping[str, Any] | str | None = None) -> None:
    """Join the pool of a Ray cluster, starting what is missing: a local Ray, the scheduler, the node agents.

    Tasks and actors do this by themselves with the defaults. A second call checks that it
    asks for the same.

    Args:
        address: ``HOST:PORT`` of the cluster, ``"auto"`` for the one on this machine, ``"local"`` for a new one,
            None for what Ray's own ``ray.init()`` would choose.
        config: PoolConfig, dict, or path of a JSON file; compared with the pool's if it runs already.

    Raises:
        ClusterUnreachable: no cluster there, or its pool does not answer.
        ConfigMismatch: the pool runs with other settings.
        IncompatibleVersion: the pool has another protocol, Ray or Python version.
    """
    from flexray.runtime import process

    process.connect(address, config)


def shutdown() -> None:
    """Leave the pool: what this process held is given back. Ends Ray only if ``init`` started the connection."""
    from flexray.runtime import process

    process.disconnect()


def plan(**options: Any) -> PlanAnswer:
    """Say when and where a request would start now, and what other request would start at once, without submitting.

        print(flex.plan(gpu=0.5, memory="8GiB", types="nvidia/A100*", queue="prod", runtime=600))

    Args:
        options: those of ``@flex.task`` that say what is asked: ``gpu=`` (or ``npu=``, ``accelerator=``), ``memory=``,
            ``types=``, ``queue=``, ``priority=``, ``runtime=``, ``cpus=``, ``gang=``, ``request=``.

    Raises:
        InvalidRequest: something that makes no sense, as from ``@flex.task``.
    """
    from flexray.model.request import request_from_options
    from flexray.runtime import process

    return process.client().plan(request_from_options(options))


def pool() -> Snapshot:
    """An immutable picture of the pool: nodes, devices, slices, queues, waiting and running requests."""
    from flexray.runtime import process

    return process.client().snapshot()
