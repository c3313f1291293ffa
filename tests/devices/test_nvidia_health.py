"""Faults of NVIDIA GPUs: Xids, ECC errors and more, as the real nvidia-ml-py reads them from the double."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from flexray.devices.backend import Health, NodeFacts
from flexray.devices.child import ProbeChild
from flexray.devices.faults import XIDS, xid_fault
from flexray.model.condition import Fault, Severity
from flexray.model.devices import Device

pytest.importorskip("pynvml")

Configure = Callable[[str], None]

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


@pytest.fixture
def gpu(nvml: Configure, child: ProbeChild) -> Device:
    """The last of the three GPUs, whose keys come last in the configuration; its health was asked once."""
    devices, _ = child.discover(NodeFacts("n", resources={"GPU": 3.0}))
    assert all(child.health(device) == Health(ok=True) for device in devices)
    return devices[2]


@pytest.mark.parametrize(
    ("code", "severity"),
    [
        (13, Severity.NOTE),
        (31, Severity.NOTE),
        (43, Severity.NOTE),
        (45, Severity.NOTE),
        (48, Severity.CONDEMNS),
        (61, Severity.PASSING),
        (62, Severity.CONDEMNS),
        (63, Severity.PASSING),
        (64, Severity.CONDEMNS),
        (74, Severity.CONDEMNS),
        (79, Severity.GONE),
        (94, Severity.PASSING),
        (95, Severity.CONDEMNS),
        (119, Severity.CONDEMNS),
        (120, Severity.CONDEMNS),
        (777, Severity.PASSING),
    ],
)
def test_an_xid_is_reported_once_with_what_it_means(
    nvml: Configure, child: ProbeChild, gpus_conf: str, gpu: Device, code: int, severity: Severity
) -> None:
    nvml(gpus_conf + f"xid={code}\nxid_seq=1\n")
    health = child.health(gpu)
    assert health.fault == xid_fault(code) and health.fault.severity is severity
    assert health.ok is (severity is Severity.NOTE) and f"XID {code}" in health.fault.describe()
    assert child.health(gpu) == Health(ok=True), "it has happened, and was told"
    nvml(gpus_conf + f"xid={code}\nxid_seq=2\n")
    assert child.health(gpu).fault == xid_fault(code), "again"


def test_an_xid_is_told_of_the_gpu_it_is_about(nvml: Configure, child: ProbeChild, gpus_conf: str, gpu: Device) -> None:
    (first, *_), _ = child.discover(NodeFacts("n", resources={"GPU": 3.0}))
    nvml(gpus_conf + "xid=79\nxid_seq=1\n")
    assert child.health(first).ok
    assert child.health(gpu).fault == xid_fault(79), "although the other was asked first"


def test_the_process_that_an_application_fault_hit_is_known_where_it_is_alone(
    nvml: Configure, child: ProbeChild, gpus_conf: str, gpu: Device
) -> None:
    nvml(gpus_conf + "proc=77:10:1:c\nxid=31\nxid_seq=1\n")
    health = child.health(gpu)
    assert health.ok and health.faults == (xid_fault(31, 77),) and "(process 77)" in health.faults[0].describe()
    nvml(gpus_conf + "proc=77:10:1:c\nproc=78:10:1:c\nxid=31\nxid_seq=2\n")
    assert child.health(gpu).faults == (xid_fault(31),), "either of them"


@pytest.mark.parametrize(
    ("config", "severity", "said"),
    [
        ("ecc_dbe=2", Severity.CONDEMNS, "2 uncorrected ECC"),
        ("remap_pending=1", Severity.PASSING, "is to be remapped"),
        ("remap_pending=1\nremap_failed=1", Severity.CONDEMNS, "could not be remapped"),
        ("lost=1", Severity.GONE, "lost"),
        ("fail=TotalEccErrors:15", Severity.GONE, "lost"),
        ("fail=TotalEccErrors:999", Severity.PASSING, "NVML failed"),
        ("clocks=64", Severity.NOTE, "too hot"),
    ],
)
def test_the_state_of_a_gpu_is_a_fault_as_long_as_it_lasts(
    nvml: Configure, child: ProbeChild, gpus_conf: str, gpu: Device, config: str, severity: Severity, said: str
) -> None:
    nvml(f"{gpus_conf}{config}\n")
    for _ in range(2):
        fault = child.health(gpu).fault
        assert fault is not None and fault.severity is severity and said in fault.describe().replace("Lost", "lost")
    nvml(gpus_conf)
    assert child.health(gpu) == Health(ok=True)


def test_a_gpu_is_listened_to_again_after_something_shut_nvml_down(nvml: Configure, gpus_conf: str) -> None:
    child = ProbeChild(command=[sys.executable, "-c", SHUT_DOWN_BY_OTHERS])
    try:
        devices, _ = child.discover(NodeFacts("n", resources={"GPU": 3.0}))
        assert child.health(devices[2]).ok
        child.sample(devices[2])
        assert child.health(devices[2]).ok
        nvml(gpus_conf + "xid=48\nxid_seq=1\n")
        assert child.health(devices[2]).fault == xid_fault(48)
    finally:
        child.close()


def test_a_driver_without_events_is_no_fault(nvml: Configure, child: ProbeChild, gpus_conf: str) -> None:
    nvml(gpus_conf + "fail=SupportedEventTypes:3\nfail=RegisterEvents:3\n")
    devices, _ = child.discover(NodeFacts("n", resources={"GPU": 3.0}))
    assert child.health(devices[2]) == Health(ok=True)


def test_the_worst_fault_of_several_counts() -> None:
    health = Health.of([xid_fault(31), xid_fault(95), xid_fault(63)])
    assert not health.ok and health.fault == xid_fault(95)
    assert Health.of([xid_fault(31)]).ok and Health.of([]) == Health(ok=True)
    assert Health(ok=False, reason="no answer").fault == Fault("", Severity.PASSING, "no answer")


def test_the_documented_table_is_the_one_that_is_used() -> None:
    page = (Path(__file__).parents[2] / "docs/operations.md").read_text()
    rows = re.findall(r"^\| (\d+) \| (\w+) \| (.*) \|(.*)\|$", page, re.MULTILINE)
    used = [(str(code), rule.severity.value, rule.meaning, rule.advice) for code, rule in XIDS.items()]
    assert [(code, severity, meaning, advice.strip()) for code, severity, meaning, advice in rows] == used


def test_every_rule_that_needs_a_hand_says_so() -> None:
    assert all(rule.advice for rule in XIDS.values() if rule.severity in (Severity.CONDEMNS, Severity.GONE))
