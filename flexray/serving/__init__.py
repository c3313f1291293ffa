"""Models behind Ray Serve, each on a slice: ``flex.serving``. Needs ``pip install "flexray-runtime[serve]"``.

Serve does HTTP, routing and the number of replicas; here every replica gets a slice that fits its model. Slices import
this package too: Serve, which takes seconds of processor time to import, comes with the first use of what needs it.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from flexray.errors import UsageError

if TYPE_CHECKING:
    from flexray.serving.batching import batch
    from flexray.serving.declared import Model, model
    from flexray.serving.deploying import deployment
    from flexray.serving.endpoint import models
    from flexray.serving.engine import EngineModel, vllm
    from flexray.serving.openai_api import openai

_LAZY = {
    "EngineModel": "flexray.serving.engine",
    "Model": "flexray.serving.declared",
    "batch": "flexray.serving.batching",
    "deployment": "flexray.serving.deploying",
    "model": "flexray.serving.declared",
    "models": "flexray.serving.endpoint",
    "openai": "flexray.serving.openai_api",
    "vllm": "flexray.serving.engine",
}

__all__ = ["EngineModel", "Model", "batch", "deployment", "model", "models", "openai", "vllm"]


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'flexray.serving' has no attribute {name!r}")
    try:
        value = getattr(importlib.import_module(_LAZY[name]), name)
    except ImportError as error:
        raise UsageError(
            f"flex.serving.{name} needs Ray Serve, which is not installed here ({error}): "
            'pip install "flexray-runtime[serve]"'
        ) from error
    globals()[name] = value
    return value
