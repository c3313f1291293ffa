"""The server: the page, the JSON under ``/api/``, and the live events that the page is drawn from."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from importlib.resources import files
from typing import Any

from aiohttp import web

from flexray.dashboard.access import HEADERS, Access, Handler, guard
from flexray.dashboard.feed import Feed
from flexray.dashboard.source import Source
from flexray.errors import FlexrayError, UsageError
from flexray.model.snapshot import RequestView, Snapshot
from flexray.model.wire import to_plain

_STATIC = files("flexray.dashboard") / "static"
_KINDS = {
    "html": "text/html",
    "js": "text/javascript",
    "css": "text/css",
    "svg": "image/svg+xml",
}
_MOST_BYTES = 10_000
"""Of a change: a name and a reason."""
_SHUTDOWN_SECONDS = 2.0


class Dashboard:
    """One pool, on one address.

    Args:
        source: how the pool is asked.
        access: who may come in.
        allow_changes: whether devices may be cordoned from here.
    """

    def __init__(self, source: Source, access: Access, allow_changes: bool = False) -> None:
        self._source, self._access, self._allow_changes = source, access, allow_changes
        self._feed = Feed(source)
        self._closing = asyncio.Event()

    def app(self) -> web.Application:
        """What is served; looks at the pool as long as it is."""
        app = web.Application(middlewares=[guard(self._access), _told], client_max_size=_MOST_BYTES)
        app.cleanup_ctx.append(self._looking)
        app.on_shutdown.append(self._close)
        add = app.router.add_get
        add("/", self._page)
        add("/static/{path:.+}", self._file)
        add("/api/snapshot", self._snapshot)
        add("/api/devices", self._part("nodes", "devices", "slices"))
        add("/api/queues", self._part("queues"))
        add("/api/requests", self._part("waiting", "running", "classes"))
        add("/api/request/{id:.+}", self._request)
        add("/api/history", self._history)
        add("/api/events", self._events)
        app.router.add_post("/api/{verb:cordon|drain|uncordon}", self._change)
        return app

    async def _looking(self, app: web.Application) -> AsyncIterator[None]:
        task = asyncio.create_task(self._feed.run())
        yield
        task.cancel()

    async def _close(self, app: web.Application) -> None:
        self._closing.set()

    # -- the page ------------------------------------------------------------------------------

    async def _page(self, request: web.Request) -> web.Response:
        return _static_file("index.html")

    async def _file(self, request: web.Request) -> web.Response:
        return _static_file(request.match_info["path"])

    # -- the API -------------------------------------------------------------------------------

    async def _snapshot(self, request: web.Request) -> web.Response:
        snapshot, demand = await self._feed.look()
        return await _json(lambda: {**to_plain(snapshot), "ray_demand": demand})

    def _part(self, *names: str) -> Callable[[web.Request], Awaitable[web.Response]]:
        async def answer(request: web.Request) -> web.Response:
            snapshot, _ = await self._feed.look()
            return await _json(lambda: {name: to_plain(getattr(snapshot, name)) for name in ("now", *names)})

        return answer

    async def _request(self, request: web.Request) -> web.Response:
        name = request.match_info["id"]
        snapshot, _ = await self._feed.look()
        try:
            explanation = await self._source.explanation(name)
        except UsageError as error:
            return web.json_response({"error": str(error)}, status=404)
        held = self._feed.past.of(name)
        found = {"request": _view(snapshot, name), "explanation": explanation, "holdings": held}
        return web.json_response({"now": snapshot.now, **to_plain(found)})

    async def _history(self, request: web.Request) -> web.Response:
        asked = request.query.get("since", "0")
        try:
            since = float(asked)
        except ValueError:
            raise UsageError(f"since={asked!r} must be seconds since 1970") from None
        snapshot, _ = await self._feed.look()
        past = self._feed.past
        held, samples = past.holdings(since), past.samples(since)
        return await _json(lambda: {"now": snapshot.now, "holdings": to_plain(held), "samples": to_plain(samples)})

    async def _events(self, request: web.Request) -> web.StreamResponse:
        headers = {**HEADERS, "Content-Type": "text/event-stream", "Cache-Control": "no-store"}
        answer = web.StreamResponse(headers=headers)
        await answer.prepare(request)
        welcome = json.dumps({"changes": self._allow_changes})
        await answer.write(f"retry: 2000\nevent: hello\ndata: {welcome}\n\n".encode())
        sending = asyncio.create_task(self._send(answer))
        closing = asyncio.create_task(self._closing.wait())  # unbounded: as long as somebody watches
        try:
            await asyncio.wait({sending, closing}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            sending.cancel()
            closing.cancel()
        return answer

    async def _send(self, answer: web.StreamResponse) -> None:
        watched = self._feed.watch()
        try:
            async for kind, data in watched:
                message = ": still here\n\n" if kind == "beat" else f"event: {kind}\ndata: {data}\n\n"
                await answer.write(message.encode())
        except (ConnectionError, RuntimeError):  # nobody watches any more
            return
        finally:
            await watched.aclose()

    async def _change(self, request: web.Request) -> web.Response:
        if not self._allow_changes:
            why = "this dashboard changes nothing; start it with --allow-changes, or use `flexray cordon`"
            return web.json_response({"error": why}, status=403)
        verb = request.match_info["verb"]
        asked = await _asked(request)
        target, reason = asked.get("device"), asked.get("reason", "")
        if not isinstance(target, str) or not target or not isinstance(reason, str):
            raise UsageError('write {"device": "the id of a device or node", "reason": "why"}')
        change: dict[str, Any] = {"uncordon": target} if verb == "uncordon" else {"cordon": target, "reason": reason}
        devices = await self._source.change_cordons({**change, **({"drain": True} if verb == "drain" else {})})
        return web.json_response({"devices": devices})


async def _asked(request: web.Request) -> dict[str, Any]:
    try:
        asked = await request.json()
    except ValueError:
        asked = None
    if not isinstance(asked, dict):
        raise UsageError("the body is not a JSON object")
    return asked


@web.middleware
async def _told(request: web.Request, handler: Handler) -> web.StreamResponse:
    """What the pool, or the reader, is told of errors: 400 for what was asked wrongly, 503 where the pool is away."""
    try:
        return await handler(request)
    except UsageError as error:
        return web.json_response({"error": str(error)}, status=400)
    except FlexrayError as error:
        return web.json_response({"error": str(error)}, status=503)


def _view(snapshot: Snapshot, name: str) -> RequestView | None:
    listed = (one for part in (snapshot.waiting, snapshot.running) for one in part)
    return next((one for one in listed if one.id == name), None)


async def _json(make: Callable[[], Any]) -> web.Response:
    """Large answers are made aside, so that those who watch are not kept waiting."""
    body = await asyncio.to_thread(lambda: json.dumps(make()).encode())
    answer = web.Response(body=body, content_type="application/json")
    answer.enable_compression()
    return answer


def _static_file(path: str) -> web.Response:
    parts = path.split("/")
    kind = _KINDS.get(path.rpartition(".")[2])
    found = _STATIC.joinpath(*parts)
    if kind is None or not all(parts) or any(part.startswith(".") or "\\" in part for part in parts):
        raise web.HTTPNotFound(reason=f"there is no file {path}")
    if not found.is_file():
        raise web.HTTPNotFound(reason=f"there is no file {path}")
    headers = {"Cache-Control": "no-cache"}
    return web.Response(body=found.read_bytes(), content_type=kind, charset="utf-8", headers=headers)


async def serve(dashboard: Dashboard, host: str, port: int, ready: Callable[[], None]) -> None:
    """Serve until cancelled. ``ready`` is called when it listens. Raises UsageError where it cannot."""
    runner = web.AppRunner(dashboard.app(), access_log=None, shutdown_timeout=_SHUTDOWN_SECONDS)
    await runner.setup()
    try:
        try:
            await web.TCPSite(runner, host, port).start()
        except OSError as error:
            raise UsageError(f"cannot listen on {host}:{port}: {error.strerror}; choose another --port") from None
        ready()
        await asyncio.Event().wait()  # unbounded: until it is interrupted
    finally:
        await runner.cleanup()
