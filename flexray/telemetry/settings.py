"""What is to be exported and where to, by OpenTelemetry's standard environment variables; nothing of it is imported.

Off unless one of ``OTEL_TRACES_EXPORTER``, ``OTEL_METRICS_EXPORTER`` or an OTLP endpoint is set.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass

PREFIX = "OTEL_"
_PARENT_BASED = "parentbased_"
_RATIOS = {"always_on": 1.0, "always_off": 0.0}
_TRACE_EXPORTERS = ("otlp", "console")
_METRIC_EXPORTERS = ("otlp", "prometheus", "console")
_log = logging.getLogger("flexray")


@dataclass(frozen=True, slots=True)
class Settings:
    """What a process exports.

    Attributes:
        traces, metrics: names of exporters; () is off.
        ratio: the part of the calls that get a trace, of those whose caller has none.
        follow: whether a caller's own span decides where there is one.
        seconds: between two exports of metrics, or None.
    """

    traces: tuple[str, ...] = ()
    metrics: tuple[str, ...] = ()
    ratio: float = 1.0
    follow: bool = True
    seconds: float | None = None


def read_settings(variables: Mapping[str, str]) -> Settings:
    """The settings that environment variables mean. What they have wrong is logged, and left out."""
    if variables.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return Settings()
    ratio, follow = _sampling(variables)
    traces = _exporters(variables, "TRACES", _TRACE_EXPORTERS)
    metrics = _exporters(variables, "METRICS", _METRIC_EXPORTERS)
    interval = variables.get("OTEL_METRIC_EXPORT_INTERVAL", "").strip()
    return Settings(traces, metrics, ratio, follow, int(interval) / 1000 if interval.isdecimal() else None)


def telemetry_variables(variables: Mapping[str, str]) -> dict[str, str]:
    """Those of some environment variables that say what is exported."""
    return {name: value for name, value in variables.items() if name.startswith(PREFIX)}


def _exporters(variables: Mapping[str, str], signal: str, known: tuple[str, ...]) -> tuple[str, ...]:
    chosen = variables.get(f"OTEL_{signal}_EXPORTER", "").strip()
    if not chosen:
        endpoints = ("OTEL_EXPORTER_OTLP_ENDPOINT", f"OTEL_EXPORTER_OTLP_{signal}_ENDPOINT")
        return ("otlp",) if any(variables.get(name) for name in endpoints) else ()
    names = [name for name in (part.strip() for part in chosen.split(",")) if name not in ("", "none")]
    for name in names:
        if name not in known:
            _log.warning("OTEL_%s_EXPORTER: no exporter %r; use some of %s, or none", signal, name, ", ".join(known))
    return tuple(name for name in names if name in known)


def _sampling(variables: Mapping[str, str]) -> tuple[float, bool]:
    """(ratio, follow) of a sampler; without one that is known, every call has a trace."""
    name = variables.get("OTEL_TRACES_SAMPLER", "").strip() or "parentbased_always_on"
    kind = name.removeprefix(_PARENT_BASED)
    if kind in _RATIOS:
        return _RATIOS[kind], kind != name
    if kind != "traceidratio":
        _log.warning("OTEL_TRACES_SAMPLER: no sampler %r; every call gets a trace", name)
        return 1.0, True
    argument = variables.get("OTEL_TRACES_SAMPLER_ARG", "").strip() or "1"
    try:
        ratio = float(argument)
    except ValueError:
        ratio = -1.0
    if not 0 <= ratio <= 1:
        _log.warning("OTEL_TRACES_SAMPLER_ARG=%r must be a number from 0 to 1; every call gets a trace", argument)
        return 1.0, kind != name
    return ratio, kind != name
