"""Calls of the Azure LLM trace on whole cards and on slices: how many meet a latency objective, and on how few cards.

    python benchmarks/serving_trace.py [--quick] [--data DIR] [--objective 5:0.05] [--json FILE]

``DIR/azure_llm/AzureLLMInferenceTrace_code.csv`` (or the file in DIR itself) is the code
trace of 2023: 8,819 calls in 57 minutes (Azure/AzurePublicDataset, CC-BY-4.0; Patel et
al., ISCA 2024). Without it the excerpt of the tests is run, 50 calls, whose figures mean
nothing beyond that everything works. With --quick the first 2,000 calls.

The core places replicas of a model on nvidia/A100-80GB, all of one share; the calls go
to the replica with the fewest (``flexray.sim.serving``). A call is met when its last
token comes within 5 s + 0.05 s per generated token, or --objective. How long calls take is the stated
model of ``flexray.sim.replicas`` and not measured, so the cases below vary what decides:

    proportional   a replica is as fast as its share: a card is one fast server or four slow ones
    saturating     decoding is no faster on a whole card than on a quarter; prompts are
    alone          a replica works on one call at a time; otherwise it batches as many as its memory
                   holds beside the model, at most 16
    16, 32 models  each call is for one of them, and a replica has one: a card per replica is as many cards

For each: the smallest number of cards, going up one by one, that meets 99 % of the calls,
the ratio of whole cards to it, and what each share meets on the same cards, as many as
the thriftiest share needs.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from flexray.model.amounts import Share, share_as_float
from flexray.sim.azure import read_calls
from flexray.sim.replicas import Call, Objective, Service
from flexray.sim.scenario import parse_scenario
from flexray.sim.serving import serve
from flexray.sim.serving_options import objective_of
from flexray.sim.serving_result import Fleet, ServingResult

TRACE = "AzureLLMInferenceTrace_code.csv"
EXCERPT = Path(__file__).parents[1] / "tests" / "data" / "azure_excerpt_code.csv"
CARD = "nvidia/A100-80GB"
SHARES = (Share(1000), Share(500), Share(250))
TARGET = 99.0
MOST = 64
"""Cards at which the search gives up."""
QUICK = 2000


@dataclass(frozen=True)
class Case:
    """One way that replicas serve."""

    name: str
    service: dict[str, Any] = field(default_factory=dict)
    models: int = 1


CASES = (
    Case("proportional, alone", {"concurrent": 1}),
    Case("proportional, batches"),
    Case("saturating, alone", {"concurrent": 1, "saturation": 0.25}),
    Case("saturating, batches", {"saturation": 0.25}),
    Case("16 models, proportional, batches", {}, 16),
    Case("32 models, proportional, batches", {}, 32),
    Case("32 models, saturating, batches", {"saturation": 0.25}, 32),
)


@dataclass(frozen=True)
class Load:
    """What is the same for every case."""

    calls: Sequence[Call]
    objective: Objective


@dataclass(frozen=True)
class Row:
    """One share in one case."""

    case: str
    share: float
    cards_for_target: int | None
    """None where not even 64 cards meet 99 %."""
    whole_cards_ratio: float | None
    """How many whole cards do what one card in these slices does."""
    met_per_card: float | None
    """On that many cards."""
    utilisation: float | None
    p99_seconds: float | None
    same_cards: int | None
    """As many as the thriftiest share needs."""
    met_on_same_cards: float | None
    """Per cent of the calls; None where each model needs more cards than that."""
    met_per_card_on_same_cards: float | None


def on_cards(cards: int, case: Case, share: Share, load: Load) -> ServingResult | None:
    """One run; None where there are fewer replicas than models."""
    if cards * (1000 // share) < case.models:
        return None
    nodes = [{"name": "cards", "devices": f"{cards}x{CARD}"}]
    scenario = parse_scenario({"version": 1, "nodes": nodes, "costs": {"start": 0}})
    return serve(scenario, load.calls, Fleet(share, None, case.models, Service(**case.service), load.objective))


def fewest(case: Case, share: Share, load: Load) -> tuple[int, ServingResult] | None:
    """The smallest number of cards that meets the target, and the run on it."""
    for cards in range(1, MOST + 1):
        result = on_cards(cards, case, share, load)
        if result is not None and result.met_percent >= TARGET:
            return cards, result
    return None


def measure(case: Case, load: Load) -> Iterator[Row]:
    """Every share on the same calls."""
    found = {share: fewest(case, share, load) for share in SHARES}
    counts = [one[0] for one in found.values() if one is not None]
    same = min(counts, default=None)
    whole = found[SHARES[0]]
    for share, one in found.items():
        there = None if same is None else on_cards(same, case, share, load)
        yield Row(
            case.name,
            share_as_float(share),
            one[0] if one else None,
            round(whole[0] / one[0], 3) if one and whole else None,
            one[1].met_per_card if one else None,
            one[1].utilisation if one else None,
            one[1].latency.p99 if one else None,
            same,
            there.met_percent if there else None,
            there.met_per_card if there else None,
        )


def table(rows: Sequence[Row], load: Load) -> Table:
    """The figures for a terminal."""
    aim = load.objective
    title = f"{len(load.calls):,} calls on {CARD}, met in {aim.base:g} s + {aim.per_token:g} s per generated token"
    made = Table(title=title, title_justify="left", box=None)
    columns = (
        "replicas", "share", f"cards for {TARGET:g} %", "whole / this", "met per card", "used", "p99, s",
        "same cards", "met % there", "per card there",
    )  # fmt: skip
    for column in columns:
        made.add_column(column)
    for row in rows:
        cells = (
            (row.cards_for_target, "d"),
            (row.whole_cards_ratio, ".2f"),
            (row.met_per_card, ".1f"),
            (row.utilisation, ".1%"),
            (row.p99_seconds, ".2f"),
            (row.same_cards, "d"),
            (row.met_on_same_cards, ".2f"),
            (row.met_per_card_on_same_cards, ".1f"),
        )
        shown = ("-" if value is None else format(value, kind) for value, kind in cells)
        made.add_row(row.case, f"{row.share:g}", *shown)
    return made


def trace_in(data: Path) -> Path:
    """The trace in a folder."""
    inner = data / "azure_llm" / TRACE
    return inner if inner.exists() else data / TRACE


def main() -> None:
    """Run the cases and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help=f"the first {QUICK:,} calls")
    parser.add_argument("--data", type=Path, help="folder with azure_llm/ in it")
    parser.add_argument("--objective", help="seconds for a call, and for each token of its answer: 5:0.05")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    options = parser.parse_args()
    path = trace_in(options.data) if options.data else EXCERPT
    load = Load(read_calls(path, first=QUICK if options.quick else None), objective_of(options.objective))
    console, rows, start = Console(width=150), list[Row](), time.perf_counter()
    for case in CASES:
        rows += measure(case, load)
        console.print(f"[dim]{case.name}: {time.perf_counter() - start:.0f} s[/dim]", highlight=False)
    console.print(table(rows, load))
    if not options.data:
        console.print("the excerpt of the tests: give --data for figures that mean something")
    if options.json:
        out = {
            "version": 1,
            "calls": len(load.calls),
            "objective": load.objective.model_dump(),
            "rows": [asdict(row) for row in rows],
        }
        options.json.write_text(json.dumps(out, indent=2) + "\n")


if __name__ == "__main__":
    main()
