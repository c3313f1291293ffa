"""Two teams on one node: one has borrowed everything, the other asks for what it was promised. How long does it wait?

    python benchmarks/two_teams.py [--quick] [--json FILE]

A local Ray cluster of one node with four fake devices, two promised to each team. Four tasks of the first hold all of
them; after they have run for longer than the minimum run time, the second team asks for its two. Measured from just
before ``.remote()`` to the first line of the second of its two tasks. The victims yield at once (they call
``checkpoint()`` at each of their steps of 20 ms, which ends them when they are asked), or ignore it: they checkpoint
once, early, and never look again, so that they are stopped after ``grace_seconds``. The bars: 2 s, and the grace
period + 2 s. Victims go on from their checkpoints; the result of each is compared with that of a plain loop.

The journal of the scheduler says where the time goes, for the task that began last: until it is told of the request,
until the leases in its way are over, until the slices that held the devices have ended, until its own has started,
and until the first line runs.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("RAY_AUTH_MODE", "disabled")

import ray
from rich.console import Console
from rich.table import Table

import flexray as flex

GRACE = 1.0
STEP_SECONDS = 0.02
STEPS = 300
MIN_RUN = 1.5
"""Seconds that all victims have run before the other team asks: the minimum run time is 1 s."""

PHASES = ("told", "leases over", "room free", "slice started", "first line")


@dataclass(frozen=True)
class Round:
    """One time that the other team asked: seconds until its tasks ran, the last one's by phase; what became of victims.

    Attributes:
        resumed: how many attempts of victims began at a checkpoint.
        right: whether all their results are.
    """

    first: float
    last: float
    phases: dict[str, float]
    resumed: int
    right: bool


@dataclass(frozen=True)
class Row:
    """All rounds with one kind of victims, in seconds."""

    victims: str
    bar: float
    rounds: int
    median: float
    p90: float
    worst: float
    within: int
    """Rounds within the bar."""
    phases: dict[str, float]
    """Medians."""
    resumed: int
    right: bool
    each: list[float]


def stepped(value: int) -> int:
    """One step of work, whose result depends on every step before."""
    return (value * 6364136223846793005 + 1442695040888963407) % 2**64


def borrow(log: str, listens: bool) -> int:
    """Work of the first team: writes to a file at which step it begins."""
    here = flex.current()
    step, value = here.restored or (0, 1)
    with Path(log).open("a") as file:
        file.write(f"{step}\n")
    while step < STEPS:
        time.sleep(STEP_SECONDS)
        step, value = step + 1, stepped(value)
        if listens or step == 10:
            here.checkpoint((step, value))
    return value


def promised() -> float:
    """Work of the second team: when it began."""
    begun = time.time()
    time.sleep(0.2)
    return begun


def until(holds: Callable[[], Any], seconds: float = 60.0) -> None:
    """Wait until something is so."""
    deadline = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > deadline:
            raise SystemExit(f"not within {seconds:g} s; the pool: {flex.pool()}")
        time.sleep(0.02)


def play(folder: Path, number: int, listens: bool, right: int) -> Round:
    """The second team asks once."""
    log = folder / f"round-{listens}-{number}"
    log.touch()
    journal = folder / "journal"
    borrowing = flex.task(gpu=1, queue="a", request=flex.Request(preemptible=True, checkpoint_every=1.0))(borrow)
    asking = flex.task(gpu=1, queue="b")(promised)
    victims = [borrowing.remote(str(log), listens) for _ in range(4)]
    until(lambda: len(log.read_text().split()) == 4)
    time.sleep(MIN_RUN)
    asked = time.time()
    tasks = [asking.remote() for _ in range(2)]
    begun = sorted(flex.get(tasks, timeout=60))
    values = flex.get(victims, timeout=120)
    resumed = sum(int(step) > 0 for step in log.read_text().split()[4:])
    phases = phases_of(journal, asked, begun[-1])
    return Round(begun[0] - asked, begun[-1] - asked, phases, resumed, values == [right] * 4)


def entries(journal: Path, since: float) -> Iterator[tuple[float, dict[str, Any]]]:
    """(time, event or command) of a journal from a time on."""
    for line in journal.read_text().splitlines():
        entry = json.loads(line)
        for message in [entry["event"]] if "event" in entry else entry["commands"]:
            if entry["now"] >= since:
                yield entry["now"], message


def phases_of(journal: Path, asked: float, begun: float) -> dict[str, float]:
    """What the time of the task that began last went into."""
    here = [(at, message) for at, message in entries(journal, asked) if at <= begun]

    def last(before: float, *kinds: str, **fields: str) -> float:
        fitting = (
            at
            for at, one in here
            if one["kind"] in kinds and at <= before and all(one.get(name) == value for name, value in fields.items())
        )
        return max(fitting, default=asked)

    granted = [message["lease"]["slice"] for _, message in here if message["kind"] == "GrantLease"]
    started = last(begun, "SliceStarted", slice=granted[-1])
    room = last(started, "StartSlice", slice=granted[-1])
    over = last(room, "LeaseYielded", "RevokeLease")
    told = min(at for at, message in here if message["kind"] == "RequestSubmitted")
    marks = (asked, told, max(told, over), room, started, begun)
    return {name: after - before for name, before, after in zip(PHASES, marks, marks[1:], strict=False)}


def measure(folder: Path, listens: bool, rounds: int) -> Row:
    """So many rounds."""
    right = 1
    for _ in range(STEPS):
        right = stepped(right)
    played = [play(folder, number, listens, right) for number in range(rounds)]
    each = sorted(one.last for one in played)
    bar = 2.0 if listens else GRACE + 2.0
    return Row(
        "yield at once" if listens else "ignore it",
        bar,
        rounds,
        statistics.median(each),
        each[max(0, -(-9 * rounds // 10) - 1)],
        each[-1],
        sum(one <= bar for one in each),
        {name: statistics.median(one.phases[name] for one in played) for name in PHASES},
        sum(one.resumed for one in played),
        all(one.right for one in played),
        [one.last for one in played],
    )


def show(rows: list[Row]) -> Table:
    """For a terminal."""
    table = Table(title="seconds from asking to the first line of the second task", title_justify="left", box=None)
    for column in ("victims", "bar", "median", "p90", "worst", "within", *PHASES, "resumed", "results"):
        table.add_column(column, no_wrap=True)
    for row in rows:
        table.add_row(
            row.victims,
            f"{row.bar:g}",
            *(f"{value:.2f}" for value in (row.median, row.p90, row.worst)),
            f"{row.within} of {row.rounds}",
            *(f"{row.phases[name]:.2f}" for name in PHASES),
            str(row.resumed),
            "right" if row.right else "WRONG",
        )
    return table


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="3 rounds of each instead of 12")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    options = parser.parse_args()
    rounds = 3 if options.quick else 12
    with tempfile.TemporaryDirectory(prefix="fxt", dir="/tmp") as name:
        folder = Path(name)
        ray.init(num_cpus=8, include_dashboard=False, log_to_driver=False, logging_level="error", _temp_dir=f"{name}/r")
        queues = [{"name": "a", "quota": 2}, {"name": "b", "quota": 2}]
        journal = str(folder / "journal")
        flex.init(config={"fake_devices": "4xA100-80GB", "grace_seconds": GRACE, "queues": queues, "journal": journal})
        rows = [measure(folder, listens, rounds) for listens in (True, False)]
        flex.shutdown()
        ray.shutdown()
    Console(width=max(150, Console().width)).print(show(rows))
    if options.json:
        options.json.write_text(json.dumps({"version": 1, "rows": [asdict(row) for row in rows]}, indent=2) + "\n")


if __name__ == "__main__":
    main()
