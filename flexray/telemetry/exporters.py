"""OpenTelemetry's providers with the exporters asked for: bounded queues, short timeouts, own threads.

A back end that hangs or is gone costs what did not fit into the queue, and nothing else. Imported only where something
is exported.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable
from importlib import metadata

from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import ConsoleMetricExporter, MetricExporter, MetricReader
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader as PeriodicReader
from opentelemetry.sdk.metrics.view import ExplicitBucketHistogramAggregation, View
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, ConsoleSpanExporter, SpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_ON, ParentBased, Sampler, TraceIdRatioBased

from flexray.errors import UsageError
from flexray.telemetry.metrics import METRICS, Kind
from flexray.telemetry.settings import Settings

_TIMEOUT_SECONDS = "3"
"""Unless OTEL_EXPORTER_OTLP_TIMEOUT says otherwise; the standard's ten are long for a process that wants to end."""
_DELAY_MILLISECONDS = "1000"
"""Unless OTEL_BSP_SCHEDULE_DELAY says otherwise: a slice that is stopped loses the spans of so long."""
_FLUSH_SECONDS = 4.0
_LOG_SECONDS = 300.0
_EXTRA = 'pip install "flexray-runtime[telemetry]"'


def resource(service: str, **attributes: str) -> Resource:
    """What a process says of itself; OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES go before."""
    named = os.environ.get("OTEL_SERVICE_NAME", "") or "service.name=" in os.environ.get("OTEL_RESOURCE_ATTRIBUTES", "")
    own = {
        **attributes,
        **({} if named else {"service.name": service}),
        "service.version": metadata.version("flexray-runtime"),
    }
    return Resource.create(dict(own))


def tracer_provider(settings: Settings, service: str, *, decided: bool) -> TracerProvider:
    """A provider that exports spans.

    Args:
        decided: whether only what is to be recorded is given to it; else the sampler decides where no parent has.
    """
    os.environ.setdefault("OTEL_EXPORTER_OTLP_TIMEOUT", _TIMEOUT_SECONDS)
    os.environ.setdefault("OTEL_BSP_SCHEDULE_DELAY", _DELAY_MILLISECONDS)
    sampler: Sampler = ALWAYS_ON if decided else ParentBased(TraceIdRatioBased(settings.ratio))
    provider = TracerProvider(sampler=sampler, resource=resource(service), shutdown_on_exit=False)
    for name in settings.traces:
        provider.add_span_processor(BatchSpanProcessor(_span_exporter(name)))
    _be_quiet()
    return provider


def meter_provider(settings: Settings) -> MeterProvider:
    """A provider that exports metrics, with the table's buckets."""
    os.environ.setdefault("OTEL_EXPORTER_OTLP_TIMEOUT", _TIMEOUT_SECONDS)
    views = [
        View(instrument_name=one.name, aggregation=ExplicitBucketHistogramAggregation(one.buckets))
        for one in METRICS.values()
        if one.kind is Kind.HISTOGRAM
    ]
    readers = [_metric_reader(name) for name in settings.metrics]
    _be_quiet()
    return MeterProvider(readers, resource("flexray"), views=views, shutdown_on_exit=False)


def close(shutdown: Callable[[], object]) -> None:
    """Shut a provider down, exporting what it has; a back end that does not answer is not waited for."""
    thread = threading.Thread(target=shutdown, name="flexray-telemetry-end", daemon=True)
    thread.start()
    thread.join(_FLUSH_SECONDS)


def _span_exporter(name: str) -> SpanExporter:
    if name == "console":
        return ConsoleSpanExporter()
    try:
        if _protocol("TRACES") == "grpc":
            from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter as GrpcExporter

            return GrpcExporter()
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter as HttpExporter

        return HttpExporter()
    except ImportError as error:
        raise UsageError(f"traces cannot be exported: {error}. {_EXTRA} brings OTLP") from None


def _metric_reader(name: str) -> MetricReader:
    if name == "prometheus":
        return _prometheus_reader()
    return PeriodicReader(ConsoleMetricExporter() if name == "console" else _otlp_metrics())


def _otlp_metrics() -> MetricExporter:
    try:
        if _protocol("METRICS") == "grpc":
            from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter as GrpcExporter

            return GrpcExporter()
        from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter as HttpExporter

        return HttpExporter()
    except ImportError as error:
        raise UsageError(f"metrics cannot be exported: {error}. {_EXTRA} brings OTLP") from None


def _prometheus_reader() -> MetricReader:
    """A port for Prometheus, at OTEL_EXPORTER_PROMETHEUS_HOST and _PORT, of this machine's own by default."""
    try:
        from opentelemetry.exporter.prometheus import PrometheusMetricReader
        from prometheus_client import start_http_server
    except ImportError as error:
        raise UsageError(f"metrics cannot be offered to Prometheus: {error}. {_EXTRA} brings what is missing") from None
    host = os.environ.get("OTEL_EXPORTER_PROMETHEUS_HOST", "") or "localhost"
    port = int(os.environ.get("OTEL_EXPORTER_PROMETHEUS_PORT", "") or 9464)
    reader = PrometheusMetricReader()
    try:
        start_http_server(port, host)
    except OSError as error:
        raise UsageError(
            f"metrics cannot be offered at {host}:{port}: {error}; set OTEL_EXPORTER_PROMETHEUS_PORT"
        ) from None
    return reader


def _protocol(signal: str) -> str:
    own = os.environ.get(f"OTEL_EXPORTER_OTLP_{signal}_PROTOCOL", "")
    return own or os.environ.get("OTEL_EXPORTER_OTLP_PROTOCOL", "") or "http/protobuf"


class _NowAndThen(logging.Filter):
    """Lets one line pass in a while: a back end that is away is no reason to fill everybody's logs."""

    def __init__(self) -> None:
        super().__init__()
        self._next = 0.0

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether it is time for another."""
        if time.monotonic() < self._next:
            return False
        self._next = time.monotonic() + _LOG_SECONDS
        record.exc_info = record.exc_text = None
        return True


def _be_quiet() -> None:
    """Filters are for one logger each: those of the exporters and what calls them."""
    seldom = _NowAndThen()
    for name in list(logging.root.manager.loggerDict):
        if name.startswith(("opentelemetry.exporter.", "opentelemetry.sdk.")):
            logging.getLogger(name).addFilter(seldom)
