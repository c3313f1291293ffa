"""The same events give the same commands: replayed, in another process, and as they were once recorded."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from walk import CONFIG, walk

from flexray.build import build_scheduler
from flexray.config import PoolConfig
from flexray.core.journal import replay
from flexray.core.scheduler import Scheduler
from flexray.model.commands import COMMANDS
from flexray.model.events import EVENTS
from flexray.model.wire import encode

HERE = Path(__file__).parent
GOLDEN = HERE.parent / "data" / "golden.jsonl"
GOLDEN_SEED, GOLDEN_STEPS = 3, 120


def _fresh() -> Scheduler:
    return build_scheduler(PoolConfig(**CONFIG), 1)


@pytest.mark.parametrize(("seed", "cut"), [(1, False), (2, False), (3, True)])
def test_a_journal_replays(seed: int, cut: bool) -> None:
    world = walk(seed, 300, cut=cut)
    assert list(replay(world.journal, _fresh())) == []
    recorded = [command for entry in world.journal for command in entry.get("commands", ())]
    assert recorded == [encode(command) for command in world.commands]


def test_a_walk_meets_every_kind() -> None:
    entries = [entry for seed in (1, 2, 3) for entry in walk(seed, 300).journal]
    met = {entry["event"]["kind"] for entry in entries if "event" in entry}
    met |= {command["kind"] for entry in entries for command in entry.get("commands", ())}
    assert met == {kind.__name__ for kind in (*EVENTS, *COMMANDS)}


def test_a_replay_names_the_cycle_that_differs() -> None:
    journal = walk(1, 30).journal
    at = next(i for i, entry in enumerate(journal) if entry.get("commands"))
    changed = [*journal[:at], {**journal[at], "commands": []}, *journal[at + 1 :]]
    (line,) = replay(changed, _fresh())
    assert line.startswith(f"entry {at + 1}: recorded [], replayed [{{'kind': ")


@pytest.mark.parametrize("more", [[], ["cut"]])
def test_any_process_decides_alike(more: list[str]) -> None:
    """Hash seeds differ between processes; orders must not."""
    runs = [
        subprocess.Popen(
            [sys.executable, str(HERE / "walk.py"), "7", "300", *more],
            env={**os.environ, "PYTHONHASHSEED": seed},
            stdout=subprocess.PIPE,
        )
        for seed in ("1", "2")
    ]
    one, other = (run.communicate(timeout=60)[0] for run in runs)
    assert [run.returncode for run in runs] == [0, 0]
    assert one == other and one.count(b"GrantLease") > 20


def test_the_golden_journal() -> None:
    """A change here is a change of what pools in the field do. If it is meant, say so and regenerate with

    python tests/core/walk.py 3 120 > tests/data/golden.jsonl
    """
    golden = [json.loads(line) for line in GOLDEN.read_text().splitlines()]
    assert list(replay(golden, _fresh())) == []
    assert golden == walk(GOLDEN_SEED, GOLDEN_STEPS).journal
    assert str(GOLDEN_SEED) in test_the_golden_journal.__doc__ and str(GOLDEN_STEPS) in test_the_golden_journal.__doc__
