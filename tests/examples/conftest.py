"""A local Ray with a pool, held by a process of its own, that the examples join like a user's cluster."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
_HOLDER = """
import sys
import flexray as flex
flex.init("local", config={"cpu_devices": 1})
import ray
print("address", ray.get_runtime_context().gcs_address, flush=True)
sys.stdin.read()
flex.shutdown()
"""


@pytest.fixture(scope="package")
def cluster() -> Iterator[dict[str, str]]:
    """Environment variables with which a script joins the pool. Socket paths must stay short, hence the directory."""
    folder = tempfile.mkdtemp(prefix="fx")
    variables = {key: value for key, value in os.environ.items() if key != "RAY_ADDRESS"}
    variables |= {"RAY_TMPDIR": folder, "RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0", "COLUMNS": "120"}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "-c", _HOLDER], env=variables, **pipes) as holder:
        try:
            address = next((line.split()[1] for line in holder.stdout if line.startswith("address ")), None)
            assert address, "the pool did not start"
            yield {**variables, "RAY_ADDRESS": address}
            holder.communicate(timeout=60)  # closes its input, at which it shuts down
        finally:
            holder.kill()
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def run_example(cluster: dict[str, str], tmp_path: Path) -> Callable[..., str]:
    """Runs an example as a user does, from some other directory; returns what it printed."""

    def run(name: str, *arguments: object, timeout: float = 150) -> str:
        command = [sys.executable, str(EXAMPLES / name), *map(str, arguments)]
        done = subprocess.run(
            command, env=cluster, cwd=tmp_path, capture_output=True, text=True, timeout=timeout, check=False
        )
        assert done.returncode == 0, f"{name} failed:\n{done.stdout}\n{done.stderr}"
        return done.stdout

    return run
