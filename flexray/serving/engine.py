"""An inference engine on a slice: how it is declared, and what runs there.

The engine is a tree of processes, all of them in the slice and within its limits. It listens on a Unix socket in this
user's folder, so nothing of it is on the network; requests come to the slice as calls, and answers go back as what they
return: all of it, or a first part and a ticket with which the rest is fetched.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import sys
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from flexray import current
from flexray.devices.private import own_folder
from flexray.errors import InvalidRequest
from flexray.model.devices import Family
from flexray.model.request import request_from_options
from flexray.serving.engine_budget import engine_budget, vllm_flags, vllm_variables, weights_of
from flexray.serving.engine_process import EngineProcess
from flexray.serving.seat import SLICE_OPTIONS, Recipe
from flexray.serving.start_turn import start_turn

VLLM = (sys.executable, "-m", "vllm.entrypoints.openai.api_server")
_LOOK_SECONDS, _ASK_SECONDS = 0.1, 120.0
_STREAM = "text/event-stream"
_MEMORY = "import torch; print(torch.cuda.mem_get_info()[1])"


@dataclass(frozen=True)
class EngineModel:
    """A model with engines of its own; made by ``flex.serving.vllm``.

    Attributes:
        recipe: the engine and the slice it needs; ``args`` are the engine's.
        replicas: how many there are.
        wait_seconds: how long a request waits when none of them serves.
    """

    name: str
    recipe: Recipe
    args: tuple[Any, ...]
    replicas: int
    wait_seconds: float


def vllm(
    name: str,
    model: str,
    *,
    arguments: Sequence[str] = (),
    command: Sequence[str] = VLLM,
    replicas: int = 1,
    start_seconds: float = 600.0,
    wait_seconds: float = 120.0,
    **options: Any,
) -> EngineModel:
    """Declare a model that vLLM serves, for ``flex.serving.openai``.

        flex.serving.vllm("llama", "/models/llama-3-8b", gpu=0.5, arguments=["--max-model-len", "8192"])
        flex.serving.vllm("big", "/models/llama-3-70b", gpu=4)  # tensor parallel on four devices of a node

    Args:
        name: what requests call it.
        model: a folder that all nodes have, or a name of Hugging Face's.
        arguments: further ones for vLLM. What flexray works out from the slice comes before them, so these win.
        command: what starts the engine; another environment's Python, say. It has to understand vLLM's flags.
        replicas: engines, each on a slice of its own.
        start_seconds: how long an engine may take to start, and how long it waits for others that start on its device.
        wait_seconds: how long a request waits when no engine of the model serves, before it fails with HTTP 503.
        options: of the slice, as for ``flex.actor``.

    Raises:
        InvalidRequest: something that makes no sense.
    """
    for option in options:
        if option not in SLICE_OPTIONS:
            raise InvalidRequest(
                f"model {name!r}: unknown option {option!r}; the slice's are {', '.join(SLICE_OPTIONS)}"
            )
    if not name or replicas < 1 or wait_seconds < 0 or start_seconds <= 0:
        raise InvalidRequest(f"model {name!r} needs a name, one replica or more, and seconds that are not negative")
    request_from_options({key: value for key, value in options.items() if key != "timeout"})
    args = (name, model, tuple(command), tuple(arguments), start_seconds)
    return EngineModel(name, Recipe(Engine, options), args, replicas, wait_seconds)


class Answer(NamedTuple):
    """What an engine has said so far.

    Attributes:
        status: of HTTP; 0: the engine is not there (any more), ``data`` says why.
        kind: its content type.
        ticket: with which the next part is fetched; "": this was the last.
    """

    status: int
    kind: str
    data: bytes
    ticket: str = ""


class Engine:
    """What runs in the slice, beside the engine."""

    def __init__(
        self, name: str, model: str, command: tuple[str, ...], arguments: tuple[str, ...], start_seconds: float
    ) -> None:
        here = current()
        socket = own_folder("engines") / f"{os.getpid()}.sock"
        weights = weights_of(model)
        variables = vllm_variables(engine_budget(here.devices, here.memory, None, weights))
        fixed = [*command, "--model", model, "--served-model-name", name, "--uds", str(socket)]

        def line() -> list[str]:
            seen = None if here.device.family is Family.CPU else _seen_memory(command[0])
            return [*fixed, *vllm_flags(engine_budget(here.devices, here.memory, seen, weights)), *arguments]

        turn = lambda: start_turn([device.id for device in here.devices], start_seconds)  # noqa: E731  # one each time
        self._process = EngineProcess(name, line, {**os.environ, **variables}, socket, turn, start_seconds)
        self._answers: dict[str, Any] = {}
        self._session: Any = None
        self._process.start()

    async def ask(self, method: str, path: str, headers: dict[str, str], body: bytes) -> Answer:
        """Pass a request on; answers with all of it, or with the first part of a stream."""
        if not self._process.up:
            return self._gone()
        import aiohttp

        try:
            answer = await self._http().request(method, f"http://engine{path}", data=body, headers=headers)
            told = answer.headers.get("content-type", "application/json")
            if _STREAM not in told:
                async with answer:
                    return Answer(answer.status, told, await answer.read())
            return await self._part(answer, told, uuid.uuid4().hex)
        except (aiohttp.ClientError, OSError) as error:
            return self._gone(error)

    async def more(self, ticket: str) -> Answer:
        """What has been said since, as soon as that is something."""
        answer = self._answers.get(ticket)
        if answer is None:
            return self._gone()
        import aiohttp

        try:
            return await self._part(answer, "", ticket)
        except (aiohttp.ClientError, OSError) as error:
            await self.drop(ticket)
            return self._gone(error)

    async def drop(self, ticket: str) -> None:
        """Nobody wants the rest: the engine sees a client that has gone, and stops."""
        answer = self._answers.pop(ticket, None)
        if answer is not None:
            answer.close()

    async def up(self, seconds: float) -> str:
        """Wait until the engine serves; "" then, or why it does not yet."""
        until = asyncio.get_running_loop().time() + seconds
        while not self._process.up and asyncio.get_running_loop().time() < until:
            await asyncio.sleep(_LOOK_SECONDS)
        return self._process.why

    async def about(self) -> dict[str, Any]:
        """For status."""
        process, here = self._process, current()
        known = {"up": process.up, "why": process.why, "starts": process.starts, "process": process.pid}
        return {
            **known,
            "device": here.device.id,
            "gpu": here.share,
            "devices": len(here.devices),
            "log": str(process.log),
        }

    async def _part(self, answer: Any, kind: str, ticket: str) -> Answer:
        """What is there, once there is something; kept for more where there is more to come."""
        self._answers[ticket] = answer
        data = await answer.content.readany()
        if not answer.content.at_eof():
            return Answer(answer.status, kind, data, ticket)
        await self.drop(ticket)
        return Answer(answer.status, kind, data)

    def _gone(self, error: Exception | None = None) -> Answer:
        why = f"{type(error).__name__}: {error}" if error is not None else self._process.why or "it was started anew"
        return Answer(0, "", why.encode())

    def _http(self) -> Any:
        """The session, which belongs to the event loop that calls run on."""
        if self._session is None:
            import aiohttp

            connector = aiohttp.UnixConnector(path=str(self._process.socket), limit=0)
            timeout = aiohttp.ClientTimeout(total=None, sock_connect=_ASK_SECONDS)  # an answer may be long
            self._session = aiohttp.ClientSession(connector=connector, timeout=timeout, auto_decompress=False)
        return self._session


def _seen_memory(python: str) -> int | None:
    """Bytes of the device's memory as processes of this slice see it: under MIG and HAMi a part looks like a whole."""
    interpreter = python if os.path.basename(python).startswith("python") else sys.executable
    with contextlib.suppress(OSError, subprocess.SubprocessError, ValueError):
        command = [interpreter, "-c", _MEMORY]
        return int(subprocess.run(command, capture_output=True, timeout=_ASK_SECONDS, check=True).stdout)
    return None
