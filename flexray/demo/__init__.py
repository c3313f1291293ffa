"""The demo: six small real models on two devices, served first the usual way and then as slices.

``run`` does all of it; the command line calls it. Everything it prints was measured in
that run.
"""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import flexray as flex
from flexray.demo.measure import Side
from flexray.demo.models import NAMES, Trained, TrainedModel, check_installed, train
from flexray.demo.stream import Arrival, make_stream
from flexray.errors import UsageError, WaitTimeout

if TYPE_CHECKING:
    from rich.console import Console

_Served = tuple[Trained, tuple[Arrival, ...], Side, Side]

DEVICES = 2
"""CPU stand-ins the demo runs on."""
_SIDE_SECONDS = 120.0
"""A side that takes longer has hung; it ends with an error rather than never."""


@dataclass(frozen=True, slots=True)
class DemoResult:
    """Both sides of one run.

    Attributes:
        seed: fixed the models and the stream.
        requests: length of the stream.
        rate: its mean arrivals per second.
        models: what was served.
        whole, slices: what was measured, the usual way and as slices.
        right: answers equal to the local model's: (whole, slices).
        same_answers: whether both sides answered each request the same.
        seconds: the whole run, training and starting Ray included.
        timeline: path of the HTML page.
    """

    seed: int
    requests: int
    rate: float
    models: tuple[TrainedModel, ...]
    whole: Side
    slices: Side
    right: tuple[int, int]
    same_answers: bool
    seconds: float
    timeline: Path

    def as_dict(self) -> dict[str, Any]:
        """The figures, for JSON; names carry the units."""
        return {
            "seed": self.seed,
            "requests": self.requests,
            "rate_per_second": self.rate,
            "devices": len(self.slices.devices),
            "models": [
                {"name": m.name, "kind": m.kind, "test_accuracy": round(m.accuracy, 4), "bytes": m.size}
                for m in self.models
            ],
            "whole": {**self.whole.as_dict(), "answers_right": self.right[0]},
            "slices": {**self.slices.as_dict(), "answers_right": self.right[1]},
            "same_answers": self.same_answers,
            "seconds": round(self.seconds, 1),
            "timeline": str(self.timeline),
        }


def run(
    out: Path, *, seed: int = 1, requests: int = 240, rate: float = 30.0, console: Console | None = None
) -> DemoResult:
    """Train, serve both ways on a Ray of its own, print both sides, and write ``timeline.html``.

    Args:
        out: directory for the page; made where missing.
        seed: the same seed gives the same models and the same requests.
        requests: length of the stream.
        rate: mean arrivals per second, of all models together.
        console: where progress and results are printed; default standard output.

    Raises:
        UsageError: scikit-learn is missing, or an argument makes no sense.
    """
    if requests < 1 or rate <= 0:
        raise UsageError(f"requests={requests} must be 1 or more, and rate={rate:g} above 0")
    check_installed()
    from rich.console import Console as RichConsole

    from flexray.demo.report import print_result
    from flexray.demo.timeline import write_timeline

    began = time.monotonic()
    shown = console or RichConsole()
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="flexray-demo-") as folder:
        trained, stream, whole, slices = _serve_both(Path(folder), seed, requests, rate, shown)
    seconds = time.monotonic() - began
    same = [answer.label for answer in whole.answers] == [answer.label for answer in slices.answers]
    right = (_right(whole, stream, trained), _right(slices, stream, trained))
    page = (out / "timeline.html").resolve()
    result = DemoResult(seed, requests, rate, trained.models, whole, slices, right, same, seconds, page)
    write_timeline(result)
    print_result(result, shown)
    return result


def _serve_both(folder: Path, seed: int, requests: int, rate: float, shown: Console) -> _Served:
    from flexray.demo.report import phase, progress_bars
    from flexray.demo.serve import Slices, WholeDevices

    with progress_bars(shown) as bars:
        trained = train(folder, seed, phase(bars, "train the models", len(NAMES)))
        stream = make_stream(seed, requests, rate, NAMES, len(trained.images))
        started = phase(bars, "start a local Ray and the pool", 1)
        try:
            flex.init("local", config={"cpu_devices": DEVICES})
            started()
            answered = phase(bars, "serve: whole devices", requests)
            whole = asyncio.run(_bounded(WholeDevices(trained, answered, DEVICES).serve(stream)))
            loaded = phase(bars, "load all six on slices", len(NAMES))
            answered = phase(bars, "serve: slices", requests, later=True)
            slices = asyncio.run(_bounded(Slices(trained, answered, loaded).serve(stream)))
        finally:
            flex.shutdown()
    return trained, stream, whole, slices


async def _bounded(serving: Coroutine[Any, Any, Side]) -> Side:
    try:
        return await asyncio.wait_for(serving, _SIDE_SECONDS)
    except asyncio.TimeoutError:
        raise WaitTimeout(f"the requests were not all served after {_SIDE_SECONDS:g} s") from None


def _right(side: Side, stream: tuple[Arrival, ...], trained: Trained) -> int:
    """How many answers are what the model, asked here, said of the same image."""
    expected = {model.name: model.expected for model in trained.models}
    return sum(answer.label == expected[answer.model][stream[answer.number].image] for answer in side.answers)
