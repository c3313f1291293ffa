"""NVIDIA devices end to end: the real nvidia-ml-py and Ray itself over a double of the driver's library."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

import flexray as flex
from flexray.cli import main

from .conftest import until

DOUBLES = Path(__file__).parents[1] / "doubles"
A100, T4 = "name=NVIDIA A100-SXM4-80GB\nmem_total_mib=81920", "name=Tesla T4\nmem_total_mib=15360"


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The double, compiled, where the dynamic linker finds it; yields the file that scripts it."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler")
    folder = tmp_path_factory.mktemp("nvml")
    library = folder / "libnvidia-ml.so.1"
    command = [compiler, "-O1", "-shared", "-fPIC", "-Wl,-soname,libnvidia-ml.so.1", "-o", str(library)]
    subprocess.run([*command, str(DOUBLES / "fake_nvml.c")], check=True)
    script = folder / "gpus.conf"
    write(script, {0: A100, 1: T4})
    saved = {name: os.environ.get(name) for name in ("LD_LIBRARY_PATH", "FAKE_NVML_CONFIG")}
    os.environ.update(LD_LIBRARY_PATH=str(folder), FAKE_NVML_CONFIG=str(script))
    yield script
    for name, value in saved.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


def write(script: Path, devices: dict[int, str]) -> None:
    """Replace the script in one step, as the double expects."""
    fresh = script.with_suffix(".new")
    fresh.write_text("driver=550.54\n" + "".join(f"[{index}]\n{keys}\n" for index, keys in devices.items()))
    fresh.replace(script)


@pytest.fixture(scope="module")
def gpus(driver: Path) -> Iterator[Path]:
    """A pool on one node whose GPUs Ray itself detected through the double."""
    import ray

    subprocess_env = dict(os.environ)
    assert subprocess_env["FAKE_NVML_CONFIG"]
    ray.init(num_cpus=4, num_gpus=2, include_dashboard=False, log_to_driver=False, logging_level="error")
    flex.init(config={"poll_seconds": 0.2, "recovery_seconds": 1})
    until(lambda: [d.state for d in flex.pool().devices] == ["ready", "ready"], 60)
    yield driver
    flex.shutdown()
    ray.shutdown()


def types() -> dict[str, Any]:
    return {d.type: d for d in flex.pool().devices}


def test_types_and_memory_come_from_the_driver(gpus: Path) -> None:
    assert {name: d.memory for name, d in types().items()} == {"nvidia/A100-80GB": 81920, "nvidia/T4": 15360}
    assert {d.backend for d in types().values()} == {"nvidia"}


def test_a_task_runs_on_the_type_it_names_and_sees_that_card(gpus: Path) -> None:
    @flex.task(gpu=0.5, types="nvidia/T4")
    def where() -> tuple[str, str, str, int]:
        here = flex.current()
        return here.device.type.name, os.environ["CUDA_VISIBLE_DEVICES"], here.isolation, here.memory

    assert where.remote().result(60) == ("nvidia/T4", "1", "turns", 7680 * 2**20)
    name, visible, _, memory = where.options(types="nvidia/A100*", memory="10GiB").remote().result(60)
    assert (name, visible, memory) == ("nvidia/A100-80GB", "0", 10 * 2**30)


def test_a_sick_card_takes_no_new_work_until_it_is_well(gpus: Path) -> None:
    write(gpus, {0: A100, 1: f"{T4}\necc_dbe=2"})
    sick = until(lambda: types()["nvidia/T4"].state == "drained" and types()["nvidia/T4"])
    assert "2 uncorrected ECC memory errors" in sick.reason

    @flex.task(gpu=1, types="nvidia/T4")
    def on_t4() -> int:
        return 1

    future = on_t4.remote()
    until(lambda: future.explain().wait_reason == "devices_sick")
    assert "1 device is cordoned: " in future.explain().needs and "uncorrected ECC" in future.explain().needs
    write(gpus, {0: A100, 1: T4})
    assert future.result(60) == 1
    assert types()["nvidia/T4"].reason == ""


def test_work_leaves_a_card_that_falls_off_the_bus_which_comes_back_when_it_is_mended(
    gpus: Path, tmp_path: Path
) -> None:
    end = tmp_path / "end"
    end.mkdir()

    @flex.task(gpu=1)
    def hold(folder: str) -> str:
        name = flex.current().device.type.name
        (Path(folder) / name.replace("/", "-")).touch()
        while not (Path(folder) / "end").exists():
            time.sleep(0.02)
        return name

    futures = [hold.remote(str(end)) for _ in range(2)]
    until(lambda: len(list(end.iterdir())) == 2)
    write(gpus, {0: f"{A100}\nlost=1\nxid=79\nxid_seq=1", 1: T4})
    lost = until(lambda: types()["nvidia/A100-80GB"].reason and types()["nvidia/A100-80GB"])
    assert lost.reason.startswith("XID 79: the GPU has fallen off the bus")
    until(lambda: types()["nvidia/A100-80GB"].state == "drained")
    (end / "end").touch()
    assert flex.get(futures, timeout=60) == ["nvidia/T4", "nvidia/T4"], "the one that was on the lost card ran again"
    write(gpus, {0: f"{A100}\nxid=79\nxid_seq=1", 1: T4})
    until(lambda: types()["nvidia/A100-80GB"].state == "ready")
    assert hold.options(types="nvidia/A100*").remote(str(end)).result(60) == "nvidia/A100-80GB"


def test_faults_of_applications_and_processes_of_nobody_are_reported(gpus: Path) -> None:
    write(gpus, {0: f"{A100}\nxid=79\nxid_seq=1", 1: f"{T4}\nxid=31\nxid_seq=1\nproc=1:700:0:c"})
    t4 = until(lambda: types()["nvidia/T4"].foreign and types()["nvidia/T4"].notes and types()["nvidia/T4"])
    assert [(one.pid, one.memory) for one in t4.foreign] == [(1, 700)]
    assert t4.notes[0].what.startswith("XID 31: ") and t4.notes[0].what.endswith("(process 1)")
    assert t4.state == "ready"
    shown = " ".join(CliRunner().invoke(main, ["status", "--address", "auto"]).output.split())
    assert "processes that belong to no slice" in shown and "XID 31" in shown
    write(gpus, {0: f"{A100}\nxid=79\nxid_seq=1", 1: f"{T4}\nxid=31\nxid_seq=1"})
    until(lambda: not types()["nvidia/T4"].foreign)
