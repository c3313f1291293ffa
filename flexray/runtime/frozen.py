"""A task's state as bytes: what pickles small as one part, large arrays as they lie in memory, without a copy.

Tensors come back on the CPU, wherever they were: the next attempt may run on a device of another maker.
"""

from __future__ import annotations

import io
import pickle
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import ray
from ray import cloudpickle
from ray.actor import ActorHandle

from flexray.errors import NotSerializable


class Frozen(NamedTuple):
    """A pickled state. The buffers are the live memory of the state: it must not change before they were written."""

    head: bytes
    buffers: tuple[memoryview, ...]

    @property
    def size(self) -> int:
        """Bytes of all of it."""
        return len(self.head) + sum(buffer.nbytes for buffer in self.buffers)


class _Freezer(cloudpickle.CloudPickler):  # type: ignore[misc]
    def __init__(self, file: io.BytesIO) -> None:
        super().__init__(file, protocol=5, buffer_callback=self._take)
        self.buffers: list[memoryview] = []
        torch = sys.modules.get("torch")
        self._tensor: Any = getattr(torch, "Tensor", None)

    def _take(self, buffer: pickle.PickleBuffer) -> bool:
        self.buffers.append(buffer.raw())
        return False

    def reducer_override(self, obj: Any) -> Any:
        if isinstance(obj, (ray.ObjectRef, ActorHandle)):
            raise TypeError(f"it holds a Ray {type(obj).__name__}, which may end with this slice; store the value")
        if type(obj) is self._tensor and _is_dense(obj):
            return _freeze_tensor(obj)
        return super().reducer_override(obj)


def _is_dense(tensor: Any) -> bool:
    torch = sys.modules["torch"]
    odd = tensor.is_quantized or tensor.is_meta or tensor.is_conj() or tensor.is_neg()
    return tensor.layout is torch.strided and not odd


def _freeze_tensor(tensor: Any) -> tuple[Callable[..., Any], tuple[Any, ...]]:
    torch = sys.modules["torch"]
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    buffer = pickle.PickleBuffer(flat.view(torch.uint8).numpy()) if flat.numel() else b""
    return _thaw_tensor, (buffer, tensor.dtype, tuple(tensor.shape), tensor.requires_grad)


def _thaw_tensor(buffer: Any, dtype: Any, shape: tuple[int, ...], requires_grad: bool) -> Any:
    import torch

    flat = torch.frombuffer(buffer, dtype=torch.uint8).view(dtype) if len(buffer) else torch.empty(0, dtype=dtype)
    tensor = flat.reshape(shape)
    return tensor.requires_grad_() if requires_grad else tensor


def freeze(state: object) -> Frozen:
    """Pickle a state by value. Raises NotSerializable, saying what in it cannot be."""
    with io.BytesIO() as file:
        freezer = _Freezer(file)
        try:
            freezer.dump(state)
        except Exception as error:
            raise NotSerializable(
                f"a checkpoint of type {type(state).__name__} cannot be stored: {type(error).__name__}: {error}"
            ) from error
        return Frozen(file.getvalue(), tuple(freezer.buffers))


def thaw(head: bytes, buffers: Sequence[Any]) -> Any:
    """The state. It lies in the buffers it is given: they have to be writable, and nobody else's."""
    return pickle.loads(head, buffers=buffers)


def writable(buffers: Iterable[Any]) -> list[bytearray]:
    """Copies of buffers that are read-only because they are Ray's."""
    return [bytearray(memoryview(buffer)) for buffer in buffers]
