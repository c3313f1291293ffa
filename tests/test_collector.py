"""Garbage collection in the scheduler's process."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

from flexray.runtime import collector


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    callbacks = list(gc.callbacks)
    yield
    gc.callbacks[:] = callbacks
    gc.unfreeze()


@pytest.mark.parametrize(("long_seconds", "frozen"), [(-1.0, True), (float("inf"), False)])
def test_what_survives_a_long_collection_is_left_out_of_later_ones(
    monkeypatch: pytest.MonkeyPatch, long_seconds: float, frozen: bool
) -> None:
    monkeypatch.setattr(collector, "_LONG_SECONDS", long_seconds)
    collector.keep_collections_short()
    before = gc.get_freeze_count()
    records = [[n] for n in range(1000)]
    gc.collect(1)
    assert gc.get_freeze_count() <= before  # only a full one says how large the heap is
    gc.collect()
    assert (gc.get_freeze_count() >= before + len(records)) == frozen


def test_what_is_frozen_is_freed_when_nobody_refers_to_it() -> None:
    records = [[n] for n in range(1000)]
    collector.keep_collections_short()
    before = gc.get_freeze_count()
    records.clear()
    assert gc.get_freeze_count() <= before - 1000
