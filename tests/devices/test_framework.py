"""CPU slices where the kernel gives nothing better."""

from __future__ import annotations

import pytest

from flexray.devices.backend import NodeFacts
from flexray.devices.cpu import CpuBackend
from flexray.devices.enforcers.enforcer import Cell
from flexray.devices.enforcers.framework import THREAD_VARIABLES, Framework
from flexray.model.amounts import MemoryMiB, Share
from flexray.model.devices import Device
from flexray.model.isolation import Isolation


def devices_of(cores: int, count: int) -> tuple[Device, ...]:
    return CpuBackend().probe(NodeFacts("n", cores=tuple(range(cores)), host_memory=8192, cpu_devices=count)).devices


def cell(devices: tuple[Device, ...], share: int) -> Cell:
    return Cell("s", devices, Share(share), Share(share), MemoryMiB(10))


@pytest.mark.parametrize(("share", "threads"), [(1, 1), (250, 1), (500, 2), (625, 3), (1000, 4)])
def test_a_slice_gets_all_cores_and_its_share_of_threads(share: int, threads: int) -> None:
    setup = Framework().prepare(cell(devices_of(4, 1), share))
    assert (setup.isolation, setup.threads) == (Isolation.FRAMEWORK, threads)
    assert setup.cores in ((0, 1, 2, 3), ()), "() where the system cannot bind"
    assert {name: setup.env[name] for name in THREAD_VARIABLES} == dict.fromkeys(THREAD_VARIABLES, str(threads))
    assert "OMP_NUM_THREADS" in THREAD_VARIABLES and setup.env["OMP_WAIT_POLICY"] == "PASSIVE"


def test_a_slice_of_several_devices_gets_the_cores_of_all() -> None:
    assert Framework().prepare(cell(devices_of(4, 2), 1000)).threads == 4
