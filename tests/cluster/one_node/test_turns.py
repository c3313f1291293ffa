"""Slices of one CPU device that take turns at it, through a real pool."""

from __future__ import annotations

import itertools
import os
import signal
import time
from pathlib import Path

import pytest

import flexray as flex
from cluster.conftest import until
from flexray.runtime import turns as turns_of_process

pytestmark = pytest.mark.usefixtures("pool")

CONFIG = {"cpu_devices": 1, "isolation": {"cpu/*": "turns"}}
STEP = 0.002
"""Seconds of a step. It sleeps: what counts is for how long the turn is held, and others here need the cores."""


class Worker:
    """Has a slice of its own."""

    def isolation(self) -> tuple[str, str]:
        return flex.current().isolation, flex.current().guarantee

    def step(self) -> str:
        with flex.turn():
            return flex.current().slice

    def work(self, start: float, end: float) -> list[tuple[float, float]]:
        """When its steps began and ended, by the clock that all processes here share."""
        time.sleep(max(0.0, start - time.monotonic()))
        steps = []
        while time.monotonic() < end:
            with flex.turn():
                begun = time.monotonic()
                time.sleep(STEP)
                steps.append((begun, time.monotonic()))
        return steps

    def die_in_turn(self, holds: str, asked: str) -> None:
        with flex.turn():
            Path(holds).touch()
            while not Path(asked).exists():
                time.sleep(0.001)
            os.kill(os.getpid(), signal.SIGKILL)

    def ask(self, asked: str) -> str:
        Path(asked).touch()
        return self.step()


small = flex.actor(accelerator=0.25, memory="128MiB")(Worker)
large = flex.actor(accelerator=0.75, memory="128MiB")(Worker)


def test_turns_follow_the_shares_and_never_overlap() -> None:
    few, many = small.remote(), large.remote()
    assert few.isolation.remote().result(60) == many.isolation.remote().result(60)
    assert few.isolation.remote().result(60)[0] == "turns"
    start = time.monotonic() + 0.2
    each = [worker.work.remote(start, start + 3.0) for worker in (few, many)]
    first, second = (future.result(60) for future in each)
    assert first, "the smaller one has its turns too"
    assert len(second) / len(first) > 1.8, f"{len(first)} and {len(second)} steps at a quarter and three quarters"
    both = sorted([(*step, "few") for step in first] + [(*step, "many") for step in second])
    overlaps = [(a, b) for a, b in itertools.pairwise(both) if b[0] < a[1]]
    assert not overlaps, overlaps[:3]
    assert sum(a[2] != b[2] for a, b in itertools.pairwise(both)) > 4, "they alternate"


def test_a_crashed_holder_s_turn_goes_to_the_next(tmp_path: Path) -> None:
    holds, asked = tmp_path / "holds", tmp_path / "asked"
    holder, other = small.remote(), large.remote()
    own = other.step.remote().result(60)
    lost = holder.die_in_turn.remote(str(holds), str(asked))
    until(holds.exists)
    assert other.ask.remote(str(asked)).result(60) == own
    with pytest.raises(flex.errors.LeaseLost, match="its process was killed"):
        lost.result(60)
    assert [other.step.remote().result(60) for _ in range(3)] == [own] * 3


def test_outside_of_a_slice_a_turn_is_nothing() -> None:
    worker = small.remote()
    with flex.turn():
        assert worker.step.remote().result(60)
    assert turns_of_process._gate is None
