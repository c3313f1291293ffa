"""One Ray on one node for every module here, and a pool of its own for each: a pool starts much faster than Ray."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import flexray as flex


@pytest.fixture(scope="package")
def one_node(ray_environment: None) -> Iterator[None]:
    """A local Ray of eight CPUs and no devices."""
    import ray

    often = {"metrics_report_interval_ms": 500}
    ray.init(num_cpus=8, include_dashboard=False, log_to_driver=False, logging_level="error", _system_config=often)
    yield
    ray.shutdown()


@pytest.fixture(scope="module")
def pool(one_node: None, request: pytest.FixtureRequest) -> Iterator[None]:
    """A pool with the ``CONFIG`` of the module, which knows nothing of those before it."""
    from flexray.runtime.asking import find_scheduler
    from flexray.runtime.pool import stop_pool
    from flexray.runtime.reading import read_queues

    config = request.module.CONFIG
    flex.init(config=config)
    try:
        configured = [queue["name"] for queue in config.get("queues", ())]
        assert [queue["name"] for queue in read_queues(find_scheduler())] == configured
        yield
    finally:
        flex.shutdown()
        stop_pool()
