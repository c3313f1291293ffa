"""``flex.serving.models``: one Ray Serve deployment in front of many models."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from ray import serve
from starlette.requests import Request
from starlette.responses import JSONResponse

import flexray
from flexray.errors import FlexrayError, InvalidRequest
from flexray.serving.declared import Model
from flexray.serving.deploying import divide_options
from flexray.serving.host import streams
from flexray.serving.shelf import Shelf
from flexray.serving.web import is_refusal, refusal, sendable, streamed

_BUSY = 1_000
"""Requests that the endpoint passes on at a time: what runs on a model is limited there."""


def models(*declared: Model, name: str = "models", **options: Any) -> Any:
    """An application that serves many models through one endpoint: ``serve.run(flex.serving.models(a, b, c))``.

    Over HTTP ``POST /NAME`` goes to the ``__call__`` of that model, and ``GET /`` shows all of them. A handle has
    ``handle.call.remote(NAME, METHOD, ...)`` and ``handle.options(stream=True).stream.remote(NAME, METHOD, ...)``.

    Args:
        declared: from ``flex.serving.model``.
        name: of the deployment.
        options: those of ``serve.deployment``; one replica holds the books of all models, so that there is no other.

    Raises:
        InvalidRequest: no models, two of one name, or an option that makes no sense.
    """
    names = [model.name for model in declared]
    if not names or len(set(names)) < len(names):
        raise InvalidRequest(f"models of an endpoint have different names, and there is at least one; got {names}")
    on_slice, for_serve = divide_options(options)
    several = {"num_replicas", "autoscaling_config"} & set(for_serve)
    if on_slice or several:
        raise InvalidRequest(
            f"{sorted({*on_slice, *several})} belong to the models (flex.serving.model); the endpoint has one replica, "
            "which holds no slice"
        )
    return serve.deployment(**{"max_ongoing_requests": _BUSY, **for_serve, "name": name})(Endpoint).bind(list(declared))


class Endpoint:
    """The replica in front of many models."""

    async def __init__(self, declared: list[Model]) -> None:  # type: ignore[misc]  # Serve awaits it
        await asyncio.to_thread(flexray.init)
        self._models = {model.name: model for model in declared}
        self._shelf = Shelf(declared)

    async def __call__(self, request: Request) -> Any:
        """HTTP: the first part of the path names the model."""
        name = request.url.path.removeprefix(request.scope.get("root_path", "")).strip("/").partition("/")[0]
        if not name:
            return JSONResponse(await self.status())
        if name not in self._models:
            return refusal(InvalidRequest(f"there is no model {name!r}; there are {', '.join(self._models)}"), 404)
        args = (await sendable(request),)
        entry = getattr(self._models[name].recipe.loader, "__call__", None)  # noqa: B004  # to see what it is
        try:
            if entry is not None and streams(entry):
                return await streamed(self._shelf.stream(name, "__call__", args, {}))
            return await self._shelf.call(name, "__call__", args, {})
        except FlexrayError as error:
            if is_refusal(error):
                return refusal(error)
            raise

    async def call(self, name: str, method: str, *args: Any, **kwargs: Any) -> Any:
        """Call a method of a model."""
        return await self._shelf.call(name, method, args, kwargs)

    async def stream(self, name: str, method: str, *args: Any, **kwargs: Any) -> AsyncIterator[Any]:
        """The items of a generator method of a model."""
        async for item in self._shelf.stream(name, method, args, kwargs):
            yield item

    async def status(self) -> dict[str, Any]:
        """Each model: its replicas, its requests, what loading it has cost."""
        return {name: self._status(name) for name in self._models}

    def _status(self, name: str) -> dict[str, Any]:
        store = self._shelf.store
        record = store.records[name]
        fields = ("requests", "waiting", "late", "cold_starts", "cold_seconds", "unparked", "unpark_seconds", "evicted")
        replicas = [
            {"state": c.state.value, "device": c.device, "gpu": c.share, "memory_mib": c.memory, "ongoing": c.in_flight}
            for c in store.copies
            if c.model.name == name
        ]
        figures: dict[str, Any] = {field: getattr(record, field) for field in fields}
        return {"replicas": replicas, **figures, "failure": record.failure}

    def __del__(self) -> None:
        """Serve calls this once the requests are done."""
        if "_shelf" in self.__dict__:
            self._shelf.close()
