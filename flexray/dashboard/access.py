"""Who may see the dashboard: names of this host only, a token where others can reach it, nothing from other sites.

A page of another site that the operator has open could send requests here too, so:

    the Host header    has to be a name of ours or an address: no name that somebody else may point here (rebinding)
    the token          comes with the first visit and is a cookie of this site then, or an Authorization header
    Origin             of a change has to be ours, and its content JSON, which a foreign page cannot send unasked
    headers            nobody may frame the page, and it loads nothing from elsewhere
"""

from __future__ import annotations

import hmac
import ipaddress
import secrets
import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from html import escape
from urllib.parse import urlsplit

from aiohttp import web
from aiohttp.typedefs import Middleware

HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
_LOCAL = frozenset({"localhost", "127.0.0.1", "::1"})
_ASK = """<!doctype html><html lang="en"><meta charset="utf-8"><title>flexray: token</title>
<link rel="stylesheet" href="/static/style.css"><main class="gate"><h1>flexray</h1>
<p>{}</p><form action="/" method="get"><label for="token">Token</label>
<input id="token" name="token" type="password" autocomplete="current-password" autofocus>
<button>Open</button></form></main></html>"""

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def is_loopback(host: str) -> bool:
    """Whether nothing but this machine reaches that address."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def new_token() -> str:
    """One that nobody guesses."""
    return secrets.token_urlsafe(24)


@dataclass(frozen=True, slots=True)
class Access:
    """Who may come in.

    Attributes:
        host: the address listened on.
        token: what has to be known; "" where nobody else can reach it.
    """

    host: str
    port: int
    token: str = ""

    @property
    def _cookie(self) -> str:
        return f"flexray-{self.port}"  # cookies are shared by all ports of a host

    def knows(self, host: str) -> bool:
        """Whether a Host header names this server."""
        name = (urlsplit(f"//{host}").hostname or "") if host else ""
        if is_loopback(self.host):
            return name in _LOCAL or name == self.host
        if name in {*_LOCAL, self.host.lower(), socket.gethostname().lower(), socket.getfqdn().lower()}:
            return True
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return False
        return True

    def admits(self, request: web.Request) -> bool:
        """Whether it brings the token, if one is needed."""
        scheme, _, bearer = request.headers.get("Authorization", "").partition(" ")
        given = [request.cookies.get(self._cookie, ""), bearer if scheme.lower() == "bearer" else ""]
        return not self.token or any(self._fits(one) for one in given)

    def _fits(self, given: str) -> bool:
        return hmac.compare_digest(given.encode(), self.token.encode())

    def enter(self, request: web.Request) -> web.StreamResponse | None:
        """A first visit with the token in its address: it is moved into a cookie. None for any other."""
        given = request.query.get("token", "")
        if request.path != "/" or request.method != "GET" or not (self.token and given):
            return None
        if not self._fits(given):
            return self.refuse(request, "This is not the token. `flexray dashboard` has printed it.")
        answer = web.Response(status=303, headers={"Location": "/"})
        answer.set_cookie(self._cookie, self.token, httponly=True, samesite="Strict", path="/")
        return answer

    def refuse(self, request: web.Request, why: str) -> web.Response:
        """401: a page that asks for the token, or JSON."""
        if request.path == "/":
            return web.Response(status=401, text=_ASK.format(escape(why)), content_type="text/html")
        return web.json_response({"error": why}, status=401, headers={"WWW-Authenticate": "Bearer"})


def _foreign(request: web.Request) -> str:
    """Why a change cannot come from our own page or a program, or ""."""
    origin = request.headers.get("Origin")
    if origin is not None and urlsplit(origin).netloc != request.host:
        return f"changes may not come from another site, and this one comes from {origin}"
    if request.content_type != "application/json":
        return "a change has to be sent as application/json"
    return ""


def guard(access: Access) -> Middleware:
    """Nobody comes in who may not, and every answer has the headers."""

    @web.middleware
    async def checked(request: web.Request, handler: Handler) -> web.StreamResponse:
        answer = await _answer(access, request, handler)
        if not answer.prepared:
            answer.headers.update(HEADERS)
            answer.headers.setdefault("Cache-Control", "no-store")
        return answer

    return checked


async def _answer(access: Access, request: web.Request, handler: Handler) -> web.StreamResponse:
    if not access.knows(request.host):
        return web.json_response({"error": f"this is not the host {request.host!r}"}, status=421)
    entered = access.enter(request)
    if entered is not None:
        return entered
    if not access.admits(request) and request.path != "/static/style.css":
        return access.refuse(request, "This dashboard needs the token that `flexray dashboard` has printed.")
    if request.method not in ("GET", "HEAD") and (why := _foreign(request)):
        return web.json_response({"error": why}, status=403)
    try:
        return await handler(request)
    except web.HTTPException as error:
        return web.json_response({"error": error.reason}, status=error.status)
