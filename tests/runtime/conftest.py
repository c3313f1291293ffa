"""One pool on one local Ray for all tests of this directory, and a look at its books after each."""

from __future__ import annotations

import contextlib
import gc
import os
import shutil
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

# Ray reads these when it is imported or started, so they must be there before. Socket paths must stay short.
_TEMPORARY = tempfile.mkdtemp(prefix="fr")
os.environ.update(
    RAY_AUTH_MODE="disabled",
    RAY_TMPDIR=_TEMPORARY,
    RAY_DEDUP_LOGS="0",
    RAY_IGNORE_UNHANDLED_ERRORS="1",
    RAY_USAGE_STATS_ENABLED="0",
)
os.environ.pop("RAY_ADDRESS", None)

from runtime.support import Marks, processes_marked, until  # noqa: E402

DEVICES = 2


def pytest_unconfigure() -> None:
    shutil.rmtree(_TEMPORARY, ignore_errors=True)


@pytest.fixture(scope="package")
def pool() -> Iterator[str]:
    """A local Ray with a pool of two CPU devices, and this process connected to it. Yields its address."""
    import ray

    import flexray as flex
    from flexray.runtime.pool import stop_pool

    tests = Path(__file__).parents[1]  # slices import the functions of these tests by name, and flexray beside them
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join((str(tests.parent), str(tests))))
        ray.init(num_cpus=8, include_dashboard=False, log_to_driver=False, logging_level="error")
    try:
        flex.init(config={"cpu_devices": DEVICES, "linger_seconds": 0.02, "grace_seconds": 0.5})
        yield ray.get_runtime_context().gcs_address
        flex.shutdown()
        stop_pool()
        until(lambda: not processes_marked(), "every process of a slice is gone", 20)
    finally:
        flex.shutdown()
        ray.shutdown()


@pytest.fixture(autouse=True)
def books(request: pytest.FixtureRequest) -> Iterator[None]:
    """After each test that uses the pool: exact books, and nothing of the test waits, runs or holds a lease."""
    yield
    if "pool" not in request.fixturenames:
        return
    import ray

    import flexray as flex
    from flexray.runtime import process

    engine = process.client()._engine

    def busy() -> list[object]:
        picture = flex.pool()
        targets = {target.name for target in engine.leases.targets()}
        return [
            *picture.waiting,
            *picture.running,
            *sorted(targets),
            *[engine.calls.waiting] * bool(engine.calls.waiting),
        ]

    for _ in range(30):
        gc.collect()  # handles that only the traceback of a caught exception refers to, which a thread may still hold
        with contextlib.suppress(AssertionError):
            until(lambda: not busy(), "", 1)
            break
    assert not busy(), "every lease is back"
    ray.get(process.client()._link.scheduler.check.remote())


@pytest.fixture
def marks(tmp_path: Path) -> Iterator[Marks]:
    """A place where tasks leave marks that survive their process."""
    marks = Marks(tmp_path)
    yield marks
    marks.leave("release")  # nothing waits for a test that failed


@pytest.fixture
def script(pool: str, tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs the text of a script as a driver of its own on the pool's cluster."""

    def run(text: str, *arguments: object, timeout: float = 120) -> subprocess.CompletedProcess[str]:
        path = tmp_path / "driver.py"
        path.write_text(textwrap.dedent(text))
        command = [sys.executable, str(path), *map(str, arguments)]
        environment = {**os.environ, "RAY_ADDRESS": pool}
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=timeout, check=False)

    return run
