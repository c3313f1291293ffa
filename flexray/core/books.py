"""Exact books: what each device and each node has, holds and could free.

One row per device (or node), one column per kind of amount. The arrays are private to
the core; everything is an integer. For every row and column

    free + held = total,   0 <= free,   0 <= pledged <= free + idle + stopping + draining

where *held* is what slices whose process may exist take, and idle, stopping and
draining are parts of *held* that can be had: warm slices, slices being stopped, slices
whose lease was recalled. *pledged* is promised to slices that start once room is free.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from flexray.errors import InternalError

IntArray = NDArray[np.int64]
_PARTS = ("idle", "stopping", "draining", "pledged")


def tie_rank(name: str) -> int:
    """Fixed, name-independent order for ties: a keyed hash of the id, 63 bits."""
    digest = hashlib.blake2b(name.encode(), digest_size=8, key=b"flexray tie order").digest()
    return int.from_bytes(digest, "big") >> 1


class Books:
    """Amounts of things with an id, by row. ``columns`` names the kinds of amount."""

    def __init__(self, columns: Sequence[str]) -> None:
        self.columns = tuple(columns)
        #: id -> row; rows of removed ids are filled by the last one, so rows are dense.
        self.rows: dict[str, int] = {}
        self.ids: list[str] = []
        self.rank: IntArray = np.zeros(0, np.int64)
        shape = (0, len(self.columns))
        self.total: IntArray = np.zeros(shape, np.int64)
        self.free: IntArray = np.zeros(shape, np.int64)
        self.idle: IntArray = np.zeros(shape, np.int64)
        self.stopping: IntArray = np.zeros(shape, np.int64)
        self.draining: IntArray = np.zeros(shape, np.int64)
        self.pledged: IntArray = np.zeros(shape, np.int64)

    def __len__(self) -> int:
        return len(self.ids)

    def add(self, name: str, totals: Sequence[int]) -> None:
        """A new row, entirely free."""
        if name in self.rows:
            raise InternalError(f"{name} is already in the books")
        self.rows[name] = len(self.ids)
        self.ids.append(name)
        self.rank = np.append(self.rank, tie_rank(name))
        row = np.asarray([totals], np.int64)
        self.total = np.vstack((self.total, row))
        self.free = np.vstack((self.free, row))
        for part in _PARTS:
            setattr(self, part, np.vstack((getattr(self, part), np.zeros_like(row))))

    def resize(self, name: str, totals: Sequence[int]) -> None:
        """New totals for a row. What is held stays held; a total that is too small for it is not taken over."""
        row = self.rows[name]
        free = self.free[row] + np.asarray(totals, np.int64) - self.total[row]
        if (free >= 0).all() and (
            free + self.idle[row] + self.stopping[row] + self.draining[row] >= self.pledged[row]
        ).all():
            self.free[row], self.total[row] = free, totals

    def remove(self, name: str) -> None:
        """Drop a row that nothing holds or is promised. The last row moves into its place."""
        row = self.rows[name]
        if not np.array_equal(self.free[row], self.total[row]) or self.pledged[row].any():
            raise InternalError(f"{name} leaves the books while something is held there")
        last = len(self.ids) - 1
        moved = self.ids[last]
        for array in ("total", "free", *_PARTS, "rank"):
            values = getattr(self, array)
            values[row] = values[last]
            setattr(self, array, values[:last])
        self.ids[row] = moved
        self.rows[moved] = row
        self.ids.pop()
        del self.rows[name]

    def hold(self, name: str, amounts: Sequence[int]) -> None:
        """Take amounts out of what is free. Raises InternalError, changing nothing, when they are not there."""
        row = self.rows[name]
        left = self.free[row] - np.asarray(amounts, np.int64)
        if (left < 0).any():
            raise InternalError(f"{name}: cannot hold {list(amounts)} of {self.free[row].tolist()} free")
        self.free[row] = left

    def give_back(self, name: str, amounts: Sequence[int]) -> None:
        """Return held amounts to what is free."""
        row = self.rows[name]
        left = self.free[row] + np.asarray(amounts, np.int64)
        if (left > self.total[row]).any():
            raise InternalError(f"{name}: gave back more than it has ({left.tolist()} of {self.total[row].tolist()})")
        self.free[row] = left

    def mark(self, part: str, name: str, amounts: Sequence[int], sign: int) -> None:
        """Add (+1) or take away (-1) amounts of ``idle``, ``stopping``, ``draining`` or ``pledged``."""
        values: IntArray = getattr(self, part)
        row = self.rows[name]
        left = values[row] + sign * np.asarray(amounts, np.int64)
        if (left < 0).any():
            raise InternalError(f"{name}: {part} would fall below zero")
        values[row] = left

    def reachable(self) -> IntArray:
        """Per row, what a new request may count on: free, or coming free, and promised to nobody."""
        return self.free + self.idle + self.stopping + self.draining - self.pledged

    def uncontested(self) -> IntArray:
        """Per row, what is free or coming free without stopping an idle slice."""
        return self.free + self.stopping + self.draining - self.pledged
