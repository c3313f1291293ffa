"""A stand-in for an OpenTelemetry collector: takes OTLP over HTTP and keeps what comes, or never answers."""

from __future__ import annotations

import gzip
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest


class Span(NamedTuple):
    """What a test looks at of a span."""

    service: str
    name: str
    trace: str
    id: str
    parent: str
    start: int
    end: int
    attributes: dict[str, str]


class Collector:
    """What has come so far."""

    def __init__(self, url: str, stuck: bool) -> None:
        self.url, self.stuck = url, stuck
        self.spans: list[Span] = []
        self.metrics: dict[str, list[dict[str, str]]] = {}
        self.asked = threading.Event()
        self.let_go = threading.Event()

    def of_trace(self, trace: str) -> dict[str, Span]:
        """The spans of a trace, by name."""
        return {span.name: span for span in self.spans if span.trace == trace}

    def take(self, path: str, body: bytes) -> None:
        """Keep a message."""
        if path.endswith("/traces"):
            for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
                service = _plain(resource.resource.attributes).get("service.name", "")
                self.spans += [_span(service, one) for scope in resource.scope_spans for one in scope.spans]
        else:
            for resource in ExportMetricsServiceRequest.FromString(body).resource_metrics:
                for one in (one for scope in resource.scope_metrics for one in scope.metrics):
                    points = getattr(one, one.WhichOneof("data")).data_points
                    self.metrics[one.name] = [_plain(point.attributes) for point in points]


def _plain(attributes: Any) -> dict[str, str]:
    return {one.key: str(getattr(one.value, one.value.WhichOneof("value"))) for one in attributes}


def _span(service: str, one: Any) -> Span:
    ids = (one.trace_id.hex(), one.span_id.hex(), one.parent_span_id.hex())
    times = (one.start_time_unix_nano, one.end_time_unix_nano)
    return Span(service, one.name, *ids, *times, _plain(one.attributes))


@contextmanager
def collecting(*, stuck: bool = False) -> Iterator[Collector]:
    """A collector on a port of its own; ``stuck``: it takes what is sent and never answers."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            there.asked.set()
            if there.stuck:
                there.let_go.wait(120)
                return
            there.take(self.path, gzip.decompress(body) if self.headers.get("Content-Encoding") == "gzip" else body)
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    there = Collector(f"http://127.0.0.1:{server.server_address[1]}", stuck)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield there
    finally:
        there.let_go.set()
        server.shutdown()
        server.server_close()
        thread.join(10)
