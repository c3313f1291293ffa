"""MIG and MPS through a real Ray: NVIDIA's own Python package and Ray over doubles of the driver and its commands."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import flexray as flex

from .conftest import until

DOUBLES = Path(__file__).parents[1] / "doubles"
A100, T4, A10 = "nvidia/A100-40GB", "nvidia/T4", "nvidia/A10"
MIG_GPU = "name=NVIDIA A100-SXM4-40GB\nmem_total_mib=40960\nmig_mode=1"
MPS_GPU = "name=Tesla T4\nmem_total_mib=15360\ncc=7.5"
HAMI_GPU = "name=NVIDIA A10\nmem_total_mib=23028\ncc=8.6"


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A pool on one node with an A100 in MIG mode, a T4 and an A10; yields the folder of the doubles' logs."""
    import ray

    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler")
    folder = tmp_path_factory.mktemp("nvidia")
    script, shared = folder / "gpus.conf", [compiler, "-O1", "-w", "-shared", "-fPIC"]
    library = ["-Wl,-soname,libnvidia-ml.so.1", "-o", str(folder / "libnvidia-ml.so.1")]
    subprocess.run([*shared, *library, str(DOUBLES / "fake_nvml.c")], check=True)
    subprocess.run([*shared, "-o", str(folder / "libvgpu.so"), str(DOUBLES / "vgpu.c")], check=True)
    script.write_text(f"driver=550.54\n[0]\n{MIG_GPU}\n[1]\n{MPS_GPU}\n[2]\n{HAMI_GPU}\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LD_LIBRARY_PATH", str(folder))
        patch.setenv("FAKE_NVML_CONFIG", str(script))
        patch.setenv("FLEXRAY_VGPU_LIB", str(folder / "libvgpu.so"))
        patch.setenv("FAKE_SMI_LOG", str(folder / "smi.log"))
        patch.setenv("FAKE_MPS_LOG", str(folder / "mps.log"))
        patch.setenv("PATH", f"{commands(folder)}{os.pathsep}{os.environ['PATH']}")
        ray.init(num_cpus=8, num_gpus=3, include_dashboard=False, log_to_driver=False, logging_level="error")
        flex.init(config={"poll_seconds": 0.2, "isolation": {A10: "hami"}})
        until(lambda: [d.state for d in flex.pool().devices] == ["ready"] * 3)
        yield folder
        from flexray.runtime.pool import stop_pool

        flex.shutdown()
        stop_pool()
        ray.shutdown()
        assert instances() == [], "a pool that ends leaves nothing on the node"
        assert "quit" in (folder / "mps.log").read_text().splitlines()[-1]


def commands(folder: Path) -> Path:
    """The doubles of NVIDIA's commands, for this Python: finding another costs more than they do."""
    (folder / "bin").mkdir()
    for name in ("nvidia-smi", "nvidia-cuda-mps-control"):
        text = (DOUBLES / name).read_text().split("\n", 1)[1]
        (folder / "bin" / name).write_text(f"#!{sys.executable} -IS\n{text}")
        (folder / "bin" / name).chmod(0o755)
    return folder / "bin"


class Holder:
    """Keeps its slice, and says what it sees."""

    def here(self) -> tuple[dict[str, str], str, str, tuple[str, ...]]:
        mine = ("CUDA_VISIBLE_DEVICES", "CUDA_MPS_PIPE_DIRECTORY", "CUDA_MPS_ACTIVE_THREAD_PERCENTAGE")
        names = (*mine, "CUDA_MPS_PINNED_DEVICE_MEM_LIMIT")
        current = flex.current()
        seen = {name: os.environ[name] for name in names if name in os.environ}
        return seen, current.isolation, current.guarantee, current.notes

    def preloaded(self) -> tuple[str, str]:
        """The limit it is told, and the libraries in its memory."""
        return os.environ["CUDA_DEVICE_MEMORY_LIMIT"], Path("/proc/self/maps").read_text()

    def pid(self) -> int:
        return os.getpid()


def hold(**asked: Any) -> Any:
    return flex.actor(**asked)(Holder).remote()


def smi(*arguments: str) -> str:
    done = subprocess.run(["nvidia-smi", *arguments], capture_output=True, text=True, check=False)
    return done.stdout


def instances() -> list[tuple[str, int]]:
    """(profile, start) of each GPU instance of the A100."""
    rows = [line.split() for line in smi("mig", "-i", "0", "-lgi").splitlines() if " MIG " in line]
    return sorted((row[3], int(row[6].split(":")[0])) for row in rows)


def device(kind: str) -> Any:
    return next(one for one in flex.pool().devices if one.type == kind)


def test_each_gpu_has_the_best_that_works_there(node: Path) -> None:
    assert {d.type: (d.isolation, d.guarantee) for d in flex.pool().devices} == {
        A100: ("mig", "hardware"),
        T4: ("mps", "hard per process"),
        A10: ("hami", "compute soft average, memory hard per slice"),
    }
    assert instances() == [], "trying it left nothing behind"


