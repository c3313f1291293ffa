"""What outlives the scheduler's process: rows of JSON in Ray's own key-value store."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from ray.experimental import internal_kv

from flexray.runtime.protocol import NAMESPACE

SPEEDS, COMPANY, QUEUES, CORDONS = b"speeds", b"company", b"queues", b"cordons"
_SPACE = NAMESPACE.encode()


def kept(key: bytes) -> list[list[Any]]:
    """Rows that an earlier incarnation kept."""
    found = internal_kv._internal_kv_get(key, namespace=_SPACE)
    return json.loads(found) if found else []


def keep(key: bytes, rows: Sequence[tuple[Any, ...]]) -> None:
    """Keep these rows instead of those that were kept."""
    internal_kv._internal_kv_put(key, json.dumps(rows).encode(), overwrite=True, namespace=_SPACE)


def forget(key: bytes) -> None:
    """Keep nothing under a key."""
    internal_kv._internal_kv_del(key, namespace=_SPACE)
