from __future__ import annotations

from pathlib import Path

import pytest

from flexray.devices.backend import NodeFacts, ProbeStatus, Sample
from flexray.devices.cpu import CpuBackend
from flexray.model.devices import Device, Family


def devices_of(cores: int, count: int, memory: int = 8192) -> tuple[Device, ...]:
    facts = NodeFacts("n", cores=tuple(range(cores)), host_memory=memory, cpu_devices=count)
    return CpuBackend().probe(facts).devices


def test_cores_and_half_of_the_memory_are_divided_evenly() -> None:
    devices = devices_of(4, 2)
    assert [device.cores for device in devices] == [(0, 1), (2, 3)]
    assert [device.type.memory for device in devices] == [2048, 2048]
    assert {device.family for device in devices} == {Family.CPU}
    assert devices[0].type.name.startswith("cpu/")


def test_every_core_is_used_once_when_they_do_not_divide() -> None:
    parts = [device.cores for device in devices_of(7, 3)]
    assert sorted(core for part in parts for core in part) == list(range(7))
    assert {len(part) for part in parts} == {2, 3}


def test_more_devices_than_cores_share_them_round_robin() -> None:
    assert [device.cores for device in devices_of(2, 5)] == [(0,), (1,), (0,), (1,), (0,)]


def test_without_cores_there_is_a_reason() -> None:
    result = CpuBackend().probe(NodeFacts("n", cpu_devices=2))
    assert result.status is ProbeStatus.NO_DEVICES and "cores" in result.reason


def stat(proc: Path, *cores: tuple[int, int, int]) -> None:
    """Write /proc/stat with (user, idle, iowait) of each core."""
    rows = [f"cpu{i} {user} 0 0 {idle} {iowait} 0 0 0 {user} 0" for i, (user, idle, iowait) in enumerate(cores)]
    (proc / "stat").write_text("\n".join(["cpu 1 2 3 4", *rows, "intr 12 0", "ctxt 7"]))


def test_utilisation_is_of_the_devices_own_cores_since_the_last_sample(tmp_path: Path) -> None:
    backend = CpuBackend(tmp_path)
    first, second = devices_of(2, 2)
    stat(tmp_path, (100, 100, 0), (100, 100, 0))
    assert [backend.sample(first), backend.sample(second)] == [Sample(), Sample()], "nothing to compare with yet"
    stat(tmp_path, (125, 150, 25), (200, 100, 0))
    assert backend.sample(first).utilisation == 25.0, "waiting for I/O is not use, guests are counted once"
    assert backend.sample(second).utilisation == 100.0
    assert backend.sample(first).utilisation is None, "no time has passed"


@pytest.mark.parametrize("text", [None, "", "cpu0 what 1 2 3 4", "cpu0 1"])
def test_a_system_without_proc_stat_gives_none(tmp_path: Path, text: str | None) -> None:
    if text is not None:
        (tmp_path / "stat").write_text(text)
    backend = CpuBackend(tmp_path)
    (device,) = devices_of(1, 1)
    assert [backend.sample(device), backend.sample(device)] == [Sample(), Sample()]
