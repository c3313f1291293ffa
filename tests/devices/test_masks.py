"""AMD's unit masks, Intel's tiles and the kernel's limit on device memory, over doubles of the kernel's files."""

from __future__ import annotations

from pathlib import Path

import pytest
from makers import (
    Double,
    amd_device,
    install,
    intel_device,
    kernel_cpu,
    kernel_gpu,
    limits,
    memory_groups,
    xpu,
)

from flexray.devices.enforcement import Enforcement
from flexray.devices.enforcers.cu_mask import CuMask, unit_list
from flexray.devices.enforcers.dmem import CGROUP, Dmem
from flexray.devices.enforcers.enforcer import Cell, NotResizable, SliceSetup, Usage
from flexray.devices.enforcers.kfd import KFD, compute_nodes
from flexray.devices.enforcers.tiles import Tiles
from flexray.errors import IsolationFailed
from flexray.model.amounts import MemoryMiB, Share
from flexray.model.devices import BackendReport, Device
from flexray.model.isolation import Guarantee, Isolation, Strength
from flexray.model.partition import Profile

REGION = "drm/0000:05:00.0/vram"
RDNA3 = {"simd_count": 120, "simd_per_cu": 2, "num_xcc": 1, "gfx_target_version": 110001}
MI210 = {"simd_count": 416, "num_xcc": 1, "gfx_target_version": 90010}


def cell(name: str, share: int, device: Device | None = None, memory: int = 16384) -> Cell:
    return Cell(name, (device or amd_device(),), Share(share), Share(share), MemoryMiB(memory))


def mask(setup: SliceSetup) -> str:
    return setup.env["HSA_CU_MASK"]


# -- AMD -------------------------------------------------------------------------------------------


def test_gpus_are_numbered_as_rocm_does_and_processors_are_none(tmp_path: Path) -> None:
    kernel_cpu(tmp_path, 0)
    kernel_gpu(tmp_path, 2, location_id=0xC3 << 8 | 2 << 3, domain=1, unique_id=0xAB)
    kernel_gpu(tmp_path, 10, **RDNA3)
    (tmp_path / KFD / "topology/nodes/11").mkdir()  # hidden from this process
    nodes = compute_nodes(tmp_path)
    assert [(n.index, n.bus, n.units, n.atom, n.name) for n in nodes] == [
        (0, "0001:c3:02.0", 304, 8, "GPU-00000000000000ab"),
        (1, "0000:05:00.0", 60, 2, "1"),
    ]
    assert compute_nodes(tmp_path / "nowhere") == []


@pytest.mark.parametrize(
    ("card", "share", "expected"),
    [
        ({}, 500, "0:0-151"),  # half of 304 units on 8 dies
        ({}, 50, "0:0-7"),  # 15 units are one row of the dies and 7 that must not be taken
        ({}, 250, "0:0-71"),
        (RDNA3, 250, "0:0-13"),  # 15 units would split a pair, and a split pair drops the whole mask
        (RDNA3, 500, "0:0-29"),
        (MI210, 250, "0:0-25"),
    ],
)
def test_masks_take_whole_rows_and_pairs_only(tmp_path: Path, card: dict[str, int], share: int, expected: str) -> None:
    kernel_gpu(tmp_path, 1, **card)
    setup = CuMask(memory_groups(tmp_path), tmp_path).prepare(cell("s1", share))
    assert mask(setup) == expected
    assert setup.isolation is Isolation.CU_MASK and setup.memory_fraction == pytest.approx(16384 / 196592)


def test_slices_of_a_gpu_have_units_of_their_own_lowest_first(tmp_path: Path) -> None:
    kernel_gpu(tmp_path, 1, **RDNA3)
    enforcer = CuMask(memory_groups(tmp_path), tmp_path)
    masks = [mask(enforcer.prepare(cell(name, 250))) for name in ("s1", "s2", "s3", "s4")]
    assert masks == ["0:0-13", "0:14-27", "0:28-41", "0:42-55"]
    enforcer.release(cell("s1", 250))
    enforcer.release(cell("s3", 250))
    assert mask(enforcer.prepare(cell("s5", 400))) == "0:0-13,28-37", "the gaps are filled"
    assert mask(enforcer.prepare(cell("s2", 250))) == "0:14-27", "asked again"
    enforcer.sweep(["s4"])
    assert mask(enforcer.prepare(cell("s6", 700))) == "0:0-41"


def test_the_slice_sees_one_gpu_as_number_0_of_rocr_and_hip(tmp_path: Path) -> None:
    kernel_gpu(tmp_path, 1, unique_id=0x1234)
    setup = CuMask(memory_groups(tmp_path), tmp_path).prepare(cell("s1", 500))
    assert setup.env["ROCR_VISIBLE_DEVICES"] == "GPU-0000000000001234"
    assert setup.env["HIP_VISIBLE_DEVICES"] == "0"
    assert setup.notes == ("152 of 304 compute units, 500 thousandths",)


