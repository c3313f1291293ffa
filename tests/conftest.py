"""What holds for all tests: only those marked ``ray`` may start Ray, and which run in one process."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

# Ray would start a Python process per CPU for the first driver, which nothing here uses.
os.environ.setdefault("RAY_prestart_worker_first_driver", "0")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

_QUIET = [HealthCheck.too_slow, HealthCheck.data_too_large]
settings.register_profile("default", deadline=None, derandomize=True, suppress_health_check=_QUIET)
settings.register_profile("nightly", deadline=None, max_examples=2000, suppress_health_check=_QUIET)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))

#: What takes long, longest first: these begin first. Tests of such a directory share a Ray cluster.
_LONG = (
    "runtime",
    "cluster/one_node",
    "cluster/test_cluster.py",
    "runtime/test_environment.py",
    "examples",
)


def _group(nodeid: str) -> str:
    """The tests that have to run in the same process as this one: those of its file, or of its directory."""
    file = nodeid.partition("::")[0].removeprefix("tests/")
    return next((name for name in (file, file.rpartition("/")[0]) if name in _LONG), file)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Several processes (``-n``) share the tests out by group."""
    from xdist.scheduler import LoadScopeScheduling

    class ByGroup(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return _group(nodeid)

    return ByGroup(config, log)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """With several processes the longest groups begin first; in one, the short ones."""
    if hasattr(config, "workerinput"):
        order = {name: number for number, name in enumerate(_LONG)}
        items.sort(key=lambda item: order.get(_group(item.nodeid), len(_LONG)))


def _refuse(*args: object, **kwargs: object) -> None:
    raise AssertionError("this test is not marked `ray` and must not start Ray")


def _ray_runs() -> bool:
    ray = sys.modules.get("ray")
    return ray is not None and ray.is_initialized()


@pytest.fixture(autouse=True)
def no_ray(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Without importing Ray: refuse ``ray.init`` where Ray is loaded, and catch a test that loads and starts it."""
    if request.node.get_closest_marker("ray"):
        yield
        return
    ran_before = _ray_runs()
    if "ray" in sys.modules:
        monkeypatch.setattr("ray.init", _refuse)
    yield
    if _ray_runs() and not ran_before:
        sys.modules["ray"].shutdown()
        pytest.fail("this test is not marked `ray` and started Ray")
