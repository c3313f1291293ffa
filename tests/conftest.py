"""What holds for all tests: only those marked ``ray`` may start Ray, and which run in one process."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# Ray would start a Python process per CPU for the first driver, which nothing here uses.
os.environ.setdefault("RAY_prestart_worker_first_driver", "0")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

_QUIET = [HealthCheck.too_slow, HealthCheck.data_too_large]
settings.register_profile("default", deadline=None, derandomize=True, suppress_health_check=_QUIET)
settings.register_profile("nightly", deadline=None, max_examples=2000, suppress_health_check=_QUIET)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))

_HERE = Path(__file__).parent
#: What takes long, longest first: these begin first. Tests of such a directory share a Ray cluster.
_LONG = (
    "runtime",
    "cluster/one_node",
    "cluster/test_cluster.py",
    "runtime/test_environment.py",
    "examples",
)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Several processes (``-n``) share the tests out in groups; the rest of a file stays together."""
    order: dict[pytest.Item, int] = {}
    for item in items:
        file = item.path.relative_to(_HERE)
        group = next((name for name in (str(file), str(file.parent)) if name in _LONG), str(file))
        order[item] = _LONG.index(group) if group in _LONG else len(_LONG)
        item.add_marker(pytest.mark.xdist_group(group))
    if hasattr(config, "workerinput"):  # in one process the short ones come first
        items.sort(key=order.__getitem__)


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
