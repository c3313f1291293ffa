"""The terminal's side of the demo: the progress bars, the table, and the sentences under it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from flexray.demo.measure import Side

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress
    from rich.table import Table

    from flexray.demo import DemoResult

_SMALL_GAIN = 1.2
"""A p95 that is better by less than this factor is called small."""


def progress_bars(console: Console) -> Progress:
    """A bar per phase, with counts and seconds; redrawn seldom, because the cores are busy serving."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    return Progress(*columns, console=console, refresh_per_second=4)


def phase(bars: Progress, title: str, total: int, *, later: bool = False) -> Callable[[], None]:
    """Add a bar; calling what is returned moves it on by one. Its clock starts now, or at the first call."""
    bar = bars.add_task(title, total=total, start=not later)

    def advance() -> None:
        bars.start_task(bar)
        bars.advance(bar)

    return advance


def print_result(result: DemoResult, console: Console) -> None:
    """The table, what it means, and where the timeline is."""
    console.print(_models(result))
    console.print(_figures(result))
    for line in sentences(result):
        console.print(line, highlight=False)
    console.print(f"Timeline of who held which device when: {result.timeline}", highlight=False, soft_wrap=True)


def _models(result: DemoResult) -> Table:
    from rich.table import Table

    table = Table(title="Six models, trained here on scikit-learn's digits")
    table.add_column("model")
    for title in ("test accuracy", "file", "requests"):
        table.add_column(title, justify="right")
    for model in result.models:
        asked = sum(answer.model == model.name for answer in result.slices.answers)
        table.add_row(
            f"{model.name} ({model.kind})", f"{model.accuracy:.1%}", f"{model.size / 1e3:,.0f} kB", str(asked)
        )
    return table


def _figures(result: DemoResult) -> Table:
    from rich.table import Table

    whole, slices = result.whole, result.slices
    arrivals = f"{result.requests} requests at {result.rate:g}/s, seed {result.seed}, {len(whole.devices)} devices"
    table = Table(title=arrivals, min_width=76)
    table.add_column("")
    table.add_column(whole.title, justify="right")
    table.add_column(slices.title, justify="right")
    for title, figure in ROWS:
        table.add_row(title, figure(whole), figure(slices))
    table.add_row("answers as expected", *(f"{right} of {result.requests}" for right in result.right))
    return table


def milliseconds(seconds: float) -> str:
    """A latency, with enough digits to compare."""
    return f"{seconds * 1e3:,.0f} ms" if seconds >= 0.1 else f"{seconds * 1e3:.1f} ms"


ROWS: tuple[tuple[str, Callable[[Side], str]], ...] = (
    ("requests served per second", lambda side: f"{side.per_second:.1f}"),
    ("latency p50", lambda side: milliseconds(side.latency(0.50))),
    ("latency p95", lambda side: milliseconds(side.latency(0.95))),
    ("answered within 100 ms", lambda side: f"{side.within(0.1):.1%}"),
    ("model loads", lambda side: str(side.loads)),
    ("  of them during the stream", lambda side: str(len(side.swaps))),
    ("device time in use by model calls", lambda side: f"{side.in_use:.1%}"),
    ("device time waiting for a swap", lambda side: f"{side.swapping:.1%}"),
    ("one model call, mean", lambda side: milliseconds(side.call)),
    ("loading before the stream", lambda side: f"{side.setup:.1f} s"),
    ("first arrival to last answer", lambda side: f"{side.wall:.1f} s"),
)
"""Title and figure of each line of the table, in order."""


def sentences(result: DemoResult) -> list[str]:
    """What the figures say, in plain words; a gain that is small, or none, is called that."""
    whole, slices = result.whole, result.slices
    same = "the same on both sides" if result.same_answers else "NOT the same on both sides"
    return [
        _gain(whole.latency(0.95), slices.latency(0.95)),
        *_where_from(whole, slices),
        f"Served per second cannot exceed the arrivals ({result.rate:g}/s on average). What slices cost: models on one "
        f"device share its cores (one call takes {milliseconds(slices.call)} as slices, {milliseconds(whole.call)} "
        f"with a device to itself), and all six are in memory at once. The answers are {same}.",
    ]


def _gain(whole: float, slices: float) -> str:
    """Of two p95 latencies in seconds."""
    factor = whole / slices if slices else 1.0
    if factor >= _SMALL_GAIN:
        return f"As slices, p95 latency is {factor:,.1f} times lower here."
    if factor >= 1:
        return f"The gain is small here: p95 latency is only {factor:.2f} times lower as slices."
    return f"There is no gain here: p95 latency is {slices / whole if whole else 1:.2f} times higher as slices."


def _where_from(whole: Side, slices: Side) -> list[str]:
    swaps = whole.swaps
    if not swaps:
        return []
    parts = [(h.started - h.asked, h.imported - h.started, h.ready - h.imported) for h in swaps]
    process, libraries, model = (sum(seconds) / len(swaps) for seconds in zip(*parts, strict=True))
    return [
        f"Where that comes from: with whole devices, {len(swaps)} swaps during the stream kept devices waiting for "
        f"{whole.swapping:.0%} of their time. A swap took {process + libraries + model:.2f} s on average: "
        f"{process:.2f} s to replace the process, {libraries:.2f} s to import libraries, {model:.2f} s to load the "
        f"model and warm it up. (Models this small load fast: a server written to keep its process and change models "
        f"inside it would save the first two.) Slices loaded {slices.loads} models before the stream, none during it."
    ]
