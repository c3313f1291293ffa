"""NvidiaBackend over the real nvidia-ml-py and a libnvidia-ml.so.1 made of a text file, in a real probe process."""

from __future__ import annotations

import sys
import types
from collections.abc import Callable
from pathlib import Path

import pytest

from flexray.devices.backend import NodeFacts, ProbeStatus, ProcessUse, Sample
from flexray.devices.child import ProbeChild
from flexray.devices.nvidia import NvidiaBackend
from flexray.model.amounts import MemoryMiB
from flexray.model.devices import BackendReport, Device, DeviceState, DeviceType, Family
from flexray.model.isolation import Isolation

pytest.importorskip("pynvml")

FACTS = NodeFacts("n", resources={"GPU": 3.0})
SHUT_DOWN_BY_OTHERS = """
from flexray.devices.discover import make_backends
from flexray.devices.nvidia import NvidiaBackend
from flexray.devices.probe import serve
class Disturbed(NvidiaBackend):
    def sample(self, device):
        import pynvml
        pynvml.nvmlShutdown()
        return super().sample(device)
serve({**make_backends(), "nvidia": Disturbed()})
"""

Configure = Callable[[str], None]


def gpus(probe: ProbeChild, facts: NodeFacts = FACTS) -> tuple[tuple[Device, ...], BackendReport]:
    """The devices found, and what the NVIDIA backend reported."""
    devices, reports = probe.discover(facts)
    return devices, next(report for report in reports if report.backend == "nvidia")


def test_three_gpus_are_found_with_their_own_types(nvml: Configure, child: ProbeChild) -> None:
    devices, report = gpus(child)
    assert [(device.id, device.type.name, device.type.memory) for device in devices] == [
        ("n/gpu0", "nvidia/A100-40GB", 40960),
        ("n/gpu1", "nvidia/A100-40GB", 40960),
        ("n/gpu2", "nvidia/H100-80GB", 81559),
    ]
    assert devices[2].key == "GPU-deadbeef-0000-0000-0000-000000000002"
    assert {(d.family, d.backend, d.state, d.isolation) for d in devices} == {
        (Family.GPU, "nvidia", DeviceState.READY, Isolation.NONE)
    }
    assert report == BackendReport("nvidia", 3)
    assert all(child.health(device).ok for device in devices)


def test_use_and_processes_of_a_gpu(nvml: Configure, child: ProbeChild) -> None:
    (busy, mig, idle), _ = gpus(child)
    assert child.sample(busy) == Sample(37.0, 5120, (ProcessUse(4242, 2048, 25.0), ProcessUse(4343, 3072, 12.0)))
    assert child.sample(mig) == Sample(None, 0, ()), "NVML does not tell the utilisation in MIG mode"
    assert child.sample(idle) == Sample(0.0, 0, ())


def test_a_lost_gpu_seen_before_is_lost_until_it_is_back(nvml: Configure, child: ProbeChild, gpus_conf: str) -> None:
    before, _ = gpus(child)
    nvml(gpus_conf + "lost=1\n")
    devices, report = gpus(child)
    assert [device.state for device in devices] == [DeviceState.READY, DeviceState.READY, DeviceState.LOST]
    assert (devices[2].key, devices[2].id) == (before[2].key, before[2].id)
    assert report.found == 3 and "GPU 2" in report.reason and "lost" in report.reason.lower()
    health = child.health(before[2])
    assert not health.ok and "lost" in health.reason.lower()
    assert child.sample(before[2]) == Sample()
    nvml(gpus_conf)
    assert gpus(child)[0] == before
    assert child.health(before[2]).ok


def test_a_lost_gpu_never_seen_is_counted_in_the_reason(nvml: Configure, child: ProbeChild, gpus_conf: str) -> None:
    nvml(gpus_conf + "lost=1\n")
    devices, report = gpus(child)
    assert [device.id for device in devices] == ["n/gpu0", "n/gpu1"]
    assert report.found == 2 and "GPU 2" in report.reason


def test_a_removed_gpu_is_not_well(nvml: Configure, child: ProbeChild, gpus_conf: str) -> None:
    before, _ = gpus(child)
    nvml(gpus_conf.split("[2]")[0])
    devices, report = gpus(child)
    assert devices == before[:2] and report == BackendReport("nvidia", 2)
    assert not child.health(before[2]).ok
    assert child.sample(before[2]) == Sample()
    assert child.health(before[0]).ok


def test_uncorrected_memory_errors_make_a_gpu_sick(nvml: Configure, child: ProbeChild, gpus_conf: str) -> None:
    nvml(gpus_conf + "ecc_sbe=9\n")
    (_, _, gpu), _ = gpus(child)
    assert child.health(gpu).ok, "corrected errors do no harm"
    nvml(gpus_conf + "ecc_dbe=2\n")
    health = child.health(gpu)
    assert not health.ok and "2 uncorrected ECC" in health.reason


@pytest.mark.parametrize(("error", "well"), [(3, True), (4, True), (999, False), (15, False)])
def test_not_supported_is_no_fault_and_unknown_is(
    nvml: Configure, child: ProbeChild, gpus_conf: str, error: int, well: bool
) -> None:
    nvml(gpus_conf + f"fail=TotalEccErrors:{error}\n")
    (_, _, gpu), _ = gpus(child)
    assert child.health(gpu).ok is well


