"""``flex.serving.deployment``: a plain class becomes a Ray Serve deployment on slices."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable
from typing import Any

from ray import serve

from flexray.errors import InvalidRequest, UsageError
from flexray.serving.replica import Declared, replica_class
from flexray.serving.seat import SLICE_OPTIONS, Recipe
from flexray.tasks import actor

_SERVE_OPTIONS = tuple(name for name in inspect.signature(serve.deployment).parameters if not name.startswith("_"))


def deployment(*, retries: int = 3, recover_seconds: float = 60.0, **options: Any) -> Callable[[type], Any]:
    """Make a class a Ray Serve deployment each of whose replicas has its model on a slice of its own.

        @flex.serving.deployment(gpu=0.25, memory="8GiB", queue="serving", max_ongoing_requests=16)
        class Classifier:
            def __init__(self, path): ...
            def __call__(self, request): ...

        serve.run(Classifier.bind("model.pt"))

    The class is plain: its constructor and its methods run on the slice. What is returned is Serve's ``Deployment``.

    Args:
        retries: how often a request runs again when its slice is lost; 0 where it must not run twice.
        recover_seconds: how long requests wait for a slice in place of a lost one; after that the replica is
            unhealthy, and Serve replaces it.
        options: of the slice, as for ``flex.actor`` (``gpu=``, ``memory=``, ``queue=``, ``priority=``, and
            ``timeout=`` of one call), and those of ``serve.deployment`` (``num_replicas=``, ``autoscaling_config=``).

    Raises:
        InvalidRequest: an option that does not exist, or makes no sense.
    """
    if isinstance(retries, bool) or not isinstance(retries, int) or retries < 0:
        raise InvalidRequest(f"retries={retries!r} must be a whole number, 0 or more")
    if isinstance(recover_seconds, bool) or not isinstance(recover_seconds, (int, float)) or recover_seconds < 0:
        raise InvalidRequest(f"recover_seconds={recover_seconds!r} must be a number of seconds, 0 or more")
    on_slice, for_serve = divide_options(options)
    actor(**on_slice)  # raises at once what makes no sense

    def decorate(cls: type) -> Any:
        if not inspect.isclass(cls):
            raise UsageError(f"@flex.serving.deployment decorates plain classes, got {cls!r}")
        declared = Declared(Recipe(cls, on_slice), retries, recover_seconds)
        return serve.deployment(**for_serve)(replica_class(cls, declared))

    return decorate


def divide_options(options: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Options for the slice, and for Serve, whose replicas book no cores since they only pass requests on."""
    for name in options:
        if name not in SLICE_OPTIONS and name not in _SERVE_OPTIONS:
            near = difflib.get_close_matches(name, [*SLICE_OPTIONS, *_SERVE_OPTIONS], 1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise InvalidRequest(f"unknown option {name!r}{hint} It takes those of flex.actor and of serve.deployment")
    on_slice = {name: value for name, value in options.items() if name in SLICE_OPTIONS}
    for_serve = {name: value for name, value in options.items() if name not in SLICE_OPTIONS}
    for_serve["ray_actor_options"] = {"num_cpus": 0, **for_serve.get("ray_actor_options", {})}
    return on_slice, for_serve
