"""Scripts submitted by ``ray submit``, as jobs, and run by ``flexray run``: the commands are those of docs/batch.md."""

from __future__ import annotations

import json
import re
import shlex
import signal
import subprocess
import textwrap
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from .conftest import ROOT, Machine

pytestmark = [pytest.mark.ray, pytest.mark.timeout(300)]
PAGE = (ROOT / "docs/batch.md").read_text()
ANSWER = "the sum of the squares is 2470"


def command_of_page(begin: str) -> list[str]:
    """The one command of the page that begins so."""
    blocks = re.findall(r"^```sh\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
    [found] = [line for block in blocks for line in block.splitlines() if line.startswith(begin)]
    return shlex.split(found)


@pytest.fixture(scope="module")
def cluster(machine: Machine) -> Machine:
    """Started by the page's ``ray submit --start``, with the page's script; what that said is in ``said``."""
    (machine.folder / "squares.py").write_text(re.search(r"^```python\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)[1])
    done = machine.run(*command_of_page("ray submit"))
    assert done.returncode == 0 and ANSWER in done.stdout, done.stdout + done.stderr
    assert "the pool runs: 1 devices on 1 nodes" in done.stdout
    return machine


@pytest.fixture(scope="module")
def jobs(cluster: Machine) -> Any:
    from ray.job_submission import JobSubmissionClient

    return JobSubmissionClient(cluster.dashboard)


def job(cluster: Machine, name: str, script: str) -> str:
    """A folder with a script, to be a job's working directory."""
    folder = cluster.folder / name
    folder.mkdir()
    (folder / "main.py").write_text(textwrap.dedent(script))
    return str(folder)


def until(holds: Callable[[], Any], seconds: float = 60) -> Any:
    deadline = time.monotonic() + seconds
    while True:
        value = holds()
        if value:
            return value
        assert time.monotonic() < deadline, f"not within {seconds} s: {value!r}"
        time.sleep(0.1)


def ended(jobs: Any, name: str) -> Any:
    """How a job ended."""
    return until(lambda: (info := jobs.get_job_info(name)).status.is_terminal() and info, 120)


def test_ray_submit_passes_arguments_and_tells_failure(cluster: Machine) -> None:
    (cluster.folder / "fails.py").write_text("import sys\nprint('says', *sys.argv[1:])\nsys.exit(7)\n")
    done = cluster.run("ray", "submit", "cluster.yaml", "fails.py", "--", "--some", "thing")
    assert "says --some thing" in done.stdout
    assert done.returncode == 1  # Ray's, for whatever the script ends with


def wheel(folder: Path) -> Path:
    """A package that is nowhere else, made by hand: no index is asked and nothing built."""
    path = folder / "fxwheel-1.0-py3-none-any.whl"
    about = "Metadata-Version: 2.1\nName: fxwheel\nVersion: 1.0\n"
    kind = "Wheel-Version: 1.0\nGenerator: a test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    files = {"fxwheel.py": "WORD = 'packed'\n", "METADATA": about, "WHEEL": kind, "RECORD": ""}
    with zipfile.ZipFile(path, "w") as made:
        for name, text in files.items():
            made.writestr(name if name.endswith(".py") else f"fxwheel-1.0.dist-info/{name}", text)
    return path


ASKS_MODULE = """
    import sys
    import flexray as flex

    @flex.task(accelerator=0.25)
    def word():
        import {module}
        print("a print of", {module}.WORD)
        return {module}.WORD

    print("the slice says", word.remote().result(100))
    sys.exit({code})
"""


@pytest.fixture(scope="module")
def submitted(cluster: Machine) -> Iterator[subprocess.Popen[str]]:
    """The page's ``ray job submit``, which takes seconds to end after its job: other tests go on meanwhile."""
    with subprocess.Popen(
        command_of_page("ray job submit"),
        cwd=cluster.folder,
        env={**cluster.env, "RAY_API_SERVER_ADDRESS": cluster.dashboard},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as command:
        yield command
        command.kill()


def test_jobs_at_once_have_code_packages_logs_and_exit_codes_of_their_own(
    cluster: Machine, submitted: subprocess.Popen[str], jobs: Any
) -> None:
    """A package as a wheel and a folder; not by ``pip``, for which Ray would copy the environment that runs this."""
    library = cluster.folder / "lib/fxmodule"
    library.mkdir(parents=True)
    (library / "__init__.py").write_text("WORD = 'sent'\n")
    names = []
    for module, code, path in (("fxwheel", 0, wheel(cluster.folder)), ("fxmodule", 3, library)):
        folder = job(cluster, module, ASKS_MODULE.format(module=module, code=code))
        needs = {"working_dir": folder, "py_modules": [str(path)]}
        names.append(jobs.submit_job(entrypoint="python main.py", runtime_env=needs))
    results = [ended(jobs, name) for name in names]
    logs = [jobs.get_job_logs(name) for name in names]
    assert [result.driver_exit_code for result in results] == [0, 3], logs
    assert [str(result.status) for result in results] == ["SUCCEEDED", "FAILED"]
    assert "the slice says packed" in logs[0] and "sent" not in logs[0]
    assert "the slice says sent" in logs[1] and "packed" not in logs[1]


def status(cluster: Machine) -> dict[str, Any]:
    done = cluster.run("flexray", "status", "--json")
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


SLEEPS = """
    import signal, time
    import flexray as flex

    @flex.task(accelerator=0.25)
    def sleep(number):
        print("asleep", number, flush=True)
        time.sleep(1000)

    {more}
    futures = [sleep.remote(number) for number in range(2)]
    flex.get(futures)
"""


def test_what_a_stopped_job_held_is_free(cluster: Machine, jobs: Any) -> None:
    """Even where its script does not listen, so that Ray kills it three seconds later."""
    folder = job(cluster, "sleeps", SLEEPS.format(more="signal.signal(signal.SIGTERM, signal.SIG_IGN)"))
    needs = {"working_dir": folder, "env_vars": {"RAY_DEDUP_LOGS": "0"}}
    name = jobs.submit_job(entrypoint="python main.py", runtime_env=needs)
    try:
        until(lambda: jobs.get_job_logs(name).count("asleep") == 2, 100)
        assert len(status(cluster)["running"]) == 2
    finally:
        jobs.stop_job(name)
    assert str(ended(jobs, name).status) == "STOPPED"
    until(lambda: not (now := status(cluster))["running"] and not now["slices"])


def test_ray_job_submit_waits_for_the_end_of_its_job(submitted: subprocess.Popen[str]) -> None:
    output, _ = submitted.communicate(timeout=120)
    assert submitted.returncode == 0 and ANSWER in output, output


@pytest.fixture(scope="module")
def on_its_own(machine: Machine) -> Iterator[subprocess.Popen[bytes]]:
    """A ``flexray run`` on a Ray of its own, beside what the tests do with the cluster."""
    (machine.folder / "exits.py").write_text("import sys, flexray as flex\nflex.init()\nsys.exit(len(sys.argv))\n")
    line = ["flexray", "run", "--address", "local", "exits.py", "--a", "--", "b"]
    with subprocess.Popen(line, cwd=machine.folder, env=machine.env) as command:
        yield command
        command.kill()


def test_flexray_run_joins_what_is_there_and_leaves_it(cluster: Machine, on_its_own: subprocess.Popen[bytes]) -> None:
    done = cluster.run(*command_of_page("flexray run"))
    assert (done.returncode, done.stdout) == (0, f"{ANSWER}\n"), done.stderr
    assert len(status(cluster)["devices"]) == 1


def test_flexray_run_on_a_ray_of_its_own_exits_as_the_script(on_its_own: subprocess.Popen[bytes]) -> None:
    assert on_its_own.wait(timeout=100) == 4


def test_flexray_run_stops_a_pool_that_it_started(cluster: Machine) -> None:
    """On a Ray that goes on, for a script that is ended by a signal."""
    assert cluster.run("flexray", "stop").returncode == 0
    script = job(cluster, "run", SLEEPS.format(more='print("begun", flush=True)'))
    line = ["flexray", "run", f"{script}/main.py"]
    with subprocess.Popen(line, cwd=cluster.folder, env=cluster.env, stdout=subprocess.PIPE, text=True) as run:
        assert run.stdout.readline() == "begun\n"
        run.send_signal(signal.SIGTERM)
        assert run.wait(timeout=100) == 128 + signal.SIGTERM
    after = cluster.run("flexray", "status")
    assert after.returncode == 1 and "has no flexray pool" in after.stderr
