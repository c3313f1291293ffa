"""The one client of this process, and the slice this process is, if it is one.

This is the only state flexray keeps per process: tasks, handles and Futures reach the
pool through it, as users expect of ``flex.init()``.
"""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING, Any

from flexray.errors import NotConnected
from flexray.runtime.protocol import SliceIdentity

if TYPE_CHECKING:
    from flexray.runtime.client import Client

_FORK_TEXT = "flexray does not survive a fork; use spawn or forkserver, or call it in the parent"
_lock = threading.RLock()
_client: Client | None = None
_identity: SliceIdentity | None = None
_shut_down = False
_forked = False


def enter_slice(identity: SliceIdentity) -> None:
    """Called once in a slice's process."""
    global _identity
    _identity = identity


def client() -> Client:
    """This process's client; connects by default. Raises NotConnected after ``shutdown`` or in a forked child."""
    if _client is not None:
        return _client
    if _forked:
        raise NotConnected(_FORK_TEXT)
    if _shut_down:
        raise NotConnected("flexray was shut down in this process; call flex.init() first")
    return connect(None, None)


def connected() -> Client | None:
    """This process's client if it has one."""
    return _client


def connect(address: str | None, config: Any) -> Client:
    """Connect this process; a second call checks that it asks for the same and returns the same client."""
    global _client, _shut_down
    from flexray.runtime.client import Client

    with _lock:
        if _forked:
            raise NotConnected(_FORK_TEXT)  # Ray's connection does not survive it either
        if _client is None or _client.closed:
            _client = Client.connect(address, config, _identity)
            _shut_down = False
        else:
            _client.check_same(address, config)
        return _client


def disconnect() -> None:
    """Leave the pool; what this process held is given back."""
    global _client, _shut_down
    with _lock:
        found, _client = _client, None
        if found is not None or not _shut_down:
            _shut_down = True
        if found is not None:
            found.close()


def _after_fork() -> None:
    """In a forked child: the connection is the parent's. Cheaper than asking for the process id at every call."""
    global _client, _forked
    if _client is not None:
        _client.forked = True
        _client, _forked = None, True


os.register_at_fork(after_in_child=_after_fork)