def test_what_a_gpu_cannot_tell_is_none_and_the_rest_is_told(
    nvml: Configure, child: ProbeChild, gpus_conf: str
) -> None:
    nvml(gpus_conf + "proc=7:10:1:c\nfail=Utilization:3\nfail=MPSCompute:3\n")
    (_, _, gpu), _ = gpus(child)
    assert child.sample(gpu) == Sample(None, 0, (ProcessUse(7, 10),))
    nvml(gpus_conf + "proc=7:10:1:c\nproc=8:10:1:m\nfail=ProcessUtilization:6\n")
    assert child.sample(gpu).processes == (ProcessUse(7, 10, 0.0), ProcessUse(8, 10)), "no sample: it was idle"
    nvml(gpus_conf + "mem_used_mib=5\nutil=6\nfail=RunningProcesses:3\nfail=MemoryInfo:3\n")
    assert child.sample(gpu) == Sample(6.0, None, ())


@pytest.mark.parametrize(
    ("config", "reason"),
    [("init=9\n", "driver is not loaded"), ("init=999\n", "NVML failed"), ("driver=1\n", "finds no GPU")],
)
def test_no_driver_a_broken_one_and_no_gpu_are_different_reasons(
    nvml: Configure, child: ProbeChild, config: str, reason: str
) -> None:
    nvml(config)
    devices, report = gpus(child)
    assert report.found == 0 and reason in report.reason
    assert {device.backend for device in devices} == {"declared"}, "Ray's word is taken instead"


def test_a_driver_loaded_later_is_found(nvml: Configure, child: ProbeChild, gpus_conf: str) -> None:
    nvml("init=9\n")
    assert gpus(child)[1].found == 0
    nvml(gpus_conf)
    assert gpus(child)[1].found == 3


def test_a_library_that_cannot_be_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, child: ProbeChild) -> None:
    (tmp_path / "libnvidia-ml.so.1").touch()  # found first, and no library: as good as none on any machine
    monkeypatch.setenv("LD_LIBRARY_PATH", str(tmp_path))
    _, report = gpus(child)
    assert report.found == 0 and "libnvidia-ml.so.1 is not found" in report.reason


def test_nvml_shut_down_by_somebody_else_is_started_again(nvml: Configure) -> None:
    probe = ProbeChild(command=[sys.executable, "-c", f"import sys; sys.path = {sys.path!r}{SHUT_DOWN_BY_OTHERS}"])
    try:
        (_, _, gpu), _ = gpus(probe)
        assert [probe.sample(gpu), probe.sample(gpu)] == [Sample(0.0, 0)] * 2
    finally:
        probe.close()


@pytest.mark.parametrize(
    ("facts", "indexes"),
    [
        (NodeFacts("n", resources={"GPU": 2.0}), [0, 1]),
        (NodeFacts("n", resources={"GPU": 9.0}), [0, 1, 2]),
        (NodeFacts("n", resources={"GPU": 2.0}, visible={"CUDA_VISIBLE_DEVICES": "0,2"}), [0, 2]),
        (NodeFacts("n", resources={"GPU": 2.0}, visible={"CUDA_VISIBLE_DEVICES": "2, 0,1"}), [0, 2]),
        (NodeFacts("n", resources={"GPU": 1.0}, visible={"CUDA_VISIBLE_DEVICES": "GPU-deadbeef"}), [2]),
        (NodeFacts("n", resources={"GPU": 1.0}, visible={"CUDA_VISIBLE_DEVICES": "GPU-deadbeef,1"}), [2]),
    ],
)
def test_only_the_gpus_ray_may_use_are_found(
    nvml: Configure, child: ProbeChild, facts: NodeFacts, indexes: list[int]
) -> None:
    assert [device.index for device in gpus(child, facts)[0]] == indexes


def test_a_mask_that_hides_every_gpu_is_a_reason(nvml: Configure, child: ProbeChild) -> None:
    _, report = gpus(child, NodeFacts("n", resources={"GPU": 1.0}, visible={"CUDA_VISIBLE_DEVICES": ""}))
    assert report == BackendReport("nvidia", 0, "none of 3 GPUs is visible to Ray")


def test_without_the_python_package_the_reason_has_the_install_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    result = NvidiaBackend().probe(FACTS)
    assert result.status is ProbeStatus.LIBRARY_MISSING and "pip install nvidia-ml-py" in result.reason


def test_a_package_that_breaks_when_imported_is_broken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "pynvml.py").write_text("raise KeyError('HOME_OF_SOMETHING')")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "pynvml", raising=False)
    result = NvidiaBackend().probe(FACTS)
    assert result.status is ProbeStatus.BROKEN and "HOME_OF_SOMETHING" in result.reason


def test_memory_a_driver_does_not_tell_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    import pynvml  # type: ignore[import-untyped, unused-ignore]

    double = types.ModuleType("pynvml")
    double.__dict__.update({name: value for name, value in vars(pynvml).items() if name.startswith("NVMLError")})
    process = types.SimpleNamespace(pid=7, usedGpuMemory=None)
    answers = {
        "nvmlInit": None,
        "nvmlDeviceGetHandleByUUID": "handle",
        "nvmlDeviceGetUtilizationRates": types.SimpleNamespace(gpu=5),
        "nvmlDeviceGetMemoryInfo": types.SimpleNamespace(used=2**21, total=2**30),
        "nvmlDeviceGetComputeRunningProcesses": [process],
        "nvmlDeviceGetMPSComputeRunningProcesses": [],
        "nvmlDeviceGetProcessUtilization": [],
    }
    for name, value in answers.items():
        setattr(double, name, lambda *_args, value=value: value)
    monkeypatch.setitem(sys.modules, "pynvml", double)
    gpu = Device("n/gpu0", "n", 0, DeviceType("nvidia/T4", MemoryMiB(1024)), Family.GPU, "nvidia", key="GPU-0")
    assert NvidiaBackend().sample(gpu) == Sample(5.0, 2, (ProcessUse(7, None, 0.0),))
