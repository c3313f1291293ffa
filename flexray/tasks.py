"""``@flex.task`` and ``@flex.actor``, and the typed handles they make."""

from __future__ import annotations

import functools
import inspect
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sized
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from flexray.errors import InvalidRequest, UsageError
from flexray.future import Future, Stream
from flexray.model.request import Request, parse_size, request_from_options, unknown_option
from flexray.runtime import process

if TYPE_CHECKING:
    from typing_extensions import ParamSpec

    from flexray.runtime.actors import Standing
    from flexray.runtime.targets import Target

    P = ParamSpec("P")
else:
    from typing import ParamSpec

    P = ParamSpec("P")

R = TypeVar("R")
C = TypeVar("C")
_TASK_OPTIONS = ("retries", "timeout")
_DEFAULT_RETRIES = 3
_MAP_AHEAD = 2_000


class _Options:
    """Validated options: the request, and how calls are repeated and bounded."""

    __slots__ = ("given", "request", "retries", "timeout")

    def __init__(self, given: dict[str, Any], default_retries: int) -> None:
        self.given = given
        for name in given:
            if name not in _ALL_OPTIONS:
                raise unknown_option(name, _ALL_OPTIONS)
        self.request: Request = request_from_options({k: v for k, v in given.items() if k not in _TASK_OPTIONS})
        retries = given.get("retries", default_retries)
        if isinstance(retries, bool) or not isinstance(retries, int) or retries < 0:
            raise InvalidRequest(f"retries={retries!r} must be a whole number, 0 or more")
        timeout = given.get("timeout")
        if timeout is not None and (isinstance(timeout, bool) or not isinstance(timeout, (int, float)) or timeout <= 0):
            raise InvalidRequest(f"timeout={timeout!r} must be a number of seconds above 0")
        self.retries: int = retries
        self.timeout: float | None = timeout

    def merged(self, changes: dict[str, Any], default_retries: int) -> _Options:
        """These options with some changed. An amount replaces the amount of another kind."""
        given = dict(self.given)
        if any(name in changes for name in _AMOUNTS):
            given = {name: value for name, value in given.items() if name not in _AMOUNTS}
        return _Options({**given, **changes}, default_retries)


_AMOUNTS = ("gpu", "npu", "accelerator")
_ALL_OPTIONS = (*_AMOUNTS, "memory", "types", "queue", "priority", "runtime", "cpus", "gang", "request", *_TASK_OPTIONS)


