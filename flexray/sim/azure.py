"""The Azure LLM inference trace as a serving workload: real bursts of arrivals, durations by a stated linear rule.

The trace (Patel et al., "Splitwise", ISCA 2024; Azure/AzurePublicDataset, CC-BY-4.0) has
TIMESTAMP, ContextTokens and GeneratedTokens, and no durations. Here

    duration = CONTEXT_SECONDS x context tokens + GENERATED_SECONDS x generated tokens

which follows how inference works (the prompt in one parallel pass, the answer token by
token). The two constants are round figures for a model of about 70 billion parameters on
a few large devices, not measurements; give your own where they matter. ``serving.py``
sends the calls to replicas on slices instead.
"""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

from flexray.errors import UsageError
from flexray.sim.columns import Row, read_csv
from flexray.sim.jobs import seconds, ticks
from flexray.sim.replicas import Call
from flexray.sim.schema import RequestEntry

CONTEXT_SECONDS = 0.0002
"""Per token of the prompt."""
GENERATED_SECONDS = 0.03
"""Per token of the answer."""


def read_azure(
    path: Path,
    *,
    gpu: float = 0.25,
    first: int | None = None,
    context_seconds: float = CONTEXT_SECONDS,
    generated_seconds: float = GENERATED_SECONDS,
) -> list[RequestEntry]:
    """The trace's calls (or the first of them) as requests of one class ``llm``, each for a share of a device."""
    return [
        RequestEntry.model_validate(
            {
                "id": f"call{call.number}",
                "at": seconds(call.at),
                "gpu": gpu,
                "class": "llm",
                "duration": max(context_seconds * call.context + generated_seconds * call.generated, 1e-6),
            }
        )
        for call in read_calls(path, first=first)
    ]


def read_calls(path: Path, *, first: int | None = None) -> list[Call]:
    """The trace's calls (or the first of them), in the order of the file; the earliest comes at 0."""
    rows = read_csv(path, ("TIMESTAMP", "ContextTokens", "GeneratedTokens"))[:first]
    times = [_time(row) for row in rows]
    zero = min(times)
    return [
        Call(
            number,
            ticks((time - zero).total_seconds()),
            row.number("ContextTokens"),
            row.number("GeneratedTokens"),
        )
        for number, (row, time) in enumerate(zip(rows, times, strict=True))
    ]


def _time(row: Row) -> datetime:
    text = row.text("TIMESTAMP")
    whole, _, fraction = text.partition(".")
    try:
        return datetime.fromisoformat(f"{whole}.{(fraction + '000000')[:6]}")
    except ValueError:
        raise UsageError(
            f"{row.where}: TIMESTAMP is {text!r}; a time such as 2023-11-16 18:17:03.97 is needed"
        ) from None
