from __future__ import annotations

import pytest

from flexray.devices.backend import NodeFacts, ProbeStatus, Sample
from flexray.devices.declared import DeclaredBackend
from flexray.model.devices import Family
from flexray.model.isolation import Isolation


def types_of(resources: dict[str, float], label: str = "") -> list[str]:
    facts = NodeFacts("n", resources=resources, labels={"ray.io/accelerator-type": label} if label else {})
    return [device.type.name for device in DeclaredBackend().probe(facts).devices]


def test_ray_says_how_many() -> None:
    result = DeclaredBackend().probe(NodeFacts("n", resources={"GPU": 2.0, "NPU": 1.9, "CPU": 8.0}))
    assert [device.id for device in result.devices] == ["n/gpu0", "n/gpu1", "n/npu0"]
    assert [device.family for device in result.devices] == [Family.GPU, Family.GPU, Family.NPU]
    assert {device.isolation for device in result.devices} == {Isolation.NONE}
    assert {device.type.memory for device in result.devices} == {16 * 1024}
    assert DeclaredBackend().sample(result.devices[0]) == Sample()
    assert DeclaredBackend().health(result.devices[0]).ok


@pytest.mark.parametrize("resources", [{}, {"CPU": 4.0}, {"GPU": 0.9}, {"GPU": 0.0}])
def test_less_than_one_device_is_none(resources: dict[str, float]) -> None:
    assert DeclaredBackend().probe(NodeFacts("n", resources=resources)).status is ProbeStatus.NO_DEVICES


def test_the_type_comes_from_the_label_then_the_resource() -> None:
    both = {"GPU": 1.0, "accelerator_type:T4": 1.0}
    assert types_of(both, "A100-80GB") == ["nvidia/A100-80GB"]
    assert types_of(both) == ["nvidia/T4"]
    assert types_of({"GPU": 1.0}) == ["declared/gpu"]
    assert types_of({"NPU": 1.0}) == ["declared/npu"]


def test_a_name_applies_to_its_own_family_only() -> None:
    assert types_of({"GPU": 1.0, "NPU": 1.0}, "Ascend910B4") == ["declared/gpu", "ascend/910B4"]
    assert types_of({"GPU": 1.0, "NPU": 1.0, "accelerator_type:T4": 1.0}, "Ascend910B4") == [
        "nvidia/T4",
        "ascend/910B4",
    ]


def test_an_unknown_name_is_kept_where_it_can_only_mean_one_family() -> None:
    assert types_of({"NPU": 1.0}, "X9") == ["unknown/X9"]
    assert types_of({"GPU": 1.0, "NPU": 1.0}, "X9") == ["declared/gpu", "declared/npu"]
