"""Gavel's experiment: its files, the rounds, what is measured, and the baseline. The load is small and drawn."""

from __future__ import annotations

import builtins
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flexray.errors import UnknownPolicy, UsageError
from flexray.sim.gavel import Course, GavelResult, isolated, policy_by_name, run, simulate_gavel
from flexray.sim.gavel_las import solve
from flexray.sim.gavel_policies import Moment
from flexray.sim.gavel_setting import ROUND, Setting
from flexray.sim.gavel_trace import Load, draw_load, read_load, read_throughputs

A, B = "A (batch size 1)", "B (batch size 2)"
#: On a V100 every job does a step a second.
TRACE = """job_id,arrival_s,job_type,scale_factor,total_steps,duration_on_v100_s
0,0.000,A (batch size 1),1,1800,1800
1,0.000,B (batch size 2),1,1800,1800
2,100.0,A (batch size 1),1,3600,3600
3,400.0,B (batch size 2),1,720,720
"""


def table() -> dict[str, Any]:
    """A needs a V100, B does well anywhere; beside each other half of A is left and all of B."""

    def rows(a: float, b: float) -> dict[str, Any]:
        key_a, key_b = f"('{A}', 1)", f"('{B}', 1)"
        return {
            key_a: {"null": a, key_a: [0.2 * a, 0.2 * a], key_b: [0.5 * a, b]},
            key_b: {"null": b, key_a: [b, 0.5 * a]},
            f"('{A}', 2)": {"null": 2 * a},
        }

    return {"v100": rows(1.0, 1.0), "p100": rows(0.5, 0.9), "k80": rows(0.1, 0.8)}


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    trace, throughputs = tmp_path / "trace.csv", tmp_path / "throughputs.json"
    trace.write_text(TRACE)
    throughputs.write_text(json.dumps(table()))
    return trace, throughputs


def drawn(jobs: int = 500, rate: float = 4.0, seed: int = 3) -> Load:
    """Jobs of 8 minutes to 40 hours on a V100: a load that keeps 18 devices busy at 4 an hour."""
    rates = np.array([[2.0, 1.0, 0.3], [5.0, 4.0, 3.0], [0.1, 0.09, 0.02], [1.0, 0.5, 0.5]])
    load = draw_load(rates, rate, jobs, seed)
    return Load(load.arrival, load.job_class, load.steps / 4, load.rates, jobs)


HOUR = 3600.0
SMALL = Setting((6, 6, 6), (60, 120))


@pytest.fixture(scope="module")
def results() -> dict[str, GavelResult]:
    load = drawn()
    alone = isolated(load, SMALL)
    return {policy: run(load, policy, SMALL, alone=alone) for policy in ("rounds", "rounds-learnt", "las")}


def test_files_are_read(files: tuple[Path, Path]) -> None:
    throughputs = read_throughputs(files[1])
    assert throughputs.names == (A, B)  # on one device
    assert throughputs.alone.tolist() == [[1.0, 0.5, 0.1], [1.0, 0.9, 0.8]]
    assert throughputs.beside[1].tolist() == [[0.2, 0.5], [1.0, 0.0]]  # B beside B does not fit
    load = read_load(files[0], throughputs, 8.0, go_on=False)
    assert load.arrival.tolist() == [0.0, 0.0, 50.0, 200.0]  # twice the rate
    assert load.job_class.tolist() == [0, 1, 0, 1]
    more = read_load(files[0], throughputs, 8.0, seed=1)
    assert more.given == 4 < len(more.steps)
    assert np.diff(more.arrival[4:]).mean() == pytest.approx(450, rel=0.05)
    assert (more.steps[4:] / more.rates[more.job_class[4:], 0] >= 60 * 10**1.5).all()


def test_every_job_on_its_own_device(files: tuple[Path, Path]) -> None:
    result = simulate_gavel(*files, cluster=(2, 1, 1), measure=(0, 4))
    # at 0 s A and B begin on V100; at 360 s the other A takes that of B, which goes on a P100 with 1,440 steps left,
    # and at 720 s the last job begins on the K80; all end in the middle of rounds
    ends = [1800, 360 + 1440 / 0.9, 360 + 3600, 720 + 720 / 0.8]
    completion = np.array(ends) - [0, 0, 100, 400]
    assert result.mean_completion_hours == pytest.approx(completion.mean() / 3600, abs=0.03)
    assert result.makespan_hours == pytest.approx(3960 / 3600)
    assert result.longest_wait_hours == pytest.approx(320 / 3600)
    assert result.moves >= 1
    assert not result.extended


def test_a_move_costs_what_the_setting_says(files: tuple[Path, Path]) -> None:
    load = read_load(files[0], read_throughputs(files[1]), 4.0, go_on=False)
    free, dear = (run(load, "rounds", Setting((2, 1, 1), (0, 4), move_cost=cost)) for cost in (0.0, 300.0))
    assert dear.moves <= free.moves
    assert dear.mean_completion_hours > free.mean_completion_hours


def test_one_job_alone_is_as_fast_as_the_device(files: tuple[Path, Path]) -> None:
    load = read_load(files[0], read_throughputs(files[1]), 4.0, go_on=False)
    first = Load(load.arrival[:1], load.job_class[:1], load.steps[:1], load.rates, 1)
    setting = Setting((1, 1, 1), (0, 1))
    result = run(first, "rounds", setting)
    assert result.max_completion_hours == pytest.approx(0.5)
    # a third of each type would take 1,800 s / (1.6 / 3)
    assert isolated(first, setting) == pytest.approx([3375.0])
    assert result.finish_time_fairness_mean == result.isolated_fairness_mean == pytest.approx(1800 / 3375)


