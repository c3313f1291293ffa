"""MIG instances: made at their places, kept for the next, destroyed when in the way, never somebody else's."""

from __future__ import annotations

import dataclasses
import subprocess
from pathlib import Path

import pytest
from nvidia_doubles import Machine, gpu, run_double

from flexray.devices.enforcers.command import run_command
from flexray.devices.enforcers.enforcer import Cell
from flexray.devices.enforcers.mig import Mig
from flexray.devices.enforcers.nvidia_smi import NvidiaSmi
from flexray.errors import IsolationFailed
from flexray.model.amounts import MemoryMiB, Share
from flexray.model.isolation import Strength
from flexray.model.partition import Profile

GPU = gpu()
A100 = [
    Profile("1g.5gb", Share(142), MemoryMiB(4864), 1, (0, 1, 2, 3, 4, 5, 6)),
    Profile("1g.10gb", Share(142), MemoryMiB(9850), 2, (0, 2, 4, 6)),
    Profile("2g.10gb", Share(285), MemoryMiB(9850), 2, (0, 2, 4)),
    Profile("3g.20gb", Share(428), MemoryMiB(19968), 4, (0, 4)),
    Profile("4g.20gb", Share(571), MemoryMiB(19968), 4, (0,)),
    Profile("7g.40gb", Share(1000), MemoryMiB(40192), 8, (0,)),
]


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    return Machine(tmp_path, monkeypatch, "mig_mode=1", "")


@pytest.fixture
def mig(machine: Machine) -> Mig:
    return Mig(machine.state, run_double)


def cell(name: str, profile: str = "", start: int = -1, share: int = 100) -> Cell:
    found = next((one for one in A100 if one.name == profile), None)
    granted = found.share if found else Share(share)
    return Cell(name, (GPU,), granted, granted, found.memory if found else MemoryMiB(1024), found, start)


def visible(mig: Mig, one: Cell) -> str:
    return mig.prepare(one).launch["CUDA_VISIBLE_DEVICES"]


def test_the_sizes_are_those_that_the_driver_lists(mig: Mig) -> None:
    support = mig.probe([GPU])[GPU.id]
    assert (support.usable, support.memory) == (True, Strength.HARDWARE)
    assert list(support.profiles) == A100, "without +me: the same part with other engines"


def test_without_mig_mode_without_root_and_without_uuid_it_says_so(mig: Mig, machine: Machine) -> None:
    plain, unnamed = gpu(1), dataclasses.replace(GPU, id="n/gpu7", key="")
    answers = mig.probe([plain, unnamed])
    assert "MIG mode is Disabled" in answers[plain.id].reason and "-mig 1" in answers[plain.id].reason
    assert "no UUID" in answers[unnamed.id].reason
    machine.write("mig_mode=1\nroot=no")
    assert "Insufficient Permissions" in mig.probe([GPU])[GPU.id].reason


