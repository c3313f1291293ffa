"""MPS daemons: one for each GPU, while there are slices, in a state in which they take clients."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from nvidia_doubles import Machine, gpu, run_double

from flexray.devices.enforcers.enforcer import Cell, NotResizable
from flexray.devices.enforcers.mps import MAX_SLICES, Mps
from flexray.errors import IsolationFailed
from flexray.model.amounts import MemoryMiB, Share
from flexray.model.isolation import Isolation, Strength

GPU, OTHER = gpu(), gpu(1)
PIPE = "CUDA_MPS_PIPE_DIRECTORY"


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    return Machine(tmp_path, monkeypatch, "", "")


@pytest.fixture
def mps(machine: Machine) -> Iterator[Mps]:
    enforcer = Mps(machine.state, run_double)
    enforcer.probe([GPU, OTHER])
    (machine.folder / "mps.log").unlink()
    yield enforcer
    enforcer.sweep([])


def cell(name: str, share: int = 250, memory: int = 4096, device: object = GPU, burst: int = 0) -> Cell:
    return Cell(name, (device,), Share(share), Share(max(share, burst)), MemoryMiB(memory))  # type: ignore[arg-type]


def mode(machine: Machine, index: int = 0) -> str:
    return machine.smi("-i", str(index), "--query-gpu=compute_mode", "--format=csv,noheader").strip()


def test_trying_it_leaves_nothing_behind(machine: Machine) -> None:
    support = Mps(machine.state, run_double).probe([GPU])[GPU.id]
    assert (support.usable, support.memory) == (True, Strength.HARD_PROCESS)
    assert machine.mps() == [f"{GPU.key} -d", f"{GPU.key} quit -t 10"]
    assert list((machine.state / "mps").iterdir()) == [] and mode(machine) == "Default"


@pytest.mark.parametrize(
    ("keys", "environment", "reason"),
    [
        ("mig_mode=1", {}, "in MIG mode"),
        ("cc=6.0", {}, "older than Volta"),
        ("", {"FAKE_MPS_START_FAIL": "1"}, "Cannot create log directory"),
        ("", {"FAKE_MPS_FAIL": "get_default"}, "Failed"),
        ("lost=1", {}, "GPU is lost"),
    ],
)
def test_where_it_does_not_work_it_says_why(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, keys: str, environment: dict[str, str], reason: str
) -> None:
    machine.write(keys)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    support = Mps(machine.state, run_double).probe([GPU])[GPU.id]
    assert not support.usable and reason in support.reason
    monkeypatch.delenv("FAKE_MPS_FAIL", raising=False)
    Mps(machine.state, run_double).sweep([])


def test_an_old_driver_limits_no_memory(machine: Machine) -> None:
    config = machine.folder / "gpus.conf"
    config.write_text(config.read_text().replace("driver=550.54", "driver=470.82"))
    assert "driver 470.82" in Mps(machine.state, run_double).probe([GPU])[GPU.id].reason


def test_a_slice_is_told_its_limits_and_one_daemon_serves_a_gpu(mps: Mps, machine: Machine) -> None:
    setup = mps.prepare(cell("a", share=142, memory=5000))
    assert setup.isolation is Isolation.MPS
    pipe = setup.launch.pop(PIPE)
    assert setup.launch == {
        "CUDA_VISIBLE_DEVICES": GPU.key,
        "RAY_EXPERIMENTAL_NOSET_CUDA_VISIBLE_DEVICES": "1",
        "CUDA_MPS_ACTIVE_THREAD_PERCENTAGE": "15",
        "CUDA_MPS_PINNED_DEVICE_MEM_LIMIT": "0=5000M",
    }
    assert setup.notes == ("MPS: 15 % of the compute units, 17 of 108, 5000 MiB, for each process of the slice",)
    assert mps.prepare(cell("b")).launch[PIPE] == pipe
    assert mps.prepare(cell("c", device=OTHER)).launch[PIPE] != pipe
    assert machine.mps() == [f"{GPU.key} -d", f"{OTHER.key} -d"]


def test_sockets_have_short_paths_however_long_the_state_folder_is(machine: Machine) -> None:
    mps = Mps(machine.state / ("x" * 100), run_double)
    assert mps.probe([GPU])[GPU.id].usable
    assert len(mps.prepare(cell("a")).launch[PIPE]) < 60
    mps.sweep([])


def test_the_gpu_is_exclusive_while_a_daemon_runs_and_then_as_before(mps: Mps, machine: Machine) -> None:
    mps.prepare(cell("a"))
    mps.prepare(cell("b"))
    assert mode(machine) == "Exclusive_Process"
    mps.release(cell("a"))
    assert mode(machine) == "Exclusive_Process" and machine.mps() == [f"{GPU.key} -d"]
    mps.release(cell("b"))
    assert mode(machine) == "Default" and machine.mps() == [f"{GPU.key} -d", f"{GPU.key} quit -t 10"]
    machine.add(0, "compute_mode=3")
    mps.prepare(cell("a"))
    mps.release(cell("a"))
    assert mode(machine) == "Exclusive_Process", "the operator had set it"


def test_without_root_it_works_and_says_what_is_open(
    mps: Mps, machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_SMI_ROOT", "no")
    notes = mps.prepare(cell("a", burst=1000)).notes
    assert mode(machine) == "Default"
    assert ["exclusive" in note for note in notes] == [False, True, False]
    assert "cannot lend" in notes[2]
    mps.release(cell("a"))


def test_a_whole_gpu_and_several_need_no_daemon(mps: Mps, machine: Machine) -> None:
    both = dataclasses.replace(cell("a", share=1000), devices=(GPU, OTHER))
    setup = mps.prepare(both)
    assert setup.launch["CUDA_VISIBLE_DEVICES"] == f"{GPU.key},{OTHER.key}" and PIPE not in setup.launch
    mps.release(both)
    assert machine.mps() == [] and mode(machine) == "Default"
    with pytest.raises(IsolationFailed, match="a part of one GPU"):
        mps.prepare(dataclasses.replace(both, share=Share(500)))


def test_more_slices_than_a_server_takes_clients_are_refused(mps: Mps) -> None:
    for number in range(MAX_SLICES):
        mps.prepare(cell(f"s{number}", share=25))
    with pytest.raises(IsolationFailed, match=r"n/gpu0 has 40 slices already.*larger shares"):
        mps.prepare(cell("one more", share=25))
    assert mps.prepare(cell("s3", share=25)), "those that are in are not refused"
    mps.prepare(cell("elsewhere", share=25, device=OTHER))
    mps.release(cell("s3"))
    mps.prepare(cell("one more", share=25))


def test_a_server_with_a_fault_takes_nobody_until_its_clients_have_gone(mps: Mps, machine: Machine) -> None:
    pipe = mps.prepare(cell("a")).launch[PIPE]
    machine.play_server(pipe, "FAULT", [4711, 4712])
    with pytest.raises(IsolationFailed, match=r"fatal fault.*4711, 4712 have ended"):
        mps.prepare(cell("b"))
    machine.play_server(pipe, "FAULT", [])
    mps.prepare(cell("b"))
    assert machine.mps() == [f"{GPU.key} -d", f"{GPU.key} quit -t 10", f"{GPU.key} -d"]
    mps.release(cell("b"))
    assert machine.mps()[-1].endswith("-d"), "the first slice is still there"


def test_a_daemon_that_was_killed_is_started_again(mps: Mps, machine: Machine) -> None:
    shutil.rmtree(mps.prepare(cell("a")).launch[PIPE])
    mps.prepare(cell("b"))
    assert machine.mps() == [f"{GPU.key} -d"] * 2
    assert mode(machine) == "Exclusive_Process"
    mps.sweep([])
    assert mode(machine) == "Default", "what it was before the first daemon is still known"


def test_a_daemon_that_cannot_be_started_leaves_nothing(
    mps: Mps, machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_MPS_START_FAIL", "1")
    with pytest.raises(IsolationFailed, match="MPS does not work on n/gpu0"):
        mps.prepare(cell("a"))
    assert list((machine.state / "mps").iterdir()) == [] and mode(machine) == "Default"


def test_what_a_dead_agent_left_is_adopted_or_ended(mps: Mps, machine: Machine) -> None:
    kept = mps.prepare(cell("kept"))
    mps.prepare(cell("left", device=OTHER))
    after = Mps(machine.state, run_double)
    after.sweep(["kept"])
    assert machine.mps()[2:] == [f"{OTHER.key} quit -t 10"] and mode(machine, 1) == "Default"
    after.probe([GPU])
    assert after.prepare(cell("kept")).launch[PIPE] == kept.launch[PIPE]
    assert len(machine.mps()) == 3, "trying it again did not end the daemon of a slice"


def test_limits_of_a_running_slice_do_not_change(mps: Mps) -> None:
    with pytest.raises(NotResizable, match="first uses the GPU"):
        mps.resize(cell("a"))
