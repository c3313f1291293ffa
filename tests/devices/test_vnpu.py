"""Virtual NPUs over a double of npu-smi."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from makers import Double, install, npu_device, npus

from flexray.devices.backend import ProbeStatus
from flexray.devices.commands import CommandFailed, run_command
from flexray.devices.enforcement import Enforcement
from flexray.devices.enforcers.enforcer import Cell, NotResizable, SliceSetup, Usage
from flexray.devices.enforcers.vnpu import Vnpu, least_cpus
from flexray.devices.npu_smi import Split, parse_split, parse_templates
from flexray.errors import IsolationFailed
from flexray.model.amounts import MemoryMiB, Share
from flexray.model.devices import Device
from flexray.model.isolation import Guarantee, Isolation, Strength
from flexray.model.partition import Profile

QUARTER = Profile("vir05_1c_16g", Share(250), MemoryMiB(16384))
HALF = Profile("vir10_3c_32g", Share(500), MemoryMiB(32768))


@pytest.fixture
def npu_smi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Double:
    double = install("npu-smi", tmp_path, monkeypatch)
    double.set(**npus({}, {}))
    return double


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return tmp_path / "state"


def part(name: str, profile: Profile = QUARTER, device: Device | None = None) -> Cell:
    return Cell(name, (device or npu_device(),), profile.share, profile.share, profile.memory, profile)


def whole(name: str, *devices: Device) -> Cell:
    return Cell(name, devices or (npu_device(),), Share(1000), Share(1000), MemoryMiB(65536))


def virtual(double: Double) -> list[list[tuple[int, str]]]:
    """(id, template) of the virtual NPUs of each chip."""
    return [[(one["id"], one["template"]) for one in chip.get("vnpus", [])] for chip in double.get()["npus"]]


def number(setup: SliceSetup) -> str:
    return setup.env["ASCEND_RT_VISIBLE_DEVICES"]


def test_a_chip_is_offered_in_its_makers_sizes_each_with_the_fewest_ai_cpus(npu_smi: Double, state: Path) -> None:
    support = Vnpu(state).probe([npu_device()])["n/npu0"]
    assert (support.usable, support.memory, support.profiles) == (True, Strength.HARDWARE, (QUARTER, HALF))
    assert sum("set -t create-vnpu -i 0 -c 0 -f vir05_1c_16g" in call for call in npu_smi.calls()) == 1, "tried"
    assert virtual(npu_smi) == [[], []], "and nothing is left of the trial"


def test_a_share_counts_ai_cpus_where_they_are_scarcer_than_ai_cores(npu_smi: Double, state: Path) -> None:
    npu_smi.set(**npus({"name": "310P3"}))
    profiles = Vnpu(state).probe([npu_device(0, "310P3", 24)])["n/npu0"].profiles
    assert [(one.name, one.share, one.memory) for one in profiles] == [
        ("vir01", 142, 3072),  # 1 of 8 cores, but 1 of 7 AI CPUs
        ("vir02_1c", 250, 6144),
        ("vir04_3c", 500, 12288),
    ]


def test_templates_and_splits_as_captured() -> None:
    # From a blog on the Atlas A2 (910B4) of October 2024, and as the double first printed them.
    captured = """
|Name                AICORE    Memory    AICPU     VPC            VENC           JPEGD     |
|                               GB                 PNGD           VDEC           JPEGE     |
|vir10_3c_16g        10        16        3         4              0              12        |
|                                                  0              1              2         |
|vir10_4c_16g_m      10        16        4         9              0              24        |
|vir10_3c_16g_nm     10        16        3         0              0              0         |
|vir05_1c_8g         5         8         1         2              0              6         |
"""
    found = parse_templates(captured)
    assert [(one.name, one.cores, one.gigabytes, one.cpus) for one in found] == [
        ("vir10_3c_16g", 10, 16, 3),
        ("vir10_4c_16g_m", 10, 16, 4),
        ("vir10_3c_16g_nm", 10, 16, 3),
        ("vir05_1c_8g", 5, 8, 1),
    ]
    assert [one.name for one in least_cpus(found)] == ["vir05_1c_8g", "vir10_3c_16g"]
    split = parse_split("""
