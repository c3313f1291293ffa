"""Kill everything, again and again: is anything lost, run beside the books, or left behind, and how soon does it go on?

    python benchmarks/chaos.py [--quick] [--kills N] [--seed N] [--json FILE]

A local Ray cluster of three nodes with two fake devices each, a stream of tasks (a tenth with large results), actors
and gangs, and a seeded sequence of real kills (SIGKILL): slices, node agents, the scheduler, whole nodes; every fifth
time two at once. What really ran comes from a file that each call writes its start and end into; what is alive, from
/proc.

- lost: Futures that are not done at the end, failed although infrastructure failures are repeated, or have a wrong
  result. A call of an actor whose slice was lost gets LeaseLost, as documented: it is counted, and made again.
- duplicated: Futures that were done more than once. (Calls that ran to their end twice are shown, too: effects happen
  at least once.)
- over-committed: samples in which the living processes of a device held more than all of it together.
- leaked: shares, slices, processes and waiting requests that are left when all work is done.

Seconds until it goes on: from the kill to the first of the interrupted calls that starts again; for the scheduler, to
the start of a task of a new kind that is submitted right after the kill, which needs a new slice. Kills of a settled
pool are counted apart from those that fall into the recovery from another.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import threading
import time
from collections import defaultdict
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

os.environ.setdefault("RAY_AUTH_MODE", "disabled")

from chaos_kills import KINDS, Kill, Killer
from chaos_work import Log, Stream, alive, line_of, note
from rich.console import Console
from rich.table import Table

import flexray as flex
from flexray.runtime.processes import MARK

TARGETS = {"slice": 2.0, "agent": 5.0, "scheduler": 5.0, "node": 3.0}
"""Seconds until work goes on; for a node, after Ray has noticed."""
NOTHING, WITHOUT = "nothing", 5
"""What a task of a new kind takes without a kill, so often: the other side of a kill of the scheduler."""
GO_ON_SECONDS = 60.0
PAUSES = (0.5, 6.0)
"""Seconds between work being on again and the next kill: the short ones fall into the rest of a recovery."""
CONFIG = {"warm_seconds": 2.0, "linger_seconds": 0.2, "poll_seconds": 0.5, "grace_seconds": 1.0}


@dataclass(frozen=True)
class GoneOn:
    """A kill, and after how many seconds work went on; None: not within a minute, or nothing ran there.

    ``settled``: no slice was being started when it came; else slices of the last recovery were, with all the
    processor time that it takes. ``waits``: of one that timed out, the calls, and what waits in the pool and why.
    """

    kind: str
    seconds: float | None
    settled: bool
    noticed: float | None = None
    timed_out: bool = False
    waits: list[str] = field(default_factory=list)


class Watch(threading.Thread):
    """Looks twenty times a second how much of each device the living processes hold."""

    def __init__(self, log: Log) -> None:
        super().__init__(daemon=True)
        self._log = log
        self.samples = 0
        self.over: list[dict[str, int]] = []
        self.stopping = threading.Event()

    def run(self) -> None:
        """Until stopped."""
        while not self.stopping.wait(0.05):
            held: dict[str, int] = defaultdict(int)
            latest = {line.pid: line for line in self._log.look()}
            for pid, line in latest.items():
                if alive(pid, line.at):
                    for device in line.devices:
                        held[device] += line.share
            self.samples += 1
            if any(share > 1000 for share in held.values()):
                self.over.append(dict(held))


def probe(log: str, call: str) -> None:
    """A task of a kind of its own."""
    note(log, call, "start")


def settled() -> bool:
    """Is no slice being started, and no other kill at work?"""
    return all(piece.state != "starting" for piece in flex.pool().slices)


def wait_until_on(kill: Kill, log: Log, stream: Stream, calm: bool) -> GoneOn:
    """How long until work goes on; ``calm``: whether the pool was settled before the kill."""
    wanted = set(map(line_of, kill.interrupted))
    if kill.kind in ("scheduler", NOTHING):
        call = f"probe-{kill.at}"
        flex.task(gpu=0.125, memory="1MiB", retries=20, timeout=GO_ON_SECONDS + kill.at % 1)(probe).remote(
            str(log.path), call
        )
        wanted = {call}
    noticed = None
    while wanted:
        lines = log.look()
        started = [x.at for x in lines if x.event == "start" and x.at > kill.at and line_of(x.call) in wanted]
        if kill.kind == "node" and noticed is None and not _alive_for_ray(kill.node):
            noticed = time.time() - kill.at
        if started and (kill.kind != "node" or noticed is not None):
            return GoneOn(kill.kind, min(started) - kill.at, calm, noticed)
        done = {
            x.call for x in lines if x.event == "end" and (was := kill.interrupted.get(x.call)) and was.pid == x.pid
        }
        if kill.interrupted and all(call in done or is_over(call, stream) for call in kill.interrupted):
            break  # they had just ended, there or in another place: nothing was interrupted
        if time.time() >= kill.at + GO_ON_SECONDS:
            waits = [f"{request.id} {request.asked}: {request.wait_reason}" for request in flex.pool().waiting]
            return GoneOn(kill.kind, None, calm, noticed, True, sorted(wanted) + waits)
        time.sleep(0.02)
    return GoneOn(kill.kind, None, calm, noticed)


def is_over(call: str, stream: Stream) -> bool:
    """Whether a call has its result; of an actor what counts is that its next one starts."""
    return not call.startswith("step") and call.split(".")[0] not in stream.open


def _alive_for_ray(node: str) -> bool:
    import ray

    return any(one["NodeID"] == node and one["Alive"] for one in ray.nodes())


def left_behind(seconds: float) -> list[str]:
    """What is left of the work once all is done and warm slices have ended."""
    found: list[str] = []
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        now = flex.pool()
        found = [f"{d.id} holds {d.share_held:g}" for d in now.devices if d.share_held]
        found += [f"slice {s.id} is {s.state}" for s in now.slices]
        found += [f"{now.waiting} wait, {now.running} run"] if now.waiting or now.running else []
        found += [f"process {pid}" for pid in _slice_processes()]
        if not found:
            break
        time.sleep(0.2)
    return found


def _slice_processes() -> list[int]:
    """Processes of slices of this cluster, by the mark in their environment."""
    ours = f"RAY_TMPDIR={os.environ['RAY_TMPDIR']}".encode()
    pids = []
    for path in Path("/proc").iterdir():
        if path.name.isdigit() and alive(int(path.name)):
            try:
                environment = (path / "environ").read_bytes().split(b"\0")
            except OSError:
                continue
            if ours in environment and any(v.startswith(MARK.encode() + b"=") for v in environment):
                pids.append(int(path.name))
    return pids


def run(kills: int, seed: int, directory: str) -> dict[str, Any]:
    """The whole benchmark in a directory of its own; returns its figures."""
    os.environ["RAY_TMPDIR"] = directory
    log = Log(Path(directory) / "calls.jsonl")
    killer = Killer(log, seed)
    flex.init(config=CONFIG)
    stream = Stream(str(log.path), seed, retries=50)
    watch = Watch(log)
    begun = time.time()
    gone_on: list[GoneOn] = []
    try:
        watch.start()
        stream.begin()
        for _ in range(WITHOUT):
            time.sleep(PAUSES[1])
            gone_on.append(wait_until_on(Kill(NOTHING, time.time(), {}), log, stream, settled()))
        for number, kind in enumerate(killer.sequence(kills)):
            time.sleep(killer.pause(*PAUSES))
            calm = settled()
            if number % 5 == 4:  # two at once
                two = [killer.kill(kind), killer.kill("slice")]
                gone_on += [wait_until_on(one, log, stream, calm=False) for one in two]
            else:
                gone_on.append(wait_until_on(killer.kill(kind), log, stream, calm))
            print(f"\r{number + 1} of {kills} kills, {stream.done} calls done", end="", flush=True)
        print()
        stream.finish(120)
        leaked = left_behind(30)
    finally:
        watch.stopping.set()
        flex.shutdown()
        killer.close()
    return figures(stream, watch, gone_on, leaked, log, time.time() - begun)


def figures(
    stream: Stream, watch: Watch, gone_on: list[GoneOn], leaked: list[str], log: Log, seconds: float
) -> dict[str, Any]:
    """What is printed, and written with --json."""
    ended: dict[str, int] = defaultdict(int)
    for line in log.look():
        ended[line.call] += line.event == "end"
    return {
        "seconds": seconds,
        "kills": len(gone_on) - WITHOUT,
        "calls": stream.submitted,
        "lost": len(stream.open) + len(stream.wrong),
        "duplicated": sum(1 for count in stream.resolved.values() if count > 1),
        "over_committed": len(watch.over),
        "leaked": len(leaked),
        "samples": watch.samples,
        "actor_calls_lost_as_documented": stream.lost_by_actors,
        "ran_to_the_end_twice": sum(1 for count in ended.values() if count > 1),
        "never_went_on": sum(one.timed_out for one in gone_on),
        "what": {"open": sorted(stream.open), "wrong": stream.wrong, "leaked": leaked, "over": watch.over[:3]},
        "gone_on": [asdict(one) for one in gone_on],
        "seconds_until_on": {
            kind: {
                "settled": _summary(kind, [one for one in gone_on if one.settled]),
                "amid another recovery": _summary(kind, [one for one in gone_on if not one.settled]),
            }
            for kind in (*KINDS, NOTHING)
        },
    }


def _summary(kind: str, gone_on: list[GoneOn]) -> dict[str, float | int]:
    """Of a node, the time after Ray noticed is what has a target."""
    those = [one for one in gone_on if one.kind == kind and one.seconds is not None]
    times = [one.seconds for one in those if one.seconds is not None]
    if not times:
        return {"count": 0}
    found: dict[str, float | int] = {"count": len(times), "median": statistics.median(times), "worst": max(times)}
    after = [one.seconds - one.noticed for one in those if one.seconds is not None and one.noticed is not None]
    if after:
        found |= {"median_after_noticed": statistics.median(after), "worst_after_noticed": max(after)}
    return found


def show(result: dict[str, Any]) -> None:
    """The tables."""
    console = Console()
    table = Table("killed", "when", "times", "on again: median s", "worst s", "target s", box=None)
    for kind, by_state in result["seconds_until_on"].items():
        for state, found in by_state.items():
            _add_rows(table, kind, state, found)
    console.print(table)
    for name in ("lost", "duplicated", "over_committed", "leaked", "never_went_on"):
        console.print(f"{name.replace('_', '-')}: {result[name]}")
    console.print(
        f"{result['calls']} calls, {result['kills']} kills in {result['seconds']:.0f} s; {result['samples']} samples; "
        f"{result['actor_calls_lost_as_documented']} calls of actors ended in LeaseLost and were made again; "
        f"{result['ran_to_the_end_twice']} calls ran to their end more than once"
    )
    for name, found in result["what"].items():
        if found:
            console.print(f"{name}: {found}")


def _add_rows(table: Table, kind: str, state: str, found: dict[str, float | int]) -> None:
    target = f"{TARGETS[kind]:g}" if kind in TARGETS else ""
    if not found["count"]:
        table.add_row(kind, state, "0", "", "", target)
        return
    row = [f"{found['median']:.2f}", f"{found['worst']:.2f}"]
    if "median_after_noticed" in found:
        table.add_row(kind, state, str(found["count"]), *row, "")
        row = [f"{found['median_after_noticed']:.2f}", f"{found['worst_after_noticed']:.2f}"]
        table.add_row("", "  after Ray noticed", "", *row, target)
    else:
        table.add_row(kind, state, str(found["count"]), *row, target)


def main() -> None:
    """Parse the command line, run, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="8 kills, under a minute")
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="fxk", dir="/tmp") as directory:
        result = run(8 if arguments.quick else arguments.kills, arguments.seed, directory)
    show(result)
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
