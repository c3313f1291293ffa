"""What a node's memory is, read from copies of /proc and of control groups."""

from __future__ import annotations

from pathlib import Path

import pytest

from flexray.runtime.node_memory import Gauge, last_reserve

GIB = 2**30


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    """One of 64 GiB, of which 40 are available, without control groups."""
    (tmp_path / "proc" / "self").mkdir(parents=True)
    (tmp_path / "proc" / "meminfo").write_text(
        f"MemTotal:       {64 * 2**20} kB\nMemFree:        {2**20} kB\nMemAvailable:   {40 * 2**20} kB\n"
    )
    (tmp_path / "groups").mkdir()
    return tmp_path


def belongs(machine: Path, *lines: str) -> None:
    (machine / "proc" / "self" / "cgroup").write_text("\n".join(lines) + "\n")


def group(machine: Path, path: str, **files: object) -> None:
    folder = machine / "groups" / path
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / f"memory.{name}").write_text(f"{text}\n")


def seen(machine: Path) -> tuple[float, float]:
    found = Gauge(machine / "proc", machine / "groups").look()
    return found.total / GIB, found.available / GIB


def test_without_control_groups_it_is_the_machines(machine: Path) -> None:
    assert seen(machine) == (64, 40)
    belongs(machine, "4:cpu:/x")
    assert seen(machine) == (64, 40)


def test_the_tightest_group_above_a_process_counts_and_file_cache_is_available(machine: Path) -> None:
    belongs(machine, "0::/pods/pod/ray")
    group(machine, "pods/pod/ray", max="max", current=5 * GIB)
    cache = f"anon 1\ninactive_file {GIB}\nactive_file {2 * GIB}"
    group(machine, "pods/pod", max=16 * GIB, current=12 * GIB, stat=cache)
    group(machine, "pods", max=32 * GIB, current=31 * GIB)
    assert seen(machine) == (16, 1), "of 16 GiB 7 are left here, and one for all pods together"


def test_version_1_and_a_container_that_sees_its_group_as_the_root(machine: Path) -> None:
    belongs(machine, "9:pids:/docker/abc", "4:memory,hugetlb:/docker/abc", "0::/")
    cache = f"inactive_file 1\ntotal_inactive_file {GIB}\ntotal_active_file 0"
    group(machine, "memory", limit_in_bytes=8 * GIB, usage_in_bytes=6 * GIB, stat=cache)
    assert seen(machine) == (8, 3)


def test_a_limit_beyond_the_machine_is_none(machine: Path) -> None:
    belongs(machine, "4:memory:/")
    group(machine, "memory", limit_in_bytes=9223372036854771712, usage_in_bytes=GIB)
    assert seen(machine) == (64, 40)
    group(machine, "memory", limit_in_bytes=128 * GIB)
    assert seen(machine) == (64, 40)


@pytest.mark.parametrize(
    ("total", "environment", "reserve"),
    [
        (100 * GIB, {}, 7 * GIB),
        (1000 * GIB, {}, 52 * GIB),
        (100 * GIB, {"RAY_memory_usage_threshold": "0.5"}, 52 * GIB),
        (100 * GIB, {"RAY_min_memory_free_bytes": str(GIB)}, 3 * GIB),
        (100 * GIB, {"RAY_memory_usage_threshold": "much"}, 7 * GIB),
    ],
)
def test_we_act_before_rays_memory_monitor(total: int, environment: dict[str, str], reserve: int) -> None:
    assert last_reserve(total, environment) == pytest.approx(reserve, abs=2)
