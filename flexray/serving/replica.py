"""The replica that Ray Serve runs: thin, it passes requests on to a model that lives on a slice."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any, ClassVar

from ray import serve
from starlette.requests import Request

import flexray
from flexray.serving.batching import BATCH_MARK
from flexray.serving.host import streams
from flexray.serving.keeper import Keeper
from flexray.serving.seat import Recipe, Seat
from flexray.serving.web import is_refusal, refusal, sendable, streamed


@dataclass(frozen=True)
class Declared:
    """What a deployment was declared with: its model, and what becomes of requests whose slice is lost."""

    recipe: Recipe
    retries: int
    recover_seconds: float


class Replica:
    """What the replicas of every deployment do; the methods of the model are added by ``replica_class``."""

    declared: ClassVar[Declared]

    async def __init__(self, *args: Any, **kwargs: Any) -> None:  # type: ignore[misc]  # Serve awaits it
        await asyncio.to_thread(flexray.init)
        declared = self.declared
        make = lambda: declared.recipe.start(args, kwargs)  # noqa: E731  # a fresh one each time
        self._keeper = Keeper(make, declared.retries, declared.recover_seconds)
        self._config: Any = None
        self._keeper.prepare = self._prepare
        await self._keeper.start()

    async def check_health(self) -> None:
        """Serve asks this now and then, and replaces the replica when it fails three times."""
        if self._keeper.trouble:
            raise RuntimeError(self._keeper.trouble)
        if hasattr(self.declared.recipe.loader, "check_health"):
            await self._keeper.call("check_health", (), {})

    def __del__(self) -> None:
        """Serve calls this once the replica's requests are done."""
        keeper = self.__dict__.get("_keeper")
        if keeper is not None:
            keeper.close()

    async def _reconfigure(self, config: Any) -> None:
        self._config = config
        await self._keeper.call("reconfigure", (config,), {})

    async def _prepare(self, seat: Seat) -> None:
        """A model that is made again learns what Serve has told the one before."""
        if self._config is not None:
            await seat.call("reconfigure", (self._config,), {})


def replica_class(cls: type, declared: Declared) -> type:
    """The class to deploy: it has the methods of the model's class, which run on the slice."""
    body: dict[str, Any] = {"declared": declared, "__doc__": cls.__doc__, "__module__": cls.__module__}
    for name, member in inspect.getmembers(cls, callable):
        if name == "reconfigure":
            body[name] = Replica._reconfigure
        elif name == "__call__" or not name.startswith("_"):
            body.setdefault(name, _passes_on(name, member, body))
    body.pop("check_health", None)
    return type(cls.__name__, (Replica,), body)


def _passes_on(name: str, member: Callable[..., Any], body: dict[str, Any]) -> Callable[..., Any]:
    """A method that has the slice run the one of the same name."""
    batch = getattr(member, BATCH_MARK, None)
    bare = not list(inspect.signature(member).parameters)[1:]  # Serve passes no request to what takes none
    if batch is not None:
        inner = f"_batch_{name}"
        body[inner] = _batched(inner, name, batch)

    async def unary(self: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if batch is not None:
            return await getattr(self, f"_batch_{name}")(args[0])
        return await self._keeper.call(name, tuple([await sendable(arg) for arg in args]), kwargs)

    async def items(self: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> AsyncIterator[Any]:
        sent = tuple([await sendable(arg) for arg in args])
        async for item in self._keeper.stream(name, sent, kwargs):
            yield item

    async def passes_on(self: Any, *args: Any, **kwargs: Any) -> Any:
        http = any(isinstance(arg, Request) for arg in args)
        try:
            if not streams(member):
                return await unary(self, args, kwargs)
            return await streamed(items(self, args, kwargs)) if http else items(self, args, kwargs)
        except flexray.errors.FlexrayError as error:
            if http and is_refusal(error):
                return refusal(error)
            raise

    async def without_request(self: Any) -> Any:
        return await passes_on(self)

    method = without_request if bare else passes_on
    method.__name__ = method.__qualname__ = name
    return method


def _batched(inner: str, name: str, batch: tuple[int, float]) -> Callable[..., Any]:
    """Collects calls that come together, with Serve's own batching, and passes them on as one."""

    async def together(self: Any, items: list[Any]) -> list[Any]:
        results: list[Any] = await self._keeper.call(name, ([await sendable(item) for item in items],), {})
        return results

    together.__name__ = together.__qualname__ = inner
    wrapped: Callable[..., Any] = serve.batch(max_batch_size=batch[0], batch_wait_timeout_s=batch[1])(together)
    return wrapped
