"""Loads: what leases and requests take, and how amounts in other measures cut them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sharing import A100, T4, amount, devices, pool

from flexray.core.loads import (
    Load,
    capacity_of,
    clipped,
    covered,
    devices_of,
    expected_load,
    load_of,
    minus,
    over,
    total,
    worth,
)
from flexray.model.amounts import MemoryMiB, Share
from flexray.model.devices import Device, DeviceState, DeviceType, Family
from flexray.model.lease import Placement
from flexray.model.request import request_from_options

BOTH = pool(A100=10, T4=10)
MIXED = total((devices(4), devices(4, T4)))


def test_the_capacity_is_that_of_devices_that_can_take_work() -> None:
    kind = DeviceType(T4, MemoryMiB(16384), 0.2)
    states = (DeviceState.READY, DeviceState.READY, DeviceState.SICK, DeviceState.UNCLAIMED)
    found = capacity_of(
        Device(f"n/gpu{n}", "n", n, kind, Family.GPU, "fake", state=state) for n, state in enumerate(states)
    )
    assert found == pool(T4=2)


def test_a_lease_takes_share_and_memory_of_each_device() -> None:
    part = Placement("n", ("n/gpu0",), Share(250), MemoryMiB(8192))
    assert load_of(T4, 16384, part) == {T4: (250, 500)}
    whole = Placement("n", ("n/gpu0", "n/gpu1"), Share(1000), MemoryMiB(16384))
    assert load_of(T4, 16384, whole) == {T4: (2000, 2000)}
    assert load_of("host", 1, Placement("n", (), Share(1000), MemoryMiB(0))) == {}


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"gpu": 0.25}, {A100: (125, 125), T4: (125, 125)}),
        ({"gpu": 0.001}, {A100: (1, 0)}),  # cannot be halved: the first by name
        ({"gpu": 0.5, "types": "nvidia/T4"}, {T4: (500, 500)}),
        ({"gpu": 0.5, "memory": "40GiB"}, {A100: (500, 500)}),  # no T4 has so much
        ({"gpu": 3}, {A100: (1500, 1500), T4: (1500, 1500)}),
        ({"npu": 1}, {}),
        ({"gpu": 1, "types": "amd/*"}, {}),
    ],
)
def test_what_a_request_is_expected_to_take(options: dict[str, object], expected: Load) -> None:
    assert expected_load(request_from_options(options), BOTH) == expected


@given(st.integers(1, 1000), st.integers(1, 9), st.integers(1, 9), st.integers(1, 9))
def test_the_parts_of_an_expected_share_add_up(share: int, a100: int, t4: int, h100: int) -> None:
    load = expected_load(request_from_options({"gpu": share / 1000}), pool(A100=a100, T4=t4, H100=h100))
    assert sum(part for part, _ in load.values()) == share


def test_worth_is_the_dominant_one_at_the_speed_of_each_type() -> None:
    assert worth({A100: (1000, 500), T4: (0, 5000)}, BOTH) == 1_500_000
    assert worth({"gone/X": (1000, 1000)}, BOTH) == 0
    assert devices_of({A100: (1000, 500), T4: (0, 5000)}) == 5500


@pytest.mark.parametrize(
    ("limit", "kept"),
    [
        (None, MIXED),
        (6, {A100: (3000, 3000), T4: (3000, 3000)}),
        ({T4: 1}, total((devices(4), devices(1, T4)))),
        ({"compute": 2.4}, {A100: (2000, 2000), T4: (2000, 2000)}),
        ({T4: 2, "devices": 3}, {A100: (2000, 2000), T4: (1000, 1000)}),
        ({"nvidia/*": 4}, {A100: (2000, 2000), T4: (2000, 2000)}),
        (0, {A100: (0, 0), T4: (0, 0)}),
    ],
)
def test_what_a_limit_allows(limit: object, kept: Load) -> None:
    assert clipped(MIXED, amount(limit), BOTH) == kept
    assert over(MIXED, amount(limit), BOTH) is (limit is not None)
    assert not over(kept, amount(limit), BOTH)


@pytest.mark.parametrize(
    ("quota", "kept"),
    [
        (6, {A100: (3000, 3000), T4: (3000, 3000)}),
        ({T4: 3}, devices(3, T4)),
        ({T4: 3, "devices": 5}, {A100: (1600, 1600), T4: (3400, 3400)}),  # 3, and 2 of the 4 and 1 that remain
        ({T4: 3, "compute": 1.2}, {A100: (571, 571), T4: (3142, 3142)}),  # 0.6, and 1/7 of the 4.2 that remain
        ({T4: 3, "devices": 2}, devices(3, T4)),
        ({T4: 9, "devices": 99}, MIXED),
    ],
)
def test_what_a_quota_covers(quota: object, kept: Load) -> None:
    found = amount(quota)
    assert found is not None
    assert minus(covered(MIXED, (found,), BOTH), {}) == kept


def test_quotas_cover_one_after_the_other() -> None:
    four, types = amount(4), amount({T4: 4})
    assert four is not None and types is not None
    assert covered(MIXED, (types, four), BOTH) == MIXED
    assert covered(MIXED, (), BOTH) == {}


def test_nothing_is_left_of_what_is_taken_away() -> None:
    assert minus(MIXED, MIXED) == {}
    assert minus(MIXED, devices(4, T4)) == devices(4)