def test_too_small_a_share_is_refused_with_the_least_that_works(tmp_path: Path) -> None:
    kernel_gpu(tmp_path, 1)
    enforcer = CuMask(memory_groups(tmp_path), tmp_path)
    with pytest.raises(IsolationFailed, match="ask for at least 27 thousandths"):
        enforcer.prepare(cell("s1", 26))
    assert mask(enforcer.prepare(cell("s1", 27))) == "0:0-7"


def test_a_whole_gpu_has_no_mask(tmp_path: Path) -> None:
    kernel_gpu(tmp_path, 1)
    enforcer = CuMask(memory_groups(tmp_path, REGION), tmp_path)
    assert enforcer.prepare(cell("s1", 1000)).env == {}
    enforcer.release(cell("s1", 1000))


def test_more_than_there_is_and_several_gpus_are_refused(tmp_path: Path) -> None:
    kernel_gpu(tmp_path, 1)
    enforcer = CuMask(memory_groups(tmp_path), tmp_path)
    enforcer.prepare(cell("s1", 600))
    with pytest.raises(IsolationFailed, match="152 compute units of n/gpu0 are not free"):
        enforcer.prepare(cell("s2", 500))
    with pytest.raises(IsolationFailed, match="parts are of one"):
        enforcer.prepare(Cell("s3", (amd_device(0), amd_device(1)), Share(100), Share(100), MemoryMiB(1)))
    with pytest.raises(NotResizable, match="start its work again"):
        enforcer.resize(cell("s1", 700))


def test_memory_is_what_the_driver_counts_of_the_slices_processes(tmp_path: Path) -> None:
    kernel_gpu(tmp_path, 1)
    for pid, amount in ((7, 3 * 2**20), (8, 2**20), (9, 2**30)):
        folder = tmp_path / KFD / "proc" / str(pid)
        folder.mkdir(parents=True)
        (folder / "vram_1001").write_text(f"{amount}\n")
    enforcer = CuMask(memory_groups(tmp_path), tmp_path)
    assert enforcer.usage(cell("s1", 250), [7, 8, 99]) == Usage(None, 4)
    assert enforcer.usage(cell("s1", 250), [99]) == Usage()


def test_memory_is_limited_by_the_kernel_where_it_can(tmp_path: Path) -> None:
    kernel_gpu(tmp_path, 1)
    weak, strong = memory_groups(tmp_path), memory_groups(tmp_path / "new", REGION)
    kernel_gpu(tmp_path / "new", 1)
    assert CuMask(weak, tmp_path).probe([amd_device()])["n/gpu0"].memory is Strength.COOPERATIVE
    enforcer = CuMask(strong, tmp_path / "new")
    support = enforcer.probe([amd_device()])["n/gpu0"]
    assert support.memory is Strength.HARD
    assert not (tmp_path / "new" / CGROUP / "flexray-dmem-n").exists(), "nothing is left of the trial"
    (join,) = enforcer.prepare(cell("s1", 250, memory=8192)).join
    assert join.endswith("flexray-dmem-n/s1/cgroup.procs")
    assert limits(tmp_path / "new", "s1") == {REGION: str(8 * 2**30)}
    enforcer.release(cell("s1", 250))
    assert not Path(join).parent.exists()


def test_a_slice_whose_memory_cannot_be_limited_gives_its_units_back(tmp_path: Path) -> None:
    kernel_gpu(tmp_path, 1, **RDNA3)
    enforcer = CuMask(memory_groups(tmp_path, REGION), tmp_path)
    (tmp_path / CGROUP / "flexray-dmem-n").write_text("a file where a folder should be")
    with pytest.raises(IsolationFailed, match="no limit on device memory"):
        enforcer.prepare(cell("s1", 250))
    (tmp_path / CGROUP / "flexray-dmem-n").unlink()
    assert mask(enforcer.prepare(cell("s2", 250))) == "0:0-13"


def test_units_are_named_in_ranges() -> None:
    assert unit_list([0, 1, 3], 2) == "0-3,6-7"
    assert unit_list([5, 0, 2], 1) == "0,2,5"
    assert unit_list([1], 8) == "8-15"


# -- the kernel's limit alone ----------------------------------------------------------------------


def test_groups_have_the_slices_memory_and_take_another(tmp_path: Path) -> None:
    enforcer = Dmem(memory_groups(tmp_path, "drm/0000:4d:00.0/vram0", "drm/0000:4d:00.0/vram1", REGION))
    before = cell("job/1", 250, intel_device(), memory=4096)
    setup = enforcer.prepare(before)
    assert (setup.isolation, setup.memory_fraction) == (Isolation.NONE, 4096 / 131072)
    each = {"drm/0000:4d:00.0/vram0": str(2 * 2**30), "drm/0000:4d:00.0/vram1": str(2 * 2**30)}
    assert limits(tmp_path, "job%2F1") == each, "half on each tile, and nothing of another card"
    enforcer.resize(cell("job/1", 250, intel_device(), memory=8192))
    assert set(limits(tmp_path, "job%2F1").values()) == {str(4 * 2**30)}
    current = Path(setup.join[0]).parent / "dmem.current"
    current.write_text(f"drm/0000:4d:00.0/vram0 {3 * 2**20}\ndrm/0000:4d:00.0/vram1 {2**20}\n")
    assert enforcer.usage(before, ()) == Usage(None, 4)
    enforcer.sweep(["job/1"])
    assert current.exists()
    enforcer.sweep([])
    assert not (tmp_path / CGROUP / "flexray-dmem-n").exists()


