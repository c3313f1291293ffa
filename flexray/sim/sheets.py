"""Results as plain tables for terminals: (title, columns, rows). Drawing them is the command line's."""

from __future__ import annotations

from collections.abc import Sequence

from flexray.sim.gavel import GavelResult
from flexray.sim.journal import ReplayResult
from flexray.sim.openb import OpenbResult
from flexray.sim.openb_load import LoadResult
from flexray.sim.openb_timed import TimedResult
from flexray.sim.result import Distribution, Result
from flexray.sim.serving_result import ServingResult

Sheet = tuple[str, Sequence[str], Sequence[Sequence[str]]]
_ROWS = 40


def result_sheets(result: Result) -> list[Sheet]:
    """A run: what became of each request, and how much each type was used."""
    rows = []
    for request in result.requests[:_ROWS]:
        last = request.attempts[-1] if request.attempts else None
        rows.append(
            [
                request.id,
                request.state.value,
                request.wait_reason or "",
                f"{request.submitted:g}",
                f"{last.start:g}" if last else "",
                f"{last.end:g}" if last and last.end is not None else "",
                ", ".join(last.devices) if last else "",
                str(len(request.attempts)),
            ]
        )
    more = len(result.requests) - _ROWS
    title = f"policy {result.policy}, {result.end:g} s" + (
        f" (the first {_ROWS} of {more + _ROWS})" if more > 0 else ""
    )
    columns = ("request", "state", "waits for", "arrived", "start", "end", "devices", "attempts")
    types = [
        [use.type, str(use.devices), f"{use.held_seconds:g}", f"{100 * use.utilisation:.1f} %"] for use in result.types
    ]
    sheets: list[Sheet] = [(title, columns, rows)]
    sheets.append(("device types", ("type", "devices", "held device-seconds", "utilisation"), types))
    sheets += comparison_sheets([result])
    return sheets


def comparison_sheets(runs: Sequence[Result]) -> list[Sheet]:
    """Several runs side by side."""
    columns = ("policy", "done", "not done", "wait mean / p99", "completion mean / p99", "utilisation", "lost")
    rows = []
    for run in runs:
        counts = run.summary.requests
        done = sum(count for state, count in counts.items() if state.value == "done")
        offered = sum(use.device_seconds for use in run.types)
        held = sum(use.held_seconds for use in run.types)
        rows.append(
            [
                run.policy,
                str(done),
                str(sum(counts.values()) - done),
                _spread(run.summary.wait),
                _spread(run.summary.completion),
                f"{100 * held / offered:.1f} %" if offered else "-",
                f"{run.summary.lost_seconds:g} s",
            ]
        )
    return [("summary", columns, rows)]


def replay_sheets(result: ReplayResult) -> list[Sheet]:
    """Whether a journal replays, and where it does not."""
    verdict = "the same commands" if result.same else f"{result.different} cycles decide otherwise"
    rows = [[result.policy, str(result.events), str(result.cycles), verdict]]
    sheets: list[Sheet] = [("replay", ("policy", "events", "cycles", "outcome"), rows)]
    if result.differences:
        sheets.append(("differences", ("cycle",), [[line] for line in result.differences]))
    return sheets


def openb_sheets(results: Sequence[OpenbResult]) -> list[Sheet]:
    """Allocated and fragmented GPUs, in per cent of the GPUs there are, by arrived demand."""
    columns = ("arrived %", *(f"{one.policy}: {what}" for one in results for what in ("allocated %", "fragments %")))
    places = sorted({at for one in results for at in one.mean.allocated})
    rows = []
    for at in [at for at in places if at % 10 == 0 or at == places[-1]]:
        pairs = ((one.mean.allocated.get(at), one.mean.fragmented.get(at)) for one in results)
        rows.append([str(at), *("-" if value is None else f"{value:.2f}" for pair in pairs for value in pair)])
    first = results[0]
    title = f"{first.devices} GPUs on {first.nodes} nodes, {first.tasks} tasks, mean of {len(first.seeds)} seeds"
    return [(title, columns, rows)]