def test_rounds_beat_gavels_policy_and_move_less(results: dict[str, GavelResult]) -> None:
    rounds, las = results["rounds"], results["las"]
    assert rounds.mean_completion_hours < las.mean_completion_hours
    assert rounds.finish_time_fairness_mean < las.finish_time_fairness_mean
    assert rounds.moves < las.moves / 5


def test_learning_costs_little(results: dict[str, GavelResult]) -> None:
    told, learnt = results["rounds"], results["rounds-learnt"]
    assert learnt.mean_completion_hours == pytest.approx(told.mean_completion_hours, rel=0.05)
    assert learnt != told


def test_patience_bounds_what_a_job_waits_at_once() -> None:
    load, setting = drawn(rate=6.0), Setting((4, 4, 4))
    course = Course(load, setting, policy_by_name("rounds", load, setting))
    there = [course.step(turn * ROUND) for turn in range(300)]
    assert there[-1] > 2 * 12
    assert HOUR < course.gap.max() <= HOUR + 6 * ROUND


def test_the_same_run_gives_the_same_bytes(files: tuple[Path, Path]) -> None:
    def text(**options: Any) -> str:
        return simulate_gavel(*files, cluster=(1, 1, 0), rate=2.0, measure=(1, 3), **options).to_json()

    assert text() == text()
    learnt = text(known=False)
    assert learnt == text(known=False)
    values = json.loads(learnt)
    assert values["policy"] == "rounds-learnt"
    assert values["measured"] == [1, 3]
    assert values["extended"] is True
    assert {"mean_completion_hours", "p99_completion_hours", "makespan_hours", "finish_time_fairness_mean"} <= set(
        values
    )


def test_progress_is_told(files: tuple[Path, Path]) -> None:
    told: list[tuple[float, float]] = []
    simulate_gavel(*files, measure=(0, 4), progress=lambda done, of: told.append((done, of)))
    assert told[-1] == (4, 4)


def test_the_linear_program_shares_by_speed() -> None:
    rates = np.array([[1.0, 0.5], [1.0, 1.0]])
    share = solve(rates, np.array([1, 1]), np.array([1.0, 1.0]))
    assert share[0] == pytest.approx([1.0, 0.0], abs=1e-6)
    assert share[1] == pytest.approx([0.0, 1.0], abs=1e-6)
    crowd = solve(rates[:1], np.array([4]), np.array([1.0, 1.0]))
    assert crowd == pytest.approx(np.array([[0.25, 0.25]]))


def test_scipy_is_not_imported_before_it_is_used() -> None:
    code = "import sys, flexray.sim.gavel; sys.exit('scipy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0


def test_without_scipy_the_baseline_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def refuse(name: str, *args: Any, **options: Any) -> Any:
        if name.startswith("scipy"):
            raise ImportError(name)
        return real(name, *args, **options)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(UsageError, match="pip install scipy"):
        solve(np.ones((1, 1)), np.array([1]), np.array([1.0]))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"measure": (3, 3)}, "3:3"),
        ({"measure": (0, 9)}, "0:9 of 4"),
        ({"cluster": (1, 1)}, "36:36:36"),
        ({"rate": 0.0}, "--rate"),
        ({"policy": "las", "known": False}, "--throughputs-known"),
    ],
)
def test_wrong_options(files: tuple[Path, Path], options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        simulate_gavel(*files, **{"measure": (0, 4), **options})


def test_an_unknown_policy(files: tuple[Path, Path]) -> None:
    with pytest.raises(UnknownPolicy, match="rounds-learnt"):
        simulate_gavel(*files, measure=(0, 4), policy="round")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("3,400.0,B (batch size 2),1", "3,400.0,B (batch size 2),2", "line 5: asks for 2 devices"),
        ("3,400.0,B (batch size 2)", "3,400.0,C", "line 5: 'C' has no throughputs"),
        ("3,400.0,", "3,50.0,", "order of arrival"),
        ("total_steps", "steps", "no column 'total_steps'"),
    ],
)
def test_a_wrong_trace(files: tuple[Path, Path], old: str, new: str, message: str) -> None:
    files[0].write_text(TRACE.replace(old, new))
    with pytest.raises(UsageError, match=message):
        simulate_gavel(*files, measure=(0, 4))


@pytest.mark.parametrize("wrong", ["[]", "{", '{"v100": {}, "p100": {}}', '{"v100": {}, "p100": {}, "k80": {}}'])
def test_a_wrong_table(files: tuple[Path, Path], wrong: str) -> None:
    files[1].write_text(wrong)
    with pytest.raises(UsageError, match=str(files[1].name)):
        simulate_gavel(*files, measure=(0, 4))


def test_a_cluster_that_never_keeps_up() -> None:
    load = drawn(60, 50.0)
    endless = Load(load.arrival, load.job_class, load.steps, load.rates, 50)
    with pytest.raises(UsageError, match="too small"):
        run(endless, "rounds", Setting((1, 0, 0), (0, 50)))


def test_a_policy_sees_who_is_there() -> None:
    seen: list[Moment] = []

    class First:
        def place(self, moment: Moment) -> Any:
            seen.append(moment)
            return np.where(np.arange(moment.jobs.size) < 1, 0, -1)

        def saw(self, classes: Any, kinds: Any, rates: Any) -> None:
            pass

    load = Load(np.array([0.0, 10.0]), np.array([0, 0]), np.array([400.0, 100.0]), np.ones((1, 3)), 2)
    course = Course(load, Setting((1, 0, 0), (0, 2)), First())
    assert [course.step(turn * ROUND) for turn in range(4)] == [1, 2, 1, 0]
    assert course.finish.tolist() == [400.0, 820.0]
    assert [one.changed for one in seen] == [True, True, True]
    assert seen[1].done.tolist() == [360.0, 0.0]
    assert seen[1].idle_since[1] == 10.0
