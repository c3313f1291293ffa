"""Gavel's continuous experiment on single GPUs: jobs come for ever, some in the middle are measured.

Rounds of 360 s on a cluster of V100, P100 and K80 (Narayanan et al., OSDI 2020, section
7; the trace and the throughputs in ``gavel_trace``). A job keeps what it has done
when it is moved; a move costs nothing unless ``move_cost`` says so, as in Gavel's simulation.

Policies: ``rounds`` (``core.rounds``, told the throughputs), ``rounds-learnt`` (the same,
learning them from the rounds by ``rates``), ``las`` (Gavel's own, ``gavel_las``), and
``core`` and ``core-learnt``: the whole core, as in the live pool (``gavel_core``).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from flexray.core.rounds import WAITING, Options
from flexray.errors import UnknownPolicy, UsageError
from flexray.sim.gavel_core import play
from flexray.sim.gavel_las import Las
from flexray.sim.gavel_policies import LearntRounds, Moment, Policy, Rounds
from flexray.sim.gavel_setting import ROUND, Played, Setting, refuse_endless
from flexray.sim.gavel_trace import Floats, Ints, Load, read_load, read_throughputs
from flexray.sim.reading import did_you_mean

POLICIES = ("rounds", "rounds-learnt", "core", "core-learnt", "las")

#: by policy, whether the core has to learn the throughputs.
_OF_THE_CORE = {"core": False, "core-learnt": True}

_HOUR = 3600.0

Progress = Callable[[float, float], None]
"""Told (done, of how many) measured jobs."""


@dataclass(frozen=True, slots=True)
class GavelResult:
    """What became of the measured jobs. Completion is from arrival to the end."""

    version: int
    policy: str
    cluster: tuple[int, ...]
    measured: tuple[int, int]
    mean_completion_hours: float
    p50_completion_hours: float
    p99_completion_hours: float
    max_completion_hours: float
    makespan_hours: float
    """From the first arrival to the last end."""
    finish_time_fairness_mean: float
    """Completion against that on 1/n of every type, n the mean number of jobs while it was there (Themis, NSDI 2020);
    above 1: it would have fared better alone on its share."""
    finish_time_fairness_worst: float
    isolated_fairness_mean: float
    """Completion against that in a cluster where every job always has 1/n of every type (Gavel's measure)."""
    isolated_fairness_worst: float
    longest_wait_hours: float
    """For the first device."""
    longest_gap_hours: float
    """Without a device, at once, first wait included."""
    moves: int
    """Of all jobs in the run: a job that had begun starts on another type, or again after waiting."""
    mean_jobs: float
    """Jobs there at a time, over the run."""
    extended: bool
    """Whether drawn jobs, beyond the trace's, came before the last measured job was done."""

    def to_json(self) -> str:
        """Stable names and bytes."""
        rounded = {key: round(value, 6) if isinstance(value, float) else value for key, value in asdict(self).items()}
        return json.dumps(rounded, indent=2)


class Course:
    """What has become of every job so far. ``step`` plays one round."""

    def __init__(self, load: Load, setting: Setting, policy: Policy) -> None:
        jobs = load.arrival.size
        self._load, self._setting, self._policy = load, setting, policy
        self._done = np.zeros(jobs)
        self._place = np.full(jobs, WAITING, dtype=np.int64)
        self._idle_since = load.arrival.copy()
        self._there = np.zeros(0, dtype=np.int64)
        self._moved = np.zeros(0, dtype=np.int64)
        self._ended = False
        self.arrived = 0
        self.finish = np.full(jobs, np.nan)
        self.first_start = np.full(jobs, np.nan)
        self.gap = np.zeros(jobs)
        """Longest time without a device."""
        self.moves = 0

    def step(self, now: float) -> int:
        """Arrivals, one decision, 360 s of work. How many jobs were there."""
        arrived = int(np.searchsorted(self._load.arrival, now, side="right"))
        changed = self._ended or arrived > self.arrived
        self._there = np.concatenate([self._there, np.arange(self.arrived, arrived)])
        self.arrived, self._ended = arrived, False
        jobs = self._there
        if jobs.size:
            moment = Moment(now, jobs, self._place[jobs], self._idle_since[jobs], self._done[jobs], changed)
            place = self._policy.place(moment)
            self._move(now, jobs, place)
            self._work(now, jobs[place >= 0])
        return int(jobs.size)

    def _move(self, now: float, jobs: Ints, place: Ints) -> None:
        old = self._place[jobs]
        starts = jobs[(place >= 0) & (old < 0)]
        self.gap[starts] = np.maximum(self.gap[starts], now - self._idle_since[starts])
        self.first_start[starts] = np.where(np.isnan(self.first_start[starts]), now, self.first_start[starts])
        self._idle_since[jobs[(place < 0) & (old >= 0)]] = now
        self._place[jobs] = place
        self._moved = jobs[(place >= 0) & (place != old) & (self._done[jobs] > 0)]
        self.moves += self._moved.size

    def _work(self, now: float, jobs: Ints) -> None:
        classes, kinds = self._load.job_class[jobs], self._place[jobs]
        rate = self._load.rates[classes, kinds]
        lost = np.where(np.isin(jobs, self._moved), self._setting.move_cost, 0.0)
        need = (self._load.steps[jobs] - self._done[jobs]) / rate + lost
        self._done[jobs] += rate * (ROUND - lost)
        over = need <= ROUND
        self.finish[jobs[over]] = now + need[over]
        self._policy.saw(classes, kinds, rate)
        if over.any():
            self._there = self._there[np.isnan(self.finish[self._there])]
            self._ended = True


def policy_by_name(name: str, load: Load, setting: Setting) -> Policy:
    """The policy of that name."""
    options = Options(move_cost=setting.move_cost)
    if name == "rounds":
        return Rounds(load, setting.slots, options)
    if name == "rounds-learnt":
        return LearntRounds(load, setting.slots, options, setting.noise, setting.seed)
    if name == "las":
        return Las(load, setting.slots)
    raise UnknownPolicy(f"no policy {name!r}: {', '.join(POLICIES)}.{did_you_mean(name, POLICIES)}")


def run(
    load: Load, policy: str, setting: Setting, progress: Progress = lambda done, of: None, alone: Floats | None = None
) -> GavelResult:
    """Run until the measured jobs are done.

    Args:
        alone: ``isolated`` of the same load and setting, if it is known already.
    """
    if setting.measure[1] > load.given:
        raise UsageError(f"jobs {setting.measure[0]}:{setting.measure[1]} of {load.given} cannot be measured")
    many = float(setting.measure[1] - setting.measure[0])
    if policy in _OF_THE_CORE:
        played = play(load, setting, _OF_THE_CORE[policy], lambda done: progress(float(done), many))
    else:
        played = _in_rounds(load, policy, setting, lambda done: progress(float(done), many))
    if alone is None:
        alone = isolated(load, setting)
    return _result(policy, load, setting, played, alone)


def _in_rounds(load: Load, policy: str, setting: Setting, progress: Callable[[int], None]) -> Played:
    """Round by round, until the measured jobs are done."""
    measured = slice(*setting.measure)
    course = Course(load, setting, policy_by_name(policy, load, setting))
    there: list[int] = []
    while np.isnan(course.finish[measured]).any():
        refuse_endless(load, course.arrived)
        there.append(course.step(len(there) * ROUND))
        progress(int((~np.isnan(course.finish[measured])).sum()))
    return Played(course.finish, course.first_start, course.gap, course.moves, np.array(there))


def isolated(load: Load, setting: Setting) -> Floats:
    """Completion times (s) of the measured jobs if every job always had 1/n of every type, n the jobs there."""
    measured = slice(*setting.measure)
    total = load.rates @ np.asarray(setting.slots, dtype=np.float64)
    done, finish = np.zeros(load.arrival.size), np.full(load.arrival.size, np.nan)
    there = np.zeros(0, dtype=np.int64)
    arrived = turn = 0
    while np.isnan(finish[measured]).any():
        refuse_endless(load, arrived)
        now = turn * ROUND
        more = int(np.searchsorted(load.arrival, now, side="right"))
        there = np.concatenate([there, np.arange(arrived, more)])
        arrived = more
        rate = total[load.job_class[there]] / max(there.size, sum(setting.slots))
        need = (load.steps[there] - done[there]) / rate
        done[there] += rate * ROUND
        finish[there[need <= ROUND]] = (now + need)[need <= ROUND]
        there = there[need > ROUND]
        turn += 1
    completion: Floats = (finish - load.arrival)[measured]
    return completion


def simulate_gavel(
    trace: Path,
    throughputs: Path,
    cluster: Sequence[int] = (36, 36, 36),
    rate: float = 4.0,
    measure: tuple[int, int] = (4000, 5000),
    policy: str = "rounds",
    known: bool = True,
    seed: int = 0,
    progress: Progress = lambda done, of: None,
) -> GavelResult:
    """The experiment on Gavel's files.

    Args:
        rate: jobs an hour.
        known: whether the policy is told the throughputs; ``rounds`` without them is ``rounds-learnt``, ``core``
            is ``core-learnt``.
        seed: of the jobs after the trace, and of the noise of what is measured.
    """
    if not known and policy == "las":
        raise UsageError("the policy 'las' cannot learn; it needs the throughputs (--throughputs-known)")
    setting = Setting(tuple(cluster), measure, seed=seed)
    table = read_throughputs(throughputs)
    load = read_load(trace, table, rate, seed=seed)
    if measure[1] == load.given:  # nothing comes after the measured jobs: the cluster drains
        load = read_load(trace, table, rate, go_on=False)
    learns = f"{policy}-learnt"
    return run(load, learns if not known and learns in POLICIES else policy, setting, progress)


def _result(policy: str, load: Load, setting: Setting, played: Played, alone: Floats) -> GavelResult:
    measured = slice(*setting.measure)
    arrival, finish = load.arrival[measured], played.finish[measured]
    completion = finish - arrival
    share = completion / _on_a_share(load, setting, finish, played.there)
    hours = completion / _HOUR
    return GavelResult(
        version=1,
        policy=policy,
        cluster=setting.slots,
        measured=setting.measure,
        mean_completion_hours=float(hours.mean()),
        p50_completion_hours=float(np.median(hours)),
        p99_completion_hours=float(np.percentile(hours, 99)),
        max_completion_hours=float(hours.max()),
        makespan_hours=float(finish.max() - arrival.min()) / _HOUR,
        finish_time_fairness_mean=float(share.mean()),
        finish_time_fairness_worst=float(share.max()),
        isolated_fairness_mean=float((completion / alone).mean()),
        isolated_fairness_worst=float((completion / alone).max()),
        longest_wait_hours=float((played.first_start[measured] - arrival).max()) / _HOUR,
        longest_gap_hours=float(played.gap[measured].max()) / _HOUR,
        moves=played.moves,
        mean_jobs=float(played.there.mean()),
        extended=bool(finish.max() > load.arrival[load.given - 1]) and load.arrival.size > load.given,
    )


def _on_a_share(load: Load, setting: Setting, finish: Floats, there: Ints) -> Floats:
    """Seconds that each measured job takes alone on 1/n of every type, n the mean number of jobs during its life."""
    measured = slice(*setting.measure)
    integral = np.concatenate([[0.0], np.cumsum(there)])
    begin = np.minimum((load.arrival[measured] / ROUND).astype(np.int64), there.size - 1)
    end = np.maximum(np.minimum(np.ceil(finish / ROUND).astype(np.int64), there.size), begin + 1)
    present = (integral[end] - integral[begin]) / (end - begin)
    slots = np.asarray(setting.slots, dtype=np.float64)
    rate = (load.rates[load.job_class[measured]] @ slots) / np.maximum(present, slots.sum())
    seconds: Floats = load.steps[measured] / rate
    return seconds
