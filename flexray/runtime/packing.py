"""Bytes: how functions, arguments, results and exceptions travel.

ObjectRefs and actor handles never go into our own bytes, because Ray would not count
their borrowers: ``pack`` takes them out, they travel as Ray arguments (or the whole
value does), and ``unpack`` puts them back. Plain values are not packed at all.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import io
import pickle
import threading
import traceback
from collections.abc import Callable, Sequence
from types import GetSetDescriptorType, MemberDescriptorType
from typing import Any, NamedTuple

import ray
from ray import cloudpickle
from ray.actor import ActorHandle

from flexray.errors import FlexrayError, NotSerializable, TaskError

#: Above this many bytes a value travels as an object of its own in Ray's object store.
LARGE = 100_000
_NUMBERS = frozenset({int, float, bool, type(None), complex})
_TEXTS = frozenset({str, bytes})
#: Longest text that is plain.
_PLAIN_TEXT = 1_000
_unpacking = threading.local()


class Packed(NamedTuple):
    """Bytes, the references taken out of them, and the size including out-of-band buffers."""

    data: bytes
    held: tuple[Any, ...]
    size: int


class Slot(NamedTuple):
    """Stands for a top-level argument that is filled in where the call runs."""

    number: int


def _cached(function: Callable[..., Any], parameters: dict[str, Any]) -> Any:
    return functools.lru_cache(**parameters)(function)


def _held(index: int) -> Any:
    return _unpacking.held[index]


class _Packer(cloudpickle.CloudPickler):  # type: ignore[misc]
    """Cloudpickle that takes references out and counts the bytes of large buffers instead of copying them."""

    def __init__(self, file: io.BytesIO) -> None:
        super().__init__(file, protocol=5, buffer_callback=self._buffer)
        self.held: list[Any] = []
        self.buffers: list[Any] = []
        self.buffer_bytes = 0

    def _buffer(self, buffer: pickle.PickleBuffer) -> bool:
        self.buffer_bytes += buffer.raw().nbytes
        return True  # in band: the bytes are only used when they are few

    def reducer_override(self, obj: Any) -> Any:
        if isinstance(obj, (ray.ObjectRef, ActorHandle)):
            self.held.append(obj)
            return _held, (len(self.held) - 1,)
        if isinstance(obj, functools._lru_cache_wrapper) and obj.__module__ == "__main__":
            # The usual way to load a model once; pickle would look it up by name, where there is no such __main__.
            return _cached, (obj.__wrapped__, obj.cache_parameters())
        return super().reducer_override(obj)


def pack(value: object) -> Packed:
    """Pickle by value what cannot be imported elsewhere. Raises whatever pickling raises."""
    with io.BytesIO() as file:
        packer = _Packer(file)
        packer.dump(value)
        data = file.getvalue()
    return Packed(data, tuple(packer.held), len(data))


def owns_any(held: Sequence[Any]) -> bool:
    """Whether some of these references are to what this process made, and what therefore ends with it."""
    if not held:
        return False
    me = ray.put(None).owner_address()
    return any(one._ray_original_handle if isinstance(one, ActorHandle) else one.owner_address() == me for one in held)


def unpack(data: bytes, held: Sequence[Any] = ()) -> Any:
    """The value that ``pack`` packed, with its references put back."""
    if not held:
        return pickle.loads(data)
    outer = getattr(_unpacking, "held", ())
    _unpacking.held = held
    try:
        return pickle.loads(data)
    finally:
        _unpacking.held = outer


def is_plain(value: object) -> bool:
    """Whether a value is immutable, small and of a type that any pickle takes: it travels as it is, unpacked."""
    kind = type(value)
    return kind in _NUMBERS or (kind in _TEXTS and len(value) <= _PLAIN_TEXT)  # type: ignore[arg-type]


class PackedFunction(NamedTuple):
    """A function or class by value, and the hash that names it."""

    key: str
    data: bytes
    held: tuple[Any, ...]


def pack_function(function: Callable[..., Any]) -> PackedFunction:
    """Raises NotSerializable, saying what in the function cannot travel."""
    name = getattr(function, "__qualname__", repr(function))
    try:
        packed = pack(function)
    except Exception as error:
        raise NotSerializable(
            f"{name} cannot be sent to a slice: {type(error).__name__}: {error}. "
            f"It refers to something that cannot be pickled (a lock, an open file, a connection); "
            f"create that inside the function instead."
        ) from error
    return PackedFunction(hashlib.blake2b(packed.data, digest_size=12).hexdigest(), packed.data, packed.held)


def pack_error(error: BaseException) -> bytes:
    """An exception with its traceback; one that cannot be pickled travels as its text."""
    text = "".join(traceback.format_exception(type(error), error, error.__traceback__))
    try:
        packed = pack(error)
        if packed.held:
            raise TypeError("the exception holds references")
        unpack(packed.data)  # some exceptions pickle and do not unpickle
        return pickle.dumps((packed.data, _summary(error), text), protocol=5)
    except Exception:
        return pickle.dumps((None, _summary(error), text), protocol=5)


def rename_error(data: bytes, who: str) -> bytes:
    """A packed exception whose message begins with who raised it."""
    packed, summary, text = pickle.loads(data)
    return pickle.dumps((packed, f"{who}: {summary}", text), protocol=5)


def _summary(error: BaseException) -> str:
    try:
        return f"{type(error).__name__}: {error}"
    except Exception:  # a broken __str__ must not hide that the task failed
        return type(error).__name__


def unpack_error(data: bytes) -> TaskError:
    """A TaskError that is also an instance of the original's class, with the original as its cause."""
    packed, summary, text = pickle.loads(data)
    message = f"{summary}\n\nRemote traceback:\n{text}"
    cause: BaseException | None = None
    if packed is not None:
        try:
            cause = pickle.loads(packed)
        except Exception as error:
            message += f"\n(the exception could not be rebuilt here: {type(error).__name__}: {error})"
    if not isinstance(cause, Exception):
        return TaskError(message, text)
    failure = dual_class(type(cause))(message, text)
    if isinstance(cause, TaskError) and cause.__cause__ is not None:  # a child's failure passed through
        failure.__cause__ = cause.__cause__
    else:
        failure.__cause__ = cause
    _copy_attributes(cause, failure)
    return failure


