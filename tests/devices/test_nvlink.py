"""How GPUs are connected: read from the NVML double and a made-up /sys, in a real probe process."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from flexray.devices.backend import NodeFacts
from flexray.devices.child import ProbeChild
from flexray.model.devices import DeviceState

pytest.importorskip("pynvml")

Configure = Callable[[str], None]
PROBE = """
from pathlib import Path
from flexray.devices.discover import make_backends
from flexray.devices.nvidia import NvidiaBackend
from flexray.devices.probe import serve
serve({**make_backends(), "nvidia": NvidiaBackend(Path(sys.argv[1]))})
"""


@pytest.fixture
def sysfs(tmp_path: Path) -> Path:
    return tmp_path / "pci"


@pytest.fixture
def child(sysfs: Path) -> Iterator[ProbeChild]:
    """A probe process whose /sys is a folder of the test."""
    probe = ProbeChild(command=[sys.executable, "-c", f"import sys; sys.path = {sys.path!r}{PROBE}", str(sysfs)])
    yield probe
    probe.close()


def wiring(child: ProbeChild, gpus: int, mask: str = "") -> list[tuple[int, tuple[object, ...]]]:
    """(NUMA node, links) of each GPU found."""
    visible = {"CUDA_VISIBLE_DEVICES": mask} if mask else {}
    devices, _ = child.discover(NodeFacts("n", resources={"GPU": float(gpus)}, visible=visible))
    return [(device.numa, device.links) for device in devices if device.backend == "nvidia"]


def cards(*links: str, more: str = "") -> str:
    """A configuration of the double: GPUs with these ``nvlink=`` values."""
    return "".join(f"[{i}]\nnvlink={text}\n{more}" if text else f"[{i}]\n" for i, text in enumerate(links))


def test_direct_links_are_counted_per_peer(nvml: Configure, child: ProbeChild) -> None:
    nvml(cards("1,1,2", "0,0", "0", ""))
    assert wiring(child, 4) == [(-1, ((1, 2), (2, 1))), (-1, ((0, 2),)), (-1, ((0, 1),)), (-1, ())]


def test_a_link_that_is_down_does_not_count_and_hides_no_later_one(nvml: Configure, child: ProbeChild) -> None:
    nvml(cards("1,-2,1", "0,-2,0"))
    assert [links for _, links in wiring(child, 2)] == [((1, 2),), ((0, 2),)]


def test_a_switch_links_all_that_are_at_it_by_the_lanes_of_the_poorer(nvml: Configure, child: ProbeChild) -> None:
    nvml(cards("-1,-1,-1", "-1,-1", "-1,-1,-1", "3", "3"))
    assert [links for _, links in wiring(child, 5)] == [
        ((1, 2), (2, 3)),
        ((0, 2), (2, 2)),
        ((0, 3), (1, 2)),
        ((4, 1),),
        ((3, 1),),
    ]


def test_an_old_driver_that_cannot_say_what_is_at_the_end_still_tells_a_switch(
    nvml: Configure, child: ProbeChild
) -> None:
    nvml(cards("-1,2", "-1", "0", more="fail=RemoteDeviceType:13\n"))
    assert [links for _, links in wiring(child, 3)] == [((1, 1), (2, 1)), ((0, 1),), ((0, 1),)]


@pytest.mark.parametrize("call", ["NvLinkState:3", "NvLinkState:999", "RemotePciInfo:3", "PciInfo_v3:3", "NvLink:13"])
def test_what_cannot_be_told_fails_no_probe(nvml: Configure, child: ProbeChild, call: str) -> None:
    nvml(cards("1,1", "0,0", more=f"fail={call}\n"))
    assert wiring(child, 2) == [(-1, ()), (-1, ())]


def test_only_devices_of_the_pool_are_named(nvml: Configure, child: ProbeChild) -> None:
    nvml(cards("1,1,2,2", "0,0", "0,0"))
    assert [links for _, links in wiring(child, 2, mask="0,2")] == [((2, 2),), ((0, 2),)]


def test_a_lost_gpu_is_linked_with_nothing_until_it_is_back(nvml: Configure, child: ProbeChild) -> None:
    nvml(cards("1", "0"))
    before = wiring(child, 2)
    nvml(cards("1", "0") + "lost=1\n")
    devices, _ = child.discover(NodeFacts("n", resources={"GPU": 2.0}))
    assert [(device.state, device.links) for device in devices] == [(DeviceState.READY, ()), (DeviceState.LOST, ())]
    nvml(cards("1", "0"))
    assert wiring(child, 2) == before != [(-1, ()), (-1, ())]


def test_numa_nodes_come_from_the_kernel(nvml: Configure, child: ProbeChild, sysfs: Path) -> None:
    for name, text in (
        ("0000:01:00.0", "0\n"),
        ("0000:3b:00.0", "1\n"),
        ("0000:03:00.0", "-1\n"),
        ("000a:04:00.0", "?"),
    ):
        (sysfs / name).mkdir(parents=True)
        (sysfs / name / "numa_node").write_text(text)
    nvml("[0]\n[1]\nbus=00000000:3B:00.0\n[2]\n[3]\nbus=0000000A:04:00.0\n[4]\n")
    assert [numa for numa, _ in wiring(child, 5)] == [0, 1, -1, -1, -1]
