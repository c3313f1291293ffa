"""What operators may call a device or a node, and what they are told when there is none."""

from __future__ import annotations

import json
from typing import Any

import pytest

from flexray.errors import UsageError
from flexray.model.devices import Cordon, Device, DeviceType, Family, Inventory
from flexray.model.events import DeviceCordoned, DeviceUncordoned
from flexray.runtime.cordoning import asked, devices_named, from_rows, rows


def inventory(node: str, name: str, *keys: str) -> Inventory:
    kind = DeviceType("nvidia/T4", 15360)
    devices = [Device(f"{node}/gpu{i}", node, i, kind, Family.GPU, "nvidia", key=key) for i, key in enumerate(keys)]
    return Inventory(node, name, tuple(devices))


NODES = {
    one.node: one
    for one in (
        inventory("abcd1111", "left", "GPU-1", "GPU-2"),
        inventory("abcd2222", "right", "GPU-3"),
        inventory("ffff3333", "twin", ""),
        inventory("ffff4444", "twin", ""),
    )
}


@pytest.mark.parametrize(
    ("target", "meant"),
    [
        ("abcd1111/gpu1", ["abcd1111/gpu1"]),
        ("abcd1/gpu0", ["abcd1111/gpu0"]),
        ("left/gpu1", ["abcd1111/gpu1"]),
        ("GPU-3", ["abcd2222/gpu0"]),
        ("right", ["abcd2222/gpu0"]),
        ("abcd1", ["abcd1111/gpu0", "abcd1111/gpu1"]),
        ("ffff3333", ["ffff3333/gpu0"]),
        ("ffff4/gpu0", ["ffff4444/gpu0"]),
    ],
)
def test_names(target: str, meant: list[str]) -> None:
    assert [device.id for _, device in devices_named(target, NODES)] == meant


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("abcd", "'abcd' may mean any of several nodes: abcd1111, abcd2222"),
        ("twin", "several nodes: ffff3333, ffff4444"),
        ("twin/gpu0", "several nodes"),
        ("left/gpu7", "there is no device or node 'left/gpu7'"),
        ("lefd", "there is no device or node 'lefd'. Did you mean 'left'? Known: abcd11/gpu0"),
        ("abc", "there is no device or node 'abc'"),
        ("", "there is no device or node ''"),
    ],
)
def test_what_is_no_name_or_too_many(target: str, said: str) -> None:
    with pytest.raises(UsageError) as failed:
        devices_named(target, NODES)
    assert said in str(failed.value)


def test_events() -> None:
    change: dict[str, Any] = {"cordon": "left", "reason": "fan", "drain": True}
    assert asked(change, NODES, {}) == [
        DeviceCordoned(Cordon("abcd1111/gpu0", "left", "GPU-1", "fan", drain=True)),
        DeviceCordoned(Cordon("abcd1111/gpu1", "left", "GPU-2", "fan", drain=True)),
    ]
    assert asked({"uncordon": "right"}, NODES, {}) == [DeviceUncordoned("abcd2222/gpu0")]


def test_a_device_that_is_away_can_be_uncordoned_by_its_id() -> None:
    away = {"gone/gpu0": Cordon("gone/gpu0")}
    assert asked({"uncordon": "gone/gpu0"}, NODES, away) == [DeviceUncordoned("gone/gpu0")]
    with pytest.raises(UsageError, match="there is no device"):
        asked({"cordon": "gone/gpu0"}, NODES, away)


def test_cordons_are_kept_as_json() -> None:
    one = Cordon("abcd1111/gpu0", "left", "GPU-1", "fan", drain=True)
    assert from_rows(json.loads(json.dumps(rows({one.device: one})))) == [DeviceCordoned(one)]
