"""One of many models behind an endpoint, as it is declared."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from flexray.errors import InvalidRequest
from flexray.model.request import Request, parse_size, request_from_options
from flexray.serving.seat import SLICE_OPTIONS, Recipe

_PARKED_OPTIONS = ("gpu", "npu", "accelerator", "memory")


@dataclass(frozen=True)
class Model:
    """A model of an endpoint; made by ``flex.serving.model``.

    Attributes:
        recipe: its loader and the slice it needs; ``args`` are the loader's.
        request: the same slice, as the pool sees it.
        idle_seconds: a replica without requests for so long is parked, or stopped where it cannot be.
        least, most: replicas.
        max_ongoing_requests: on one replica; more want another one.
        wait_seconds: how long a request waits for a replica.
        parked: the size that a parked replica keeps, as for ``resize``; None where the model does not park.
    """

    name: str
    recipe: Recipe
    args: tuple[Any, ...]
    request: Request
    idle_seconds: float
    least: int
    most: int
    max_ongoing_requests: int
    wait_seconds: float
    parked: Mapping[str, Any] | None


def model(
    name: str,
    loader: Callable[..., Any],
    *,
    args: tuple[Any, ...] = (),
    idle_seconds: float = 60.0,
    replicas: tuple[int, int] = (0, 1),
    max_ongoing_requests: int = 8,
    wait_seconds: float = 60.0,
    parked: Mapping[str, Any] | None = None,
    **options: Any,
) -> Model:
    """Declare a model for ``flex.serving.models``.

        flex.serving.model("tiny", Tiny, gpu=0.25, memory="4GiB", replicas=(0, 2), idle_seconds=120)

    Args:
        name: what requests call it.
        loader: a class, or a function that returns an object; it runs on the slice, with ``args``.
        idle_seconds: a replica that has had no request for so long is parked or stopped.
        replicas: least, which are loaded from the start, and most.
        max_ongoing_requests: how many run on one replica before another one is wanted, and before others wait.
        wait_seconds: how long a request waits for a replica before it fails with ``WaitTimeout``; one whose model
            cannot be loaded fails at once with ``StartFailed``.
        parked: what a parked replica keeps, such as ``{"gpu": 0.01, "memory": "1GiB"}``. The loader's object has
            methods ``park()``, which lets go of device memory (vLLM: ``sleep``), and ``unpark()``.
        options: of the slice, as for ``flex.actor``.

    Raises:
        InvalidRequest: something that makes no sense.
    """
    for option in options:
        if option not in SLICE_OPTIONS:
            raise InvalidRequest(
                f"model {name!r}: unknown option {option!r}; the slice's are {', '.join(SLICE_OPTIONS)}"
            )
    if not name or "/" in name:
        raise InvalidRequest(f"a model's name is a part of a path, without slashes, not {name!r}")
    least, most = replicas
    if not 0 <= least <= most or most < 1:
        raise InvalidRequest(f"model {name!r}: replicas={replicas!r} must be (least, most), with at least one at most")
    if max_ongoing_requests < 1 or idle_seconds < 0 or wait_seconds < 0:
        raise InvalidRequest(f"model {name!r}: max_ongoing_requests is 1 or more, seconds are 0 or more")
    if parked is not None:
        _check_parked(name, loader, parked)
    request = request_from_options({key: value for key, value in options.items() if key != "timeout"})
    recipe = Recipe(loader, options)
    return Model(name, recipe, args, request, idle_seconds, least, most, max_ongoing_requests, wait_seconds, parked)


def _check_parked(name: str, loader: Callable[..., Any], parked: Mapping[str, Any]) -> None:
    if isinstance(loader, type) and not (hasattr(loader, "park") and hasattr(loader, "unpark")):
        raise InvalidRequest(f"model {name!r} has parked=, but {loader.__name__} has no methods park() and unpark()")
    if unknown := set(parked) - set(_PARKED_OPTIONS):
        raise InvalidRequest(f"model {name!r}: parked= takes {', '.join(_PARKED_OPTIONS)}, not {sorted(unknown)}")
    parse_size(*(parked.get(option) for option in _PARKED_OPTIONS))
