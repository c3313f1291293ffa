"""Every error flexray raises, in one tree.

    FlexrayError                     catch this for everything
    ├── UsageError (ValueError)      you asked wrongly: the call can never work as written
    │   ├── InvalidRequest           a share, memory, type or option that makes no sense
    │   ├── UnknownPolicy            no policy of that name
    │   ├── UnknownQueue             no queue of that name
    │   ├── NotThere                 no request, device or node of that name
    │   ├── ConfigMismatch           the running pool was started with other settings
    │   ├── NotSerializable          a function or argument that cannot be pickled
    │   └── NotConnected             used after flex.shutdown(), or in a forked child
    ├── PoolError                    you asked rightly, the pool cannot do it
    │   ├── Infeasible               no device of this inventory could ever hold it
    │   ├── Deadlock                 tasks wait for tasks that can never start
    │   ├── StartFailed              the slice's process or runtime environment could not be started
    │   ├── ResizeRefused            a running slice cannot have the size it asked for; it keeps what it has
    │   ├── BacklogFull              more waiting tasks than the configured bound
    │   ├── WaitTimeout              get/result(timeout) ran out; nothing was cancelled (also a TimeoutError)
    │   ├── ClusterUnreachable       no Ray cluster, or no pool, at that address
    │   └── IncompatibleVersion      pool and client differ in protocol, Ray or Python
    ├── LeaseError                   the right to run was lost
    │   ├── LeaseLost                slice or node died more often than `retries` allows, or took a result with it
    │   ├── Preempted                a task raises it to give way when ``should_yield()``; it starts again elsewhere
    │   ├── Cancelled                the task was cancelled (also a concurrent.futures.CancelledError)
    │   └── TaskTimeout              the task ran longer than its `timeout` (also a TimeoutError)
    ├── DeviceError                  a device or its driver failed
    │   ├── BackendUnavailable       a vendor library or driver is missing or broken
    │   ├── IsolationFailed          the promised limit could not be set
    │   ├── DeviceLost               the device disappeared
    │   └── MemoryLimitExceeded      the slice used more memory than it holds
    ├── TaskError                    your own code raised; also an instance of the original class
    └── InternalError                a flexray invariant broke: please report it

Ray's own exceptions reach a user only as the ``__cause__`` of one of these.
"""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import CancelledError as _FuturesCancelledError

__all__ = [
    "BackendUnavailable",
    "BacklogFull",
    "Cancelled",
    "ClusterUnreachable",
    "ConfigMismatch",
    "Deadlock",
    "DeviceError",
    "DeviceLost",
    "FlexrayError",
    "IncompatibleVersion",
    "Infeasible",
    "InternalError",
    "InvalidRequest",
    "IsolationFailed",
    "LeaseError",
    "LeaseLost",
    "MemoryLimitExceeded",
    "NotConnected",
    "NotSerializable",
    "NotThere",
    "PoolError",
    "Preempted",
    "ResizeRefused",
    "StartFailed",
    "TaskError",
    "TaskTimeout",
    "UnknownPolicy",
    "UnknownQueue",
    "UsageError",
    "WaitTimeout",
]


class FlexrayError(Exception):
    """Root of every error flexray raises."""


class UsageError(FlexrayError, ValueError):
    """The call can never work as written."""


class InvalidRequest(UsageError):
    """A share, memory, device type or option that makes no sense."""


class UnknownPolicy(UsageError):
    """No placement policy of that name."""


class UnknownQueue(UsageError):
    """No queue of that name."""


class NotThere(UsageError):
    """No request, device or node of that name, or not any more."""


class ConfigMismatch(UsageError):
    """The pool that is running was started with other settings."""


class NotSerializable(UsageError):
    """A function or an argument that cannot be pickled."""


class NotConnected(UsageError):
    """flexray was used after ``flex.shutdown()`` or in a forked child process."""


class PoolError(FlexrayError):
    """The request is valid; this pool cannot meet it."""


class Infeasible(PoolError):
    """No device of the present inventory could ever hold the request.

    ``removed`` says how many devices each reason removed, for example
    ``{"type": 3, "memory": 1}``.
    """

    def __init__(self, message: str, removed: Mapping[str, int] | None = None) -> None:
        super().__init__(message)
        self.removed: dict[str, int] = dict(removed or {})

    def __reduce__(self) -> tuple[object, ...]:
        return (type(self), (self.args[0], self.removed))


class Deadlock(PoolError):
    """Tasks wait for tasks that can never start; the message names the cycle."""


class StartFailed(PoolError):
    """A slice's process, or its runtime environment, could not be started; or a model of an endpoint not be loaded."""


class ResizeRefused(PoolError):
    """A running slice cannot have the size it asked for: there is no room, or its limits cannot change while it runs.

    It goes on with the size it has.
    """


class BacklogFull(PoolError):
    """The client's backlog holds as many waiting tasks as its configuration allows."""


class WaitTimeout(PoolError, TimeoutError):
    """A wait ran out of time. Nothing was cancelled; the task goes on."""


class ClusterUnreachable(PoolError):
    """There is no Ray cluster, or no flexray pool, where it was looked for."""


class IncompatibleVersion(PoolError):
    """The pool speaks another protocol, or runs another Ray or Python minor version."""


class LeaseError(FlexrayError):
    """The right to run on a slice was lost."""


class LeaseLost(LeaseError):
    """The slice or its node died more often than ``retries`` allows, before the call was done or its result fetched."""


class Preempted(LeaseError):
    """Raised in a preemptible task that is to give way, by its checkpoint or by itself: it is run again elsewhere."""


class Cancelled(LeaseError, _FuturesCancelledError):
    """The task was cancelled before it finished."""


class TaskTimeout(LeaseError, TimeoutError):
    """One attempt of the task ran longer than its ``timeout``."""


class DeviceError(FlexrayError):
    """A device, its driver or its isolation failed."""


class BackendUnavailable(DeviceError):
    """A vendor library or driver is missing or broken."""


class IsolationFailed(DeviceError):
    """The promised isolation could not be set up."""


class DeviceLost(DeviceError, LeaseLost):
    """The device disappeared, or is sick, and what ran there does not start again elsewhere."""


class MemoryLimitExceeded(DeviceError):
    """The slice used more memory than it was granted, of its device or of its node; the task is not repeated.

    Or its node ran out of memory, more often than ``retries`` allows, and it was the slice that exceeded most what it
    had booked. ``used`` and ``limit`` are bytes, of all processes of the slice. Where the kernel ended them they are
    the same: how much more was wanted nobody knows.
    """

    def __init__(self, message: str, used: int = 0, limit: int = 0) -> None:
        super().__init__(message)
        self.used = used
        self.limit = limit

    def __reduce__(self) -> tuple[object, ...]:
        return (type(self), (self.args[0], self.used, self.limit))


class TaskError(FlexrayError):
    """The user's own code raised.

    What a Future raises is a subclass of both ``TaskError`` and the class of the
    original exception, which is the ``__cause__``; the remote traceback is in the
    message and in ``remote_traceback``.
    """

    def __init__(self, message: str, remote_traceback: str = "") -> None:
        super().__init__(message)
        self.remote_traceback = remote_traceback

    def __reduce__(self) -> tuple[object, ...]:
        return (TaskError, (str(self), self.remote_traceback))


class InternalError(FlexrayError):
    """A promise flexray makes to itself broke. Please report it with the message."""
