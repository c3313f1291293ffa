"""Fairness of a run, first come first served, and the days of Philly's teams: small cases by hand."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from flexray.core.loads import TypeRoom
from flexray.core.queues import QueueTree
from flexray.errors import UsageError
from flexray.model.amounts import MemoryMiB
from flexray.model.queue import Queue, QueueAmount
from flexray.sim.fair_shares import Stay, jain, measure
from flexray.sim.fifo import first_come_first_served
from flexray.sim.philly import DAY, TeamJob, read_busiest_days

POOL = {"t": TypeRoom(4000, 1000, MemoryMiB(1000))}


def test_jains_index() -> None:
    assert jain([1, 1, 1]) == 1 and jain([3, 0, 0]) == pytest.approx(1 / 3) and jain([0, 0]) == 0
    assert jain([1, 2]) == pytest.approx(9 / 10)


def test_held_against_entitled() -> None:
    """Four devices; a holds all for 10 s, of which b, promised one, wants two from 5 s on and gets none until 10 s."""
    tree = QueueTree([Queue("a"), Queue("b", quota=QueueAmount(devices=1000))])
    stays = [Stay("a", 4, 0, 10, ((0, 10),)), Stay("b", 2, 5, 20, ((10, 20),))]
    found = measure(stays, tree, POOL, 20)
    a, b = found.queues
    # from 5 to 10 s b is entitled to 1 + 1 (its want, of 1 + 3/2) and a to 2
    assert (a.held, a.entitled, a.deviation, a.short) == (50, 100 * (5 * 4 + 5 * 2) / 80, 100 * 5 * 2 / 80, 0)
    assert (b.held, b.short, b.owed) == (25, 100 * 5 * 2 / 80, 100 * 5 * 1 / 80)
    assert found.contended == 0.25 and found.jain == 0.5  # a has twice its part, b nothing


def test_past_use_counts_where_there_is_a_half_life() -> None:
    stays = [Stay("a", 4, 0, 1000, ((0, 1000),)), Stay("b", 4, 500, 1500, ((1000, 1500),))]
    plain, late = (
        measure(stays, QueueTree([Queue("a", half_life=life), Queue("b", half_life=life)]), POOL, 1000)
        for life in (None, 100.0)
    )
    assert plain.queues[0].entitled == 75 and late.queues[0].entitled < 60


def test_whoever_is_first_holds_up_the_rest() -> None:
    """On two nodes of two: b does not fit while a holds one device of each; c would, and waits behind b."""
    jobs = [
        TeamJob("x", "k", 0, 2, 5),
        TeamJob("x", "k", 1, 1, 20),
        TeamJob("y", "k", 2, 2, 10),
        TeamJob("x", "k", 3, 1, 1),
    ]
    stays = first_come_first_served(jobs, 2, 2, start=0.5)
    assert [stay.spans for stay in stays] == [((0.5, 5.5),), ((1.5, 21.5),), ((6.0, 16.0),), ((6.0, 7.0),)]
    assert [stay.wait for stay in stays] == [0.5, 0.5, 4.0, 3.0]
    with pytest.raises(UsageError, match="more than the 2 devices"):
        first_come_first_served([TeamJob("x", "k", 0, 3, 1)], 2, 2, 0)


def trace(folder: Path, *rows: tuple[str, int, float, int]) -> Path:
    rates = {"v100": {"('A', 1)": {"null": 2.0}, "('A', 4)": {"null": 8.0}}}
    (folder / "simulation_throughputs.json").write_text(json.dumps(rates))
    (folder / "msr").mkdir()
    lines = ["\t".join((kind, "run", "-n", "1", str(steps), str(at), str(n))) for kind, steps, at, n in rows]
    (folder / "msr" / "team.seed0.trace").write_text("\n".join(lines) + "\n")
    return folder


def test_the_busiest_day_of_a_team(tmp_path: Path) -> None:
    rows = [("A", 10, 0, 1), ("A", 80, DAY + 5, 4), ("A", 20, DAY + 6, 12), ("A", 10**6, DAY + 7, 1)]
    jobs = read_busiest_days(trace(tmp_path, *rows), most_devices=8, clip=100)
    assert [(job.came, job.devices, job.seconds) for job in jobs] == [(5, 4, 10), (6, 8, 10), (6, 4, 10), (7, 1, 100)]


def test_what_is_wrong_with_a_trace_is_said(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"team.seed0.trace, line 1: 'B' has no throughput"):
        read_busiest_days(trace(tmp_path, ("B", 1, 0, 1)), 8, 100)
    (tmp_path / "msr" / "team.seed0.trace").write_text("a\tb\n")
    with pytest.raises(UsageError, match="2 columns"):
        read_busiest_days(tmp_path, 8, 100)
    (tmp_path / "msr" / "team.seed0.trace").unlink()
    with pytest.raises(UsageError, match="no files"):
        read_busiest_days(tmp_path, 8, 100)
