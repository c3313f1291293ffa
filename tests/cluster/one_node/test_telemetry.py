"""One trace over client, scheduler and slice; metrics at a collector and at Ray's own port."""

from __future__ import annotations

import os
import re
import urllib.request
from collections.abc import Iterator

import pytest
from metering.collector import Collector, collecting

import flexray as flex
from cluster.conftest import until


@pytest.fixture
def collector(one_node: None) -> Iterator[Collector]:
    """A pool that was started, and is used, with a collector in its environment."""
    saved = dict(os.environ)
    with collecting() as there:
        os.environ.update(
            OTEL_EXPORTER_OTLP_ENDPOINT=there.url, OTEL_METRIC_EXPORT_INTERVAL="500", OTEL_BSP_SCHEDULE_DELAY="200"
        )
        flex.init(config={"cpu_devices": 1})
        yield there
        from flexray.runtime.pool import stop_pool

        flex.shutdown()
        stop_pool()
        os.environ.clear()
        os.environ.update(saved)


def inner(x: int) -> int:
    """A task with a span of its own."""
    from opentelemetry import trace

    with trace.get_tracer("test").start_as_current_span("mine"):
        return x + 1


def test_a_call_is_one_trace_and_the_pool_is_measured(collector: Collector) -> None:
    task = flex.task(accelerator=0.5)(inner)
    assert task.remote(1).result(60) == 2
    parts = {"submit inner", "wait", "request", "start", "run inner", "mine", "result"}
    root = until(lambda: next((one for one in collector.spans if one.name == "submit inner"), None))
    spans = until(lambda: parts <= collector.of_trace(root.trace).keys() and collector.of_trace(root.trace))
    assert {spans[name].parent for name in ("wait", "request", "start", "run inner", "result")} == {root.id}
    assert spans["mine"].parent == spans["run inner"].id
    assert {one.service for one in spans.values()} == {"flexray-client", "flexray-scheduler", "flexray-slice"}
    assert spans["run inner"].attributes["flexray.lease"] == spans["request"].attributes["flexray.lease"]
    assert root.start <= spans["wait"].start <= spans["run inner"].start <= spans["result"].start <= root.end

    assert until(lambda: {"queue": "default"} in collector.metrics.get("flexray.leases.granted", ()))
    until(lambda: "flexray.device.compute.held" in collector.metrics)
    assert until(_ray_has)


def _ray_has() -> bool:
    """Whether Ray's port has a counter of ours, with its labels."""
    import ray

    node = ray.nodes()[0]
    url = f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics"
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:
            text = answer.read().decode()
    except OSError:  # busy: asked again
        return False
    return re.search(r'^ray_flexray_leases_granted_total\{.*queue="default"', text, re.MULTILINE) is not None
