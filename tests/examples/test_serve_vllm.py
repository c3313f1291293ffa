"""``serve_vllm.py`` with a double of vLLM, and, with ``-m vllm``, with vLLM itself and OpenAI's own client."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from .conftest import EXAMPLES

pytest.importorskip("starlette")

DOUBLE = f"{sys.executable} {EXAMPLES.parent / 'tests' / 'doubles' / 'openai_engine.py'}"
#: The double needs nothing; its flags are worked out as for vLLM, three processes of which need 2,100 MiB.
MEMORY = "2300MiB"
CLIENT = """
import asyncio, sys, openai

client = openai.AsyncOpenAI(base_url=sys.argv[1], api_key="none", max_retries=0, timeout=120)
asked = {"prompt": "A slice", "max_tokens": 24, "extra_body": {"ignore_eos": True}}

async def streamed(model):
    return sum([1 async for _ in await client.completions.create(model=model, stream=True, **asked)])

async def main():
    assert {model.id async for model in client.models.list()} == {"small", "large"}
    message = [{"role": "user", "content": "hi"}]
    told = await client.chat.completions.create(model="large", messages=message, max_tokens=8)
    assert told.usage.completion_tokens >= 1
    both = ["small", "large"] * 4
    whole = await asyncio.gather(*(client.completions.create(model=model, **asked) for model in both))
    assert [answer.usage.completion_tokens for answer in whole] == [24] * 8
    assert min(await asyncio.gather(*(streamed(model) for model in both))) > 3
    try:
        await client.completions.create(model="other", **asked)
    except openai.NotFoundError as error:
        assert "there is no model 'other'" in str(error)
    else:
        raise AssertionError("it answered for a model that is not there")

asyncio.run(main())
print("all answered")
"""


@contextlib.contextmanager
def served(cluster: dict[str, str], folder: Path, *arguments: str) -> Iterator[str]:
    """The script as a process of its own; gives its URL, and ends it as Ctrl-C does."""
    with (folder / "errors").open("w+") as errors:
        command = [sys.executable, str(EXAMPLES / "serve_vllm.py"), *arguments]
        script = subprocess.Popen(command, env=cluster, stdout=subprocess.PIPE, stderr=errors, text=True, cwd=folder)
        try:
            url = next((line.split()[2] for line in script.stdout if line.startswith("serving at")), None)
            assert url, (folder / "errors").read_text()[-3000:]
            yield url
            script.send_signal(signal.SIGINT)
            script.communicate(timeout=90)
            assert script.returncode == 0
        finally:
            script.kill()
            script.wait(60)


def ask(url: str, **body: Any) -> str:
    request = urllib.request.Request(url, json.dumps(body).encode() if body else None)
    with urllib.request.urlopen(request, timeout=120) as answer:
        return answer.read().decode()


def engines(url: str) -> dict[str, list[dict[str, Any]]]:
    return json.loads(ask(url.removesuffix("/v1")))


@pytest.mark.ray
def test_two_engines_on_one_device_and_one_of_them_dies(cluster: dict[str, str], tmp_path: Path) -> None:
    size = ["--memory", MEMORY, "--engine", DOUBLE]
    with served(cluster, tmp_path, "small=here@0.25", "large=here@0.75", *size, "--", "--max-model-len", "512") as url:
        there = {name: those[0] for name, those in engines(url).items()}
        assert [there[name]["gpu"] for name in ("small", "large")] == [0.25, 0.75]
        assert there["small"]["device"] == there["large"]["device"]
        flags = json.loads(ask(f"{url}/completions", model="small", prompt="hi"))["choices"][0]["text"].split()
        assert flags[flags.index("--kv-cache-memory-bytes") + 1] == str((2300 - 3 * 700) << 20)
        assert flags[-2:] == ["--max-model-len", "512"]
        message = [{"role": "user", "content": "hi"}]
        events = ask(f"{url}/chat/completions", model="large", messages=message, stream=True).split("\n\n")
        assert events[-2] == "data: [DONE]"
        assert json.loads(events[0].removeprefix("data: "))["choices"][0]["delta"]["content"] == "--model "

        os.kill(there["small"]["process"], signal.SIGKILL)
        assert "choices" in ask(f"{url}/completions", model="large", prompt="hi")
        assert "choices" in ask(f"{url}/completions", model="small", prompt="hi")  # it waits for the next one
        after = {name: those[0] for name, those in engines(url).items()}
        assert (after["small"]["starts"], after["large"]["starts"]) == (2, 1)
        assert after["large"]["process"] == there["large"]["process"]
        cut = ask(f"{url}/completions", model="small", prompt="die", stream=True)
        assert "died in the middle of its answer" in cut.split("\n\n")[-2]


@pytest.mark.vllm
@pytest.mark.ray
@pytest.mark.timeout(900)
def test_vllm_itself(cluster: dict[str, str], tmp_path: Path) -> None:
    """Two engines of the build for CPUs, a Llama made on the spot: ``FLEXRAY_VLLM=/venv/bin/python pytest -m vllm``."""
    python = os.environ.get("FLEXRAY_VLLM")
    if not python:
        pytest.skip("FLEXRAY_VLLM names no Python with vLLM")
    model, script = str(tmp_path / "tiny"), str(EXAMPLES / "tiny_llama.py")
    subprocess.run([python, script, model], check=True, timeout=120, capture_output=True)
    variables = {**cluster, "HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1"}
    engine = shlex.join([python, "-m", "vllm.entrypoints.openai.api_server"])
    flags = ["--max-model-len", "512", "--dtype", "float32", "--enforce-eager"]
    models = [f"small={model}@0.25", f"large={model}@0.75"]
    with served(variables, tmp_path, *models, "--engine", engine, "--", *flags) as url:

        def use() -> None:
            command = [python, "-c", CLIENT, url]
            done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
            assert "all answered" in done.stdout, done.stderr[-3000:]

        use()
        os.kill(engines(url)["small"][0]["process"], signal.SIGKILL)
        began = time.monotonic()
        while True:  # the other one answers all the while
            assert json.loads(ask(f"{url}/completions", model="large", prompt="hi", max_tokens=4))["usage"]
            small = engines(url)["small"][0]
            if small["up"] and small["starts"] == 2:
                break
            assert time.monotonic() - began < 300, small
        use()
