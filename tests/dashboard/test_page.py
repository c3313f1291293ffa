"""The page in a real browser, on a small pool: what is read there, what keys do, and that it follows the pool."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable

import pytest
from chromium import Page, chromium, installed
from dashboard_pool import MadeUp
from small_pool import NODES, SmallPool, served

from flexray.dashboard.access import Access
from flexray.dashboard.server import Dashboard

pytestmark = [
    pytest.mark.skipif(installed() is None, reason="no browser is installed; chromium, or Google Chrome, will do"),
    pytest.mark.timeout(300),
]
SECONDS = 280.0


def run(test: Callable[[Page, SmallPool], Awaitable[None]], changes: bool = False) -> None:
    async def whole() -> None:
        pool = SmallPool()
        async with served(pool, changes=changes) as at, chromium() as browser:
            page = await browser.open(at)
            await page.until("document.body.dataset.drawn")
            await test(page, pool)
            assert page.errors == []

    asyncio.run(asyncio.wait_for(whole(), SECONDS))


async def text(page: Page, selector: str) -> str:
    return " ".join(str(await page.js(f"document.querySelector({json.dumps(selector)}).innerText")).split())


def test_devices_queues_and_what_waits_are_there() -> None:
    async def test(page: Page, pool: SmallPool) -> None:
        await page.until("document.querySelectorAll('[data-device]').length === 4")
        assert await text(page, "#live") == "live"
        assert "Booked 44% 1.75 devices" in await text(page, "#figure-booked")
        gpu0 = f"[data-device='{NODES[0]}/gpu0']"
        assert "75% · 50% in use" in await text(page, gpu0)
        widths = await page.js(
            f"""(() => {{ const bar = document.querySelector("{gpu0} .bar-of-slices").getBoundingClientRect().width;
            return [...document.querySelectorAll("{gpu0} .slice")].map((one) => Math.round(100 *
            one.getBoundingClientRect().width / bar)) }})()"""
        )
        assert widths == [50, 25]
        use = f"{gpu0} .slice[data-slice='s1.1']"
        share = await page.js(
            f"""document.querySelector("{use} .use").getBoundingClientRect().width
            / document.querySelector("{use}").getBoundingClientRect().width"""
        )
        assert share == pytest.approx(0.5, abs=0.03)
        looks = await page.js(
            f"""[...document.querySelectorAll("{gpu0} .slice")].map((one) => {{ const s = getComputedStyle(one);
            return s.backgroundColor + s.backgroundImage }})"""
        )
        assert len(set(looks)) == 2, "two queues look alike"
        patterns = await page.js(
            f"""[...document.querySelectorAll("{gpu0} .slice")].map((one) => getComputedStyle(one).backgroundImage)"""
        )
        assert len(set(patterns)) == 2, "without colour, two queues look alike"
        sick = f"[data-device='{NODES[1]}/gpu1']"
        assert "sick" in await text(page, sick)
        assert "XID 79" in await page.js(f"""document.querySelector("{sick}").getAttribute("aria-label")""")
        assert "research" in await text(page, "#legend")
        assert "0.25 of it borrowed" in await page.js(
            "document.querySelector('#legend [data-filter=\"queue:research\"] .meter').getAttribute('aria-label')"
        )
        assert "tune 2 no room" in await text(page, "#why")

    run(test)


def test_it_is_used_by_keys() -> None:
    async def test(page: Page, pool: SmallPool) -> None:
        await page.key("?")
        await page.until("document.querySelector('#help').open")
        await page.key("Escape")
        await page.until("!document.querySelector('#help').open")
        await page.key("j")
        await page.key("j")
        await page.until(
            f"document.querySelector('[aria-selected=true][data-device]')?.dataset.device === '{NODES[0]}/gpu1'"
        )
        await page.key("k")
        await page.key("Enter")
        await page.until("!document.querySelector('#detail').hidden")
        assert "alpha/gpu0" in await text(page, "#detail")
        assert "25% of the device" in await text(page, "#detail")
        await page.key("Escape")
        await page.until("document.querySelector('#detail').hidden")
        await page.key("/")
        await page.type("queue:prod")
        await page.until("document.querySelectorAll('[data-device]').length === 1")
        await page.key("Escape")
        await page.until("document.querySelectorAll('[data-device]').length === 4")
        await page.key("2")
        await page.until("document.querySelectorAll('[data-request]').length === 5")
        await page.until("document.querySelector(\"[data-request='w1']\").innerText.includes('in 8')")
        first = await text(page, "[data-request='w1']")
        assert "tune" in first and "no room" in first and "#1" in first
        assert "queue limit" in await text(page, "[data-request='w2']")
        await page.key("j")
        await page.key("Enter")
        await page.until("document.querySelector('#detail').innerText.includes('What would let it start')")
        story = await text(page, "#detail")
        assert "submitted" in story and "waits: no room" in story and "run times: declared" in story

    run(test)


def test_a_running_request_tells_its_story() -> None:
    async def test(page: Page, pool: SmallPool) -> None:
        await page.key("2")
        await page.until("document.querySelector(\"[data-request='r1']\")")
        await page.click("[data-request='r1']")
        await page.until("document.querySelectorAll('#scores .figure').length === 2")
        story = await text(page, "#detail")
        assert "runs on alpha/gpu0" in story
        assert "took the room of v1 of research" in story
        assert await text(page, "#scores") == "fit 0.750 speed 0.500"

    run(test)


def test_it_follows_the_pool() -> None:
    async def test(page: Page, pool: SmallPool) -> None:
        await page.until("document.querySelectorAll('.slice[data-slice]').length === 3")
        pool.end("r2")
        await page.until("document.querySelectorAll('.slice[data-slice]').length === 2")
        await page.key("4")
        await page.until("document.querySelector('#timeline-count').innerText.startsWith('3 leases')")
        drawn = """(() => { const c = document.querySelector('#timeline canvas'); const p = c.getContext('2d')
            .getImageData(0, 0, c.width, c.height).data; const found = new Set();
            for (let i = 0; i < p.length; i += 4) found.add(p[i] + ',' + p[i + 1] + ',' + p[i + 2]); return found.size })()"""
        assert await page.js(drawn) > 20
        pool.away = "the scheduler is away"
        await page.until("document.querySelector('#trouble').innerText === 'the scheduler is away'")
        pool.away = ""
        await page.until("document.querySelector('#trouble').hidden")
        await page.key("5")
        await page.until("document.querySelector('#events').innerText.includes('v1#1 of research gave way to r1')")
        assert "plain ray work" in (await text(page, "#events")).lower()
        await page.key("3")
        await page.until("document.querySelector('tr[data-queue=research]').innerText.includes('1 devices')")

    run(test)


def test_it_is_dark_where_the_system_is_and_when_it_is_asked() -> None:
    async def test(page: Page, pool: SmallPool) -> None:
        shade = "getComputedStyle(document.body).backgroundColor"
        light = await page.js(shade)
        await page.prefer("dark")
        await page.until(f"{shade} !== {light!r}")
        dark = await page.js(shade)
        await page.click("#theme")
        await page.until(f"{shade} === {light!r}")
        await page.call("Page.reload")
        await page.until("document.body?.dataset.drawn")
        assert await page.js(shade) == light, "what was chosen is forgotten"
        await page.key("t")
        await page.until(f"{shade} === {dark!r}")

    run(test)


def test_texts_have_contrast_in_both_themes() -> None:
    ratios = """(() => { const lum = (c) => { const v = c.match(/[\\d.]+/g).slice(0, 3).map((x) => x / 255)
        .map((x) => x <= 0.03928 ? x / 12.92 : ((x + 0.055) / 1.055) ** 2.4); return 0.2126 * v[0] + 0.7152 * v[1] + 0.0722 * v[2] };
        const of = (n) => { const e = document.createElement('i'); e.style.color = `var(${n})`; document.body.append(e);
          const c = lum(getComputedStyle(e).color); e.remove(); return c };
        const r = (a, b) => (Math.max(of(a), of(b)) + 0.05) / (Math.min(of(a), of(b)) + 0.05);
        return Object.fromEntries(['--ink', '--muted', '--accent', '--warn', '--bad', '--good'].map((n) => [n, Math.min(r(n, '--card'), r(n, '--page'))])) })()"""

    async def test(page: Page, pool: SmallPool) -> None:
        for scheme in ("light", "dark"):
            await page.prefer(scheme)
            assert {name: ratio for name, ratio in (await page.js(ratios)).items() if ratio < 4.5} == {}
        unnamed = "[...document.querySelectorAll('button, input')].filter((b) => !(b.innerText || b.ariaLabel || b.labels?.length))"
        assert await page.js(f"{unnamed}.map((b) => b.outerHTML)") == []

    run(test)


def test_devices_are_cordoned_where_that_is_allowed() -> None:
    async def test(page: Page, pool: SmallPool) -> None:
        await page.until("document.querySelectorAll('[data-device]').length === 4")
        await page.click(f"[data-device='{NODES[1]}/gpu0']")
        await page.until("document.querySelector('[data-keep=cordon]')")
        await page.click("[data-keep=cordon]")
        await page.until("document.querySelector('#said').innerText === 'cordon: done'")
        assert pool.changed == [{"cordon": f"{NODES[1]}/gpu0", "reason": "from the dashboard"}]

    run(test, changes=True)


def test_of_many_only_what_is_in_sight_is_in_the_document() -> None:
    async def whole() -> None:
        pool = MadeUp(2_000, 4_000)
        from aiohttp.test_utils import TestServer

        server = TestServer(Dashboard(pool.source(), Access("127.0.0.1", 8266)).app())
        await server.start_server()
        async with chromium() as browser:
            page = await browser.open(str(server.make_url("/")))
            await page.until("document.querySelector('#devices-count').innerText === '2,000'")
            assert 50 < await page.js("document.querySelectorAll('[data-device]').length") < 800
            await page.js("document.querySelector('#devices').scrollTop = 1e9")
            await page.until("document.querySelector('#devices').innerText.includes('node-0250')")
            assert await page.js("document.querySelectorAll('[data-device]').length") < 800
            assert page.errors == []
        await server.close()

    asyncio.run(asyncio.wait_for(whole(), SECONDS))