class Task(Generic[P, R]):
    """A function that can run in the pool. Made by ``@flex.task``."""

    def __init__(self, function: Callable[P, R], options: _Options) -> None:
        functools.update_wrapper(self, function)
        self._function = function
        self._options = options
        self._target: tuple[Any, Target] | None = None

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Run the function here, now: plain Python."""
        return self._function(*args, **kwargs)

    def remote(self, *args: P.args, **kwargs: P.kwargs) -> Future[R]:
        """Run the function in the pool; returns at once.

        With ``gang=`` every member runs it with these arguments, and the result is the list of their results by rank.

        Raises:
            NotSerializable: the function or an argument cannot be pickled.
            BacklogFull: too many tasks wait in this client.
            NotConnected: after ``flex.shutdown()``.
        """
        client = process.client()
        return client.submit(Future, self._target_of(client), "", args, kwargs)

    def stream(self, *args: P.args, **kwargs: P.kwargs) -> Stream[Any]:
        """Run a generator function in the pool and get its items as they are produced. Raises UsageError for a gang."""
        gang = self._options.request.gang
        if gang is not None:
            raise UsageError(f"a gang's results come together: gang={gang.describe()} has no .stream(), use .remote()")
        client = process.client()
        return Stream(client.stream(self._target_of(client), "", args, kwargs))

    def map(self, items: Iterable[Any], *, progress: bool = False) -> Iterator[R]:
        """Apply the function to each item; results in order, memory bounded however many items there are.

        Args:
            items: an iterable, consumed as results are.
            progress: show a progress bar on the terminal.
        """
        ahead: deque[Future[R]] = deque()
        with _progress(self.__name__, items, progress) as advance:
            for item in items:
                ahead.append(self.remote(item))  # type: ignore[call-arg]
                if len(ahead) >= _MAP_AHEAD or ahead[0].done():
                    result = ahead.popleft().result()  # unbounded: the user waits
                    advance()
                    yield result
            while ahead:
                result = ahead.popleft().result()  # unbounded: likewise
                advance()
                yield result

    def options(self, **changes: Any) -> Task[P, R]:
        """The same function with some options changed; validated as in the decorator."""
        return Task(self._function, self._options.merged(changes, _DEFAULT_RETRIES))

    def __get__(self, instance: object, owner: type | None = None) -> Any:
        if instance is None:
            return self
        raise UsageError("@flex.task decorates functions, not methods; decorate the class with @flex.actor")

    def __repr__(self) -> str:
        return f"<Task {self.__name__} ({self._options.request.describe()})>"

    def __reduce__(self) -> Any:
        return (_rebuild_task, (self._function, self._options.given))

    __name__: str

    def _target_of(self, client: Any) -> Target:
        if self._target is None or self._target[0] is not client:
            options = self._options
            self._target = (client, client.target(self._function, options.request, options.retries, options.timeout))
        return self._target[1]


def _rebuild_task(function: Callable[..., Any], given: dict[str, Any]) -> Task[..., Any]:
    return Task(function, _Options(given, _DEFAULT_RETRIES))


class _progress:
    """A progress bar, or nothing."""

    def __init__(self, name: str, items: Iterable[Any], show: bool) -> None:
        self._bar: Any = None
        self._name, self._show = name, show
        self._total = len(items) if isinstance(items, Sized) else None

    def __enter__(self) -> Callable[[], None]:
        if not self._show:
            return lambda: None
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        self._bar = Progress(TextColumn(self._name), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        self._bar.start()
        task = self._bar.add_task(self._name, total=self._total)
        return lambda: self._bar.advance(task)

    def __exit__(self, *error: object) -> None:
        if self._bar is not None:
            self._bar.stop()


def task(**options: Any) -> Callable[[Callable[P, R]], Task[P, R]]:
    """Make a function run on slices of pooled devices: ``@flex.task(gpu=0.25)``.

    Args:
        gpu, npu, accelerator: how much of a device (one of them): a fraction of one, such as 0.25, a whole
            number of devices of one node, or a pair (guaranteed, burst). ``accelerator`` takes any maker.
        memory: device memory, such as ``"4GiB"``; default: the same fraction of the device's memory.
        types: allowed device types, patterns such as ``"nvidia/A100*"``.
        queue: name of the queue. priority: higher goes first within it.
        retries: how often it runs again when its slice is lost (default 3). Exceptions are never retried.
        timeout: seconds one attempt may run on its slice.
        runtime: declared run time in seconds.
        cpus: host cores booked beside the device (default 0).
        gang: how many members start together, each with all of the above: a number, a pair (least, most) for a gang
            that may shrink and grow, or a ``flex.Gang``.
        request: a ``flex.Request`` for what is rarer.

    Raises:
        InvalidRequest: an option that makes no sense, at once.
    """
    checked = _Options(options, _DEFAULT_RETRIES)

    def decorate(function: Callable[P, R]) -> Task[P, R]:
        if isinstance(function, type) or not callable(function):
            raise UsageError("@flex.task decorates functions; for classes use @flex.actor")
        return Task(function, checked)

    return decorate


class Method:
    """A method of an actor: ``handle.method.remote(...)`` or ``.stream(...)``."""

    def __init__(self, handle: ActorHandle, name: str) -> None:
        self._handle, self._name = handle, name

    def remote(self, *args: Any, **kwargs: Any) -> Future[Any]:
        """Call the method; returns at once. Calls of one handle run in order, async ones beside each other."""
        client = process.client()
        return client.submit(Future, self._handle._target_of(client), self._name, args, kwargs)

    def stream(self, *args: Any, **kwargs: Any) -> Stream[Any]:
        """Call a generator method and get its items as they are produced."""
        client = process.client()
        return Stream(client.stream(self._handle._target_of(client), self._name, args, kwargs))

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        raise UsageError(f"call it with .remote(): handle.{self._name}.remote(...)")


class ActorHandle:
    """An object that lives on a slice of its own.

    The slice is given back at ``stop()``, when the last handle of the process that made
    it is gone (unless a copy was sent elsewhere), or when that process ends.
    """

    def __init__(self, client: Any, target: Target, methods: dict[str, bool]) -> None:
        self._client, self._target, self._methods = client, target, methods

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or "_methods" not in self.__dict__:
            raise AttributeError(name)
        if name not in self._methods:
            raise AttributeError(f"actor {self._target.name} has no method {name!r}; it has {sorted(self._methods)}")
        method = Method(self, name)
        return _StreamMethod(self, name) if self._methods[name] else method

    @property
    def resize(self) -> Any:
        """Give the actor's slice another share or memory: ``handle.resize(gpu=0.5, memory="8GiB")``.

        As ``flex.current().resize``, which the actor can call itself; waits until the actor is there. For a class with
        a method of this name it is that method, as every other.
        """
        return Method(self, "resize") if "resize" in self._methods else self._resize

    def _resize(
        self,
        *,
        gpu: float | None = None,
        npu: float | None = None,
        accelerator: float | None = None,
        memory: str | int | None = None,
    ) -> None:
        share, mib = parse_size(gpu, npu, accelerator, memory)
        client = process.client()
        client.resize_actor(self._target_of(client), share, mib)

    def stop(self) -> None:
        """Give the slice back now; unfinished calls fail with LeaseLost."""
        self._client.end_actor(self._target, now=True)

    def __repr__(self) -> str:
        return f"<actor {self._target.name}>"

    def __reduce__(self) -> Any:
        return (_borrow, (self._client.lend(self._target), self._methods))

    def _target_of(self, client: Any) -> Target:
        if client is not self._client:
            raise UsageError(f"actor {self._target.name} belonged to a connection that was shut down")
        return self._target


class _StreamMethod(Method):
    """A generator method: ``.remote()`` streams, as a call that returned a generator could not."""

    def remote(self, *args: Any, **kwargs: Any) -> Any:
        """Call the method and get its items as they are produced."""
        return self.stream(*args, **kwargs)


def standing(handle: ActorHandle) -> Standing:
    """Where an actor is in its life: it waits, starts, is ready, has to leave its slice, or is lost. Asks nobody."""
    client = process.client()
    found: Standing = client.standing(handle._target_of(client))
    return found


def _borrow(loan: Any, methods: dict[str, bool]) -> ActorHandle:
    client = process.client()
    return ActorHandle(client, client.borrow(loan), methods)


class Actor(Generic[C]):
    """A class whose instances can live on slices. Made by ``@flex.actor``."""

    def __init__(self, cls: type[C], options: _Options) -> None:
        if options.request.gang is not None:
            raise InvalidRequest(
                f"gang={options.request.gang.describe()} is for tasks: an actor is one by itself. Make several actors, "
                f"or write the gang's work as a @flex.task"
            )
        functools.update_wrapper(self, cls, updated=())
        self._cls, self._options = cls, options

    def __call__(self, *args: Any, **kwargs: Any) -> C:
        """An instance here, now: plain Python."""
        return self._cls(*args, **kwargs)

    def remote(self, *args: Any, **kwargs: Any) -> ActorHandle:
        """An instance on a slice of its own; returns at once. A failing constructor fails the first call."""
        client = process.client()
        options = self._options
        target = client.make_actor(self._cls, options.request, options.retries, options.timeout, args, kwargs)
        handle = ActorHandle(client, target, _methods(self._cls))
        weakref.finalize(handle, _forget, weakref.ref(client), target).atexit = False
        return handle

    def options(self, **changes: Any) -> Actor[C]:
        """The same class with some options changed."""
        return Actor(self._cls, self._options.merged(changes, 0))

    def __reduce__(self) -> Any:
        return (_rebuild_actor, (self._cls, self._options.given))


def _rebuild_actor(cls: type[Any], given: dict[str, Any]) -> Actor[Any]:
    return Actor(cls, _Options(given, 0))


def _forget(client: Any, target: Target) -> None:
    alive = client()
    if alive is not None and not alive.closed and not alive.forked and not target.lent:
        alive.end_actor(target, now=False)


def _methods(cls: type) -> dict[str, bool]:
    """Public methods, and whether each is a generator."""
    return {
        name: inspect.isgeneratorfunction(member) or inspect.isasyncgenfunction(member)
        for name, member in inspect.getmembers(cls, callable)
        if not name.startswith("_") or name == "__call__"
    }


def actor(**options: Any) -> Callable[[type[C]], Actor[C]]:
    """Make instances of a class live on slices: ``@flex.actor(gpu=0.5, memory="20GiB")``.

    Options as for ``flex.task``. ``retries`` (default 0) is how often a lost instance is
    made again, with fresh state; calls that were unfinished get LeaseLost. When the
    class has async methods, they run beside each other on one event loop.
    """
    checked = _Options(options, 0)

    def decorate(cls: type[C]) -> Actor[C]:
        if not isinstance(cls, type):
            raise UsageError("@flex.actor decorates classes; for functions use @flex.task")
        return Actor(cls, checked)

    return decorate


__all__ = ["Actor", "ActorHandle", "Task", "actor", "standing", "task"]
