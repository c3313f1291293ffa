"""Reports: the results of runs as a page of plots."""

from __future__ import annotations

from collections.abc import Sequence

from flexray.sim.openb import OpenbResult
from flexray.sim.openb_timed import TimedResult
from flexray.sim.page import page, table
from flexray.sim.plots import Bar, Series, bar_plot, line_plot
from flexray.sim.result import Result, TypeResult
from flexray.sim.serving_result import ServingResult
from flexray.sim.sheets import comparison_sheets, openb_sheets, serving_sheets, timed_sheets

_ROWS, _BARS = 64, 4000


def results_page(results: Sequence[Result]) -> str:
    """Waits, completion times, use over time and who held what, for one policy or several."""
    sections = [("Summary", table(comparison_sheets(results)[0]))]
    waits = [Series(run.policy, _cumulative(_waits(run))) for run in results]
    label = "seconds from arrival to start"
    sections.append(("Waiting time", line_plot("waiting time", label, "% of starts", waits, steps=True)))
    spans = [Series(run.policy, _cumulative(_completions(run))) for run in results]
    label = "seconds from arrival to end"
    sections.append(("Completion time", line_plot("completion time", label, "% of requests done", spans, steps=True)))
    for run in results:
        name = f" ({run.policy})" if len(results) > 1 else ""
        sections.append((f"Devices held by type{name}", _use_plot(run.types, run.end)))
        sections.append((f"Who held what{name}", _holders(run)))
    return page("Simulation", sections)


def openb_page(results: Sequence[OpenbResult]) -> str:
    """Allocation and fragments over arrived demand."""
    first = results[0]
    demand = "arrived GPU demand, % of the GPUs"
    allocated = [Series(one.policy, _curve(one.mean.allocated)) for one in results]
    fragments = [Series(one.policy, _curve(one.mean.fragmented)) for one in results]
    return page(
        f"openb: {first.devices} GPUs on {first.nodes} nodes, mean of {len(first.seeds)} seeds",
        [
            ("Summary", table(openb_sheets(results)[0])),
            ("Allocated", line_plot("allocated", demand, "% of the GPUs", allocated)),
            ("Fragments", line_plot("fragments", demand, "% of the GPUs", fragments)),
        ],
    )


def timed_page(results: Sequence[TimedResult]) -> str:
    """The timed replay: waits and use over time."""
    sections = [("Summary", table(timed_sheets(results)[0]))]
    sections += [(f"Devices held by type ({one.policy})", _use_plot(one.types, one.end)) for one in results]
    return page("openb, creation and deletion times replayed", sections)


def serving_page(results: Sequence[ServingResult]) -> str:
    """Serving: who met the objective, and how long calls took."""
    curves = [
        Series(f"{one.policy}, {one.share:g} of a card", [(at, float(p)) for p, at in sorted(one.percentiles.items())])
        for one in results
    ]
    (summary,) = serving_sheets(results)
    label = "seconds from arrival to the last token"
    plot = line_plot("latency", label, "% of the calls served", curves, steps=True)
    return page("Serving", [(summary[0], table(summary)), ("Latency", plot)])


def _curve(values: dict[int, float]) -> list[tuple[float, float]]:
    return [(float(at), value) for at, value in sorted(values.items())]


def _waits(run: Result) -> list[float]:
    return [one.attempts[0].start - one.submitted for one in run.requests if one.attempts]


def _completions(run: Result) -> list[float]:
    last = [(one, one.attempts[-1]) for one in run.requests if one.attempts and one.state.value == "done"]
    return [attempt.end - one.submitted for one, attempt in last if attempt.end is not None]


def _cumulative(values: list[float]) -> list[tuple[float, float]]:
    ordered = sorted(values)
    return [(0.0, 0.0), *((value, 100 * (n + 1) / len(ordered)) for n, value in enumerate(ordered))]


def _use_plot(types: Sequence[TypeResult], end: float) -> str:
    series = []
    for one in types:
        points = [(0.0, 0.0), *((use.at, use.devices) for use in one.use)]
        series.append(Series(f"{one.type} (of {one.devices})", [*points, (end, points[-1][1])]))
    return line_plot("devices held", "time, s", "devices held", series, steps=True)


def _holders(run: Result) -> str:
    bars = [
        Bar(
            device,
            attempt.start,
            run.end if attempt.end is None else attempt.end,
            attempt.share,
            request.class_,
            f"{request.id}, attempt {attempt.attempt}: {attempt.share:g} of {device}, "
            f"{attempt.start:g} s to {'the end' if attempt.end is None else f'{attempt.end:g} s'}",
        )
        for request in run.requests
        for attempt in request.attempts
        for device in attempt.devices
    ]
    rows = sorted({bar.row for bar in bars})
    shown = set(rows[:_ROWS])
    note = f"<p>The first {_ROWS} of {len(rows)} devices.</p>" if len(rows) > _ROWS else ""
    kept = [bar for bar in bars if bar.row in shown][:_BARS]
    note += f"<p>The first {_BARS} attempts.</p>" if len(kept) == _BARS else ""
    return note + bar_plot("who held what", rows[:_ROWS], kept, run.end)
