"""HTTP requests on their way to a slice, and what comes back."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse

from flexray.errors import FlexrayError, TaskError

#: What of a request's scope can be sent; the rest belongs to the server's process.
_SENT = (
    "type",
    "http_version",
    "method",
    "scheme",
    "path",
    "raw_path",
    "query_string",
    "root_path",
    "headers",
    "client",
    "server",
)


class _Sent:
    """A request that has been read. It unpickles as starlette's ``Request``, with its body in it."""

    def __init__(self, scope: dict[str, Any], body: bytes) -> None:
        self._scope, self._body = scope, body

    def __reduce__(self) -> Any:
        return _received, (self._scope, self._body)


def _received(scope: dict[str, Any], body: bytes) -> Request:
    sent = False

    async def receive() -> dict[str, Any]:
        nonlocal sent
        message = {"type": "http.disconnect"} if sent else {"type": "http.request", "body": body, "more_body": False}
        sent = True
        return message

    return Request(scope, receive)


async def sendable(value: Any) -> Any:
    """The value, or a request in a form that can be sent to a slice."""
    if not isinstance(value, Request):
        return value
    body = await value.body()
    return _Sent({key: value.scope[key] for key in _SENT if key in value.scope}, body)


def is_refusal(error: BaseException) -> bool:
    """Whether flexray could not run a request, as opposed to the model's code having failed."""
    return isinstance(error, FlexrayError) and not isinstance(error, TaskError)


def refusal(error: BaseException, status: int = 503) -> Response:
    """What an HTTP client is told then."""
    return PlainTextResponse(
        f"{type(error).__name__}: {error}", status, {"Retry-After": "1"} if status == 503 else None
    )


async def streamed(items: AsyncIterator[Any]) -> Response:
    """A response that sends items as they come: text and bytes as they are, others as lines of JSON.

    Waits for the first item, so that what goes wrong before it still has a status of its own.
    """
    try:
        first = await anext(items)
    except StopAsyncIteration:
        return Response()
    kind = "text/plain" if isinstance(first, str) else "application/octet-stream"
    if not isinstance(first, (str, bytes)):
        kind = "application/x-ndjson"

    async def body() -> AsyncIterator[str | bytes]:
        yield _chunk(first)
        async for item in items:
            yield _chunk(item)

    return StreamingResponse(body(), media_type=kind)


def _chunk(item: Any) -> str | bytes:
    return item if isinstance(item, (str, bytes)) else json.dumps(item) + "\n"
