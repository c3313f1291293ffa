"""Models behind Ray Serve, each on a slice: ``flex.serving``. Needs ``pip install "flexray-runtime[serve]"``.

Serve does HTTP, routing and the number of replicas; here every replica gets a slice that fits its model.
"""

from __future__ import annotations

from flexray.errors import UsageError

try:
    import ray.serve  # noqa: F401
except ImportError as error:
    raise UsageError(
        f'flex.serving needs Ray Serve, which is not installed here ({error}): pip install "flexray-runtime[serve]"'
    ) from error

from flexray.serving.deployment import batch, deployment
from flexray.serving.endpoint import models
from flexray.serving.model import Model, model

__all__ = ["Model", "batch", "deployment", "model", "models"]
