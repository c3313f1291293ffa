"""The server without a browser and without Ray: the API, live events, and who may come in."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp
import pytest
from small_pool import NODES, SmallPool, served

from flexray.dashboard.access import Access
from flexray.model.wire import to_plain

SECONDS = 60.0


def run(test: Callable[[SmallPool], Awaitable[None]]) -> None:
    asyncio.run(asyncio.wait_for(test(SmallPool()), SECONDS))


async def get(url: str, **options: Any) -> tuple[int, Any]:
    async with aiohttp.ClientSession() as http, http.get(url, allow_redirects=False, **options) as answer:
        return answer.status, await answer.json()


def test_the_api_has_the_fields_of_status_json() -> None:
    async def test(pool: SmallPool) -> None:
        async with served(pool) as at:
            _, snapshot = await get(f"{at}/api/snapshot")
            assert {**snapshot, "now": 0} == {
                **json.loads(json.dumps(to_plain(pool.shot))),
                "ray_demand": [{"resources": {"GPU": 1.0}, "count": 3}],
                "now": 0,
            }
            for path, names in {
                "devices": ["now", "nodes", "devices", "slices"],
                "queues": ["now", "queues"],
                "requests": ["now", "waiting", "running", "classes"],
            }.items():
                _, part = await get(f"{at}/api/{path}")
                assert list(part) == names
                assert all(part[name] == snapshot[name] for name in names[1:])

    run(test)


def test_a_request_has_its_explanation_and_its_leases() -> None:
    async def test(pool: SmallPool) -> None:
        pool.end("r3")
        async with served(pool) as at:
            status, story = await get(f"{at}/api/request/w1")
            assert status == 200
            assert story["request"]["wait_reason"] == "no_room"
            assert story["explanation"]["estimated_start"]["seconds"] == 90.0
            _, story = await get(f"{at}/api/request/r3")
            assert story["request"] is None
            assert [one["lease"] for one in story["holdings"]] == [["r3", 1]]
            assert await get(f"{at}/api/request/nobody") == (404, {"error": "no request 'nobody' is known"})
            _, past = await get(f"{at}/api/history?since=0")
            assert [one["ended"] for one in past["holdings"]] == ["released"]
            assert past["samples"][0]["booked"] == 0.75
            assert (await get(f"{at}/api/history?since=tomorrow"))[0] == 400

    run(test)


async def event(answer: aiohttp.ClientResponse, wanted: Callable[[str, dict[str, Any]], bool]) -> dict[str, Any]:
    """The next event that is wanted, of (kind, data)."""
    kind = ""
    while True:
        name, _, rest = (await answer.content.readline()).decode().rstrip("\n").partition(": ")
        if name == "event":
            kind = rest
        elif name == "data" and wanted(kind, data := json.loads(rest)):
            return data


def test_events_begin_with_everything_and_go_on_with_what_changed() -> None:
    async def test(pool: SmallPool) -> None:
        timeout = aiohttp.ClientTimeout(sock_read=SECONDS)
        async with (
            served(pool) as at,
            aiohttp.ClientSession(read_bufsize=2**22, timeout=timeout) as http,
            http.get(f"{at}/api/events") as answer,
        ):
            assert answer.headers["Content-Type"] == "text/event-stream"
            whole = await event(answer, lambda kind, _: kind == "state")
            columns = whole["columns"]["devices"]
            first = dict(zip(columns, whole["rows"]["devices"][0], strict=True))
            assert first == json.loads(json.dumps(to_plain(pool.shot.devices[0])))
            pool.end("r2")
            change = await event(answer, lambda kind, data: "slices" in data.get("tables", {}))
            assert change["tables"]["slices"]["gone"] == ["s1.2"]
            assert change["tables"]["running"]["gone"] == ["r2"]
            (cells,) = change["tables"]["devices"]["set"]
            assert cells[0] == f"{NODES[0]}/gpu0"
            assert dict(zip(cells[1::2], cells[2::2], strict=True))[columns.index("share_held")] == 0.5
            assert [one["lease"] for one in change["ended"]] == [["r2", 1]]
            pool.away = "the scheduler is away"
            assert (await event(answer, lambda _, data: bool(data.get("trouble"))))["trouble"] == pool.away
            pool.away = ""
            assert (await event(answer, lambda _, data: data.get("trouble") == ""))["now"] > 0

    run(test)


def test_all_who_watch_are_served_by_one_look() -> None:
    async def test(pool: SmallPool) -> None:
        async with served(pool) as at, aiohttp.ClientSession(read_bufsize=2**22) as http:
            answers = [await http.get(f"{at}/api/events") for _ in range(20)]
            looks = pool.looks
            versions = []
            for answer in answers:
                await event(answer, lambda kind, _: kind == "state")
                versions.append((await event(answer, lambda kind, _: kind == "change"))["version"])
            assert pool.looks - looks <= max(versions) + 1
            for answer in answers:
                answer.close()

    run(test)


def test_a_pool_that_is_away_is_said_to_be() -> None:
    async def test(pool: SmallPool) -> None:
        pool.away = "the scheduler is away"
        async with served(pool) as at:
            assert await get(f"{at}/api/snapshot") == (503, {"error": "the scheduler is away"})

    run(test)


def test_nothing_is_shown_without_the_token() -> None:
    async def test(pool: SmallPool) -> None:
        async with served(pool, token="secret-token") as at, aiohttp.ClientSession() as http:
            for path in ("/api/snapshot", "/api/events", "/api/request/r1", "/static/app.js"):
                status, said = await get(at + path)
                assert (status, "token" in said["error"]) == (401, True)
            assert (await get(f"{at}/api/queues", headers={"Authorization": "Bearer wrong"}))[0] == 401
            assert (await get(f"{at}/api/queues", headers={"Authorization": "Bearer secret-token"}))[0] == 200
            async with http.get(f"{at}/?token=wrong") as answer:
                assert answer.status == 401
                assert "not the token" in await answer.text()
            async with http.get(f"{at}/?token=secret-token", allow_redirects=False) as answer:
                assert (answer.status, answer.headers["Location"]) == (303, "/")
                cookie = answer.headers["Set-Cookie"]
                assert "HttpOnly" in cookie and "SameSite=Strict" in cookie
            given = {"Cookie": cookie.partition(";")[0]}
            assert (await get(f"{at}/api/queues", headers=given))[0] == 200

    run(test)


@pytest.mark.parametrize(
    ("listens", "host", "known"),
    [
        ("127.0.0.1", "127.0.0.1:8266", True),
        ("127.0.0.1", "localhost:8266", True),
        ("127.0.0.1", "[::1]:8266", True),
        ("127.0.0.1", "evil.example:8266", False),
        ("127.0.0.1", "10.0.0.5", False),
        ("127.0.0.1", "localhost.evil.example", False),
        ("127.0.0.1", "", False),
        ("0.0.0.0", "10.0.0.5:8266", True),
        ("0.0.0.0", "evil.example", False),
        ("head.cluster", "head.cluster:8266", True),
    ],
)
def test_only_names_of_ours_are_answered(listens: str, host: str, known: bool) -> None:
    assert Access(listens, 8266).knows(host) is known


def test_another_host_name_is_turned_away_and_every_answer_has_its_headers() -> None:
    async def test(pool: SmallPool) -> None:
        async with served(pool) as at, aiohttp.ClientSession() as http:
            assert (await get(f"{at}/api/snapshot", headers={"Host": "evil.example"}))[0] == 421
            for path in ("/", "/api/queues", "/static/app.js", "/static/none.js", "/nowhere"):
                async with http.get(at + path) as answer:
                    assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
                    assert answer.headers["X-Content-Type-Options"] == "nosniff"
                    assert "Access-Control-Allow-Origin" not in answer.headers
            for path in ("..%2f..%2faccess.py", "vendor/uplot/LICENSE", "%2e%2e/server.py", ".hidden.js", ""):
                async with http.get(aiohttp.client.URL(f"{at}/static/{path}", encoded=True)) as answer:
                    assert answer.status == 404

    run(test)


async def post(url: str, body: Any, **headers: str) -> tuple[int, Any]:
    async with aiohttp.ClientSession() as http:
        sent = {"Content-Type": "application/json", **headers}
        async with http.post(url, data=json.dumps(body), headers=sent) as answer:
            return answer.status, await answer.json()


def test_devices_are_cordoned_only_where_that_is_allowed() -> None:
    async def test(pool: SmallPool) -> None:
        async with served(pool) as at:
            assert (await post(f"{at}/api/cordon", {"device": "x"}))[0] == 403
        async with served(pool, changes=True) as at:
            assert await post(f"{at}/api/drain", {"device": "x", "reason": "fan"}) == (200, {"devices": ["x"]})
            assert await post(f"{at}/api/uncordon", {"device": "x"}) == (200, {"devices": ["x"]})
            for body in ({}, {"device": 3}, ["x"], {"device": "x", "reason": 1}):
                assert (await post(f"{at}/api/cordon", body))[0] == 400
            assert (await post(f"{at}/api/cordon", {"device": "x"}, Origin="http://evil.example"))[0] == 403
            assert (await post(f"{at}/api/cordon", {"device": "x"}, **{"Content-Type": "text/plain"}))[0] == 403
            assert (await post(f"{at}/api/cordon", {"device": "x"}, Origin=at))[0] == 200
        assert pool.changed == [
            {"cordon": "x", "reason": "fan", "drain": True},
            {"uncordon": "x"},
            {"cordon": "x", "reason": ""},
        ]

    run(test)
