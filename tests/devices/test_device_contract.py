"""What every backend promises, whatever it finds on the machine the tests run on."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator

import pytest

from flexray.devices import BACKENDS
from flexray.devices.backend import DeviceBackend, Health, NodeFacts, ProbeResult, ProbeStatus, Sample
from flexray.model.amounts import MemoryMiB
from flexray.model.devices import Device, DeviceType, Family
from flexray.model.wire import from_plain, to_plain

ODD_FACTS = [
    NodeFacts(node="n"),
    NodeFacts(node="n", resources={"GPU": 0.5}, fake="2x", cpu_devices=3),
    NodeFacts(node="n", resources={"GPU": float("nan"), "NPU": float("inf")}, labels={"ray.io/accelerator-type": ""}),
    NodeFacts(node="n", resources={"GPU": -1.0}, cpu_devices=-1, labels={"flexray.fake": "0xT4"}),
    NodeFacts(node="n", cores=(5,), host_memory=1, cpu_devices=9, fake="9" * 5000 + "xT4", visible=()),
]


@pytest.fixture(params=sorted(BACKENDS))
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def backend(name: str) -> DeviceBackend:
    return BACKENDS[name]()


@pytest.fixture
def devices(backend: DeviceBackend, facts: NodeFacts) -> Iterator[tuple[Device, ...]]:
    """What it finds, and one device it has never seen: health and sample must answer for both."""
    stranger = Device("ab12/gpu7", "ab12", 7, DeviceType("acme/X1", MemoryMiB(1024)), Family.GPU, backend.name, key="?")
    yield (*backend.probe(facts).devices, stranger)


def test_it_is_in_the_table_under_its_own_name(name: str, backend: DeviceBackend) -> None:
    assert backend.name == name


@pytest.mark.parametrize("facts", ODD_FACTS)
def test_probe_never_raises(backend: DeviceBackend, facts: NodeFacts) -> None:
    result = backend.probe(facts)
    assert isinstance(result, ProbeResult)
    assert bool(result.devices) == (result.status is ProbeStatus.OK)
    assert result.devices or result.reason, "nothing found, and no reason given"


def test_found_devices_are_well_formed(backend: DeviceBackend, facts: NodeFacts) -> None:
    found = backend.probe(facts).devices
    if backend.name != "nvidia":  # the others need no hardware
        assert found
    assert len({device.id for device in found}) == len(found)
    for device in found:
        assert device.id == f"ab12/{device.family.value}{device.index}"
        assert (device.node, device.backend) == ("ab12", backend.name)
        assert device.family is not Family.ANY
        assert "/" in device.type.name and device.type.memory > 0 and device.type.speed > 0
        with pytest.raises(dataclasses.FrozenInstanceError):
            device.index = 9  # type: ignore[misc]


def test_probing_again_finds_the_same(backend: DeviceBackend, facts: NodeFacts) -> None:
    assert backend.probe(facts) == backend.probe(facts)


def test_health_and_sample_answer_for_any_device(backend: DeviceBackend, devices: tuple[Device, ...]) -> None:
    for device in devices:
        health, sample = backend.health(device), backend.sample(device)
        assert isinstance(health, Health) and health.ok in (True, False)
        assert health.ok or health.reason, "sick, and no reason given"
        assert isinstance(sample, Sample)
        assert sample.utilisation is None or 0 <= sample.utilisation <= 100
        assert sample.memory_used is None or sample.memory_used >= 0


def test_devices_survive_the_wire(backend: DeviceBackend, devices: tuple[Device, ...]) -> None:
    for device in devices:
        assert from_plain(Device, json.loads(json.dumps(to_plain(device)))) == device