def test_parts_of_a_mig_gpu_are_instances_of_their_own(node: Path) -> None:
    small, large = hold(gpu=0.14, types=A100), hold(gpu=0.5, types=A100)
    (one, isolation, guarantee, notes), (other, *_) = small.here.remote().result(90), large.here.remote().result(90)
    assert (isolation, guarantee) == ("mig", "hardware")
    assert len({one["CUDA_VISIBLE_DEVICES"], other["CUDA_VISIBLE_DEVICES"]}) == 2
    for seen in (one, other):
        assert seen["CUDA_VISIBLE_DEVICES"].startswith("MIG-") and seen["CUDA_VISIBLE_DEVICES"] in smi("-L")
    assert [name for name, _ in instances()] == ["1g.5gb", "4g.20gb"] and ("4g.20gb", 0) in instances()
    assert notes[0].startswith("MIG 1g.5gb at place")
    assert device(A100).share_free == pytest.approx(1 - 0.142 - 0.571), "what is booked is what was granted"
    small.stop()
    large.stop()
    until(lambda: device(A100).share_free == 1.0)


def test_the_next_slice_uses_the_instance_that_is_there(node: Path) -> None:
    before = smi("-L")
    log = node / "smi.log"
    log.write_text("")
    again = hold(gpu=0.14, types=A100)
    assert again.here.remote().result(90)[0]["CUDA_VISIBLE_DEVICES"] in before
    assert "-cgi" not in log.read_text()
    again.stop()


def test_part_of_a_gpu_with_mps_reaches_the_task(node: Path) -> None:
    holder = hold(gpu=0.25, memory="2GiB", types=T4)
    seen, isolation, guarantee, notes = holder.here.remote().result(90)
    pipe = Path(seen.pop("CUDA_MPS_PIPE_DIRECTORY"))
    assert seen == {
        "CUDA_VISIBLE_DEVICES": "GPU-00000000-0000-0000-0000-000000000001",
        "CUDA_MPS_ACTIVE_THREAD_PERCENTAGE": "25",
        "CUDA_MPS_PINNED_DEVICE_MEM_LIMIT": "0=2048M",
    }
    assert (isolation, guarantee) == ("mps", "hard per process")
    assert notes == ("MPS: 25 % of the compute units, 10 of 40, 2048 MiB, for each process of the slice",)
    assert (pipe / "fake_mps.json").exists()
    assert "Exclusive_Process" in smi("-i", "1", "--query-gpu=compute_mode", "--format=csv,noheader")
    holder.stop()
    until(lambda: "Default" in smi("-i", "1", "--query-gpu=compute_mode", "--format=csv,noheader"))
    assert not pipe.exists()


def test_the_operators_library_is_in_the_slice_from_the_start(node: Path) -> None:
    holder = hold(gpu=0.25, memory="2GiB", types=A10)
    limit, maps = holder.preloaded.remote().result(90)
    assert limit == "2048m" and str(node / "libvgpu.so") in maps
    assert holder.here.remote().result(90)[0]["CUDA_VISIBLE_DEVICES"] == "2"
    holder.stop()


def test_a_server_with_a_fault_is_a_clear_error(node: Path) -> None:
    first = hold(gpu=0.25, memory="2GiB", types=T4)
    state = Path(first.here.remote().result(90)[0]["CUDA_MPS_PIPE_DIRECTORY"]) / "fake_mps.json"
    daemon = json.loads(state.read_text())
    pid = first.pid.remote().result(60)
    state.write_text(json.dumps({**daemon, "servers": {"4": {"status": "FAULT", "clients": [pid]}}}))
    second = hold(gpu=0.25, memory="2GiB", types=T4)
    with pytest.raises(flex.errors.StartFailed, match=f"fatal fault.*processes {pid} have ended"):
        second.here.remote().result(90)
    first.stop()
    until(lambda: not state.exists())
    third = hold(gpu=0.25, memory="2GiB", types=T4)
    assert third.here.remote().result(90)[1] == "mps"
    third.stop()


def test_one_slice_too_many_for_a_server_is_a_clear_error(node: Path) -> None:
    from flexray.runtime.notes import notes_directory

    first = hold(gpu=0.25, memory="2GiB", types=T4)
    first.here.remote().result(90)
    slices = notes_directory(flex.pool().nodes[0].id) / "mps/GPU-00000000-0000-0000-0000-000000000001/slices"
    others = [slices / f"other{number}" for number in range(39)]
    for file in others:
        file.touch()
    with pytest.raises(flex.errors.StartFailed, match=r"40 slices already.*ask for larger shares"):
        hold(gpu=0.25, memory="2GiB", types=T4).here.remote().result(90)
    for file in others:
        file.unlink()
    first.stop()


def test_what_a_killed_agent_made_is_gone_with_the_next(node: Path) -> None:
    import ray

    from flexray.runtime.protocol import NAMESPACE, agent_name

    small, other = hold(gpu=0.14, types=A100), hold(gpu=0.25, memory="2GiB", types=T4)
    small.here.remote().result(90)
    pipe = Path(other.here.remote().result(90)[0]["CUDA_MPS_PIPE_DIRECTORY"])
    agent = ray.get_actor(agent_name(flex.pool().nodes[0].id), namespace=NAMESPACE)
    del small, other
    os.kill(ray.get(agent.__ray_call__.remote(lambda self: os.getpid())), signal.SIGKILL)
    until(lambda: not pipe.exists() and instances() == [])