def test_a_kernel_without_the_controller_is_said(tmp_path: Path) -> None:
    support = Dmem(memory_groups(tmp_path)).probe([amd_device()])["n/gpu0"]
    assert not support.usable and "Linux 6.14" in support.reason


def test_a_kernel_that_keeps_another_limit_is_not_believed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    groups = memory_groups(tmp_path, REGION)
    monkeypatch.setattr("flexray.devices.enforcers.dmem._pairs", lambda text: {REGION: "max"})
    support = Dmem(groups).probe([amd_device()])["n/gpu0"]
    assert not support.usable and "another limit" in support.reason


# -- Intel -----------------------------------------------------------------------------------------

TILE = Profile("1t", Share(500), MemoryMiB(65536), 1, (0, 1))


@pytest.fixture
def xpu_smi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Double:
    double = install("xpu-smi", tmp_path, monkeypatch)
    double.set(gpus=[xpu(0), xpu(1, tiles=1), xpu(2, tiles=4)])
    return double


def tile(name: str, start: int) -> Cell:
    return Cell(name, (intel_device(),), TILE.share, TILE.share, TILE.memory, TILE, start)


def test_cards_are_offered_by_tile(xpu_smi: Double, tmp_path: Path) -> None:
    cards = [intel_device(), intel_device(1, "0000:4e:00.0"), intel_device(2, "0000:4f:00.0")]
    two, one, four = Tiles(memory_groups(tmp_path)).probe(cards).values()
    assert (two.usable, two.profiles, two.memory) == (True, (TILE,), Strength.HARD_PROCESS)
    assert not one.usable and "one tile" in one.reason
    assert [(p.name, p.share, p.memory, p.width, p.starts) for p in four.profiles] == [
        ("1t", 250, 32768, 1, (0, 1, 2, 3)),
        ("2t", 500, 65536, 2, (0, 1, 2)),
        ("3t", 750, 98304, 3, (0, 1)),
    ]


def test_a_slice_sees_its_tile_and_has_memory_there_only(xpu_smi: Double, tmp_path: Path) -> None:
    plain = Tiles(memory_groups(tmp_path / "old"))
    env = {"ZE_AFFINITY_MASK": "0.1", "ZE_FLAT_DEVICE_HIERARCHY": "COMPOSITE"}
    assert (plain.prepare(tile("s1", 1)).env, plain.prepare(tile("s1", 1)).join) == (env, ())
    enforcer = Tiles(memory_groups(tmp_path, "drm/0000:4d:00.0/vram0", "drm/0000:4d:00.0/vram1"))
    assert enforcer.probe([intel_device()])["n/gpu0"].memory is Strength.HARD
    assert enforcer.prepare(tile("s1", 1)).env == env
    assert limits(tmp_path, "s1") == {"drm/0000:4d:00.0/vram0": "0", "drm/0000:4d:00.0/vram1": str(64 * 2**30)}
    enforcer.release(tile("s1", 1))
    assert not (tmp_path / CGROUP / "flexray-dmem-n/s1").exists()


def test_whole_cards_are_cards_not_tiles(xpu_smi: Double, tmp_path: Path) -> None:
    both = Cell("s1", (intel_device(0), intel_device(3, "0000:50:00.0")), Share(1000), Share(1000), MemoryMiB(131072))
    setup = Tiles(memory_groups(tmp_path)).prepare(both)
    assert setup.env == {"ZE_AFFINITY_MASK": "0,3", "ZE_FLAT_DEVICE_HIERARCHY": "COMPOSITE"}
    with pytest.raises(IsolationFailed, match="given none"):
        Tiles(memory_groups(tmp_path)).prepare(tile("s2", -1))


def test_a_node_takes_the_best_that_works_and_says_why_not_the_others(xpu_smi: Double, tmp_path: Path) -> None:
    groups = memory_groups(tmp_path, "drm/0000:4d:00.0/vram0", "drm/0000:4e:00.0/vram0")
    makers = {"intel": (lambda node, state: Tiles(groups), lambda node, state: Dmem(groups))}
    node = Enforcement("n", tmp_path, makers=makers)
    two, one = node.equip([intel_device(), intel_device(1, "0000:4e:00.0")])
    assert (two.isolation, two.guarantee) == (Isolation.TILES, Guarantee(Strength.HARD_PROCESS, Strength.HARD))
    assert (one.isolation, one.guarantee) == (Isolation.NONE, Guarantee(Strength.NONE, Strength.HARD))
    assert node.reports() == (
        BackendReport("isolation none", 1),
        BackendReport("isolation tiles", 1, "the card has one tile; its parts share it"),
    )