def _copy_attributes(cause: BaseException, failure: BaseException) -> None:
    """What handlers look at: ``errno`` of an OSError, ``code`` of somebody's own class."""
    for name, value in getattr(cause, "__dict__", {}).items():
        failure.__dict__.setdefault(name, value)
    for kind in type(cause).__mro__:
        if kind in (BaseException, Exception, object):
            continue
        for name, member in vars(kind).items():
            if isinstance(member, (MemberDescriptorType, GetSetDescriptorType)) and not name.startswith("__"):
                with contextlib.suppress(AttributeError, TypeError, ValueError):  # not set, or read-only
                    setattr(failure, name, getattr(cause, name))


def _rebuild_dual(kind: type[Exception], message: str, remote_traceback: str, cause: BaseException | None) -> TaskError:
    failure = dual_class(kind)(message, remote_traceback)
    failure.__cause__ = cause
    if cause is not None:
        _copy_attributes(cause, failure)
    return failure


def dual_class(cause: type[Exception]) -> type[TaskError]:
    """A class that is both a TaskError and the cause's class, where Python allows it."""
    if issubclass(cause, TaskError):
        own = (c for c in cause.__mro__ if issubclass(c, Exception) and not issubclass(c, TaskError))
        cause = next((c for c in own if c is not FlexrayError), Exception)
    if cause in (Exception, FlexrayError, TaskError):
        return TaskError
    try:
        return type(
            f"TaskError_{cause.__name__}",
            (TaskError, cause),
            {
                "__init__": _init_dual,
                "__str__": lambda self: self.message,
                "__reduce__": lambda self: (
                    _rebuild_dual,
                    (cause, self.message, self.remote_traceback, self.__cause__),
                ),
                "__module__": "flexray.errors",
            },
        )
    except TypeError:  # classes whose layouts conflict, or that forbid subclassing
        return TaskError


def _init_dual(self: Any, message: str, remote_traceback: str) -> None:
    # Not the cause's own __init__: its arguments are unknown, and it ran once already.
    BaseException.__init__(self, message)
    self.message = message
    self.remote_traceback = remote_traceback
