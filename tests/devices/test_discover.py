from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import pytest

from flexray.devices.backend import DeviceBackend, NodeFacts, ProbeResult, ProbeStatus
from flexray.devices.declared import DeclaredBackend
from flexray.devices.discover import VENDORS, discover, make_backends
from flexray.devices.fake import FakeBackend
from flexray.model.devices import BackendReport


class Gpus(FakeBackend):
    """Stands in for a maker's backend: finds what it is told to."""

    def __init__(self, found: str, status: ProbeStatus = ProbeStatus.NO_DEVICES, reason: str = "none here") -> None:
        super().__init__()
        self.found = found
        self.otherwise = ProbeResult(status, reason=reason)

    def probe(self, facts: NodeFacts) -> ProbeResult:
        return super().probe(dataclasses.replace(facts, fake=self.found)) if self.found else self.otherwise


class Buggy(DeclaredBackend):
    def probe(self, facts: NodeFacts) -> ProbeResult:
        raise RuntimeError("boom")


def with_nvidia(nvidia: DeviceBackend) -> Mapping[str, DeviceBackend]:
    """NVIDIA's as given, none of any other maker's, and the backends that need no hardware."""
    return {**make_backends(), **dict.fromkeys(VENDORS, Gpus("")), "nvidia": nvidia}


def test_a_fake_inventory_excludes_everything_else(facts: NodeFacts) -> None:
    devices, reports = discover(facts)
    assert {device.backend for device in devices} == {"fake"}
    assert reports == (BackendReport("fake", 4),)


def test_a_label_makes_a_fake_inventory_too() -> None:
    devices, _ = discover(NodeFacts("n", resources={"GPU": 2.0}, labels={"flexray.fake": "1xT4"}))
    assert [device.type.name for device in devices] == ["nvidia/T4"]


def test_a_bad_fake_inventory_leaves_no_devices_and_the_reason() -> None:
    devices, reports = discover(NodeFacts("n", resources={"GPU": 2.0}, labels={"flexray.fake": "1xT5"}))
    assert devices == ()
    assert reports[0].backend == "fake" and "T5" in reports[0].reason


def test_a_makers_devices_go_before_rays_word() -> None:
    devices, reports = discover(NodeFacts("n", resources={"GPU": 2.0}), with_nvidia(Gpus("2xT4")))
    assert [device.type.name for device in devices] == ["nvidia/T4", "nvidia/T4"]
    assert reports == (BackendReport("nvidia", 2),)


def test_rays_word_counts_where_the_maker_finds_nothing() -> None:
    backends = with_nvidia(Gpus("", ProbeStatus.DRIVER_MISSING, "no driver"))
    devices, reports = discover(NodeFacts("n", resources={"GPU": 2.0}, cores=(0,), cpu_devices=1), backends)
    assert [device.id for device in devices] == ["n/gpu0", "n/gpu1"]
    others = (BackendReport("amd", 0, "none here"), BackendReport("intel", 0, "none here"))
    assert reports == (BackendReport("nvidia", 0, "no driver"), *others, BackendReport("declared", 2))


def test_each_family_is_looked_for_by_itself() -> None:
    devices, reports = discover(NodeFacts("n", resources={"GPU": 2.0, "NPU": 1.0}), with_nvidia(Gpus("2xT4")))
    assert [(device.id, device.backend) for device in devices] == [
        ("n/gpu0", "fake"),
        ("n/gpu1", "fake"),
        ("n/npu0", "declared"),
    ]
    assert [(report.backend, report.found) for report in reports] == [("nvidia", 2), ("ascend", 0), ("declared", 1)]


def test_the_first_maker_that_finds_any_has_the_family() -> None:
    devices, reports = discover(
        NodeFacts("n", resources={"GPU": 2.0}), {**with_nvidia(Gpus("")), "amd": Gpus("2xMI300X")}
    )
    assert [device.type.name for device in devices] == ["amd/MI300X", "amd/MI300X"]
    assert [report.backend for report in reports] == ["nvidia", "amd"], "Intel is not asked"


def test_a_node_with_nothing_gets_cpu_stand_ins() -> None:
    facts = NodeFacts("n", resources={"CPU": 4.0}, cores=(0, 1), host_memory=64, cpu_devices=2)
    devices, reports = discover(facts)
    assert [device.id for device in devices] == ["n/cpu0", "n/cpu1"]
    assert [report.backend for report in reports] == ["declared", "cpu"], "NVML is not even loaded"


def test_a_node_without_stand_ins_says_why_it_is_empty() -> None:
    devices, reports = discover(NodeFacts("n", cores=(0, 1)))
    assert devices == ()
    assert [report.backend for report in reports] == ["declared"] and reports[0].reason


@pytest.mark.parametrize("amount", [float("nan"), float("inf")])
def test_nonsense_from_ray_is_reported(amount: float) -> None:
    devices, reports = discover(NodeFacts("n", resources={"GPU": amount}), with_nvidia(Gpus("")))
    assert devices == ()
    assert str(amount) in reports[-1].reason


def test_a_backend_with_a_bug_does_not_hide_the_others() -> None:
    backends = {**with_nvidia(Gpus("2xT4")), "declared": Buggy()}
    devices, reports = discover(NodeFacts("n", resources={"GPU": 2.0, "NPU": 1.0}), backends)
    assert len(devices) == 2
    assert reports[-1] == BackendReport("declared", 0, "RuntimeError: boom")
