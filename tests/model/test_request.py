"""User options and the Request they make."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from flexray.errors import InvalidRequest
from flexray.model.devices import Device, DeviceType, Family
from flexray.model.isolation import Isolation
from flexray.model.request import Request, request_from_options

GPU = Family.GPU
BASE = Request(share=250, memory="2GiB", isolation="mps", queue="prod")


@pytest.mark.parametrize(
    ("options", "fields"),
    [
        ({"gpu": 0.25}, {"share": 250, "family": GPU}),
        ({"npu": 2}, {"devices": 2, "family": Family.NPU}),
        ({"accelerator": 1}, {"family": Family.ANY}),
        ({"gpu": 1, "npu": None}, {"family": GPU}),
        ({"gpu": (0.25, 1.0)}, {"share": 250, "burst": 1000, "family": GPU}),
        ({"gpu": [0.5, 0.5]}, {"share": 500, "burst": 500, "family": GPU}),
        ({"gpu": 1, "memory": "4GiB"}, {"memory": 4096, "family": GPU}),
        ({"gpu": 1, "memory": 2**30}, {"memory": 1024, "family": GPU}),
        ({"gpu": 1, "types": "nvidia/T4"}, {"types": ("nvidia/T4",), "family": GPU}),
        ({"gpu": 1, "types": ["nvidia/A*", "x"]}, {"types": ("nvidia/A*", "x"), "family": GPU}),
        ({"gpu": 1, "cpus": 0.5}, {"cpus": 500, "family": GPU}),
        ({"gpu": 1, "priority": -3}, {"priority": -3, "family": GPU}),
        ({"gpu": 1, "runtime": 2.5}, {"runtime": 2.5, "family": GPU}),
        ({"gpu": 1, "queue": "prod"}, {"queue": "prod", "family": GPU}),
    ],
)
def test_options(options: dict[str, object], fields: dict[str, Any]) -> None:
    assert request_from_options(options) == dataclasses.replace(Request(), **fields)


@pytest.mark.parametrize(
    ("options", "changes"),
    [
        ({}, {}),
        ({"gpu": 0.5}, {"share": 500, "family": GPU}),
        ({"gpu": 2}, {"share": 1000, "devices": 2, "family": GPU}),
        ({"memory": "1GiB", "queue": "test"}, {"memory": 1024, "queue": "test"}),
        ({"memory": None}, {}),
    ],
)
def test_request_is_the_base_and_options_win(options: dict[str, object], changes: dict[str, Any]) -> None:
    assert request_from_options({"request": BASE, **options}) == dataclasses.replace(BASE, **changes)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"gpus": 1}, "unknown option 'gpus'. Did you mean 'gpu'? Known options: gpu, npu, accelerator, memory"),
        ({"gpu": 1, "prioritty": 1}, "Did you mean 'priority'?"),
        ({"gpu": 1, "zzz": 1}, "unknown option 'zzz'. Known options"),
        ({"gpu": 1, "npu": 1}, "give one of gpu=, npu=, accelerator=, not gpu and npu"),
        ({}, "say how much of a device is needed"),
        ({"gpu": None}, "say how much of a device is needed"),
        ({"memory": "1GiB"}, "say how much of a device is needed"),
        ({"gpu": 1.5}, "ask for gpu=2, or for two tasks"),
        ({"npu": 0}, "npu=0 must be above 0"),
        ({"gpu": ()}, "must be a number or a pair"),
        ({"gpu": (0.1, 0.2, 0.3)}, "must be a number or a pair"),
        ({"gpu": (0.5, 0.25)}, "the burst must be between the share and 1 device"),
        ({"gpu": (0.5, 2)}, "the burst must be between the share and 1 device"),
        ({"gpu": (2, 1)}, "the burst must be between the share and 1 device"),
        ({"gpu": (0.5, "x")}, "burst of gpu must be a number"),
        ({"gpu": 1, "memory": "4 gigs"}, "not an amount of memory"),
        ({"gpu": 1, "cpus": -1}, "cpus=-1 must not be negative"),
        ({"gpu": 1, "types": 3}, "types=3 must be device types"),
        ({"gpu": 1, "types": ["a", ""]}, "must be device types"),
        ({"gpu": 1, "priority": "high"}, "priority='high' must be a whole number"),
        ({"gpu": 1, "priority": 1.0}, "must be a whole number"),
        ({"gpu": 1, "priority": True}, "must be a whole number"),
        ({"gpu": 1, "runtime": 0}, "runtime=0 must be a number of seconds above 0"),
        ({"gpu": 1, "runtime": float("nan")}, "must be a number of seconds above 0"),
        ({"gpu": 1, "runtime": float("inf")}, "must be a number of seconds above 0"),
        ({"gpu": 1, "runtime": "long"}, "must be a number of seconds above 0"),
        ({"gpu": 1, "queue": 3}, "queue=3 must be the name of a queue"),
        ({"request": {"gpu": 1}}, "must be a flex.Request"),
    ],
)
def test_refused_options(options: dict[str, object], words: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        request_from_options(options)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    "fields",
    [
        {"share": 0},
        {"share": 1001},
        {"share": 0.5},
        {"share": 500.5},
        {"devices": 0},
        {"devices": 1.5},
        {"share": 500, "devices": 2},
        {"memory": 0},
        {"memory": -1},
        {"memory": 0.5},
        {"memory": "4 gigs"},
        {"cpus": -1},
        {"isolation": "tinfoil"},
        {"types": [1]},
        {"priority": None},
        {"runtime": -1},
    ],
)
def test_refused_requests(fields: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest):
        Request(**fields)


def test_isolation_by_name() -> None:
    assert Request(isolation="mps").isolation is Isolation.MPS
    with pytest.raises(InvalidRequest, match="isolation='tinfoil' is unknown; use a strength"):
        Request(isolation="tinfoil")


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"gpu": 0.25, "memory": "4GiB"}, 'gpu=0.25, memory="4096MiB"'),
        ({"npu": 3}, "npu=3"),
        ({"accelerator": 1, "types": "x/*", "cpus": 1.5}, "accelerator=1, types=['x/*'], cpus=1.5"),
        ({"gpu": 1, "request": Request(isolation="mig")}, 'gpu=1, isolation="mig"'),
    ],
)
def test_description_is_what_one_would_write(options: dict[str, object], text: str) -> None:
    assert request_from_options(options).describe() == text


@pytest.mark.parametrize(
    ("types", "name", "allowed"),
    [
        ((), "anything", True),
        (("nvidia/A100*",), "nvidia/A100-80GB", True),
        (("nvidia/A100*",), "nvidia/T4", False),
        (("nvidia/T4", "ascend/*"), "ascend/910B", True),
        (("nvidia/a100*",), "nvidia/A100-80GB", False),
        (("nvidia/[TL]4",), "nvidia/L4", True),
    ],
)
def test_type_patterns(types: tuple[str, ...], name: str, allowed: bool) -> None:
    assert Request(types=types).allows_type(name) is allowed


def test_memory_is_the_share_of_the_device_unless_given() -> None:
    device = Device("n/gpu0", "n", 0, DeviceType("x/y", 16001), GPU, "fake")
    assert Request(share=333).memory_on(device) == 5328  # 5328.3 rounded down
    assert Request(share=333, memory=100).memory_on(device) == 100


def test_shape_is_what_decides_where_it_fits() -> None:
    assert Request(priority=1, queue="a", runtime=3.0, burst=1000).shape == Request().shape
    other = [{"share": 500}, {"devices": 2}, {"memory": 1}, {"family": GPU}, {"types": "a"}, {"cpus": 1}]
    shapes = [Request(**fields).shape for fields in (*other, {"isolation": "mps"}, {})]
    assert len(set(shapes)) == len(shapes)
