"""A driver for ``test_secured.py``: its own Ray, a task, an actor, the command line with and without what is needed."""

from __future__ import annotations

import os
import subprocess
import sys

import ray

import flexray as flex
from flexray.runtime.pool import stop_pool

WAIT = 60


@flex.task(accelerator=0.5)
def double(number: int) -> int:
    return 2 * number


@flex.actor(accelerator=0.5)
class Sum:
    def __init__(self) -> None:
        self.total = 0

    def add(self, number: int) -> int:
        self.total += number
        return self.total


def command(address: str, word: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-c", "from flexray.cli import main; main()", word, "--address", address]
    return subprocess.run(line, env=env, capture_output=True, text=True, timeout=120, check=False)


def main() -> None:
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="error")
    address = ray.get_runtime_context().gcs_address
    flex.init(config={"cpu_devices": 1})
    print("task", double.remote(4).result(WAIT))
    actor = Sum.remote()
    print("actor", actor.add.remote(3).result(WAIT), actor.add.remote(4).result(WAIT))
    shown = command(address, "status")
    print("status", shown.returncode, "cpu0" in shown.stdout, shown.stderr)
    refused = command(address, "status", without_security())
    print("stranger", refused.returncode, refused.stderr.strip().splitlines()[-1])
    actor.stop()
    flex.shutdown()
    print("stop", stop_pool(), stop_pool())
    ray.shutdown()


def without_security() -> dict[str, str]:
    plain = {key: value for key, value in os.environ.items() if not key.startswith(("RAY_AUTH", "RAY_USE_TLS"))}
    return {**plain, "RAY_AUTH_MODE": "disabled"}


if __name__ == "__main__":
    main()
