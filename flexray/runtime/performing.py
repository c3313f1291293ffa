"""What the calls of a batch do in a slice: its message read, the function found, arguments unpacked, and called."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Sequence
from typing import Any

from flexray.runtime.arguments import unpack_arguments
from flexray.runtime.packing import unpack
from flexray.runtime.protocol import Batch, Member, Payload, Token


class LazyFunction:
    """A function that is unpickled on first use, in the thread that runs user code."""

    def __init__(self, blob: bytes | tuple[bytes, list[Any]]) -> None:
        self._blob: tuple[bytes, list[Any]] | None = (blob, []) if isinstance(blob, bytes) else blob
        self._function: Any = None

    def load(self) -> Any:
        if self._blob is not None:
            self._function, self._blob = unpack(*self._blob), None
        return self._function


def read_batch(message: bytes) -> Batch:
    """Batches travel as plain tuples, which pickle several times faster than named ones."""
    token, *rest = pickle.loads(message)
    batch = Batch(Token(*token), *rest)
    return batch if batch.member is None else batch._replace(member=Member(*batch.member))


def perform(
    find: Callable[[], Callable[..., Any]],
    values: Sequence[Any],
    held: Sequence[Any],
    payload: Payload,
    slots: Sequence[int | bytes] = (),
    of_held: tuple[int, int] = (0, 0),
) -> Any:
    """Call what ``find`` finds with the arguments of one item of a batch."""
    args, kwargs = unpack_arguments(payload, slots, part_of(held, of_held), values.__getitem__)
    return find()(*args, **kwargs)


def part_of(held: Sequence[Any], of_held: tuple[int, int]) -> Sequence[Any]:
    """An item's own among the batch's references: (first, how many)."""
    start, count = of_held
    return held[start : start + count]
