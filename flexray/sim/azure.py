"""The Azure LLM inference trace as a serving workload: real bursts of arrivals, durations by a stated linear rule.

The trace (Patel et al., "Splitwise", ISCA 2024; Azure/AzurePublicDataset, CC-BY-4.0) has
TIMESTAMP, ContextTokens and GeneratedTokens, and no durations. Here

    duration = CONTEXT_SECONDS x context tokens + GENERATED_SECONDS x generated tokens

which follows how inference works (the prompt in one parallel pass, the answer token by
token). The two constants are round figures for a model of about 70 billion parameters on
a few large devices, not measurements; give your own where they matter.
"""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

from flexray.errors import UsageError
from flexray.sim.columns import Row, read_csv
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
    rows = read_csv(path, ("TIMESTAMP", "ContextTokens", "GeneratedTokens"))[:first]
    times = [_time(row) for row in rows]
    zero = min(times)
    return [
        RequestEntry.model_validate(
            {
                "id": f"call{number}",
                "at": (time - zero).total_seconds(),
                "gpu": gpu,
                "class": "llm",
                "duration": _duration(row, context_seconds, generated_seconds),
            }
        )
        for number, (row, time) in enumerate(zip(rows, times, strict=True))
    ]


def _duration(row: Row, context: float, generated: float) -> float:
    span = context * row.number("ContextTokens") + generated * row.number("GeneratedTokens")
    return max(span, 1e-6)


def _time(row: Row) -> datetime:
    text = row.text("TIMESTAMP")
    whole, _, fraction = text.partition(".")
    try:
        return datetime.fromisoformat(f"{whole}.{(fraction + '000000')[:6]}")
    except ValueError:
        raise UsageError(
            f"{row.where}: TIMESTAMP is {text!r}; a time such as 2023-11-16 18:17:03.97 is needed"
        ) from None
