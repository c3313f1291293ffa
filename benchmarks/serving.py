"""Eight models on two devices: whole devices that swap, slices that keep all, slices that park; bursts of a real trace.

    python benchmarks/serving.py [--quick] [--data DIR] [--objective SECONDS] [--rate PER_SECOND] [--json FILE]

Arrivals are those of the Azure LLM code trace of 2023 (``DIR/azure_llm/AzureLLMInferenceTrace_code.csv``, or the file
in DIR itself; Azure/AzurePublicDataset, CC-BY-4.0), its time pressed together to a mean of --rate; longer answers are
more passes through the model. Without --data the excerpt of the tests is repeated, whose figures mean little. The trace
names no models: they are drawn, with popularities 1, 1/2, 1/3, ...

All of it really runs, one way after the other, on two CPU devices of this machine (each has half of its cores):

- whole: plain Ray, an actor on each device that holds one model of the eight; one that is asked for is loaded when a
  device has nothing left to do for its own, the longest waiting first. Its process and torch stay, only weights change;
- slices: flexray, all eight loaded, each on a quarter of a device, ``(0.25, 1.0)``: what others leave idle is lent;
- parking: ``flex.serving``'s store of models, each on ``(0.3, 1.0)``; one that idles lets go of its weights and
  keeps 0.01 of the device, so that more are served than are loaded.

Processes and torch are there before the clock starts, in all three.

A request is met when its answer is back within --objective. How many devices 99 % would need is not to be found on
one machine: it is simulated, on the trace's own pace, its lengths and ``serving_trace.py``'s model of an A100, for
eight models without swapping and parking, which the simulator does not know.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("RAY_AUTH_MODE", "disabled")

import ray
from rich.console import Console
from rich.table import Table
from serving_models import MOST_PASSES, Loaded, write_models
from serving_trace import EXCERPT, SHARES, Case, Load, fewest, trace_in

import flexray as flex
from flexray.demo.measure import Answer, Hold, Side, percentile
from flexray.demo.models import Trained
from flexray.demo.serve import ModelServer, Resident, Slices, WholeDevices
from flexray.demo.stream import Arrival
from flexray.model.amounts import share_as_float
from flexray.serving.declared import model
from flexray.serving.shelf import Shelf
from flexray.sim.azure import read_calls
from flexray.sim.replicas import Call
from flexray.sim.serving_options import objective_of

MODELS, DEVICES = 8, 2
TOKENS_PER_PASS = 32
SLICE = (0.25, 1.0)
PARKING = (0.3, 1.0)
IDLE_SECONDS = 0.5
FEW = 500
"""Calls that are read with --quick."""
SEED = 1


@dataclass(frozen=True)
class Row:
    """One way; times in seconds. Loads: models read from their files, or brought back, while the requests came."""

    way: str
    requests: int
    met_percent: float
    p50: float
    p95: float
    p99: float
    loads: int
    unparked: int


class SwappingDevice:
    """A whole device of plain Ray: holds one model, and loads another in its place."""

    def __init__(self, name: str) -> None:
        self._name = name

    def load(self, module: str, path: str, example: int) -> tuple[str, float, float, float]:
        """Swap a model in."""
        self._server: ModelServer | None = None
        self._server = ModelServer(module, path, example)
        return self._name, *self._server.times

    def predict(self, image: int) -> tuple[int, float, float]:
        """One request."""
        assert self._server is not None
        return self._server.predict(image)


class Swapping(WholeDevices):
    """Whole devices of plain Ray."""

    def __init__(self, trained: Trained) -> None:
        super().__init__(trained, lambda: None, DEVICES)
        device = ray.remote(num_cpus=0, resources={"device": 1})(SwappingDevice)
        self._free = [device.remote(f"device{number}") for number in range(DEVICES)]
        self._devices = list(self._free)

    async def _load(self, name: str) -> Resident:
        asked, found, handle = time.monotonic(), self._trained[name], self._free.pop()
        times = await handle.load.remote(found.module, str(found.path), self._images[0])  # unbounded: a benchmark
        device, started, imported, ready = times
        return Resident(handle, Hold(name, device, 1, asked, started, imported, ready, 0.0))

    def _release(self, resident: Resident) -> None:
        super()._release(resident)
        self._free.append(resident.handle)

    def _stop(self, handle: Any) -> None:
        """The device stays, for the next model."""

    def close(self) -> None:
        """Give the devices back."""
        for device in self._devices:
            ray.kill(device)


class Parking:
    """The models of an endpoint, which are parked when they idle."""

    def __init__(self, trained: Trained) -> None:
        self._trained, self._answers = trained, list[Answer]()
        room: dict[str, Any] = {"accelerator": PARKING, "memory": "1GiB"}
        self._shelf = Shelf(
            [
                model(
                    one.name, Loaded, args=(str(one.path),), idle_seconds=IDLE_SECONDS, max_ongoing_requests=64,
                    parked={"accelerator": 0.01, "memory": "1GiB"}, **room,
                )
                for one in trained.models
            ]
        )  # fmt: skip

    async def serve(self, stream: Sequence[Arrival]) -> tuple[list[Answer], int, int]:
        """The answers, how many models were loaded anew, and how many brought back, meanwhile."""
        names = [one.name for one in self._trained.models]
        for first in range(0, len(names), DEVICES * 3):
            await asyncio.gather(
                *(self._shelf.call(name, "predict", (1,), {}) for name in names[first:][: DEVICES * 3])
            )
            await asyncio.sleep(3 * IDLE_SECONDS)
        before, start, asked = self._counts(), time.monotonic(), list[asyncio.Task[None]]()
        for arrival in stream:
            await asyncio.sleep(max(0.0, start + arrival.at - time.monotonic()))
            asked.append(asyncio.ensure_future(self._ask(arrival, start)))
        await asyncio.gather(*asked)
        loads, unparked = (after - at_first for after, at_first in zip(self._counts(), before, strict=True))
        self._shelf.close()
        return self._answers, loads, unparked

    async def _ask(self, arrival: Arrival, start: float) -> None:
        passes = self._trained.images[arrival.image]
        label = await self._shelf.call(arrival.model, "predict", (passes,), {})
        now = time.monotonic() - start
        self._answers.append(Answer(arrival.number, arrival.model, "", label, arrival.at, now, now, now))

    def _counts(self) -> tuple[int, int]:
        records = self._shelf.store.records.values()
        return sum(one.cold_starts for one in records), sum(one.unparked for one in records)


def stream_of(calls: Sequence[Call], seconds: float, rate: float, names: Sequence[str]) -> tuple[Arrival, ...]:
    """The calls' arrivals, repeated if they are too few, at a mean rate; models are drawn by popularity."""
    draw, count = random.Random(SEED), max(1, round(seconds * rate))
    span = (calls[-1].at - calls[0].at) / (len(calls) - 1) * len(calls)
    weights = [1 / (1 + number) for number in range(len(names))]
    stream = []
    for number in range(count):
        turns, place = divmod(number, len(calls))
        at = (calls[place].at - calls[0].at + turns * span) / span * len(calls) / rate
        passes = min(1 + calls[place].generated // TOKENS_PER_PASS, MOST_PASSES)
        stream.append(Arrival(number, at, draw.choices(names, weights)[0], passes - 1))
    return tuple(stream)


def row(way: str, answers: Sequence[Answer], loads: int, unparked: int, objective: float) -> Row:
    """The figures of one way. Every answer must be of the model that was asked."""
    wrong = [answer for answer in answers if answer.model != f"model{answer.label}"]
    if wrong:
        raise SystemExit(f"{way}: {len(wrong)} answers are of another model than was asked")
    latencies = [answer.latency for answer in answers]
    met = 100 * sum(one <= objective for one in latencies) / len(latencies)
    p50, p95, p99 = (round(percentile(latencies, part), 4) for part in (0.5, 0.95, 0.99))
    return Row(way, len(latencies), round(met, 2), p50, p95, p99, loads, unparked)


def measure(trained: Trained, stream: Sequence[Arrival], objective: float) -> list[Row]:
    """The three ways on the same requests."""
    swapping = Swapping(trained)
    whole: Side = asyncio.run(swapping.serve(stream))
    swapping.close()
    rows = [row("whole", whole.answers, len(whole.swaps), 0, objective)]
    flex.init(config={"cpu_devices": DEVICES, "warm_seconds": 0, "linger_seconds": 0.05})
    slices = asyncio.run(Slices(trained, lambda: None, lambda: None, SLICE).serve(stream))
    rows.append(row("slices", slices.answers, len(slices.swaps), 0, objective))
    rows.append(row("parking", *asyncio.run(parked(trained, stream)), objective))
    flex.shutdown()
    return rows


async def parked(trained: Trained, stream: Sequence[Arrival]) -> tuple[list[Answer], int, int]:
    """The third way; its store belongs to one event loop."""
    return await Parking(trained).serve(stream)


def simulated(calls: Sequence[Call]) -> dict[str, dict[str, int | None]]:
    """Cards that 99 % of the trace's calls need, by how decoding grows with a share, and by the share of a model."""
    load, cards = Load(calls, objective_of(None)), dict[str, dict[str, int | None]]()
    for case in (Case("proportional", {}, MODELS), Case("saturating", {"saturation": 0.25}, MODELS)):
        found = {share: fewest(case, share, load) for share in SHARES}
        cards[case.name] = {f"{share_as_float(s):g}": one[0] if one is not None else None for s, one in found.items()}
    return cards


def show(rows: Sequence[Row], cards: dict[str, dict[str, int | None]], objective: float, rate: float) -> None:
    """Print the figures."""
    console = Console(width=150)
    title = (
        f"{rows[0].requests} requests, {rate:g} a second, {MODELS} models on {DEVICES} devices, met in {objective:g} s"
    )
    made = Table(title=title, title_justify="left", box=None)
    for column in ("way", "met %", "p50, ms", "p95, ms", "p99, ms", "loads", "brought back"):
        made.add_column(column)
    for one in rows:
        times = (f"{1e3 * value:.0f}" for value in (one.p50, one.p95, one.p99))
        made.add_row(one.way, f"{one.met_percent:.1f}", *times, str(one.loads), str(one.unparked))
    console.print(made)
    for case, counts in cards.items():
        each = ", ".join(f"{count} in slices of {share}" for share, count in counts.items())
        console.print(f"simulated, cards for 99 % of the trace's calls to {MODELS} models, {case}: {each}")


def main() -> None:
    """Run the three ways and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="6 seconds of requests instead of 40")
    parser.add_argument("--data", type=Path, help="folder with azure_llm/ in it")
    parser.add_argument("--objective", type=float, default=0.5, help="seconds until an answer is back")
    parser.add_argument("--rate", type=float, default=10.0, help="requests a second, on average")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    options = parser.parse_args()
    calls = read_calls(trace_in(options.data) if options.data else EXCERPT, first=FEW if options.quick else None)
    console, start = Console(width=150), time.perf_counter()
    cards = simulated(calls)
    console.print(f"[dim]simulated: {time.perf_counter() - start:.0f} s[/dim]", highlight=False)
    ray.init(num_cpus=8, resources={"device": DEVICES}, include_dashboard=False, log_to_driver=False)
    with tempfile.TemporaryDirectory() as folder:
        trained = write_models(Path(folder), MODELS)
        names = [one.name for one in trained.models]
        stream = stream_of(calls, 6 if options.quick else 40, options.rate, names)
        rows = measure(trained, stream, options.objective)
    ray.shutdown()
    show(rows, cards, options.objective, options.rate)
    if not options.data:
        Console().print("the excerpt of the tests: give --data for figures that mean something")
    if options.json:
        out = {"version": 1, "objective_seconds": options.objective, "rate": options.rate}
        ways = {one.way: asdict(one) for one in rows}
        options.json.write_text(json.dumps({**out, "ways": ways, "cards_simulated": cards}, indent=2) + "\n")


if __name__ == "__main__":
    main()
