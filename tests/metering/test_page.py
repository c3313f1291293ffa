"""docs/telemetry.md has every metric as the table has it, and nothing else."""

from __future__ import annotations

from pathlib import Path

from flexray.telemetry.metrics import METRICS, prometheus_name
from flexray.telemetry.settings import PREFIX, read_settings

PAGE = (Path(__file__).parents[2] / "docs/telemetry.md").read_text()


def test_the_page_has_the_metrics_of_the_table() -> None:
    rows = [line for line in PAGE.splitlines() if line.startswith("| `flexray.")]
    assert rows == [
        f"| `{one.name}` | `{prometheus_name(one)}` | {one.kind.value} | {one.unit} | {', '.join(one.labels)} "
        f"| {one.description} |"
        for one in METRICS.values()
    ]


def test_what_the_page_switches_on_is_switched_on() -> None:
    line = next(line for line in PAGE.splitlines() if line.strip().startswith(PREFIX))
    name, value = line.split()[0].split("=")
    settings = read_settings({name: value})
    assert settings.traces == settings.metrics == ("otlp",)
