"""A headless Chromium, driven over its DevTools protocol: for what has to be seen in a real browser.

async with chromium() as browser:
    page = await browser.open("http://127.0.0.1:8266/")
    await page.until("document.body.dataset.drawn")
    print(await page.js("document.title"), page.errors)
"""

from __future__ import annotations

import asyncio
import base64
import itertools
import json
import shutil
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
_FLAGS = (
    "--headless=new",
    "--no-sandbox",  # as root in containers there is none
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-extensions",
    "--disable-background-networking",
    "--no-first-run",
    "--hide-scrollbars",
    "--remote-debugging-port=0",
)
_START_SECONDS = 60.0
_ANSWER_SECONDS = 60.0
_LOOK_SECONDS = 0.05
_CODES = {"Enter": ("\r", 13), "Escape": ("", 27), "ArrowRight": ("", 39), "ArrowDown": ("", 40)}


def installed() -> str | None:
    """The browser's command, if there is one."""
    return next((found for name in NAMES if (found := shutil.which(name))), None)


class Page:
    """One tab. ``errors`` are exceptions of its scripts and what its security policy has refused."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self.errors: list[str] = []
        self._socket = socket
        self._numbers = itertools.count(1)
        self._answers: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._listening = asyncio.create_task(self._listen())

    async def _listen(self) -> None:
        async for message in self._socket:
            said = json.loads(message.data)
            if "id" in said:
                self._answers.pop(said["id"]).set_result(said)
            elif said["method"] == "Runtime.exceptionThrown":
                details = said["params"]["exceptionDetails"]
                self.errors.append(details.get("exception", {}).get("description") or details["text"])
            elif said["method"] == "Log.entryAdded" and said["params"]["entry"]["level"] == "error":
                entry = said["params"]["entry"]
                self.errors.append(f"{entry['text']} {entry.get('url', '')}")

    async def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """One command of the protocol."""
        number = next(self._numbers)
        answer = self._answers[number] = asyncio.get_running_loop().create_future()
        await self._socket.send_json({"id": number, "method": method, "params": parameters})
        said = await asyncio.wait_for(answer, _ANSWER_SECONDS)
        if "error" in said:
            raise RuntimeError(f"{method}: {said['error']['message']}")
        result: dict[str, Any] = said["result"]
        return result

    async def js(self, expression: str) -> Any:
        """The value of an expression; promises are awaited."""
        said = await self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in said:
            raise RuntimeError(said["exceptionDetails"]["exception"].get("description", expression))
        return said["result"].get("value")

    async def until(self, expression: str, within: float = 60.0) -> Any:
        """Wait until an expression is true; its value."""
        end = asyncio.get_running_loop().time() + within
        while not (value := await self.js(expression)):
            if asyncio.get_running_loop().time() > end:
                text = await self.js("document.body?.innerText.slice(0, 1500)")
                raise TimeoutError(f"not within {within:g} s: {expression}\n{self.errors}\n{text}")
            await asyncio.sleep(_LOOK_SECONDS)
        return value

    async def key(self, name: str) -> None:
        """Press and release a key: a character, or one of ``_CODES``."""
        text, code = _CODES.get(name, (name, ord(name.upper()[0])))
        pressed = {"key": name, "windowsVirtualKeyCode": code}
        await self.call("Input.dispatchKeyEvent", type="keyDown", **pressed, **({"text": text} if text else {}))
        await self.call("Input.dispatchKeyEvent", type="keyUp", **pressed)

    async def type(self, text: str) -> None:
        for one in text:
            await self.key(one)

    async def click(self, selector: str) -> None:
        """In the middle of an element."""
        box = f"document.querySelector({selector!r}).getBoundingClientRect()"
        x, y = await self.js(f"(() => {{ const b = {box}; return [b.x + b.width / 2, b.y + b.height / 2] }})()")
        at = {"x": x, "y": y, "button": "left", "clickCount": 1}
        await self.call("Input.dispatchMouseEvent", type="mousePressed", **at)
        await self.call("Input.dispatchMouseEvent", type="mouseReleased", **at)

    async def prefer(self, scheme: str) -> None:
        """Have the system prefer ``light`` or ``dark``."""
        await self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])

    async def picture(self, path: Path) -> None:
        """A PNG of what is in sight."""
        said = await self.call("Page.captureScreenshot", format="png")
        path.write_bytes(base64.b64decode(said["data"]))


class Browser:
    """A running browser."""

    def __init__(self, http: aiohttp.ClientSession, at: str) -> None:
        self._http, self._at = http, at

    async def open(self, url: str, width: int = 1440, height: int = 900, scheme: str = "light") -> Page:
        """A new tab."""
        async with self._http.put(f"{self._at}/json/new?about:blank") as answer:
            target = await answer.json()
        page = Page(await self._http.ws_connect(target["webSocketDebuggerUrl"], max_msg_size=0))
        for domain in ("Page", "Runtime", "Log"):
            await page.call(f"{domain}.enable")
        await page.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False
        )
        await page.prefer(scheme)
        await page.call("Page.navigate", url=url)
        await page.until("location.href !== 'about:blank' && document.readyState === 'complete'")
        return page


@asynccontextmanager
async def chromium() -> AsyncIterator[Browser]:
    """Start a browser with an empty profile, and end it."""
    command = installed()
    if command is None:
        raise RuntimeError(f"no browser is installed; any of {', '.join(NAMES)} will do")
    with tempfile.TemporaryDirectory(prefix="flexray-browser-", ignore_cleanup_errors=True) as profile:
        process = await asyncio.create_subprocess_exec(
            command,
            *_FLAGS,
            f"--user-data-dir={profile}",
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
        )
        try:
            port = await asyncio.wait_for(_port(Path(profile) / "DevToolsActivePort"), _START_SECONDS)
            async with aiohttp.ClientSession() as http:
                yield Browser(http, f"http://127.0.0.1:{port}")
        finally:
            process.terminate()
            try:
                await asyncio.wait_for(process.wait(), 10)
            except asyncio.TimeoutError:
                process.kill()


async def _port(file: Path) -> str:
    while not (file.exists() and file.read_text()):
        await asyncio.sleep(_LOOK_SECONDS)
    return file.read_text().split("\n")[0]
