"""Several drivers on one cluster: each runs its own code, sees its own prints, and keeps its secrets."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from runtime.support import alive, end_processes_with, until

pytestmark = pytest.mark.ray
WAIT = 60


class Cluster:
    """A cluster of one node with its own ports and temporary directory, started by the command line."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.port, self.dashboard, self.agent = free_port(), free_port(), free_port()
        self.address = f"127.0.0.1:{self.port}"
        kept = {k: v for k, v in os.environ.items() if k not in ("RAY_ADDRESS", "PYTHONPATH")}
        self.environment = {**kept, "RAY_TMPDIR": str(directory)}
        ray = str(Path(sys.executable).with_name("ray"))
        done = subprocess.run(
            [
                *(ray, "start", "--head", "--num-cpus=8", "--node-ip-address=127.0.0.1", f"--port={self.port}"),
                *("--include-dashboard=true", f"--dashboard-port={self.dashboard}", f"--temp-dir={directory}"),
                *(f"--dashboard-agent-listen-port={self.agent}", f"--ray-client-server-port={free_port()}"),
                "--disable-usage-stats",
            ],
            env=self.environment,
            check=False,
            capture_output=True,
            text=True,
            timeout=90,
        )
        assert done.returncode == 0, done.stdout + done.stderr

    def driver(self, directory: Path, text: str, **environment: str) -> subprocess.Popen[str]:
        """Start a script as a driver, in its own directory."""
        directory.mkdir(exist_ok=True)
        path = directory / "main.py"
        path.write_text(textwrap.dedent(text))
        return subprocess.Popen(
            [sys.executable, str(path)],
            cwd=directory,
            env={**self.environment, "RAY_ADDRESS": self.address, **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, directory: Path, text: str, **environment: str) -> str:
        """Run a script to its end and return what it printed."""
        return finish(self.driver(directory, text, **environment))

    def submit(self, directory: Path, text: str, env_vars: dict[str, str]) -> subprocess.Popen[str]:
        """``ray job submit``, which ends with the job and prints its log."""
        directory.mkdir(exist_ok=True)
        (directory / "main.py").write_text(textwrap.dedent(text))
        return subprocess.Popen(
            [
                *(str(Path(sys.executable).with_name("ray")), "job", "submit"),
                f"--address=http://127.0.0.1:{self.dashboard}",
                *("--runtime-env-json", json.dumps({"working_dir": str(directory), "env_vars": env_vars})),
                *("--", sys.executable, "main.py"),
            ],
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )


def finish(process: subprocess.Popen[str], timeout: float = 120) -> str:
    out, err = process.communicate(timeout=timeout)
    assert process.returncode == 0, f"{out}\n{err}"
    return out


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    directory = Path(tempfile.mkdtemp(prefix="frc"))
    try:
        yield Cluster(directory)
    finally:
        end_processes_with(directory)
        shutil.rmtree(directory, ignore_errors=True)


START = """
    import flexray as flex
    flex.init(config={"cpu_devices": 2, "linger_seconds": 0.1})
"""
"""How the first driver starts the pool; the others join it."""

TEE = """
    import sys, time

    class Tee:  # prints of tasks come by Ray's log monitor, some time later
        def __init__(self, out):
            self.out, self.text = out, ""

        def write(self, text):
            self.text += text
            return self.out.write(text)

        def flush(self):
            self.out.flush()

        def until(self, words):
            deadline = time.monotonic() + 30
            while words not in self.text and time.monotonic() < deadline:
                time.sleep(0.05)

    sys.stdout = Tee(sys.stdout)
"""

SAME_NAMES = (
    TEE
    + """
    import flexray as flex
    import mymod

    flex.init()

    @flex.task(gpu=0.25)
    def f(x):
        print(f"task of {mymod.NAME}")
        return mymod.NAME, mymod.double(x), WHO

    WHO = mymod.NAME
    results = []
    for turn in range(TURNS):
        results += flex.get([f.remote(i) for i in range(10)], timeout=60)
        time.sleep(0.2)
    assert all(r == (WHO, mymod.double(i % 10), WHO) for i, r in enumerate(results)), results
    sys.stdout.until(f"task of {WHO}")
    print("ok", len(results))
"""
)


def code(directory: Path, name: str, factor: int) -> None:
    directory.mkdir(exist_ok=True)
    (directory / "mymod.py").write_text(f"NAME = {name!r}\ndef double(x):\n    return ({name!r}, x * {factor})\n")


@pytest.fixture(scope="module")
def started(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The pool, started by a driver with a secret, a module and a directory of its own. Returns that directory."""
    directory = tmp_path_factory.mktemp("starter")
    code(directory, "starter", 9)
    cluster.run(directory, START, STARTERS_SECRET="s3cret")
    return directory


def test_equal_names_one_after_the_other(cluster: Cluster, started: Path, tmp_path: Path) -> None:
    for name, factor in (("a", 2), ("b", 3)):
        code(tmp_path / name, name, factor)
        out = cluster.run(tmp_path / name, SAME_NAMES.replace("TURNS", "1"))
        assert "ok 10" in out
        other = "b" if name == "a" else "a"
        assert f"task of {name}" in out and f"task of {other}" not in out


def test_equal_names_at_the_same_time(cluster: Cluster, started: Path, tmp_path: Path) -> None:
    drivers = {}
    for name, factor in (("a", 2), ("b", 3)):
        code(tmp_path / name, name, factor)
        drivers[name] = cluster.driver(tmp_path / name, SAME_NAMES.replace("TURNS", "5"))
    outputs = {name: finish(driver) for name, driver in drivers.items()}
    for name, other in (("a", "b"), ("b", "a")):
        assert "ok 50" in outputs[name]
        assert f"task of {name}" in outputs[name]
        assert f"task of {other}" not in outputs[name]


def test_nothing_of_the_starter_reaches_other_drivers(cluster: Cluster, started: Path, tmp_path: Path) -> None:
    out = cluster.run(
        tmp_path,
        """
        import json, os, sys
        import flexray as flex

        @flex.task(gpu=0.25)
        def look():
            try:
                import mymod
                found = mymod.NAME
            except ImportError:
                found = None
            return {"environ": dict(os.environ), "path": sys.path, "cwd": os.getcwd(), "mymod": found}

        print("LOOK" + json.dumps(look.remote().result(60)))
        """,
    )
    look = json.loads(next(line for line in out.splitlines() if line.startswith("LOOK"))[4:])
    assert "STARTERS_SECRET" not in look["environ"]
    assert not [value for value in look["environ"].values() if "s3cret" in value]
    assert str(started) not in look["path"]
    assert look["cwd"] != str(started)
    assert look["mymod"] is None
    assert str(tmp_path) in look["path"]  # its own directory is there


def test_a_killed_driver_gives_back_what_it_held(cluster: Cluster, started: Path, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    driver = cluster.driver(
        tmp_path,
        f"""
        import os, time
        import flexray as flex

        @flex.task(gpu=1)
        def hog():
            open({str(mark)!r}, "a").write(f"{{os.getpid()}}\\n")
            time.sleep(600)

        flex.get([hog.remote() for _ in range(4)])
        """,
    )
    until(lambda: mark.exists() and len(mark.read_text().split()) == 2, "both devices are taken", WAIT)
    os.kill(driver.pid, signal.SIGKILL)
    driver.communicate()
    pids = [int(pid) for pid in mark.read_text().split()]
    until(lambda: not any(alive(pid) for pid in pids), "its slices are gone", 30)
    out = cluster.run(
        tmp_path / "next",
        """
        import flexray as flex

        @flex.task(gpu=1)
        def f():
            return 1

        print(flex.get([f.remote() for _ in range(4)], timeout=60))
        """,
    )
    assert "[1, 1, 1, 1]" in out


JOB = (
    TEE
    + """
    import os
    import flexray as flex
    import mymod

    flex.init()

    @flex.task(gpu=0.25)
    def f(x):
        print(f"printed in a task of {mymod.NAME}")
        return mymod.NAME, x, os.environ.get("JOBS_SECRET")

    print("RESULT", flex.get([f.remote(i) for i in range(3)], timeout=60))
    sys.stdout.until("printed in a task of")
    sys.exit(EXIT)
"""
)


def test_jobs_with_a_working_directory_and_variables(cluster: Cluster, started: Path, tmp_path: Path) -> None:
    code(tmp_path / "one", "one", 2)
    code(tmp_path / "two", "two", 2)
    one = cluster.submit(tmp_path / "one", JOB.replace("EXIT", "0"), {"JOBS_SECRET": "of one"})
    two = cluster.submit(tmp_path / "two", JOB.replace("EXIT", "3"), {})
    log, _ = one.communicate(timeout=150)
    assert one.returncode == 0, log
    assert "RESULT [('one', 0, 'of one'), ('one', 1, 'of one'), ('one', 2, 'of one')]" in log
    assert "printed in a task of one" in log
    log, _ = two.communicate(timeout=150)
    assert two.returncode != 0
    assert "RESULT [('two', 0, None), ('two', 1, None), ('two', 2, None)]" in log
    assert "printed in a task of two" in log and "of one" not in log
