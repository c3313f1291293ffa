"""The backends of Ascend, AMD and Intel over doubles of their makers' commands, in a real probe process."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from makers import Double, gpu, install, npus, xpu

from flexray.devices.amd import AmdBackend
from flexray.devices.ascend import AscendBackend
from flexray.devices.backend import DeviceBackend, NodeFacts, ProbeStatus, ProcessUse, Sample
from flexray.devices.child import ProbeChild
from flexray.devices.commands import CommandFailed
from flexray.devices.intel import IntelBackend
from flexray.devices.npu_smi import memory_size, memory_used, parse_fields, parse_mapping, parse_processes
from flexray.model.amounts import MemoryMiB
from flexray.model.condition import Severity
from flexray.model.devices import BackendReport, Device, DeviceState, DeviceType, Family

NO_TYPE = DeviceType("acme/X1", MemoryMiB(1024))
GPUS = NodeFacts("n", resources={"GPU": 2.0})
NPUS = NodeFacts("n", resources={"NPU": 2.0})


@pytest.fixture
def npu_smi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Double:
    return install("npu-smi", tmp_path, monkeypatch)


@pytest.fixture
def amd_smi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Double:
    return install("amd-smi", tmp_path, monkeypatch)


@pytest.fixture
def xpu_smi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Double:
    return install("xpu-smi", tmp_path, monkeypatch)


def shown(devices: Sequence[Device]) -> list[tuple[str, str, int, str]]:
    return [(device.id, device.type.name, device.type.memory, device.key) for device in devices]


def report_of(name: str, reports: Sequence[BackendReport]) -> BackendReport:
    return next(report for report in reports if report.backend == name)


# -- Ascend ----------------------------------------------------------------------------------------


def test_npus_are_found_watched_and_lost(npu_smi: Double, child: ProbeChild) -> None:
    busy = {"busy": 40, "memory": 50, "processes": [{"pid": 7, "mib": 900}], "health": "Warning"}
    npu_smi.set(**npus(busy, {"name": "310P3"}))
    devices, reports = child.discover(NPUS)
    assert shown(devices) == [
        ("n/npu0", "ascend/910B3", 65536, "0.0"),
        ("n/npu1", "ascend/310P3", 24576, "1.0"),
    ]
    assert {(d.family, d.backend, d.state) for d in devices} == {(Family.NPU, "ascend", DeviceState.READY)}
    assert report_of("ascend", reports) == BackendReport("ascend", 2)
    assert child.health(devices[0]).ok, "a warning is no reason to stop"
    assert child.sample(devices[0]) == Sample(40.0, 32768, (ProcessUse(7, 900),))
    assert child.sample(devices[1]) == Sample(0.0, 1229, ())
    npu_smi.set(**npus({"health": "Critical", "error": "80E01801"}, {"lost": True}))
    sick, lost = child.health(devices[0]), child.health(devices[1])
    assert not sick.ok and "80E01801" in sick.reason
    assert [(fault.code, fault.severity) for fault in sick.faults] == [("80E01801", Severity.CONDEMNS)]
    assert not lost.ok and "does not exist" in lost.reason
    assert child.sample(devices[1]) == Sample()
    found, reports = child.discover(NPUS)
    assert [device.id for device in found] == ["n/npu0"] and "NPU 1.0" in report_of("ascend", reports).reason
    npu_smi.set(**npus({"health": "Alarm", "double_bit": 2}))
    faults = child.health(devices[0]).faults
    assert [(fault.code, fault.severity) for fault in faults] == [("ECC", Severity.CONDEMNS), ("", Severity.PASSING)]
    assert "2 memory errors" in faults[0].message
    npu_smi.set(**npus({"health": "Alarm"}), fail={"ecc": "This device does not support querying ecc."})
    assert [fault.severity for fault in child.health(devices[0]).faults] == [Severity.PASSING], "the verdict stands"


@pytest.mark.parametrize(
    ("fail", "reason"), [("driver", "dcmi module initialize failed"), ("rubbish", r"npu-smi said: .*\?\?\?")]
)
def test_npu_smi_that_cannot_answer_is_told_in_its_words(npu_smi: Double, fail: str, reason: str) -> None:
    npu_smi.set(**npus({}), fail=fail)
    result = AscendBackend().probe(NPUS)
    assert result.status is (ProbeStatus.DRIVER_MISSING if fail == "driver" else ProbeStatus.BROKEN)
    assert re.search(reason, result.reason)


MAPPING_24 = """
\tNPU ID                         Chip ID                        Chip Logic ID                  Chip Name
\t8                              0                              0                              Ascend 910B4
\t8                              1                              -                              Mcu
\t9                              0                              1                              Ascend 910B4
"""
MAPPING_25 = """
\tNPU ID                         Chip ID                        Chip Logic ID                  Chip Phy-ID    Chip Name
\t0                              0                              0                              4              Ascend910
\t0                              1                              1                              5              Ascend910
\t0                              2                              -                              -              Mcu
"""


def test_cards_are_not_numbered_as_masks_are_and_carry_one_chip_or_two() -> None:
    old, new = parse_mapping(MAPPING_24), parse_mapping(MAPPING_25)
    assert [(chip.key, chip.logic, chip.physical, chip.name) for chip in old] == [
        ("8.0", 0, 0, "Ascend 910B4"),
        ("9.0", 1, 1, "Ascend 910B4"),
    ]
    assert [(chip.key, chip.logic, chip.physical) for chip in new] == [("0.0", 0, 4), ("0.1", 1, 5)]


def test_lines_of_npu_smi_as_captured() -> None:
    usages = "\tNPU ID                         : 0\n\tHBM Usage Rate(%)              : 4\n"
    assert parse_fields(usages) == {"NPU ID": "0", "HBM Usage Rate(%)": "4"}
    both = {
        "DDR Capacity(MB)": "1024",
        "DDR Usage Rate(%)": "90",
        "HBM Capacity(MB)": "32768",
        "HBM Usage Rate(%)": "50",
    }
    assert (memory_size(both), memory_used(both)) == (32768, 16384)
    small = {"HBM Capacity(MB)": "0", "HBM Usage Rate(%)": "7", "DDR Capacity(MB)": "21527", "DDR Usage Rate(%)": "NA"}
    assert (memory_size(small), memory_used(small)) == (21527, None)
    named = "\tProcess id:1654497 Process name:python            Process memory(MB):177\n"
    unnamed = "\tGet pid name failed.\n\tProcess id:123 Process name: Process memory(MB):456\n"
    assert parse_processes(named + unnamed) == {1654497: 177, 123: 456}


# -- AMD -------------------------------------------------------------------------------------------


def test_amd_gpus_have_hips_numbers_not_amd_smis(amd_smi: Double, child: ProbeChild) -> None:
    processes = [{"pid": 9, "bytes": 3 * 2**30}, {"pid": 8, "bytes": "N/A"}]
    amd_smi.set(gpus=[gpu(0, node_id=5, busy=12, used=4096, processes=processes), gpu(1, node_id=3, mib=24574)])
    devices, reports = child.discover(GPUS)
    assert shown(devices) == [
        ("n/gpu0", "amd/MI300X-24GB", 24574, "0000:06:00.0"),
        ("n/gpu1", "amd/MI300X", 196592, "0000:05:00.0"),
    ]
    assert (devices[0].type.speed, devices[1].type.speed > 2) == (1.0, True), "an eighth of a card is not the card"
    assert report_of("amd", reports) == BackendReport("amd", 2)
    assert child.sample(devices[1]) == Sample(12.0, 4096, (ProcessUse(8, None), ProcessUse(9, 3072)))
    assert child.sample(devices[0]) == Sample(0.0, 283, ())
    amd_smi.set(gpus=[gpu(0, uncorrected=2), gpu(1, lost=True)], wrap=False)
    sick, lost = child.health(devices[1]), child.health(devices[0])
    assert not sick.ok and "2 uncorrected" in sick.reason
    assert [(fault.code, fault.severity) for fault in sick.faults] == [("ECC", Severity.CONDEMNS)]
    assert not lost.ok and "not found" in lost.reason
    assert child.sample(devices[0]) == Sample()


def test_what_amd_smi_cannot_tell_is_none(amd_smi: Double) -> None:
    amd_smi.set(gpus=[gpu(0, busy="N/A", used="N/A", uncorrected="N/A")])
    backend = AmdBackend()
    (device,) = backend.probe(GPUS).devices
    assert backend.sample(device) == Sample(None, None, ())
    assert backend.health(device).ok


@pytest.mark.parametrize(("fail", "status"), [("driver", ProbeStatus.DRIVER_MISSING), ("rubbish", ProbeStatus.BROKEN)])
def test_amd_smi_that_cannot_answer(amd_smi: Double, fail: str, status: ProbeStatus) -> None:
    amd_smi.set(gpus=[gpu(0)], fail=fail)
    result = AmdBackend().probe(GPUS)
    assert result.status is status and result.reason.startswith("amd-smi said: ")


def test_a_python_module_that_breaks_on_import_is_never_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "amdsmi.py").write_text("raise KeyError('ROCM_HOME')")
    monkeypatch.syspath_prepend(str(tmp_path))
    AmdBackend().probe(GPUS)
    assert "amdsmi" not in sys.modules


# -- Intel -----------------------------------------------------------------------------------------


def test_intel_cards_are_found_watched_and_lost(xpu_smi: Double, child: ProbeChild) -> None:
    processes = [{"pid": 5, "kb": 2048}]
    virtual = xpu(7, function="virtual")
    xpu_smi.set(gpus=[xpu(0, busy=60.5, used=1000.7, processes=processes), virtual, xpu(1, only_tiles=True, busy=10.0)])
    devices, reports = child.discover(GPUS)
    assert shown(devices) == [
        ("n/gpu0", "intel/Max-1550", 131072, "0000:4d:00.0"),
        ("n/gpu1", "intel/Max-1550", 131072, "0000:4e:00.0"),
    ]
    assert report_of("intel", reports) == BackendReport("intel", 2)
    assert child.sample(devices[0]) == Sample(60.5, 1000, (ProcessUse(5, 2),))
    assert child.sample(devices[1]) == Sample(10.0, 122, ()), "busy on average, memory of both tiles"
    assert child.health(devices[0]).ok
    xpu_smi.set(gpus=[xpu(0, health={"memory": "Critical", "power": "Unknown"}), xpu(1, lost=True)])
    sick, lost = child.health(devices[0]), child.health(devices[1])
    assert not sick.ok and sick.reason.startswith("ECC: memory: ")
    assert [(fault.code, fault.severity) for fault in sick.faults] == [("ECC", Severity.CONDEMNS)]
    assert not lost.ok and "device not found" in lost.reason
    assert child.sample(devices[1]) == Sample()
    xpu_smi.set(gpus=[xpu(0, health={"core_temperature": "Critical"})])
    hot = child.health(devices[0])
    assert not hot.ok and [fault.severity for fault in hot.faults] == [Severity.PASSING]


@pytest.mark.parametrize(("fail", "status"), [("driver", ProbeStatus.DRIVER_MISSING), ("rubbish", ProbeStatus.BROKEN)])
def test_xpu_smi_that_cannot_answer(xpu_smi: Double, fail: str, status: ProbeStatus) -> None:
    xpu_smi.set(gpus=[xpu(0)], fail=fail)
    result = IntelBackend().probe(GPUS)
    assert result.status is status and result.reason.startswith("xpu-smi said: ")


def test_xpu_smi_is_asked_without_the_mask_that_would_number_anew(
    xpu_smi: Double, monkeypatch: pytest.MonkeyPatch
) -> None:
    xpu_smi.set(gpus=[xpu(0), xpu(1)])
    monkeypatch.setenv("ZE_AFFINITY_MASK", "1")
    result = IntelBackend().probe(NodeFacts("n", resources={"GPU": 1.0}, visible={"ZE_AFFINITY_MASK": "1"}))
    assert [device.index for device in result.devices] == [1]


# -- all of them -----------------------------------------------------------------------------------

MAKERS: dict[str, tuple[type[Any], str, str, str]] = {
    "ascend": (AscendBackend, "NPU", "ASCEND_RT_VISIBLE_DEVICES", "npu-smi"),
    "amd": (AmdBackend, "GPU", "HIP_VISIBLE_DEVICES", "amd-smi"),
    "intel": (IntelBackend, "GPU", "ZE_AFFINITY_MASK", "xpu-smi"),
}
FOUR = {
    "ascend": npus({}, {}, {}, {}),
    "amd": {"gpus": [gpu(number) for number in range(4)]},
    "intel": {"gpus": [xpu(number) for number in range(4)]},
}


@pytest.fixture(params=MAKERS)
def maker(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def backend_of(maker: str, run: Any) -> DeviceBackend:
    backend: DeviceBackend = MAKERS[maker][0](run)
    return backend


def test_only_the_devices_ray_may_use_are_found(maker: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cls, resource, variable, command = MAKERS[maker]
    install(command, tmp_path, monkeypatch).set(**FOUR[maker])
    backend = cls()

    def found(count: float, **visible: str) -> list[int]:
        facts = NodeFacts("n", resources={resource: count}, visible=visible)
        return [device.index for device in backend.probe(facts).devices]

    assert found(2) == [0, 1]
    assert found(2, **{variable: "3, 1,0"}) == [1, 3]
    assert found(9, **{variable: "2"}) == [2]
    assert found(4, CUDA_VISIBLE_DEVICES="0") == [0, 1, 2, 3], "another maker's mask says nothing"
    hidden = backend.probe(NodeFacts("n", resources={resource: 1.0}, visible={variable: "nothing"}))
    assert hidden.status is ProbeStatus.NO_DEVICES and "none of 4" in hidden.reason


def test_a_command_that_is_not_installed_is_said_with_what_to_do(maker: str) -> None:
    def run(argv: Sequence[str], seconds: float) -> str:
        raise CommandFailed(ProbeStatus.LIBRARY_MISSING, f"{argv[0]} is not found")

    result = backend_of(maker, run).probe(NodeFacts("n", resources={"GPU": 1.0}))
    assert result.status is ProbeStatus.LIBRARY_MISSING and ": install " in result.reason


def test_a_command_that_hangs_is_given_up_in_time(maker: str) -> None:
    asked: list[float] = []

    def run(argv: Sequence[str], seconds: float) -> str:
        asked.append(seconds)
        raise CommandFailed(ProbeStatus.BROKEN, f"{argv[0]} gave no answer within {seconds:g} s")

    backend = backend_of(maker, run)
    device = Device("n/gpu0", "n", 0, NO_TYPE, Family.GPU, maker, key="0.0")
    assert backend.probe(GPUS).status is ProbeStatus.BROKEN
    assert backend.sample(device) == Sample()
    assert not backend.health(device).ok
    assert len(asked) == 3 and max(asked[1:]) < 10, "the probe's parent waits 10 s for a sample, 30 s for a discovery"
    assert asked[0] <= 8, "three makers may hang"


@pytest.mark.parametrize("answer", ["[]", "{}", "null", "3", '{"device_list": [{}]}', '[{"gpu": 0}]', "\x00"])
def test_answers_of_another_release_break_nothing(maker: str, answer: str) -> None:
    backend = backend_of(maker, lambda argv, seconds: answer)
    device = Device("n/gpu0", "n", 0, NO_TYPE, Family.GPU, maker, key="0.0")
    result = backend.probe(GPUS)
    assert result.status in (ProbeStatus.BROKEN, ProbeStatus.NO_DEVICES) and result.reason
    backend.sample(device)
    backend.health(device)
