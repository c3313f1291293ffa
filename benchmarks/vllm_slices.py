"""Two vLLM engines at 25 and 75 % of one CPU device: what each gets, and what a kill of one costs it and the other.

    python ../examples/tiny_llama.py /tmp/llama --width 512 --layers 4
    python vllm_slices.py /tmp/llama [--engine "/venv/bin/python -m vllm.entrypoints.openai.api_server"] [--json FILE]

Both are asked without a pause, over HTTP and at the same time; counted are the tokens that each has answered with.
Then the smaller one's process is killed under the same load. Bars: 1 : 3 within 20 %; nothing of the other's fails.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shlex
import signal
import socket
import statistics
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

os.environ.setdefault("RAY_AUTH_MODE", "disabled")

import aiohttp
from ray import serve

import flexray as flex
from flexray.serving.engine import VLLM

PARTS = {"small": 0.25, "large": 0.75}
MEMORY = "5GiB"
IN_FLIGHT, TOKENS = 8, 64
WARM_SECONDS, ROUND_SECONDS = 10.0, 15.0
WANTED, TOLERANCE = 3.0, 0.2
LIMIT_SECONDS = 240.0


class Nobody:
    """Holds a device and leaves it idle."""

    def here(self) -> None:
        """It is there."""


class Load:
    """Requests to both engines, ``IN_FLIGHT`` at a time to each: (when, tokens) of each answer, and what went wrong."""

    def __init__(self, url: str) -> None:
        self._url = url
        self.answers: dict[str, list[tuple[float, int]]] = {name: [] for name in PARTS}
        self.failures: dict[str, list[str]] = {name: [] for name in PARTS}
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Load:
        self._http = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=LIMIT_SECONDS))
        self._tasks = [asyncio.create_task(self._ask(name)) for name in PARTS for _ in range(IN_FLIGHT)]
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._http.close()

    async def _ask(self, name: str) -> None:
        body = {"model": name, "prompt": "What a slice holds", "max_tokens": TOKENS, "ignore_eos": True}
        while True:
            try:
                async with self._http.post(f"{self._url}/v1/completions", json=body) as answer:
                    found = await answer.json()
                    self.answers[name].append((time.monotonic(), found["usage"]["completion_tokens"]))
            except (aiohttp.ClientError, KeyError, ValueError, TimeoutError) as error:
                self.failures[name].append(f"{type(error).__name__}: {error}")
                await asyncio.sleep(0.1)

    def rate(self, name: str, began: float, ended: float) -> float:
        """Tokens a second."""
        return sum(tokens for when, tokens in self.answers[name] if began < when <= ended) / (ended - began)

    async def engines(self) -> dict[str, Any]:
        """What the endpoint says of each."""
        async with self._http.get(self._url) as answer:
            return {name: those[0] for name, those in (await answer.json()).items()}


def busy() -> str:
    """Per cent of the device that each slice has used over the last seconds."""
    slices = sorted(flex.pool().slices, key=lambda piece: piece.share)
    return " and ".join(f"{100 * piece.busy:.0f} %" for piece in slices if piece.busy is not None)


async def shares(load: Load, rounds: int) -> dict[str, Any]:
    """Tokens a second of both, side by side."""
    await asyncio.sleep(WARM_SECONDS)
    rates: dict[str, list[float]] = {name: [] for name in PARTS}
    for number in range(rounds):
        began = time.monotonic()
        await asyncio.sleep(ROUND_SECONDS)
        ended = time.monotonic()
        used = await asyncio.to_thread(busy)
        for name in PARTS:
            rates[name].append(load.rate(name, began, ended))
        small, large = rates["small"][-1], rates["large"][-1]
        print(
            f"round {number + 1}: {small:.0f} and {large:.0f} tokens/s, 1 : {large / small:.2f}; used {used}",
            flush=True,
        )
    ratios = [large / small for small, large in zip(rates["small"], rates["large"], strict=True)]
    return {name: statistics.median(those) for name, those in rates.items()} | {
        "ratio": statistics.median(ratios),
        "lowest": min(ratios),
        "highest": max(ratios),
    }


async def killed(load: Load) -> dict[str, Any]:
    """Kill the smaller engine; how long until it answers again, and what the other does meanwhile."""
    before = len(load.failures["large"])
    at = time.monotonic()
    usual = load.rate("large", at - ROUND_SECONDS, at)
    os.kill((await load.engines())["small"]["process"], signal.SIGKILL)
    at, count = time.monotonic(), len(load.answers["small"])
    while len(load.answers["small"]) == count and time.monotonic() - at < LIMIT_SECONDS:
        await asyncio.sleep(0.1)
    back = time.monotonic()
    return {
        "back_after": back - at,
        "starts": (await load.engines())["small"]["starts"],
        "small_failed": len(load.failures["small"]),
        "large_failed": len(load.failures["large"]) - before,
        "large_before": usual,
        "large_meanwhile": load.rate("large", at, back),
    }


async def measured(url: str, rounds: int) -> dict[str, Any]:
    async with Load(url) as load:
        result = await shares(load, rounds) | await killed(load)
    print(
        f"killed: back after {result['back_after']:.1f} s (start {result['starts']}), {result['small_failed']} of its "
        f"requests failed; the other: {result['large_failed']} failed, {result['large_before']:.0f} tokens/s before, "
        f"{result['large_meanwhile']:.0f} meanwhile"
    )
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="a folder")
    parser.add_argument("--engine", default=shlex.join(VLLM), help="what starts vLLM")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()

    # one device of two: what asks, routes and answers has cores of its own, and each engine can use all of its share
    flex.init("local", config={"cpu_devices": 2})
    other = flex.actor(accelerator=1, memory="1GiB")(Nobody).remote()
    other.here.remote().result()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    serve.start(http_options={"host": "127.0.0.1", "port": port}, logging_config={"log_level": "ERROR"})
    arguments = ["--max-model-len", "512", "--dtype", "float32", "--enforce-eager"]
    more: dict[str, Any] = {
        "arguments": arguments,
        "command": shlex.split(options.engine),
        "wait_seconds": LIMIT_SECONDS,
    }
    began = time.monotonic()
    models = [
        flex.serving.vllm(name, options.model, accelerator=part, memory=MEMORY, **more) for name, part in PARTS.items()
    ]
    try:
        serve.run(flex.serving.openai(*models))
        print(f"both engines serve after {time.monotonic() - began:.0f} s, one started after the other", flush=True)
        result = asyncio.run(measured(f"http://127.0.0.1:{port}", options.rounds))
    finally:
        with suppress(Exception):
            serve.shutdown()
        other.stop()
        flex.shutdown()
    if options.json:
        options.json.write_text(json.dumps(result))
    bar = "met" if abs(result["ratio"] / WANTED - 1) <= TOLERANCE else "MISSED"
    print(
        f"25 and 75 %: {result['small']:.0f} and {result['large']:.0f} tokens/s, 1 : {result['ratio']:.2f} "
        f"(rounds {result['lowest']:.2f} to {result['highest']:.2f}; bar: 1 : 3 within 20 %: {bar})"
    )


if __name__ == "__main__":
    main()