def timed_sheets(results: Sequence[TimedResult]) -> list[Sheet]:
    """Waits and use of the timed replay."""
    columns = ("policy", "waited", "wait mean / p99", "longest wait", "infeasible", "utilisation")
    rows = []
    for one in results:
        offered = sum(use.device_seconds for use in one.types)
        used = sum(use.held_seconds for use in one.types)
        rows.append(
            [
                one.policy,
                f"{one.waited} of {one.tasks}",
                _spread(one.wait),
                "-" if one.wait.max is None else f"{one.wait.max:g} s",
                str(one.infeasible),
                f"{100 * used / offered:.1f} %" if offered else "-",
            ]
        )
    return [("creation and deletion times replayed", columns, rows)]


def serving_sheets(results: Sequence[ServingResult]) -> list[Sheet]:
    """Calls met, shares and policies side by side."""
    columns = ("policy", "share", "replicas", "cards", "met", "per card", "per card-hour", "p50 / p99", "used")
    rows = [
        [
            one.policy,
            f"{one.share:g}",
            f"{one.placed}" if one.placed == one.replicas else f"{one.placed} of {one.replicas}",
            f"{one.cards}",
            f"{one.met_percent:.2f} %",
            f"{one.met_per_card:.1f}",
            f"{one.met_per_card_hour:.1f}",
            "-" if one.latency.p50 is None else f"{one.latency.p50:.3g} / {one.latency.p99:.3g} s",
            f"{100 * one.utilisation:.1f} %",
        ]
        for one in results
    ]
    first, aim = results[0], results[0].objective
    title = f"{first.calls} calls, met in {aim.base:g} s + {aim.per_token:g} s per generated token"
    return [(title, columns, rows)]


def load_sheets(results: Sequence[LoadResult]) -> list[Sheet]:
    """Waits and allocation under a load, a row per policy and order of arrival."""
    columns = ("policy", "order", "waited", "wait mean / p99, h", "allocation", "infeasible", "makespan, h")
    rows = [
        [
            one.policy,
            "trace" if one.seed is None else f"seed {one.seed}",
            f"{one.waited:,} of {one.arrived:,}",
            f"{(one.wait.mean or 0) / 3600:.3f} / {(one.wait.p99 or 0) / 3600:.3f}",
            f"{one.allocation:.2f} %",
            str(one.infeasible),
            f"{one.end / 3600:.2f}",
        ]
        for one in results
    ]
    first = results[0]
    title = (
        f"load {first.load:g} on {first.devices} GPUs, lives clipped at {first.clip:g} s ({first.clipped:,} were)"
        f"{', tasks drawn again once the trace is used up (arrivals_exhausted)' if first.arrivals_exhausted else ''}"
    )
    return [(title, columns, rows)]


def _spread(values: Distribution) -> str:
    return "-" if values.mean is None else f"{values.mean:g} / {values.p99:g} s"


def gavel_sheets(results: Sequence[GavelResult]) -> list[Sheet]:
    """Gavel's experiment: a row per policy, hours."""
    columns = ("policy", "mean", "p50", "p99", "longest", "makespan", "fairness", "worst", "wait", "gap", "moves")
    rows = [
        [
            r.policy,
            *(
                f"{hours:.2f}"
                for hours in (
                    r.mean_completion_hours,
                    r.p50_completion_hours,
                    r.p99_completion_hours,
                    r.max_completion_hours,
                    r.makespan_hours,
                    r.finish_time_fairness_mean,
                    r.finish_time_fairness_worst,
                    r.longest_wait_hours,
                    r.longest_gap_hours,
                )
            ),
            f"{r.moves:,}",
        ]
        for r in results
    ]
    return [("completion of the measured jobs, hours", columns, rows)]
