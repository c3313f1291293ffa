"""What environment variables mean."""

from __future__ import annotations

import subprocess
import sys

import pytest

from flexray.telemetry.settings import Settings, read_settings, telemetry_variables

URL = "http://collector:4318"


@pytest.mark.parametrize(
    ("variables", "meant"),
    [
        ({}, Settings()),
        ({"OTEL_SERVICE_NAME": "x"}, Settings()),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": URL}, Settings(("otlp",), ("otlp",))),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": URL, "OTEL_SDK_DISABLED": "True"}, Settings()),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": URL}, Settings(("otlp",))),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": URL, "OTEL_METRICS_EXPORTER": "none"}, Settings(("otlp",))),
        (
            {"OTEL_TRACES_EXPORTER": "console", "OTEL_METRICS_EXPORTER": "prometheus"},
            Settings(("console",), ("prometheus",)),
        ),
        ({"OTEL_METRICS_EXPORTER": "otlp, console"}, Settings((), ("otlp", "console"))),
        ({"OTEL_TRACES_EXPORTER": "zipkin,otlp"}, Settings(("otlp",))),
        ({"OTEL_TRACES_SAMPLER": "parentbased_traceidratio", "OTEL_TRACES_SAMPLER_ARG": "0.01"}, Settings(ratio=0.01)),
        ({"OTEL_TRACES_SAMPLER": "traceidratio", "OTEL_TRACES_SAMPLER_ARG": "0.5"}, Settings(ratio=0.5, follow=False)),
        ({"OTEL_TRACES_SAMPLER": "always_off"}, Settings(ratio=0.0, follow=False)),
        ({"OTEL_TRACES_SAMPLER": "parentbased_traceidratio", "OTEL_TRACES_SAMPLER_ARG": "2"}, Settings()),
        ({"OTEL_TRACES_SAMPLER": "mine"}, Settings()),
        ({"OTEL_METRIC_EXPORT_INTERVAL": "2500"}, Settings(seconds=2.5)),
    ],
)
def test_variables(variables: dict[str, str], meant: Settings) -> None:
    assert read_settings(variables) == meant


def test_what_is_wrong_is_said(caplog: pytest.LogCaptureFixture) -> None:
    read_settings({"OTEL_TRACES_EXPORTER": "zipkin"})
    assert "no exporter 'zipkin'; use some of otlp, console" in caplog.text


def test_only_variables_of_opentelemetry_are_handed_on() -> None:
    assert telemetry_variables({"OTEL_A": "1", "AWS_SECRET": "2", "PATH": "3"}) == {"OTEL_A": "1"}


def test_off_means_that_nothing_of_opentelemetry_is_imported_by_a_client_or_a_slice() -> None:
    code = (
        "import os, sys\n"
        "for name in [name for name in os.environ if name.startswith('OTEL_')]: del os.environ[name]\n"
        "import flexray.runtime.client, flexray.runtime.slice_actor, flexray.runtime.tracing as tracing\n"
        "assert tracing.trace_calls() is None and tracing.trace_runs('s') is None\n"
        "print([name for name in sys.modules if name.startswith('flexray.telemetry')])\n"
        "print([name for name in sys.modules if name.startswith('opentelemetry.sdk')])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=100, check=True)
    loaded, sdk = done.stdout.strip().splitlines()[-2:]
    assert "flexray.telemetry.settings" in loaded
    assert "spans" not in loaded
    assert sdk == "[]"
