"""What runs in the slice: the model, made by its loader, and the calls that its replica passes on."""

from __future__ import annotations

import inspect
import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, NamedTuple

from flexray import current


class Facts(NamedTuple):
    """Where a model is, and how many seconds its loader took."""

    device: str
    share: float
    memory: int
    seconds: float


class Host:
    """Holds a model whose methods are plain functions or generators; they run one after the other."""

    def __init__(self, loader: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        began = time.monotonic()
        self.model = loader(*args, **kwargs)
        self._seconds = time.monotonic() - began

    def facts(self) -> Facts:
        """Answers once the model is there."""
        here = current()
        return Facts(here.device.id, here.share, here.memory, self._seconds)

    def call(self, method: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Call a method of the model; what it awaits is awaited by the slice."""
        return getattr(self.model, method)(*args, **kwargs)

    def stream(self, method: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Iterator[Any]:
        """The items of a generator method."""
        yield from getattr(self.model, method)(*args, **kwargs)


class AsyncHost(Host):
    """Holds a model with async methods; they run beside each other on one event loop."""

    async def call(self, method: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Call a method of the model."""
        result = getattr(self.model, method)(*args, **kwargs)
        return await result if inspect.isawaitable(result) else result  # unbounded: user code

    async def stream(  # type: ignore[override]  # both are read as streams
        self, method: str, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> AsyncIterator[Any]:
        """The items of a generator method."""
        items = getattr(self.model, method)(*args, **kwargs)
        if inspect.isasyncgen(items):
            async for item in items:
                yield item
        else:
            for item in items:
                yield item


def host_class(loader: Callable[..., Any]) -> type[Host]:
    """The class that holds what a loader makes, under the loader's name, which ``flexray status`` shows."""
    functions = [member for _, member in inspect.getmembers(loader, inspect.isfunction)]
    base = AsyncHost if any(is_async(member) for member in functions) else Host
    return type(getattr(loader, "__qualname__", "model"), (base,), {"__doc__": base.__doc__})


def is_async(method: Callable[..., Any]) -> bool:
    """Whether calls of a method may run beside each other."""
    return inspect.iscoroutinefunction(method) or inspect.isasyncgenfunction(method)


def streams(method: Callable[..., Any]) -> bool:
    """Whether a method gives items one by one."""
    return inspect.isgeneratorfunction(method) or inspect.isasyncgenfunction(method)