| AICORE    Memory    AICPU    VPC    VENC    VDEC    JPEGD    JPEGE    PNGD    |
| 10/20     12/32     4/7      5/9    0/0     1/2     12/24    2/4      NA/NA   |
| Total number of vnpu: 1                                                       |
|  Vnpu ID  |  Vgroup ID     |  Container ID  |  Status  |  Template Name       |
|  116      |  0             |  ffffffffffff  |  1       |  vir10_3c_16g        |
""")
    assert split == Split(20, 7, {116: "vir10_3c_16g"})


def test_slices_get_virtual_npus_of_their_own_chip(npu_smi: Double, state: Path) -> None:
    enforcer = Vnpu(state)
    one, two = enforcer.prepare(part("s1")), enforcer.prepare(part("s2", HALF))
    three = enforcer.prepare(part("s3", QUARTER, npu_device(1)))
    assert [number(setup) for setup in (one, two, three)] == ["100", "101", "116"]
    assert one.env["ASCEND_VISIBLE_DEVICES"] == "100" and "/dev/vdavinci100" in one.notes[0]
    assert virtual(npu_smi) == [[(100, "vir05_1c_16g"), (101, "vir10_3c_32g")], [(116, "vir05_1c_16g")]]
    enforcer.release(part("s1"))
    assert virtual(npu_smi)[0] == [(101, "vir10_3c_32g")]
    assert number(enforcer.prepare(part("s4"))) == "100", "the lowest free id"


def test_a_full_chip_is_refused_and_nothing_is_left(npu_smi: Double, state: Path) -> None:
    enforcer = Vnpu(state)
    enforcer.prepare(part("s1", HALF))
    enforcer.prepare(part("s2", HALF))
    with pytest.raises(IsolationFailed, match=r"s3: no virtual NPU.*Insufficient resources"):
        enforcer.prepare(part("s3"))
    assert virtual(npu_smi)[0] == [(100, "vir10_3c_32g"), (101, "vir10_3c_32g")]
    enforcer.release(part("s1"))
    assert number(enforcer.prepare(part("s3"))) == "100"


def test_a_chip_that_is_cut_up_is_not_whole_and_a_whole_one_is_left_alone(npu_smi: Double, state: Path) -> None:
    enforcer = Vnpu(state)
    enforcer.prepare(part("s1", QUARTER, npu_device(1)))
    setup = enforcer.prepare(whole("s2"))
    assert setup.env == {} and virtual(npu_smi)[0] == []
    with pytest.raises(IsolationFailed, match=r"s3: n/npu1 is cut into virtual NPUs \(116\)"):
        enforcer.prepare(whole("s3", npu_device(0), npu_device(1)))


def test_what_others_cut_up_is_not_used_and_never_destroyed(npu_smi: Double, state: Path) -> None:
    theirs = {"vnpus": [{"id": 100, "template": "vir10_3c_32g"}]}
    npu_smi.set(**npus(theirs, {}))
    enforcer = Vnpu(state)
    supports = enforcer.probe([npu_device(0), npu_device(1)])
    assert not supports["n/npu0"].usable and "virtual NPU 100" in supports["n/npu0"].reason
    assert supports["n/npu1"].usable
    assert number(enforcer.prepare(part("s1"))) == "101", "theirs is not taken for ours"
    enforcer.sweep([])
    assert virtual(npu_smi)[0] == [(100, "vir10_3c_32g")]


def test_the_next_agent_destroys_what_a_dead_one_noted_and_only_that(npu_smi: Double, state: Path) -> None:
    before = Vnpu(state)
    before.prepare(part("s1"))
    before.prepare(part("s2", HALF))
    reused = npu_smi.get()
    reused["npus"][0]["vnpus"][1]["template"] = "vir05_1c_16g"  # s2's was destroyed by hand, its id given to another
    npu_smi.set(**reused)
    after = Vnpu(state)
    after.sweep([])
    assert virtual(npu_smi)[0] == [(101, "vir05_1c_16g")]
    after.sweep([])
    assert number(after.prepare(part("s3", HALF))) == "100", "the records are gone"


def test_an_agent_that_died_between_its_note_and_the_making_is_no_harm(npu_smi: Double, state: Path) -> None:
    made: list[Sequence[str]] = []

    def dies(argv: Sequence[str], seconds: float) -> str:
        if "create-vnpu" in argv:
            made.append(argv)
            raise KeyboardInterrupt
        return run_command(argv, seconds)

    with pytest.raises(KeyboardInterrupt):
        Vnpu(state, dies).prepare(part("s1"))
    assert made and (state / "vnpu.json").exists()
    Vnpu(state).sweep([])
    assert number(Vnpu(state).prepare(part("s2"))) == "100"


def test_a_creation_that_timed_out_but_was_done_is_undone(npu_smi: Double, state: Path) -> None:
    def late(argv: Sequence[str], seconds: float) -> str:
        said = run_command(argv, seconds)
        if "create-vnpu" in argv:
            raise CommandFailed(ProbeStatus.BROKEN, "npu-smi gave no answer within 60 s")
        return said

    with pytest.raises(IsolationFailed, match="no answer within 60 s"):
        Vnpu(state, late).prepare(part("s1"))
    assert virtual(npu_smi)[0] == []


def test_what_cannot_be_destroyed_now_is_destroyed_later(npu_smi: Double, state: Path) -> None:
    enforcer = Vnpu(state)
    enforcer.prepare(part("s1"))
    busy = npu_smi.get()
    npu_smi.set(**busy, fail={"destroy-vnpu": "The vnpu is in use"})
    with pytest.raises(IsolationFailed, match=r"virtual NPU 100 cannot be destroyed.*in use"):
        enforcer.release(part("s1"))
    enforcer.sweep([])  # says so in the log
    npu_smi.set(**busy)
    enforcer.sweep([])
    assert virtual(npu_smi)[0] == []


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"mode": "VM"}, "vnpu-mode -d 0"),
        ({"fail": {"create-vnpu": "Permission denied"}}, "Permission denied"),
        ({"fail": {"template-info": "This device does not support querying template-info."}}, "does not support"),
        ({"fail": "driver"}, "dcmi module initialize failed"),
    ],
)
def test_why_it_does_not_work_here(npu_smi: Double, state: Path, change: dict[str, Any], reason: str) -> None:
    npu_smi.set(**npus({}), **change)
    support = Vnpu(state).probe([npu_device()])["n/npu0"]
    assert not support.usable and reason in support.reason


def test_one_idle_chip_of_a_type_is_tried_for_all(npu_smi: Double, state: Path) -> None:
    npu_smi.set(**npus({"processes": [{"pid": 1, "mib": 5}]}, {}, {}, {"name": "310P3"}))
    chips = [npu_device(0), npu_device(1), npu_device(2), npu_device(3, "310P3", 24)]
    assert all(support.usable for support in Vnpu(state).probe(chips).values())
    assert [call.split()[4] for call in npu_smi.calls() if "create-vnpu" in call] == ["1", "3"]


def test_a_chip_in_use_is_not_tried_on(npu_smi: Double, state: Path) -> None:
    npu_smi.set(**npus({"processes": [{"pid": 1, "mib": 5}]}))
    assert Vnpu(state).probe([npu_device()])["n/npu0"].usable
    assert not any("create-vnpu" in call for call in npu_smi.calls())


def test_use_is_memory_of_the_slices_own_processes(npu_smi: Double, state: Path) -> None:
    npu_smi.set(**npus({"processes": [{"pid": 7, "mib": 100}, {"pid": 8, "mib": 30}, {"pid": 9, "mib": 1000}]}))
    enforcer = Vnpu(state)
    assert enforcer.usage(part("s1"), [7, 8]) == Usage(None, 130)
    assert enforcer.usage(part("s1"), [1]) == Usage(None, 0)
    npu_smi.set(**npus({}), fail="rubbish")
    assert enforcer.usage(part("s1"), [7]) == Usage(), "unknown is not 0"


def test_a_running_one_cannot_be_resized(npu_smi: Double, state: Path) -> None:
    with pytest.raises(NotResizable, match="start its work again"):
        Vnpu(state).resize(part("s1"))


def test_a_damaged_record_is_said_and_nothing_is_destroyed_by_it(npu_smi: Double, state: Path) -> None:
    state.mkdir()
    (state / "vnpu.json").write_text("[1, 2")
    enforcer = Vnpu(state)
    enforcer.sweep([])
    with pytest.raises(IsolationFailed, match=r"vnpu\.json is no list of virtual NPUs"):
        enforcer.prepare(part("s1"))


def test_a_node_equips_its_npus_and_undoes_everything_after_a_crash(npu_smi: Double, state: Path) -> None:
    state.mkdir()
    node = Enforcement("n", state, {"ascend/*": "vnpu"})
    node.recover()
    (device,) = node.equip([npu_device()])
    assert device.guarantee == Guarantee(Strength.HARDWARE, Strength.HARDWARE) and device.profiles == (QUARTER, HALF)
    assert number(node.prepare(dataclasses.replace(part("s1"), devices=(device,)))) == "100"
    after = Enforcement("n", state)  # whatever its configuration says now
    after.recover()
    assert virtual(npu_smi) == [[], []]


def test_chips_are_cut_for_those_who_ask_only(npu_smi: Double, state: Path) -> None:
    state.mkdir()
    node = Enforcement("n", state)
    (device,) = node.equip([npu_device()])
    assert (device.isolation, device.profiles) == (Isolation.TURNS, ()), "a slice may have any size"
    assert device.guarantee == Guarantee(Strength.COOPERATIVE, Strength.COOPERATIVE)
    cell = Cell("s1", (device,), Share(250), Share(250), MemoryMiB(device.type.memory // 4))
    setup = node.prepare(cell)
    assert setup.memory_fraction == 0.25 and "ASCEND_RT_VISIBLE_DEVICES" not in setup.env, "torch_npu is told its part"
    assert not Path(f"{npu_smi.state}.log").exists(), "not even a trial: npu-smi was never asked"
    node.close()
