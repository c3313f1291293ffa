"""Whether processes use more memory than their slice holds."""

from __future__ import annotations

from pathlib import Path

import pytest

from flexray.devices.backend import ProcessUse, Sample
from flexray.runtime import memory_watch
from flexray.runtime.memory_watch import Overrun, device_overrun, host_overrun, own_memory, settled_memory

MIB = 2**20


@pytest.fixture
def proc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(memory_watch, "_PAGE", 4096)
    return tmp_path


def process(proc: Path, pid: int, own: int, shared: int = 0, settled: int | None = None) -> None:
    """A process with so many MiB of its own, and so many once what it shares with its parent is counted once."""
    (proc / str(pid)).mkdir()
    (proc / str(pid) / "statm").write_text(f"99999 {(own + shared) * 256} {shared * 256} 1 0 1 0\n")
    if settled is not None:
        (proc / str(pid) / "smaps_rollup").write_text(f"Rss: 1 kB\nPss_Anon: {settled * 1024} kB\n")


def test_only_memory_of_its_own_counts(proc: Path) -> None:
    process(proc, 1, own=300, shared=2000)
    assert own_memory(1, proc) == 300 * MIB
    assert own_memory(2, proc) == 0, "a process that is gone uses nothing"


def test_processes_count_together_and_the_bare_process_does_not(proc: Path) -> None:
    process(proc, 1, own=300, settled=300)
    process(proc, 2, own=150, settled=150)
    assert host_overrun([1, 2], base=100 * MIB, limit=350, proc=proc) is None
    assert host_overrun([1, 2], base=100 * MIB, limit=349, proc=proc) == Overrun(350, 349)


def test_what_a_forked_child_shares_is_counted_once_before_anybody_is_ended(proc: Path) -> None:
    process(proc, 1, own=300, settled=160)
    process(proc, 2, own=300, settled=160)
    assert settled_memory([1, 2], proc) == 320 * MIB
    assert host_overrun([1, 2], base=0, limit=330, proc=proc) is None
    assert host_overrun([1, 2], base=0, limit=310, proc=proc) == Overrun(320, 310)


def test_a_kernel_without_rollups_counts_roughly(proc: Path) -> None:
    process(proc, 1, own=300)
    assert settled_memory([1, 2], proc) == 300 * MIB


def test_on_a_device_only_its_own_processes_count() -> None:
    sample = Sample(processes=(ProcessUse(1, 600), ProcessUse(2, 500), ProcessUse(3, 4000), ProcessUse(4, None)))
    assert device_overrun([1, 2, 4], sample, 1100) is None
    assert device_overrun([1, 2, 4], sample, 1099) == Overrun(1100, 1099)
