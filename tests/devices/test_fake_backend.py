from __future__ import annotations

import json
from pathlib import Path

import pytest

from flexray.devices.backend import NodeFacts, ProbeStatus, Sample
from flexray.devices.fake import FakeBackend, parse_fake
from flexray.errors import UsageError
from flexray.model.isolation import Isolation


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("2xA100-80GB.2xT4", [(2, "nvidia/A100-80GB"), (2, "nvidia/T4")]),
        ("2xA100-80GB+1xt4", [(2, "nvidia/A100-80GB"), (1, "nvidia/T4")]),
        ("2xnvidia/A100-80GB, 3 x acme/X1", [(2, "nvidia/A100-80GB"), (3, "acme/X1")]),
        ("4x310P3", [(4, "ascend/310P3")]),
        ("T4", [(1, "nvidia/T4")]),
    ],
)
def test_a_spec_is_counts_and_types(spec: str, expected: list[tuple[int, str]]) -> None:
    assert [(part.count, part.type.name) for part in parse_fake(spec)] == expected


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("", "not of the form"),
        ("2x", "not of the form"),
        ("2xA100-80GB..T4", "not of the form"),
        ("2xA100 80GB", "not of the form"),
        ("-1xT4", "not of the form"),
        ("0xT4", "no device"),
        ("2xA100-90GB", "did you mean A100-80GB"),
        ("2000xT4", "more than 1024"),
        ("600xT4.600xT4", "more than 1024"),
        ("4xA100-80GB_nv3", "groups of 3; the size must be at least 2 and divide the number of devices, 4"),
        ("4xA100-80GB_nv1", "groups of 1"),
        ("4xA100-80GB_nv0", "groups of 0"),
        ("A100-80GB_nv2", "divide the number of devices, 1"),
        ("4xA100-80GB_nv", "no type"),
        ("4xA100-90GB_nv2", "did you mean A100-80GB"),
    ],
)
def test_a_bad_spec_says_what_is_wrong(spec: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        parse_fake(spec)


def test_a_bad_spec_found_by_a_probe_is_a_result() -> None:
    result = FakeBackend().probe(NodeFacts("n", labels={"flexray.fake": "2xA100-90GB"}))
    assert result.status is ProbeStatus.BROKEN and "A100-90GB" in result.reason


def test_devices_are_numbered_within_their_family() -> None:
    result = FakeBackend().probe(NodeFacts("n", fake="1xT4.2x910B3.1xA10"))
    assert [(d.id, d.type.name) for d in result.devices] == [
        ("n/gpu0", "nvidia/T4"),
        ("n/npu0", "ascend/910B3"),
        ("n/npu1", "ascend/910B3"),
        ("n/gpu1", "nvidia/A10"),
    ]
    assert {device.isolation for device in result.devices} == {Isolation.NONE}


def test_linked_devices_come_in_groups_with_a_numa_node_each() -> None:
    result = FakeBackend().probe(NodeFacts("n", fake="1xT4.4xA100-80GB_nv2.2x910B3_nv2.3xacme/X_1_nv3"))
    assert [(d.id, d.type.name, d.numa, d.links) for d in result.devices] == [
        ("n/gpu0", "nvidia/T4", -1, ()),
        ("n/gpu1", "nvidia/A100-80GB", 0, ((2, 1),)),
        ("n/gpu2", "nvidia/A100-80GB", 0, ((1, 1),)),
        ("n/gpu3", "nvidia/A100-80GB", 1, ((4, 1),)),
        ("n/gpu4", "nvidia/A100-80GB", 1, ((3, 1),)),
        ("n/npu0", "ascend/910B3", 2, ((1, 1),)),
        ("n/npu1", "ascend/910B3", 2, ((0, 1),)),
        ("n/gpu5", "acme/X_1", 3, ((6, 1), (7, 1))),
        ("n/gpu6", "acme/X_1", 3, ((5, 1), (7, 1))),
        ("n/gpu7", "acme/X_1", 3, ((5, 1), (6, 1))),
    ]


def test_configuration_goes_before_the_label() -> None:
    result = FakeBackend().probe(NodeFacts("n", fake="T4", labels={"flexray.fake": "2xA10"}))
    assert [device.type.name for device in result.devices] == ["nvidia/T4"]


def test_the_script_is_read_again_at_every_call(tmp_path: Path) -> None:
    script = tmp_path / "faults.json"
    backend = FakeBackend(script)
    gpu, npu = backend.probe(NodeFacts("n", fake="T4.910B3")).devices
    assert backend.health(gpu).ok and backend.sample(gpu) == Sample(), "a script that is not there yet says nothing"

    script.write_text(json.dumps({"gpu0": {"health": "XID 79", "utilisation": 37, "memory_used": 1024}}))
    health = backend.health(gpu)
    assert (health.ok, health.reason) == (False, "XID 79")
    assert backend.sample(gpu) == Sample(utilisation=37.0, memory_used=1024)
    assert backend.health(npu).ok

    script.write_text(json.dumps({"0": {"health": "both"}}))
    assert [backend.health(gpu).reason, backend.health(npu).reason] == ["both", "both"]
    script.write_text("{}")
    assert backend.health(gpu).ok


@pytest.mark.parametrize("text", ["{", "[]", '{"gpu0": 1}', '{"gpu0": {"utilisation": "much"}}'])
def test_a_broken_script_is_a_fault_and_never_an_exception(tmp_path: Path, text: str) -> None:
    script = tmp_path / "faults.json"
    script.write_text(text)
    backend = FakeBackend(script)
    (gpu,) = backend.probe(NodeFacts("n", fake="T4")).devices
    assert backend.sample(gpu) == Sample()
    assert backend.health(gpu).ok == ("utilisation" in text)