def test_without_nvidia_smi_it_says_so(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    support = Mig(machine.state).probe([GPU])[GPU.id]
    assert not support.usable and "nvidia-smi" in support.reason


def test_an_instance_is_made_where_the_books_say_and_named_by_its_uuid(mig: Mig, machine: Machine) -> None:
    setup = mig.prepare(cell("a", "3g.20gb", 4))
    assert machine.instances() == [("3g.20gb", 4)]
    assert setup.launch["CUDA_VISIBLE_DEVICES"] in machine.smi("-L")
    assert setup.launch["CUDA_VISIBLE_DEVICES"].startswith("MIG-")
    assert setup.launch["RAY_EXPERIMENTAL_NOSET_CUDA_VISIBLE_DEVICES"] == "1"
    assert setup.notes == ("MIG 3g.20gb at place 4 of n/gpu0: 19968 MiB",)


def test_two_of_one_size_are_told_apart(mig: Mig) -> None:
    names = {visible(mig, cell(f"s{start}", "1g.5gb", start)) for start in (0, 3, 6)}
    assert len(names) == 3


def test_the_next_slice_of_that_size_and_place_gets_the_instance_that_is_there(mig: Mig, machine: Machine) -> None:
    first = visible(mig, cell("a", "2g.10gb", 2))
    mig.release(cell("a", "2g.10gb", 2))
    assert machine.instances() == [("2g.10gb", 2)]
    assert visible(mig, cell("b", "2g.10gb", 2)) == first
    assert len(machine.managed()) == 1


def test_free_instances_in_the_way_are_destroyed_and_only_those(mig: Mig, machine: Machine) -> None:
    for number, start in enumerate((0, 1, 4, 6)):
        mig.prepare(cell(f"s{number}", "1g.5gb", start))
    for number in (0, 1, 3):
        mig.release(cell(f"s{number}", "1g.5gb", 0))
    mig.prepare(cell("big", "3g.20gb", 0))
    assert machine.instances() == [("1g.5gb", 4), ("1g.5gb", 6), ("3g.20gb", 0)]


def test_a_place_that_is_held_is_refused_and_nothing_changes(mig: Mig, machine: Machine) -> None:
    mig.prepare(cell("a", "1g.5gb", 1))
    with pytest.raises(IsolationFailed, match="held by a"):
        mig.prepare(cell("b", "2g.10gb", 0))
    assert machine.instances() == [("1g.5gb", 1)]


def test_an_instance_that_is_still_in_use_is_not_destroyed(mig: Mig, machine: Machine) -> None:
    mig.prepare(cell("a", "1g.5gb", 0))
    mig.release(cell("a", "1g.5gb", 0))
    machine.add(0, "busy=1")
    with pytest.raises(IsolationFailed, match="In use by another client"):
        mig.prepare(cell("b", "2g.10gb", 0))
    mig.sweep([])
    assert machine.instances() == [("1g.5gb", 0)]
    machine.remove("busy=1")
    mig.sweep([])
    assert machine.instances() == [], "it was still known to be ours"


def test_what_the_operator_made_is_never_destroyed(mig: Mig, machine: Machine) -> None:
    machine.smi("mig", "-i", "0", "-cgi", "14:2", "-C")
    with pytest.raises(IsolationFailed, match=r"instance 1 \(2g.10gb at 2\).*flexray did not make it"):
        mig.prepare(cell("a", "3g.20gb", 0))
    mig.prepare(cell("a", "2g.10gb", 2))  # fits exactly: it is used
    mig.release(cell("a", "2g.10gb", 2))
    mig.sweep([])
    assert machine.instances() == [("2g.10gb", 2)]


def test_places_of_the_operators_instances_are_not_offered(mig: Mig, machine: Machine) -> None:
    machine.smi("mig", "-i", "0", "-cgi", "14:2", "-C")
    mig.prepare(cell("a", "1g.5gb", 6))
    starts = {p.name: p.starts for p in mig.probe([GPU])[GPU.id].profiles}
    assert starts == {"1g.5gb": (0, 1, 4, 5, 6), "1g.10gb": (0, 4, 6), "2g.10gb": (0, 2, 4), "3g.20gb": (4,)}
    machine.smi("mig", "-i", "0", "-dgi")


def test_a_gpu_full_of_the_operators_instances_still_offers_them(mig: Mig, machine: Machine) -> None:
    machine.smi("mig", "-i", "0", "-cgi", "0", "-C")
    assert [p.name for p in mig.probe([GPU])[GPU.id].profiles] == ["7g.40gb"]


def test_what_a_dead_agent_made_is_destroyed_and_what_is_kept_goes_on(mig: Mig, machine: Machine) -> None:
    kept = visible(mig, cell("kept", "1g.5gb", 0))
    mig.prepare(cell("left", "2g.10gb", 2))
    after = Mig(machine.state, run_double)
    after.sweep(["kept"])
    assert machine.instances() == [("1g.5gb", 0)]
    assert visible(after, cell("kept", "1g.5gb", 0)) == kept


def test_a_half_made_instance_is_undone(mig: Mig, machine: Machine) -> None:
    machine.add(0, "compute_instance=no")
    with pytest.raises(IsolationFailed, match="compute instance"):
        mig.prepare(cell("a", "1g.5gb", 0))
    assert machine.instances() == []
    machine.remove("compute_instance=no")
    assert mig.prepare(cell("b", "1g.5gb", 0))


def test_a_whole_gpu_is_its_full_profile(mig: Mig, machine: Machine) -> None:
    whole = Cell("a", (GPU,), Share(1000), Share(1000), GPU.type.memory)
    assert visible(mig, whole).startswith("MIG-")
    assert machine.instances() == [("7g.40gb", 0)]


def test_several_gpus_in_mig_mode_cannot_be_used_together(mig: Mig) -> None:
    with pytest.raises(IsolationFailed, match="one MIG device"):
        mig.prepare(dataclasses.replace(cell("a", "7g.40gb", 0), devices=(GPU, gpu(1))))


@pytest.mark.parametrize("one", [cell("a", share=400), cell("a", "3g.20gb", 1), cell("a", "4g.20gb", 4)])
def test_a_part_that_the_gpu_does_not_have_is_refused(mig: Mig, one: Cell) -> None:
    with pytest.raises(IsolationFailed, match=r"no MIG .*3g\.20gb at 0/4"):
        mig.prepare(one)


def test_mig_mode_is_turned_on_and_off_for_an_idle_gpu_only(mig: Mig, machine: Machine) -> None:
    plain = gpu(1)
    machine.add(1, "proc=77:10:1:c")
    with pytest.raises(IsolationFailed, match="In use by another client"):
        mig.enable(plain)
    assert machine.smi("-i", "1", "--query-gpu=mig.mode.pending", "--format=csv,noheader").strip() == "Disabled"
    machine.remove("proc=77:10:1:c")
    mig.enable(plain)
    one = dataclasses.replace(cell("a", "1g.5gb", 0), devices=(plain,))
    mig.prepare(one)
    with pytest.raises(IsolationFailed, match="slices a hold parts"):
        mig.disable(plain)
    mig.release(one)
    mig.disable(plain)
    assert machine.smi("-i", "1", "--query-gpu=mig.mode.current", "--format=csv,noheader").strip() == "Disabled"


def test_a_damaged_record_is_set_aside_and_its_instances_are_left_alone(mig: Mig, machine: Machine) -> None:
    name = visible(mig, cell("a", "1g.5gb", 0))
    (machine.state / "mig.json").write_text('[{"gpu":')
    mig.sweep([])
    assert machine.instances() == [("1g.5gb", 0)] and (machine.state / "mig.damaged").exists()
    assert visible(mig, cell("b", "1g.5gb", 0)) == name, "they can still be used"


@pytest.mark.parametrize(
    ("memory", "names"),
    [
        (24576, ["1g.6gb", "2g.12gb", "4g.24gb"]),
        (81920, ["1g.10gb", "1g.20gb", "2g.20gb", "3g.40gb", "4g.40gb", "7g.80gb"]),
    ],
)
def test_other_gpus_have_other_sizes(mig: Mig, machine: Machine, memory: int, names: list[str]) -> None:
    machine.write(f"mig_mode=1\nmem_total_mib={memory}")
    profiles = mig.probe([GPU])[GPU.id].profiles
    assert [p.name for p in profiles] == names
    assert profiles[-1].share == 1000 and profiles[0].share == 1000 // int(names[-1][0])


def test_memory_of_the_slices_processes_is_told_and_of_none_of_them_is_unknown(
    mig: Mig, machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flexray.devices.enforcers.nvidia_smi._KEPT_SECONDS", 1e9)
    machine.write("mig_mode=1\nproc=7:100:1:c\nproc=8:20:1:c\nproc=9:1:1:c")
    assert mig.usage(cell("a"), [7, 8]).memory == 120
    assert mig.usage(cell("b"), [9]).memory == 1 and mig.usage(cell("c"), [555]).memory is None
    asked = [line for line in machine.commands() if "--query-compute-apps" in line]
    assert len(asked) == 1, "slices that are asked about together cost one question"


def test_the_lists_are_read_as_nvidia_prints_them() -> None:
    profiles = """
| GPU instance profiles:                                                      |
| GPU   Name             ID    Instances   Memory     P2P    SM    DEC   ENC  |
|=============================================================================|
|   0  MIG 1g.6gb        14     4/4        5.81       No     14     0     0   |
|                                                             1     0     0   |
|   0  MIG 1g.6gb+me     21     1/1        5.81       No     14     1     0   |
|   0  MIG 4g.24gb        0     0/1        23.44      No     56     4     0   |
"""
    places = """
GPU  0 Profile ID 14 Placements: {0,1,2,3}:1
GPU  0 Profile ID 21 Placements: {0,1,2,3}:1
GPU  0 Profile ID  0 Placement : {0}:4
"""
    smi = NvidiaSmi(lambda *command, **_: places if "-lgipp" in command else profiles)
    assert smi.profiles("g") == {
        14: Profile("1g.6gb", Share(250), MemoryMiB(5949), 1, (0, 1, 2, 3)),
        0: Profile("4g.24gb", Share(1000), MemoryMiB(24002), 4, (0,)),
    }


def test_a_command_that_leaves_a_daemon_holding_its_output_does_not_hold_us(tmp_path: Path) -> None:
    said = run_command("sh", "-c", f"sleep 60 & echo $! > {tmp_path}/pid; echo started", timeout=30)
    subprocess.run(["kill", (tmp_path / "pid").read_text().strip()], check=True)
    assert said == "started\n"
