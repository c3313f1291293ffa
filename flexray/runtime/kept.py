"""What outlives the scheduler's process: rows of JSON in Ray's own key-value store, with a version and a checksum.

A record that cannot be read stops nobody: it is set aside under another key, and the pool goes on without it and says
so (in the log, and in ``flexray status``).
"""

from __future__ import annotations

import json
import logging
import secrets
import zlib
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol, TypeVar

from ray.experimental import internal_kv

from flexray.errors import FlexrayError
from flexray.runtime.protocol import NAMESPACE

SPEEDS, COMPANY, QUEUES, CORDONS, HISTORY = b"speeds", b"company", b"queues", b"cordons", b"history"
PROFILES = b"profiles"
USAGE = b"usage:"
"""What the key of each hour's usage begins with; the hour, counted from 1970, follows."""
#: Written one after the other: one of them can be read whatever happens meanwhile.
_EPOCHS = (b"epoch", b"epoch-copy")
_SESSION, _DAMAGED = b"session:", b"damaged:"
_SECRET = b"secret"
_SECRET_BYTES = 32
_VERSION = 1
#: Where no count of epochs can be read any more, the next one is far above any trace of an earlier one.
_LEAP = 1_000_000
_FIRSTS = 1_000_000_000

T = TypeVar("T")
_log = logging.getLogger("flexray")


class KeyValues(Protocol):
    """A store of bytes by key."""

    def get(self, key: bytes) -> bytes | None:
        """What is there."""

    def put(self, key: bytes, value: bytes) -> None:
        """Keep this instead of what was there."""

    def delete(self, key: bytes) -> None:
        """Keep nothing there."""

    def keys(self, prefix: bytes) -> list[bytes]:
        """The keys that begin so."""


class RayKeyValues:
    """Ray's, in the pool's namespace. It is as lasting as Ray's head: see docs/operations.md."""

    _space = NAMESPACE.encode()

    def get(self, key: bytes) -> bytes | None:
        """What is there."""
        found: bytes | None = internal_kv._internal_kv_get(key, namespace=self._space)
        return found

    def put(self, key: bytes, value: bytes) -> None:
        """Keep this instead of what was there."""
        internal_kv._internal_kv_put(key, value, overwrite=True, namespace=self._space)

    def delete(self, key: bytes) -> None:
        """Keep nothing there."""
        internal_kv._internal_kv_del(key, namespace=self._space)

    def keys(self, prefix: bytes) -> list[bytes]:
        """The keys that begin so."""
        return list(internal_kv._internal_kv_list(prefix, namespace=self._space))


class Kept:
    """The records. ``notes``: what a person should know of those that could not be read."""

    def __init__(self, store: KeyValues) -> None:
        self._store = store
        self.notes: list[str] = []

    def read(self, key: bytes, parse: Callable[[list[Any]], T]) -> T | None:
        """What an earlier incarnation kept; None where that is nothing, or damaged."""
        found = self._store.get(key)
        if found is None:
            return None
        try:
            return parse(_opened(found))
        except (ValueError, TypeError, KeyError, IndexError, AttributeError, FlexrayError) as error:
            self._set_aside(key, found, error)
            return None

    def write(self, key: bytes, rows: Sequence[Any]) -> None:
        """Keep these rows instead of those that were kept."""
        text = json.dumps(rows)
        record = {"version": _VERSION, "checksum": zlib.crc32(text.encode()), "rows": text}
        self._store.put(key, json.dumps(record).encode())

    def forget(self, key: bytes) -> None:
        """Keep nothing under a key."""
        self._store.delete(key)

    def keys(self, prefix: bytes) -> list[bytes]:
        """The keys of records that begin so."""
        return self._store.keys(prefix)

    def next_epoch(self, traces: Iterable[int]) -> int:
        """A number above that of every earlier incarnation; it never depends on a clock.

        Ids of slices begin with it, and mark processes on machines that may have several clusters: so a cluster's first
        is drawn at random.

        Args:
            traces: epochs of which something is still there.
        """
        damages = len(self.notes)
        counted = [self.read(key, lambda rows: int(rows[0])) or 0 for key in _EPOCHS]
        lost = not any(counted) and len(self.notes) > damages
        last = max(*counted, *traces) or secrets.randbelow(_FIRSTS)
        epoch = last + (_LEAP if lost else 1)
        self.raise_epoch(epoch)
        return epoch

    def raise_epoch(self, epoch: int) -> None:
        """The next incarnation gets a higher number than this."""
        for key in _EPOCHS:
            self.write(key, [epoch])

    def secret(self) -> bytes:
        """What seals are made of (``seals.py``): drawn once, by the first incarnation."""
        found = self.read(_SECRET, lambda rows: bytes.fromhex(rows[0]))
        if found is None:
            found = secrets.token_bytes(_SECRET_BYTES)
            self.write(_SECRET, [found.hex()])
        return found

    # -- the sessions that are open ------------------------------------------------------------

    def session_opened(self, session: str) -> None:
        """Remember that a client is there: a later incarnation waits for it."""
        self.write(_SESSION + session.encode(), [session])

    def session_closed(self, session: str) -> None:
        """And no longer."""
        self._store.delete(_SESSION + session.encode())

    def sessions(self) -> list[str]:
        """Those that were open."""
        return sorted(key.removeprefix(_SESSION).decode(errors="replace") for key in self._store.keys(_SESSION))

    def _set_aside(self, key: bytes, found: bytes, error: Exception) -> None:
        self._store.put(_DAMAGED + key, found)
        self._store.delete(key)
        note = (
            f"the saved record {key.decode()!r} could not be read ({error or type(error).__name__}); it is kept as "
            f"{(_DAMAGED + key).decode()!r}, and the pool goes on without it"
        )
        self.notes.append(note)
        _log.error("flexray: %s", note)


def _opened(found: bytes) -> list[Any]:
    record = json.loads(found)
    if not isinstance(record, dict) or record.get("version") != _VERSION:
        raise ValueError("it is of another version of flexray")
    if zlib.crc32(record["rows"].encode()) != record["checksum"]:
        raise ValueError("its checksum is wrong")
    rows = json.loads(record["rows"])
    if not isinstance(rows, list):
        raise ValueError("it is no list of rows")
    return rows
