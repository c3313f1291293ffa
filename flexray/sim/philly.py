"""Jobs of the virtual clusters of Philly, as Gavel has them: one team each, in their own time.

Gavel (Narayanan et al., OSDI 2020; stanford-futuredata/gavel, MIT) turned the jobs of Microsoft's
Philly trace (Jeon et al., USENIX ATC 2019) into its own kinds of jobs: ``traces/msr`` has a file for each
virtual cluster, with arrivals, numbers of devices, and steps. A job takes its steps / (steps a second on so
many V100) seconds; where that was not measured for its number of devices, those of one device count.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flexray.errors import UsageError
from flexray.sim.gavel_trace import read_table

DAY = 86_400.0

_KIND, _STEPS, _ARRIVAL, _DEVICES, _COLUMNS = 0, 4, 5, 6, 7


@dataclass(frozen=True, slots=True)
class TeamJob:
    """One job of a team: when it comes (seconds), how many devices it takes, and for how many seconds."""

    team: str
    kind: str
    came: float
    devices: int
    seconds: float


def read_busiest_days(folder: Path, most_devices: int, clip: float) -> list[TeamJob]:
    """The jobs that came on the busiest day of each team, as if it were one day, in order of arrival.

    Args:
        folder: with ``simulation_throughputs.json``, and a file of each team in ``msr``.
        most_devices: a job that asks for more is so many jobs of that many, and one of the rest.
        clip: no job takes longer, in seconds.
    """
    rates = read_table(folder / "simulation_throughputs.json")["v100"]
    files = sorted((folder / "msr").glob("*.trace"))
    if not files:
        raise UsageError(f"{folder / 'msr'}: has no files *.trace")
    jobs = [job for path in files for job in _busiest_day(path, rates, clip)]
    pieces = [
        TeamJob(job.team, job.kind, job.came, size, job.seconds)
        for job in sorted(jobs, key=lambda job: (job.came, job.team))
        for size in _pieces(job.devices, most_devices)
    ]
    return pieces


def _busiest_day(path: Path, rates: Mapping[str, Any], clip: float) -> list[TeamJob]:
    team = path.name.split(".")[0]
    jobs = [_job(line.split("\t"), team, rates, clip, f"{path}, line {n}") for n, line in enumerate(_lines(path), 1)]
    counts = Counter(int(job.came // DAY) for job in jobs)
    day = min(counts, key=lambda day: (-counts[day], day))
    return [
        TeamJob(team, job.kind, job.came - day * DAY, job.devices, job.seconds)
        for job in jobs
        if job.came // DAY == day
    ]


def _lines(path: Path) -> list[str]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"cannot read {path}: {error}") from None
    if not lines:
        raise UsageError(f"{path}: has no jobs")
    return lines


def _job(cells: list[str], team: str, rates: Mapping[str, Any], clip: float, where: str) -> TeamJob:
    if len(cells) != _COLUMNS:
        raise UsageError(f"{where}: has {len(cells)} columns; {_COLUMNS} are needed, with tabs between")
    kind = cells[_KIND]
    try:
        steps, came, devices = float(cells[_STEPS]), float(cells[_ARRIVAL]), int(cells[_DEVICES])
    except ValueError as error:
        raise UsageError(f"{where}: {error}; steps, arrival and devices must be numbers") from None
    measured = rates.get(str((kind, devices))) or rates.get(str((kind, 1)))
    if measured is None:
        raise UsageError(f"{where}: {kind!r} has no throughput on a v100")
    return TeamJob(team, kind, came, devices, min(clip, steps / float(measured["null"])))


def _pieces(devices: int, most: int) -> list[int]:
    whole, rest = divmod(devices, most)
    return [most] * whole + [rest] * (rest > 0)
