"""NVIDIA devices end to end: the real nvidia-ml-py and Ray itself over a double of the driver's library."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import flexray as flex

from .conftest import until

DOUBLES = Path(__file__).parents[1] / "doubles"


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
    write(script, {0: "name=NVIDIA A100-SXM4-80GB\nmem_total_mib=81920", 1: "name=Tesla T4\nmem_total_mib=15360"})
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
    flex.init(config={"poll_seconds": 0.2})
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

    assert where.remote().result(60) == ("nvidia/T4", "1", "none", 7680 * 2**20)
    name, visible, _, memory = where.options(types="nvidia/A100*", memory="10GiB").remote().result(60)
    assert (name, visible, memory) == ("nvidia/A100-80GB", "0", 10 * 2**30)


def test_a_sick_card_takes_no_new_work_until_it_is_well(gpus: Path) -> None:
    a100, t4 = "name=NVIDIA A100-SXM4-80GB\nmem_total_mib=81920", "name=Tesla T4\nmem_total_mib=15360"
    write(gpus, {0: a100, 1: f"{t4}\necc_dbe=2"})
    until(lambda: types()["nvidia/T4"].state == "sick")

    @flex.task(gpu=1, types="nvidia/T4")
    def on_t4() -> int:
        return 1

    future = on_t4.remote()
    until(lambda: future.explain().wait_reason == "devices_sick")
    write(gpus, {0: a100, 1: t4})
    assert future.result(60) == 1
