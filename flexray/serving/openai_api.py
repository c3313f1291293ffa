"""``flex.serving.openai``: one Ray Serve deployment that speaks OpenAI's protocol, in front of engines on slices."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncGenerator
from typing import Any

from ray import serve
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse

import flexray
from flexray.errors import FlexrayError, InvalidRequest
from flexray.serving.deploying import divide_options
from flexray.serving.engine import Answer, EngineModel
from flexray.serving.keeper import Keeper
from flexray.serving.routes import Replica, Routes

_BUSY = 10_000
"""Requests that pass through at a time: engines have queues of their own."""
_RECOVER_SECONDS = 60.0
_PASSED_ON = ("content-type", "authorization")
"""Headers that an engine sees; with ``--api-key`` among its arguments vLLM asks for the second."""


def openai(*models: EngineModel, name: str = "openai", **options: Any) -> Any:
    """An application that serves engines under OpenAI's protocol: ``serve.run(flex.serving.openai(a, b))``.

    Requests go to an engine of the model that they name, streams as they come. ``GET /v1/models`` lists the models,
    ``GET /`` shows their engines.

    Args:
        models: from ``flex.serving.vllm``.
        name: of the deployment.
        options: those of ``serve.deployment``; there is one replica, which holds the slices of all engines.

    Raises:
        InvalidRequest: no models, two of one name, or an option that makes no sense.
    """
    names = [model.name for model in models]
    if not names or len(set(names)) < len(names):
        raise InvalidRequest(f"models have different names, and there is at least one; got {names}")
    on_slice, for_serve = divide_options(options)
    several = {"num_replicas", "autoscaling_config"} & set(for_serve)
    if on_slice or several:
        raise InvalidRequest(f"{sorted({*on_slice, *several})} belong to the models (flex.serving.vllm)")
    return serve.deployment(**{"max_ongoing_requests": _BUSY, **for_serve, "name": name})(OpenAI).bind(list(models))


class OpenAI:
    """The replica in front of the engines. It reads which model a request names, and changes nothing."""

    async def __init__(self, models: list[EngineModel]) -> None:  # type: ignore[misc]  # Serve awaits it
        await asyncio.to_thread(flexray.init)
        replicas = {model.name: [Replica(_keeper(model)) for _ in range(model.replicas)] for model in models}
        self._routes = Routes(replicas, {model.name: model.wait_seconds for model in models})
        try:
            await asyncio.gather(*(replica.keeper.start() for those in replicas.values() for replica in those))
        except BaseException:
            self._routes.close()
            raise

    async def __call__(self, request: Request) -> Response:
        """HTTP."""
        path = request.url.path.removeprefix(request.scope.get("root_path", "")).rstrip("/")
        names = list(self._routes.replicas)
        if not path:
            return JSONResponse({name: await self._status(name) for name in names})
        if path == "/v1/models":
            data = [{"id": name, "object": "model", "created": 0, "owned_by": "flexray"} for name in names]
            return JSONResponse({"object": "list", "data": data})
        body = await request.body()
        try:
            model = json.loads(body)["model"]
        except (ValueError, KeyError, TypeError):
            return _error(400, "invalid_request_error", f"{path} takes JSON that names a model, of {names}")
        if model not in names:
            return _error(404, "model_not_found", f"there is no model {model!r}; there are {names}")
        headers = {"content-type": "application/json"}
        headers |= {name: value for name, value in request.headers.items() if name in _PASSED_ON}
        parts = self._routes.answer(model, request.method, path, headers, body)
        try:
            first = await anext(parts)
        except FlexrayError as error:
            return _error(503, "engine_unavailable", str(error))
        if not first.ticket:
            await parts.aclose()
            return Response(first.data, first.status, media_type=first.kind)
        return StreamingResponse(_rest(first, parts), first.status, media_type=first.kind)

    async def _status(self, name: str) -> list[dict[str, Any]]:
        return [await _about(replica) for replica in self._routes.replicas[name]]

    def __del__(self) -> None:
        """Serve calls this once the requests are done."""
        if "_routes" in self.__dict__:
            self._routes.close()


def _keeper(model: EngineModel) -> Keeper:
    return Keeper(lambda: model.recipe.start(model.args), 0, _RECOVER_SECONDS)


async def _about(replica: Replica) -> dict[str, Any]:
    known: dict[str, Any] = {"up": False, "why": replica.keeper.trouble or replica.why, "ongoing": replica.in_flight}
    if replica.keeper.seated:
        with contextlib.suppress(FlexrayError):  # it is lost at this moment
            known |= await replica.keeper.call("about", (), {})
    return known


async def _rest(first: Answer, parts: AsyncGenerator[Answer, None]) -> AsyncGenerator[bytes, None]:
    """A stream whose engine dies ends with an error that OpenAI's clients raise, as vLLM's own do."""
    async with contextlib.aclosing(parts):
        yield first.data
        try:
            async for part in parts:
                yield part.data
        except FlexrayError as error:
            yield b"data: " + json.dumps(_described(503, "engine_lost", str(error))).encode() + b"\n\n"


def _described(status: int, code: str, message: str) -> dict[str, Any]:
    kind = "invalid_request_error" if status < 500 else "server_error"
    return {"error": {"message": message, "type": kind, "param": None, "code": code}}


def _error(status: int, code: str, message: str) -> Response:
    return JSONResponse(_described(status, code, message), status, {"Retry-After": "1"} if status == 503 else None)
